"""Numba bodies of trilinear sampling from a sparse volume.

The three sums are the derivatives of one trilinear form, sum over q, k, c of weights[q, k] *
features[corners[q, k], c] * grad[q, c], with respect to grad (gather), features (scatter) and weights (dot).
Corners of -1 take no part.
"""

import math

import numba
import numpy as np

from sparse3d_ops.cpu.hashing import BATCHES, find, in_range, pack_key
from sparse3d_ops.cpu.row_kernels import add_scaled, largest_of_eight, weighted_rows


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


AHEAD = (
    6  # queries whose rows are fetched before they are needed; more would push each other out of the cache
)


@numba.njit(parallel=True, cache=True, nogil=True)
def gather(features, corners, weights, out):
    """Returns whether all corners were rows of the features or -1."""
    channels, size = features.shape[1], np.int64(features.itemsize)
    base, stride = np.int64(features.ctypes.data), channels * size
    rows, factors = np.int64(corners.ctypes.data), np.int64(weights.ctypes.data)
    to, last = np.int64(out.ctypes.data), len(corners) - 1
    wrong = np.zeros(1, np.int64)
    for q in numba.prange(len(corners)):
        any_row = largest_of_eight(rows + 32 * q, len(features))  # pyright: ignore[reportCallIssue]
        if any_row < 0:
            if any_row < -1:
                wrong[0] = 1
            for c in range(channels):
                out[q, c] = 0
            continue
        # A missing corner is a row that takes part anyway, times zero, so it brings in nothing of its own.
        weighted_rows(  # pyright: ignore[reportCallIssue]
            features,
            base,
            stride,
            rows + 32 * q,
            any_row,
            factors + 8 * size * q,
            to + q * stride,
            channels,
            rows + 32 * min(q + AHEAD, last),
        )
    return wrong[0] == 0


@numba.njit(parallel=True, cache=True, nogil=True)
def scatter(grad, corners, weights, parts, out):
    """Each of `parts`, one a thread, owns a range of rows, walks through all queries and adds to its own:
    every row is summed in the order of the queries, so without atomics and to the same bits for any number of
    parts. To look at the corners of others is cheaper than to sort them by their rows.
    """
    rows, columns, size = len(out), out.shape[1], np.int64(out.itemsize)
    grads, sums = np.int64(grad.ctypes.data), np.int64(out.ctypes.data)
    for part in numba.prange(parts):
        begin, end = part * rows // parts, (part + 1) * rows // parts
        out[begin:end] = 0
        for q in range(len(corners)):
            for k in range(8):
                row = corners[q, k]
                if begin <= row < end:
                    source, to = grads + q * columns * size, sums + row * columns * size
                    add_scaled(grad, source, out, to, weights[q, k], columns)  # pyright: ignore[reportCallIssue]


@numba.njit(parallel=True, cache=True, nogil=True, fastmath={"contract", "reassoc"})
def dot(grad, features, corners, out):
    for q in numba.prange(len(corners)):
        for k in range(8):
            out[q, k] = 0
            row = corners[q, k]
            if row >= 0:
                for c in range(features.shape[1]):
                    out[q, k] += grad[q, c] * features[row, c]
