"""Clouds made thinner: no two points nearer than a radius, the first of them stays."""

import numpy as np
from numba import njit

_EMPTY = -1
_SPREAD = np.uint64(0x9E3779B97F4A7C15)  # 2^64 over the golden ratio (Knuth): neighbours land far apart


def thinned_by_radius(points: np.ndarray, radius: float) -> np.ndarray:
    """(N, 3) -> rows (K,) int64 in ascending order: a point stays where no point before it that stays is
    nearer than `radius`, metres. ValueError for a radius that is not above 0, points that are not finite, and
    extents of more than 2^20 radii, which could not be numbered."""
    points = np.ascontiguousarray(points, dtype=np.float64)
    if not radius > 0 or not np.isfinite(points).all():
        raise ValueError(f"finite points and a radius above 0 are expected, got a radius of {radius}")
    if not len(points):
        return np.zeros(0, dtype=np.int64)
    low = points.min(0)
    # Cells whose diagonal is a hair less than the radius hold at most one point that stays.
    side = radius / np.sqrt(3) * (1 - 1e-9)
    if (points.max(0) - low).max() / side >= (1 << 21) - 4:
        raise ValueError(f"an extent of {(points.max(0) - low).max():g} at a radius of {radius:g}: too fine")
    slots = 1 << int(np.ceil(np.log2(2 * len(points) + 2)))
    keys, rows = np.full(slots, _EMPTY, np.int64), np.empty(slots, np.int64)
    stays = np.zeros(len(points), dtype=np.bool_)
    _thin(points, low, side, radius * radius, keys, rows, stays)
    return np.flatnonzero(stays)


@njit(cache=True, nogil=True)
def _slot(key, keys):
    """Where a cell is, or would be."""
    place = (np.uint64(key) * _SPREAD >> np.uint64(17)) & np.uint64(len(keys) - 1)
    while keys[place] != _EMPTY and keys[place] != key:
        place = (place + np.uint64(1)) & np.uint64(len(keys) - 1)
    return place


@njit(cache=True, nogil=True)
def _thin(points, low, side, square, keys, rows, stays):
    for n in range(len(points)):
        x = np.int64((points[n, 0] - low[0]) / side) + 2
        y = np.int64((points[n, 1] - low[1]) / side) + 2
        z = np.int64((points[n, 2] - low[2]) / side) + 2
        free = True
        # The radius is 1.74 sides: cells up to two away may hold a neighbour.
        for i in range(x - 2, x + 3):
            for j in range(y - 2, y + 3):
                for k in range(z - 2, z + 3):
                    place = _slot((i << 42) | (j << 21) | k, keys)
                    if keys[place] == _EMPTY:
                        continue
                    m = rows[place]
                    dx, dy = points[n, 0] - points[m, 0], points[n, 1] - points[m, 1]
                    dz = points[n, 2] - points[m, 2]
                    if dx * dx + dy * dy + dz * dz < square:
                        free = False
                        break
                if not free:
                    break
            if not free:
                break
        if free:
            place = _slot((x << 42) | (y << 21) | z, keys)
            keys[place] = (x << 42) | (y << 21) | z
            rows[place] = n
            stays[n] = True
