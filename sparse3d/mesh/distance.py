"""How far places are from a mesh, which point of it is nearest, and on which side they are.

Distances are exact, in float64, through a tree of boxes over the triangles (`sparse3d_ops.triangle_tree`).
The side is told by the generalised winding number: how often the faces go around a place. It asks nothing of
the mesh: holes, faces inside of others, doubled faces and triangles without area shift it by their share,
while pseudo-normals at the nearest point are wrong wherever a mesh passes through itself.
"""

from functools import cached_property

import numpy as np
import torch

from sparse3d.geometry.mesh import Mesh
from sparse3d_ops.triangle_tree import TriangleTree, build_tree, nearest_triangle, winding_number

# Nodes further away than three times their reach count as one piece: the winding number is then within 0.05,
# where 0.5 is the border (held by a test).
_ACCURACY = 3.0
_AT_ONCE = 1 << 20  # places


class MeshDistance:
    """Distances from a mesh, metres. Places are (N, 3), finite, any float type; a ValueError names the first
    one that is not, and says so of a mesh without triangles. Answers are the same bits for any number of
    threads."""

    def __init__(self, mesh: Mesh):
        if not len(mesh.faces):
            raise ValueError("a mesh without triangles is nowhere near")
        self.mesh = mesh

    @cached_property
    def tree(self) -> TriangleTree:
        return build_tree(torch.from_numpy(self.mesh.vertices[self.mesh.faces]))

    def unsigned(self, points: np.ndarray, limit: float = float("inf")) -> np.ndarray:
        """(N,) float64, inf beyond `limit`."""
        return self.nearest(points, limit)[0]

    def nearest(
        self, points: np.ndarray, limit: float = float("inf")
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Distance (N,) float64, face (N,) int64 (of equally near ones the first) and the weights (N, 3)
        float64 of its corners at the nearest point, which are at least 0 and sum to 1. Beyond `limit`: inf,
        -1, zeros."""
        tree = self.tree
        places = _checked(points)
        squares, face, weights = nearest_triangle(tree.boxes, tree.corners, tree.rows, places, limit)
        return squares.sqrt().numpy(), face.numpy(), weights.numpy()

    def winding(self, points: np.ndarray) -> np.ndarray:
        """(N,) float64, to 0.05: 1 within a closed mesh (-1 where its faces are turned), 0 outside of it."""
        tree, places = self.tree, _checked(points)
        return winding_number(tree.boxes, tree.moments, tree.corners, places, _ACCURACY).numpy()

    def inside(self, points: np.ndarray) -> np.ndarray:
        """(N,) bool: what the faces go around, in whichever sense; where a mesh has holes, what they go more
        than half around."""
        return np.abs(self.winding(points)) > 0.5

    def signed(self, points: np.ndarray) -> np.ndarray:
        """(N,) float64, negative inside (`inside`)."""
        distance = self.unsigned(points)
        return np.where(self.inside(points), -distance, distance)


def nearest_colors(distance: MeshDistance, places: np.ndarray) -> np.ndarray:
    """(N, 3) uint8: what is painted on a mesh (`Mesh.colors_at`), at its points nearest to places (N, 3)."""
    found = np.empty((len(places), 3), np.uint8)
    for begin in range(0, len(places), _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        _, face, weights = distance.nearest(places[part])
        found[part] = np.rint(distance.mesh.colors_at(face, weights).clip(0, 1) * 255).astype(np.uint8)
    return found


def _checked(points: np.ndarray) -> torch.Tensor:
    points = np.ascontiguousarray(points)
    if points.ndim != 2 or points.shape[1] != 3 or not np.issubdtype(points.dtype, np.floating):
        raise ValueError(f"points are (N, 3) of a float type, these are {points.dtype} {points.shape}")
    bad = ~np.isfinite(points).all(1)
    if bad.any():
        row = int(bad.argmax())
        raise ValueError(f"points[{row}] = {tuple(points[row].tolist())} is not finite")
    return torch.from_numpy(points.astype(np.float64, copy=False))
