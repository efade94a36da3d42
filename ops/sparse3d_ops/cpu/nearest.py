"""Numba body of the nearest points."""

import numba
import numpy as np

from sparse3d_ops.cpu.hashing import BATCHES, find, in_range, pack_key


@numba.njit(inline="always")
def before(d, row, other, other_row):
    """Whether a point comes before another one."""
    return d < other or (d == other and row < other_row)


@numba.njit(parallel=True, cache=True, nogil=True)
def nearest(slot_keys, slot_rows, starts, order, points, queries, cells, rows, squares):
    """rows and squares (Q, count) are outputs: sorted by insertion, by the distance and then by the row."""
    count = rows.shape[1]
    for q in numba.prange(len(queries)):
        best, way = rows[q], squares[q]
        best[:] = -1
        way[:] = np.inf
        b = cells[q, 0]
        if not 0 <= b < BATCHES:
            continue
        x, y, z = np.int64(cells[q, 1]), np.int64(cells[q, 2]), np.int64(cells[q, 3])
        for o in range(27):
            i, j, k = x + o // 9 - 1, y + o // 3 % 3 - 1, z + o % 3 - 1
            if not in_range(i, j, k):
                continue
            voxel = find(slot_keys, slot_rows, pack_key(b, i, j, k))
            if voxel < 0:
                continue
            for at in range(starts[voxel], starts[voxel + 1]):
                row = order[at]
                dx = points[row, 0] - queries[q, 0]
                dy = points[row, 1] - queries[q, 1]
                dz = points[row, 2] - queries[q, 2]
                d = dx * dx + dy * dy + dz * dz
                if d < way[count - 1] or (d == way[count - 1] and row < best[count - 1]):
                    place = count - 1
                    while place > 0 and (
                        d < way[place - 1] or (d == way[place - 1] and row < best[place - 1])
                    ):
                        way[place], best[place] = way[place - 1], best[place - 1]
                        place -= 1
                    way[place], best[place] = d, row
