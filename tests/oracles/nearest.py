"""The nearest points in the 27 voxels around, by looking at all points."""

import torch

from sparse3d_ops.hashing import unpack


def voxel_of_point(slot_keys, slot_rows, starts, order, count):
    """Row of the voxel of each point, -1 for none, as the lists have it."""
    voxel = [-1] * count
    for v in range(len(starts) - 1):
        for at in range(int(starts[v]), int(starts[v + 1])):
            voxel[int(order[at])] = v
    return voxel


def nearest_around(slot_keys, slot_rows, starts, order, points, queries, cells, count):
    sites = {}  # row of a voxel -> its (batch, x, y, z)
    for key, row in zip(slot_keys.tolist(), slot_rows.tolist(), strict=True):
        if key != 0:
            sites[row] = unpack(torch.tensor([key]))[0].tolist()
    voxel = voxel_of_point(slot_keys, slot_rows, starts, order, len(points))
    rows = torch.full((len(queries), count), -1)
    squares = torch.full((len(queries), count), float("inf"), dtype=torch.float64)
    for q in range(len(queries)):
        batch, *middle = cells[q].tolist()
        found = []
        for row, v in enumerate(voxel):
            if v < 0 or sites[v][0] != batch:
                continue
            if max(abs(a - b) for a, b in zip(sites[v][1:], middle, strict=True)) <= 1:
                off = points[row].double() - queries[q].double()
                # In the order of the bodies, so that equal distances are equal.
                x, y, z = off.tolist()
                found.append((x * x + y * y + z * z, row))
        for place, (square, row) in enumerate(sorted(found)[:count]):
            rows[q, place], squares[q, place] = row, square
    return rows, squares
