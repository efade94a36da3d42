"""Numba body of the voxel query."""

import math

import numba
import numpy as np

from sparse3d_ops.cpu.hashing import BATCHES, find, in_range, pack_key


@numba.njit(parallel=True, cache=True, nogil=True)
def voxel_query(slot_keys, slot_rows, positions, batch, offsets, geometry, rows):
    """`geometry` (4,): size of a voxel along x, y, z and the square of the radius. rows (Q, K) is an output.

    The distance comes before the look-up: it needs no memory, and leaves half of the box out.
    """
    size_x, size_y, size_z, square = geometry[0], geometry[1], geometry[2], geometry[3]
    for q in numba.prange(len(positions)):
        x, y, z = positions[q, 0], positions[q, 1], positions[q, 2]
        found = 0
        # Numbers beyond int64, infinities and NaN (which fails every comparison) are in no voxel.
        if abs(x) < 1e9 and abs(y) < 1e9 and abs(z) < 1e9 and 0 <= batch[q] < BATCHES:
            i, j, k = np.int64(math.floor(x)), np.int64(math.floor(y)), np.int64(math.floor(z))
            for o in range(len(offsets)):
                a, b, c = i + offsets[o, 0], j + offsets[o, 1], k + offsets[o, 2]
                dx, dy, dz = (a + 0.5 - x) * size_x, (b + 0.5 - y) * size_y, (c + 0.5 - z) * size_z
                if dx * dx + dy * dy + dz * dz < square and in_range(a, b, c):
                    row = find(slot_keys, slot_rows, pack_key(batch[q], a, b, c))
                    if row >= 0:
                        rows[q, found] = row
                        found += 1
                        if found == rows.shape[1]:
                            break
        for place in range(found, rows.shape[1]):
            rows[q, place] = -1
