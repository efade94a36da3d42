"""Numba bodies of the segment reductions.

Rows are visited through `order`, the stable sort of the segment ids, so that one thread owns a segment and
visits its rows in their input order: the result does not depend on the number of threads. Segment ids that
come sorted need no `order`: an empty one stands for "row k is at place k".
"""

import numba
import numpy as np

MOST_CHUNKS = 64  # parts that are looked at side by side, however many threads there are


@numba.njit(parallel=True, cache=True, nogil=True)
def is_sorted(segment):
    falls = 0
    for row in numba.prange(1, len(segment)):
        falls += segment[row] < segment[row - 1]
    return falls == 0


@numba.njit(parallel=True, cache=True, nogil=True)
def segment_offsets(segment, offsets):
    """offsets (S+1,) is an output: segment s holds rows offsets[s] to offsets[s + 1] of sorted ids."""
    rows = len(segment)
    chunks = min(MOST_CHUNKS, rows // 4096 + 1)
    length = (rows + chunks - 1) // chunks
    for c in numba.prange(chunks):
        previous = segment[c * length - 1] if 0 < c * length <= rows else np.int64(-1)
        for row in range(c * length, min((c + 1) * length, rows)):
            here = segment[row]
            for s in range(previous + 1, here + 1):  # empty segments begin where the next one does
                offsets[s] = row
            previous = here
    for s in range(segment[rows - 1] + 1 if rows else 0, len(offsets)):
        offsets[s] = rows


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
        begin, end = offsets[s], offsets[s + 1]
        first = np.int64(-1)
        if begin < end:
            first = np.int64(order[begin] if len(order) else begin)
        for c in range(values.shape[1]):
            out[s, c] = values[first, c] if first >= 0 else 0
            argmax[s, c] = first
        for k in range(begin + 1, end):
            row = np.int64(order[k] if len(order) else k)
            for c in range(values.shape[1]):
                value, best = values[row, c], out[s, c]
                # Rows come in rising order, so a tie stays with the lowest row. NaN is larger than any number
                # (`value <= best` is false) and stays (`best == best` is false). No branches: for vectors.
                larger = (not value <= best) & (best == best)
                out[s, c] = value if larger else best
                argmax[s, c] = row if larger else argmax[s, c]


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
