"""The tree of triangles under the law suite."""

import torch

from sparse3d_ops.triangle_tree import build_tree, nearest_triangle, winding_number
from tests.ops.laws import OpLaw
from tests.oracles import triangle_tree as oracle


def _triangles(count, spread=2.0):
    # Eighths, which float32 holds exactly.
    return (torch.rand(count, 3, 3) * 8 * spread).floor() / 8 - spread / 2


def _nearest(count, queries, limit=float("inf"), repeats=1, spread=2.0):
    def make(dtype, device):
        tree = build_tree(_triangles(count).repeat(repeats, 1, 1)).to(device)
        at = (torch.rand(queries, 3) * 8 * spread).floor() / 8 - spread / 2 + 1 / 16
        return tree.boxes, tree.corners, tree.rows, at.to(dtype).to(device), limit

    return make


def _flat(dtype, device):
    """Points and segments among the triangles."""
    triangles = _triangles(12)
    triangles[0, 1] = triangles[0, 2]
    triangles[1] = triangles[1, :1]
    triangles[2, 2] = 2 * triangles[2, 1] - triangles[2, 0]
    tree = build_tree(triangles).to(device)
    at = (torch.rand(10, 3) * 4 - 2).to(dtype).to(device)
    return tree.boxes, tree.corners, tree.rows, at, float("inf")


def _not_finite(dtype, device):
    boxes, corners, rows, at, limit = _nearest(9, 4)(dtype, device)
    at = at.clone()
    at[1, 0], at[2, 2] = float("nan"), float("inf")
    return boxes, corners, rows, at, limit


def _winding(count, queries, accuracy=float("inf")):
    def make(dtype, device):
        tree = build_tree(_triangles(count)).to(device)
        at = (torch.rand(queries, 3) * 4 - 2).to(dtype).to(device)
        return tree.boxes, tree.moments, tree.corners, at, accuracy

    return make


def _in_the_plane(dtype, device):
    """At a corner, on a side and within a triangle, and beside it in its plane: seen under no angle."""
    triangle = torch.tensor([[[0, 0, 0], [2, 0, 0], [0, 2, 0]]])
    tree = build_tree(triangle.float()).to(device)
    at = torch.tensor([[0, 0, 0], [1, 0, 0], [0.5, 0.5, 0], [3, 3, 0], [0.5, 0.5, float("nan")]])
    return tree.boxes, tree.moments, tree.corners, at.to(dtype).to(device), float("inf")


NEAREST = {
    "no_queries": _nearest(5, 0),
    "single": _nearest(1, 3),
    "four": _nearest(4, 5),
    "duplicate": _nearest(3, 6, repeats=4),
    "limit": _nearest(20, 12, limit=0.5),
    "far_away": _nearest(6, 5, spread=64.0),
    "flat": _flat,
    "not_finite": _not_finite,
    "run": _nearest(30, 70, spread=0.5),
    "many": _nearest(90, 20),
}
WINDING = {
    "no_queries": _winding(5, 0),
    "single": _winding(1, 3),
    "in_the_plane": _in_the_plane,
    "many": _winding(50, 8),
}
LAWS = [
    OpLaw(nearest_triangle, oracle.nearest_triangle, NEAREST),
    OpLaw(winding_number, oracle.winding_number, WINDING),
]
