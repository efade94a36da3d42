"""Triangles into pixels: which triangle a pixel's middle lies in, nearest first, and where in it.

What draws a mesh for a camera, and what finds the surface behind each texel of a texture. One thread, so
that the order of triangles decides ties: the first of two at the same depth stays.
"""

from typing import NamedTuple

import numpy as np
from numba import njit


class Covered(NamedTuple):
    """`face` (H, W) int32, -1 where nothing is; `weights` (H, W, 3) float32 of its corners."""

    face: np.ndarray
    weights: np.ndarray


def rasterized(corners: np.ndarray, nearness: np.ndarray, size: tuple[int, int]) -> Covered:
    """Triangles at `corners` (F, 3, 2) in pixels, whose middles are at +0.5, on a picture of `size` (width,
    height). `nearness` (F, 3): 1 / depth of the corners; weights are those on the triangle itself, not on its
    picture. Triangles with a corner whose nearness is not above 0 are left out, and so are those without
    area."""
    width, height = size
    face = np.full((height, width), -1, dtype=np.int32)
    weights = np.zeros((height, width, 3), dtype=np.float32)
    nearest = np.zeros((height, width))
    _fill(
        np.ascontiguousarray(corners, dtype=np.float64), nearness.astype(np.float64), face, weights, nearest
    )
    return Covered(face, weights)


@njit(cache=True, nogil=True)
def _fill(corners, nearness, face, weights, nearest):
    height, width = face.shape
    for f in range(len(corners)):
        ax, ay = corners[f, 0, 0], corners[f, 0, 1]
        bx, by = corners[f, 1, 0], corners[f, 1, 1]
        cx, cy = corners[f, 2, 0], corners[f, 2, 1]
        area = (bx - ax) * (cy - ay) - (by - ay) * (cx - ax)
        na, nb, nc = nearness[f, 0], nearness[f, 1], nearness[f, 2]
        if not (area != 0 and min(na, nb, nc) > 0):
            continue
        # Compared as floats: what lies far outside of the picture has no place among whole numbers.
        left, right = (
            max(np.ceil(min(ax, bx, cx) - 0.5), 0.0),
            min(np.floor(max(ax, bx, cx) - 0.5), width - 1.0),
        )
        top, bottom = (
            max(np.ceil(min(ay, by, cy) - 0.5), 0.0),
            min(np.floor(max(ay, by, cy) - 0.5), height - 1.0),
        )
        if not (left <= right and top <= bottom):
            continue
        for row in range(int(top), int(bottom) + 1):
            y = row + 0.5
            for column in range(int(left), int(right) + 1):
                x = column + 0.5
                u = ((bx - x) * (cy - y) - (by - y) * (cx - x)) / area
                v = ((cx - x) * (ay - y) - (cy - y) * (ax - x)) / area
                w = 1 - u - v
                if u < 0 or v < 0 or w < -1e-12:
                    continue
                # 1 / depth is linear in the picture, and so is a weight times it.
                near = u * na + v * nb + w * nc
                if near > nearest[row, column]:
                    nearest[row, column] = near
                    face[row, column] = f
                    weights[row, column, 0] = u * na / near
                    weights[row, column, 1] = v * nb / near
                    weights[row, column, 2] = max(w * nc / near, 0.0)
