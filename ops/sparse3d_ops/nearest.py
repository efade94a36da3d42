"""Which points are nearest, of those in the voxels around. One schema here, one body a device.

Points are listed voxel by voxel: those of row v of a table of `hashing.build` are `order[starts[v]:starts[v +
1]]`. A query looks at its own voxel and the 26 that touch it, so what it finds is nearest of all where it is
no further away than a voxel's side. Distances are computed in float64, of equal ones the lowest row comes
first: the same on every device and for any number of threads. No gradients.
"""

import torch
from torch import Tensor

from sparse3d_ops.checks import check_range, check_same_device, check_tensor
from sparse3d_ops.hashing import check_table

EXACT = (torch.float32, torch.float64)


@torch.library.custom_op("sparse3d::nearest_around", mutates_args=(), device_types="cpu")
def nearest_around(
    slot_keys: Tensor,
    slot_rows: Tensor,
    starts: Tensor,
    order: Tensor,
    points: Tensor,
    queries: Tensor,
    cells: Tensor,
    count: int,
) -> tuple[Tensor, Tensor]:
    """The `count` nearest of points (N, 3) to queries (Q, 3), nearest first: -> rows (Q, count) int64 and
    squared distances (Q, count) float64; -1 and inf where there are no more.

    starts (M + 1,) int64 rises from 0 to K, order (K,) int64 holds rows of points; cells (Q, 4) int32 is the
    voxel (batch, x, y, z) of each query, with a batch of -1 for one that looks nowhere.
    """
    from sparse3d_ops.cpu import nearest as body

    _check(slot_keys, slot_rows, starts, order, points, queries, cells, count)
    rows, squares = _room(queries, count)
    keys, slots, begins, listed, at = (
        tensor.contiguous().numpy() for tensor in (slot_keys, slot_rows, starts, order, cells)
    )
    places = _array(points), _array(queries)
    body.nearest(keys, slots, begins, listed, *places, at, rows.numpy(), squares.numpy())
    return rows, squares


@nearest_around.register_kernel("cuda")
def _(slot_keys, slot_rows, starts, order, points, queries, cells, count):
    from sparse3d_ops.gpu import nearest as body

    _check(slot_keys, slot_rows, starts, order, points, queries, cells, count)
    rows, squares = _room(queries, count)
    tables = [tensor.contiguous() for tensor in (slot_keys, slot_rows, starts, order)]
    places = [tensor.detach().double().contiguous() for tensor in (points, queries)]
    body.nearest(*tables, *places, cells.contiguous(), rows, squares)  # pyright: ignore[reportCallIssue]
    return rows, squares


@nearest_around.register_fake
def _(slot_keys, slot_rows, starts, order, points, queries, cells, count):
    return _room(queries, count)


def _room(queries: Tensor, count: int) -> tuple[Tensor, Tensor]:
    shape = queries.shape[0], count
    return queries.new_empty(shape, dtype=torch.int64), queries.new_empty(shape, dtype=torch.float64)


def _array(places: Tensor):
    return places.detach().double().contiguous().numpy()


def _check(slot_keys, slot_rows, starts, order, points, queries, cells, count) -> None:
    check_tensor("starts", starts, ("M + 1",), (torch.int64,))
    check_tensor("order", order, ("K",), (torch.int64,))
    check_tensor("points", points, ("N", 3), EXACT)
    check_tensor("queries", queries, ("Q", 3), EXACT)
    check_tensor("cells", cells, (queries.shape[0], 4), (torch.int32,))
    named = {"starts": starts, "order": order, "points": points, "queries": queries, "cells": cells}
    check_same_device(("slot_keys", slot_keys), *named.items())
    if count < 1:
        raise ValueError(f"count is {count}, expected at least 1 point")
    falls = starts[1:] < starts[:-1]
    if not len(starts) or bool((starts[0] != 0) | (starts[-1] != len(order)) | falls.any()):
        raise ValueError(f"starts must rise from 0 to the {len(order)} entries of order")
    check_table(slot_keys, slot_rows, len(starts) - 1)
    check_range("order", order, 0, len(points))
