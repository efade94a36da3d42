"""Numba bodies of the voxelisation.

A point's cell is the flat index ((frame * X + x) * Y + y) * Z + z in int64, or -1 when it lies in no cell.
The cells are sorted by a stable radix sort that carries the row of each point (see `radix`), so voxels come
out ordered by (frame, x, y, z) and the points of a voxel keep their input order.
"""

import math

import numba
import numpy as np


@numba.njit(parallel=True, cache=True, nogil=True, error_model="numpy")
def cells(points, point_frame, low, high, size, shape, cell):
    """cell (P,) int64 is an output; low, high, size are float64 (3,), shape is int64 (3,)."""
    for p in numba.prange(len(points)):
        key = np.int64(point_frame[p])
        for axis in range(3):
            value = np.float64(points[p, axis])
            if not (low[axis] <= value < high[axis]):  # written so that NaN is outside
                key = -1
                break
            index = np.int64(math.floor((value - low[axis]) / size[axis]))
            key = key * shape[axis] + min(index, shape[axis] - 1)
        cell[p] = key


@numba.njit(parallel=True, cache=True, nogil=True)
def voxels(cell, row, first_voxel, shape, coordinates, point_voxel, offsets):
    """coordinates (M, 4), point_voxel (P,; prefilled with -1; empty where nobody asks) and offsets (M+1,) are
    outputs.

    The rows of voxel v, in input order, are row[offsets[v]:offsets[v + 1]].
    """
    chunks = len(first_voxel)
    length = (len(cell) + chunks - 1) // chunks
    for c in numba.prange(chunks):
        v = first_voxel[c] - 1
        for k in range(c * length, min((c + 1) * length, len(cell))):
            if k == 0 or cell[k] != cell[k - 1]:
                v += 1
                offsets[v] = k
                rest = cell[k] // shape[2]
                coordinates[v, 3] = cell[k] - rest * shape[2]
                column = rest // shape[1]
                coordinates[v, 2] = rest - column * shape[1]
                coordinates[v, 0] = column // shape[0]
                coordinates[v, 1] = column - coordinates[v, 0] * shape[0]
            if len(point_voxel):
                point_voxel[row[k]] = v
    offsets[len(offsets) - 1] = len(cell)


@numba.njit(cache=True, nogil=True)
def first_voxels(coordinates, row, offsets, max_voxels, begun, seen, kept):
    """kept (M,) bool is an output: the `max_voxels` voxels of each frame whose first point comes first.

    `begun` (P,) int32, -1 at the start, and `seen` (frames,) int64, zero, are scratch. Returns how many are
    kept.
    """
    for v in range(len(coordinates)):
        begun[row[offsets[v]]] = v
    total = 0
    for p in range(len(begun)):
        v = begun[p]
        if v >= 0:
            frame = coordinates[v, 0]
            seen[frame] += 1
            kept[v] = seen[frame] <= max_voxels
            total += kept[v]
    return total


@numba.njit(cache=True, nogil=True)
def first_rows(coordinates, row, offsets, kept, rows_out, coordinates_out, counts_out):
    """The first K rows of each kept voxel: rows_out (M', K) int64, -1 where there are fewer; counts_out
    (M',).
    """
    most = rows_out.shape[1]
    at = 0
    for v in range(len(kept)):
        if not kept[v]:
            continue
        count = min(offsets[v + 1] - offsets[v], most)
        for k in range(most):
            rows_out[at, k] = row[offsets[v] + k] if k < count else -1
        coordinates_out[at] = coordinates[v]
        counts_out[at] = count
        at += 1
