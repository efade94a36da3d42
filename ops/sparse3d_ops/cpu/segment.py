"""Numba bodies of the segment reductions.

Rows are visited through `order`, the stable sort of the segment ids, so that one thread owns a segment and
visits its rows in their input order: the result does not depend on the number of threads. Segment ids that
come sorted need no `order`: an empty one stands for "row k is at place k".
"""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def segment_offsets(segment, offsets):
    """offsets (S+1,) is an output: segment s holds places offsets[s] to offsets[s + 1] of the sorted rows.

    Returns whether the rows are sorted already.
    """
    offsets[:] = 0
    is_sorted = True
    previous = np.int64(0)
    for row in range(len(segment)):
        s = segment[row]
        is_sorted &= s >= previous
        previous = s
        offsets[s + 1] += 1
    for s in range(len(offsets) - 1):
        offsets[s + 1] += offsets[s]
    return is_sorted


@numba.njit(cache=True, nogil=True)
def segment_order(segment, offsets, order):
    """Counting sort: order (N,) is an output, the rows of segment s are order[offsets[s]:offsets[s + 1]]."""
    cursor = offsets[:-1].copy()
    for row in range(len(segment)):
        s = segment[row]
        order[cursor[s]] = row
        cursor[s] += 1


@numba.njit(parallel=True, cache=True, nogil=True)
def segment_sum(values, offsets, order, out):
    for s in numba.prange(len(offsets) - 1):
        for c in range(values.shape[1]):
            out[s, c] = 0
        for k in range(offsets[s], offsets[s + 1]):
            row = order[k] if len(order) else k
            for c in range(values.shape[1]):
                out[s, c] += values[row, c]


@numba.njit(parallel=True, cache=True, nogil=True)
def segment_mean(values, offsets, order, out):
    for s in numba.prange(len(offsets) - 1):
        for c in range(values.shape[1]):
            out[s, c] = 0
        for k in range(offsets[s], offsets[s + 1]):
            row = order[k] if len(order) else k
            for c in range(values.shape[1]):
                out[s, c] += values[row, c]
        count = max(1, offsets[s + 1] - offsets[s])
        for c in range(values.shape[1]):
            out[s, c] /= count


@numba.njit(parallel=True, cache=True, nogil=True)
def segment_max(values, offsets, order, out, argmax):
    for s in numba.prange(len(offsets) - 1):
        for c in range(values.shape[1]):
            out[s, c] = 0
            argmax[s, c] = -1
        for k in range(offsets[s], offsets[s + 1]):
            row = order[k] if len(order) else k
            for c in range(values.shape[1]):
                value, best = values[row, c], out[s, c]
                # Rows come in rising order, so a strict comparison lets the lowest row win ties; value !=
                # value is NaN.
                if argmax[s, c] < 0 or value > best or (value != value and best == best):
                    out[s, c] = value
                    argmax[s, c] = row


@numba.njit(parallel=True, cache=True, nogil=True)
def segment_softmax(values, offsets, order, peak, total, out):
    """peak and total (S, C) are scratch: peak holds `segment_max` of the values."""
    for s in numba.prange(len(offsets) - 1):
        for c in range(values.shape[1]):
            total[s, c] = 0
        for k in range(offsets[s], offsets[s + 1]):
            row = order[k] if len(order) else k
            for c in range(values.shape[1]):
                out[row, c] = np.exp(values[row, c] - peak[s, c])
                total[s, c] += out[row, c]
        for k in range(offsets[s], offsets[s + 1]):
            row = order[k] if len(order) else k
            for c in range(values.shape[1]):
                out[row, c] /= total[s, c]
