"""Numba bodies of trilinear sampling from a sparse volume.

The three sums are the derivatives of one trilinear form, sum over q, k, c of weights[q, k] *
features[corners[q, k], c] * grad[q, c], with respect to grad (gather), features (scatter) and weights (dot).
Corners of -1 take no part.
"""

import math

import numba
import numpy as np

from sparse3d_ops.cpu.hashing import BATCHES, find, in_range, pack_key


@numba.njit(parallel=True, cache=True, nogil=True)
def corner_rows(slot_keys, slot_rows, shifted, batch, corners):
    """`shifted` (Q, 3) are positions minus one half; corners (Q, 8) is an output. Corner k = 4 dx + 2 dy +
    dz.
    """
    for q in numba.prange(len(shifted)):
        x, y, z = shifted[q, 0], shifted[q, 1], shifted[q, 2]
        corners[q] = -1
        # Numbers beyond int64, infinities and NaN (which fails every comparison) have no voxel around them.
        if not (abs(x) < 1e9 and abs(y) < 1e9 and abs(z) < 1e9 and 0 <= batch[q] < BATCHES):
            continue
        i, j, k = np.int64(math.floor(x)), np.int64(math.floor(y)), np.int64(math.floor(z))
        for corner in range(8):
            a, b, c = i + (corner >> 2), j + ((corner >> 1) & 1), k + (corner & 1)
            if in_range(a, b, c):
                corners[q, corner] = find(slot_keys, slot_rows, pack_key(batch[q], a, b, c))


@numba.njit(parallel=True, cache=True, nogil=True)
def gather(features, corners, weights, out):
    for q in numba.prange(len(corners)):
        there = True
        for k in range(8):
            there &= corners[q, k] >= 0
        if there:
            _whole_cell(features, corners, weights, q, out)
            continue
        for c in range(features.shape[1]):
            out[q, c] = 0
        for k in range(8):
            row = corners[q, k]
            if row >= 0:
                for c in range(features.shape[1]):
                    out[q, c] += weights[q, k] * features[row, c]


@numba.njit(inline="always")
def _whole_cell(features, corners, weights, q, out):
    """All eight corners in one walk over the channels: eight loads are under way at once, and one store.

    Rows are indexed and not taken as views: a view counts references to memory that all threads share.
    """
    w0, w1, w2, w3 = weights[q, 0], weights[q, 1], weights[q, 2], weights[q, 3]
    w4, w5, w6, w7 = weights[q, 4], weights[q, 5], weights[q, 6], weights[q, 7]
    r0, r1, r2, r3 = corners[q, 0], corners[q, 1], corners[q, 2], corners[q, 3]
    r4, r5, r6, r7 = corners[q, 4], corners[q, 5], corners[q, 6], corners[q, 7]
    for c in range(features.shape[1]):
        lower = w0 * features[r0, c] + w1 * features[r1, c] + w2 * features[r2, c] + w3 * features[r3, c]
        upper = w4 * features[r4, c] + w5 * features[r5, c] + w6 * features[r6, c] + w7 * features[r7, c]
        out[q, c] = lower + upper


@numba.njit(cache=True, nogil=True)
def corner_offsets(corners, offsets, order):
    """Counting sort: places order[offsets[row]:offsets[row + 1]] of the flat corners (8 Q,) name that row.

    offsets (N + 1,) and order (8 Q,) are outputs.
    """
    offsets[:] = 0
    for place in range(len(corners)):
        if corners[place] >= 0:
            offsets[corners[place] + 1] += 1
    for row in range(len(offsets) - 1):
        offsets[row + 1] += offsets[row]
    cursor = offsets[:-1].copy()
    for place in range(len(corners)):
        row = corners[place]
        if row >= 0:
            order[cursor[row]] = place
            cursor[row] += 1


@numba.njit(parallel=True, cache=True, nogil=True)
def scatter(grad, weights, offsets, order, out):
    """One thread owns a row of `out` and adds in the order of the queries: no atomics, the same bits every
    time.
    """
    for row in numba.prange(len(out)):
        for c in range(grad.shape[1]):
            out[row, c] = 0
        for k in range(offsets[row], offsets[row + 1]):
            q, corner = order[k] >> 3, order[k] & 7
            for c in range(grad.shape[1]):
                out[row, c] += weights[q, corner] * grad[q, c]


@numba.njit(parallel=True, cache=True, nogil=True)
def dot(grad, features, corners, out):
    for q in numba.prange(len(corners)):
        for k in range(8):
            out[q, k] = 0
            row = corners[q, k]
            if row >= 0:
                for c in range(features.shape[1]):
                    out[q, k] += grad[q, c] * features[row, c]
