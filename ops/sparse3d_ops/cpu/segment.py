"""Numba bodies of the segment reductions.

Rows are visited through `order`, the stable sort of the segment ids, so that one thread owns a segment and
visits its rows in their input order: the result does not depend on the number of threads. Segment ids that
come sorted need no `order`: an empty one stands for "row k is at place k".
"""

import numba
import numpy as np

from sparse3d_ops.cpu.microkernel import prefetch
from sparse3d_ops.cpu.row_kernels import largest_following, largest_listed, sum_following, sum_listed

AHEAD = 16  # rows that are fetched before they are needed
NEAR = 1 << 21  # bytes of values that caches hold: fetching rows of them takes longer than it saves
FEW = 1 << 15  # ids that one thread sorts sooner than several
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


@numba.njit(cache=True, nogil=True)
def sort_few(segment, offsets, order):
    """`look`, a stable counting sort and `segment_offsets` in one, for so few ids that one thread is enough.

    offsets (S + 1,) and order (N,) int32 are outputs; order is left as it is where the ids are sorted
    already. Returns 1 where they are not, 0 where they are, -1 where one is not in [0, S).
    """
    offsets[:] = 0
    if len(segment) == 0:
        return 0
    low, high, falls = segment[0], segment[0], np.int64(0)
    for row in range(1, len(segment)):
        low, high = min(low, segment[row]), max(high, segment[row])
        falls += segment[row] < segment[row - 1]
    if low < 0 or high >= len(offsets) - 1:
        return -1
    if not falls:
        # Where segments end, as in `segment_offsets`: counting would wait for the count of the row before.
        for row in range(len(segment)):
            offsets[np.uint64(segment[row]) + np.uint64(1)] = row + 1
        for s in range(1, len(offsets)):
            offsets[s] = max(offsets[s], offsets[s - 1])
        return 0
    for row in range(len(segment)):
        offsets[np.uint64(segment[row]) + np.uint64(1)] += 1
    total = np.int64(0)
    for s in range(1, len(offsets)):  # where segment s - 1 begins; its rows move it to where it ends
        count = offsets[s]
        offsets[s] = total
        total += count
    for row in range(len(segment)):
        s = np.uint64(segment[row]) + np.uint64(1)
        place = offsets[s]
        offsets[s] = place + 1
        order[place] = row
    return 1


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
def _fetch(values, order, begin, end):
    """Ask for rows that are needed soon, in any order: nothing but this tells the machine which."""
    stride, base = np.int64(values.shape[1] * values.itemsize), np.int64(values.ctypes.data)
    for place in range(min(begin + AHEAD, len(order)), min(end + AHEAD, len(order))):
        for line in range(0, stride, 64):
            prefetch(base + order[place] * stride + line)  # pyright: ignore[reportCallIssue]


@numba.njit(inline="always")
def _sum_rows(values, begin, end, order, out, s):
    """Row s of `out`: the sum of the rows at the places from `begin` to `end`."""
    channels, count = values.shape[1], end - begin
    stride, base = channels * np.int64(values.itemsize), np.int64(values.ctypes.data)
    to = np.int64(out.ctypes.data) + s * stride
    if count == 0:
        out[s] = 0
    elif len(order):
        if values.nbytes > NEAR:
            _fetch(values, order, begin, end)
        places = np.int64(order.ctypes.data) + 4 * begin
        sum_listed(values, base, stride, places, count, channels, to)  # pyright: ignore[reportCallIssue]
    else:
        sum_following(values, base + begin * stride, stride, 0, count, channels, to)  # pyright: ignore[reportCallIssue]


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
    channels, base = values.shape[1], np.int64(values.ctypes.data)
    stride = channels * np.int64(values.itemsize)
    for s in numba.prange(len(offsets) - 1):
        begin, count = offsets[s], offsets[s + 1] - offsets[s]
        to, rows = np.int64(out.ctypes.data) + s * stride, np.int64(argmax.ctypes.data) + s * channels * 8
        if count == 0:
            out[s] = 0
            argmax[s] = -1
        elif len(order):
            if values.nbytes > NEAR:
                _fetch(values, order, begin, begin + count)
            places = np.int64(order.ctypes.data) + 4 * begin
            largest_listed(values, base, stride, places, begin, count, channels, to, rows)  # pyright: ignore[reportCallIssue]
        else:
            first = base + begin * stride
            largest_following(values, first, stride, 0, begin, count, channels, to, rows)  # pyright: ignore[reportCallIssue]


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
