"""Numba bodies of the segment reductions.

Rows are visited through `order`, the stable sort of the segment ids, so that one thread owns a segment and
visits its rows in their input order: the result does not depend on the number of threads. Segment ids that
come sorted need no `order`: an empty one stands for "row k is at place k".
"""

import numba
import numpy as np

from sparse3d_ops.cpu.microkernel import prefetch

AHEAD = 16  # rows that are fetched before they are needed
MOST_CHUNKS = 64  # parts that are looked at side by side, however many threads there are


@numba.njit(parallel=True, cache=True, nogil=True)
def look(segment):
    """The smallest and the largest id, and how often a smaller one follows a larger one."""
    chunks = min(MOST_CHUNKS, len(segment) // (1 << 15) + 1)
    length = (len(segment) + chunks - 1) // chunks
    found = np.zeros((chunks, 3), np.int64)
    for c in numba.prange(chunks):
        low, high, falls = segment[c * length], segment[c * length], np.int64(0)
        for row in range(max(1, c * length), min((c + 1) * length, len(segment))):
            low, high = min(low, segment[row]), max(high, segment[row])
            falls += segment[row] < segment[row - 1]
        found[c, 0], found[c, 1], found[c, 2] = low, high, falls
    return found[:, 0].min(), found[:, 1].max(), found[:, 2].sum()


@numba.njit(parallel=True, cache=True, nogil=True)
def segment_offsets(segment, offsets):
    """offsets (S+1,) is an output: segment s holds rows offsets[s] to offsets[s + 1] of sorted ids."""
    rows = len(segment)
    chunks = min(MOST_CHUNKS, rows // (1 << 15) + 1)
    length = (rows + chunks - 1) // chunks
    offsets[:] = 0
    for c in numba.prange(chunks):
        # The last row of a segment writes last: no branch to guess. So a segment belongs to the chunk where
        # it begins.
        for row in range(_begin(segment, c * length), _begin(segment, (c + 1) * length)):
            offsets[segment[row] + 1] = row + 1
    for s in range(1, len(offsets)):  # empty segments end where the one before does
        offsets[s] = max(offsets[s], offsets[s - 1])


@numba.njit(inline="always")
def _begin(segment, row):
    """The first row from `row` on that begins a segment."""
    while 0 < row < len(segment) and segment[row] == segment[row - 1]:
        row += 1
    return min(row, len(segment))


@numba.njit(inline="always")
def _fetch(values, order, place):
    """Ask for a row that is needed soon, in any order: nothing but this tells the machine which."""
    if place < len(order):
        stride = np.int64(values.shape[1] * values.itemsize)
        at = np.int64(values.ctypes.data) + order[place] * stride
        for line in range(0, stride, 64):
            prefetch(at + line)  # pyright: ignore[reportCallIssue]


@numba.njit(parallel=True, cache=True, nogil=True)
def gather(values, rows, out):
    """out (N, C) = values[rows], zero where a row is -1."""
    for n in numba.prange(len(rows)):
        row = rows[n]
        if row >= 0:
            for c in range(values.shape[1]):
                out[n, c] = values[row, c]
        else:
            for c in range(values.shape[1]):
                out[n, c] = 0


@numba.njit(inline="always")
def _sum_rows(values, begin, end, order, out, s):
    """Row s of `out`: the sum of the rows at the places from `begin` to `end`."""
    for c in range(values.shape[1]):
        out[s, c] = 0
    if len(order):
        for k in range(begin, end):
            _fetch(values, order, k + AHEAD)
            row = order[k]
            for c in range(values.shape[1]):
                out[s, c] += values[row, c]
    else:
        for row in range(begin, end):
            for c in range(values.shape[1]):
                out[s, c] += values[row, c]


@numba.njit(parallel=True, cache=True, nogil=True)
def segment_sum(values, offsets, order, out):
    for s in numba.prange(len(offsets) - 1):
        _sum_rows(values, offsets[s], offsets[s + 1], order, out, s)


@numba.njit(parallel=True, cache=True, nogil=True)
def segment_mean(values, offsets, order, out):
    for s in numba.prange(len(offsets) - 1):
        _sum_rows(values, offsets[s], offsets[s + 1], order, out, s)
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
            _fetch(values, order, k + AHEAD)
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
