"""A tree of boxes over triangles: which triangle is nearest to a place, and how often the triangles go around
it. One schema here, one body a device.

The tree is complete: node 1 is the root, node n has the children 2 n and 2 n + 1, and the leaf k of its 2^D
holds the triangles F k >> D to F (k + 1) >> D of their order in the tree, a handful. So it needs no pointers.
It is built on the host (`build_tree`): once for a mesh, in tens of milliseconds, by halving lists, which has
nothing for a GPU to do. Everything is float64 and each query is answered by itself, of equal distances the
lowest triangle comes first: the same on every device and for any number of threads. No gradients.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops.checks import check_range, check_same_device, check_tensor

EXACT = (torch.float32, torch.float64)
LEAF = 4  # triangles of a leaf, at most
MOST = 1 << 30  # triangles
_LARGE = 1e100  # for an accuracy of inf, which times a reach of 0 would be no number


class TriangleTree(NamedTuple):
    """`boxes` (2^(D + 1), 6) float64, lowest and highest corner of each node, row 0 unused; `moments` (2^(D +
    1), 7) float64, of each node the middle (weighted by area), the sum of its triangles' area vectors and how
    far its triangles reach from the middle; `corners` (F, 9) float64 of the triangles in the tree's order and
    `rows` (F,) int64 where they stood before.
    """

    boxes: Tensor
    moments: Tensor
    corners: Tensor
    rows: Tensor

    def to(self, device: torch.device | str) -> "TriangleTree":
        return TriangleTree(*(part.to(device) for part in self))


def build_tree(corners: Tensor) -> TriangleTree:
    """(F, 3, 3) float32 or float64, finite, on any device -> the tree, on the same. Each node is halved at
    the median of its triangles' middles along the axis on which these are spread most."""
    from sparse3d_ops.cpu import triangle_tree as body

    check_tensor("corners", corners, ("F", 3, 3), EXACT)
    count = len(corners)
    if not count or count > MOST:
        raise ValueError(f"a tree is built over 1 to {MOST} triangles, got {count}")
    array = corners.detach().cpu().double().contiguous().numpy().reshape(-1, 9)
    if not np.isfinite(array).all():
        row = int(np.flatnonzero(~np.isfinite(array).all(1))[0])
        raise ValueError(f"corners[{row}] is not finite; leave such triangles out")
    depth = max(0, (-(-count // LEAF) - 1).bit_length())
    order, nodes = np.arange(count), 2 << depth
    middles = array.reshape(-1, 3, 3).sum(1)
    for level in range(depth):
        body.halve(middles, order, level)
    ordered = np.ascontiguousarray(array[order])
    boxes, moments = np.empty((nodes, 6)), np.zeros((nodes, 7))
    body.bound(ordered, depth, boxes, moments)
    parts = (torch.from_numpy(part) for part in (boxes, moments, ordered, order))
    return TriangleTree(*parts).to(corners.device)


@torch.library.custom_op("sparse3d::nearest_triangle", mutates_args=(), device_types="cpu")
def nearest_triangle(
    boxes: Tensor, corners: Tensor, rows: Tensor, queries: Tensor, limit: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The nearest triangle of a tree to queries (Q, 3) -> squared distances (Q,) float64, rows (Q,) int64 of
    the triangles, and weights (Q, 3) float64 of their corners at the nearest point, which sum to 1.

    Nothing further away than `limit` is found: inf, -1, zeros. Queries near each other in their order are
    answered faster. A query that is not finite finds nothing.
    """
    from sparse3d_ops.cpu import triangle_tree as body

    _check(boxes, corners, rows, queries)
    _check_limit(limit)
    squares, found, weights = _room(queries)
    tree = boxes.contiguous().numpy(), corners.contiguous().numpy(), rows.contiguous().numpy()
    body.nearest(*tree, _array(queries), limit, squares.numpy(), found.numpy(), weights.numpy())
    return squares, found, weights


@nearest_triangle.register_kernel("cuda")
def _(boxes, corners, rows, queries, limit):
    from sparse3d_ops.gpu import triangle_tree as body

    _check(boxes, corners, rows, queries)
    _check_limit(limit)
    squares, found, weights = _room(queries)
    tree = boxes.contiguous(), corners.contiguous(), rows.contiguous()
    body.nearest(*tree, queries.detach().double().contiguous(), limit, squares, found, weights)
    return squares, found, weights


@nearest_triangle.register_fake
def _(boxes, corners, rows, queries, limit):
    return _room(queries)


@torch.library.custom_op("sparse3d::winding_number", mutates_args=(), device_types="cpu")
def winding_number(
    boxes: Tensor, moments: Tensor, corners: Tensor, queries: Tensor, accuracy: float
) -> Tensor:
    """How often the triangles go around queries (Q, 3): the solid angle under which they are seen from their
    inner side, over 4 pi -> (Q,) float64. 1 within a closed mesh, 0 outside of it, and in between where it
    has holes (Jacobson et al., "Robust inside-outside segmentation using generalized winding numbers", 2013).

    A node that is further away than `accuracy` times its reach counts as one small piece with its area vector
    (Barill et al., "Fast winding numbers for soups and clouds", 2018, the first term); inf leaves none out.
    Nothing goes around a query that is not finite: 0.
    """
    from sparse3d_ops.cpu import triangle_tree as body

    _check_winding(boxes, moments, corners, queries, accuracy)
    total = queries.new_empty(len(queries), dtype=torch.float64)
    tree = moments.contiguous().numpy(), corners.contiguous().numpy()
    body.winding(*tree, _array(queries), min(accuracy, _LARGE), total.numpy())
    return total


@winding_number.register_kernel("cuda")
def _(boxes, moments, corners, queries, accuracy):
    from sparse3d_ops.gpu import triangle_tree as body

    _check_winding(boxes, moments, corners, queries, accuracy)
    total = queries.new_empty(len(queries), dtype=torch.float64)
    parts = moments.contiguous(), corners.contiguous(), queries.detach().double().contiguous()
    body.winding(*parts, min(accuracy, _LARGE), total)
    return total


@winding_number.register_fake
def _(boxes, moments, corners, queries, accuracy):
    return queries.new_empty(queries.shape[0], dtype=torch.float64)


def _room(queries: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    count = queries.shape[0]
    squares = queries.new_empty(count, dtype=torch.float64)
    return (
        squares,
        queries.new_empty(count, dtype=torch.int64),
        queries.new_empty(count, 3, dtype=torch.float64),
    )


def _array(queries: Tensor) -> np.ndarray:
    return queries.detach().double().contiguous().numpy()


def _check_limit(limit: float) -> None:
    if not limit >= 0:
        raise ValueError(f"limit is {limit}, expected a distance of at least 0 (inf: everything)")


def _check(boxes: Tensor, corners: Tensor, rows: Tensor, queries: Tensor) -> None:
    _check_tree(boxes, corners)
    check_tensor("rows", rows, (len(corners),), (torch.int64,))
    check_tensor("queries", queries, ("Q", 3), EXACT)
    check_range("rows", rows, 0, len(corners))
    check_same_device(("boxes", boxes), ("corners", corners), ("rows", rows), ("queries", queries))


def _check_winding(boxes, moments, corners, queries, accuracy) -> None:
    _check_tree(boxes, corners)
    check_tensor("moments", moments, (len(boxes), 7), (torch.float64,))
    check_tensor("queries", queries, ("Q", 3), EXACT)
    check_same_device(("moments", moments), ("corners", corners), ("queries", queries))
    if not accuracy >= 1:
        raise ValueError(f"accuracy is {accuracy}, expected at least 1: nodes are not seen from within")


def _check_tree(boxes: Tensor, corners: Tensor) -> None:
    check_tensor("boxes", boxes, ("2^(D + 1)", 6), (torch.float64,))
    check_tensor("corners", corners, ("F", 9), (torch.float64,))
    nodes = len(boxes)
    if nodes < 2 or nodes & (nodes - 1) or not nodes <= 4 * max(len(corners), 1):
        raise ValueError(f"{nodes} boxes are no tree over {len(corners)} triangles; make it with build_tree")
