"""Numba bodies of the segment reductions.

Rows are visited through `order`, the stable sort of the segment ids, so that one thread owns a segment and
visits its rows in their input order: the result does not depend on the number of threads. Segment ids that
come sorted need no `order`: an empty one stands for "row k is at place k".
"""

import numba
import numpy as np

from sparse3d_ops.cpu.microkernel import VECTOR_BYTES, prefetch
from sparse3d_ops.cpu.row_kernels import largest_rows, sum_rows

AHEAD = 16  # rows that are fetched before they are needed
NEAR = 1 << 21  # bytes of values that caches hold: fetching rows of them takes longer than it saves
FEW = 1 << 15  # ids that one thread sorts sooner than several
MOST_CHUNKS = 64  # parts that are looked at side by side, however many threads there are

_sum_listed_1, _sum_listed_2, _sum_listed_4 = (sum_rows[True, n] for n in (1, 2, 4))
_sum_following_1, _sum_following_2, _sum_following_4 = (sum_rows[False, n] for n in (1, 2, 4))
_largest_listed_1, _largest_listed_2 = (largest_rows[True, n] for n in (1, 2))
_largest_following_1, _largest_following_2 = (largest_rows[False, n] for n in (1, 2))


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
    channels, size, count = values.shape[1], np.int64(values.itemsize), end - begin
    stride, column = channels * size, np.int64(0)
    if len(order) and values.nbytes > NEAR:
        _fetch(values, order, begin, end)
    base, to = np.int64(values.ctypes.data), np.int64(out.ctypes.data) + s * stride
    places, first = np.int64(order.ctypes.data) + 4 * begin, base + begin * stride
    while count and stride - column >= VECTOR_BYTES:
        left = (stride - column) // VECTOR_BYTES
        if left >= 4:
            if len(order):
                _sum_listed_4(values, base + column, stride, places, count, to + column)
            else:
                _sum_following_4(values, first + column, stride, places, count, to + column)
            column += 4 * VECTOR_BYTES
        elif left >= 2:
            if len(order):
                _sum_listed_2(values, base + column, stride, places, count, to + column)
            else:
                _sum_following_2(values, first + column, stride, places, count, to + column)
            column += 2 * VECTOR_BYTES
        else:
            if len(order):
                _sum_listed_1(values, base + column, stride, places, count, to + column)
            else:
                _sum_following_1(values, first + column, stride, places, count, to + column)
            column += VECTOR_BYTES
    for c in range(column // size, channels):
        out[s, c] = 0
        for k in range(begin, end):
            out[s, c] += values[order[k] if len(order) else k, c]


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
    channels, size = values.shape[1], np.int64(values.itemsize)
    stride, lanes = channels * size, VECTOR_BYTES // size
    base = np.int64(values.ctypes.data)
    for s in numba.prange(len(offsets) - 1):
        begin, end = offsets[s], offsets[s + 1]
        if len(order) and values.nbytes > NEAR:
            _fetch(values, order, begin, end)
        to, rows = np.int64(out.ctypes.data) + s * stride, np.int64(argmax.ctypes.data) + s * channels * 8
        places, first, count = np.int64(order.ctypes.data) + 4 * begin, base + begin * stride, end - begin
        column = np.int64(0)  # of numbers
        while count and channels - column >= lanes:
            at = column * size
            if channels - column >= 2 * lanes:
                if len(order):
                    _largest_listed_2(
                        values, base + at, stride, places, begin, count, to + at, rows + 8 * column
                    )
                else:
                    _largest_following_2(
                        values, first + at, stride, places, begin, count, to + at, rows + 8 * column
                    )
                column += 2 * lanes
            else:
                if len(order):
                    _largest_listed_1(
                        values, base + at, stride, places, begin, count, to + at, rows + 8 * column
                    )
                else:
                    _largest_following_1(
                        values, first + at, stride, places, begin, count, to + at, rows + 8 * column
                    )
                column += lanes
        for c in range(column, channels):
            out[s, c] = 0
            argmax[s, c] = -1
            for k in range(begin, end):
                row = np.int64(order[k] if len(order) else k)
                value, best = values[row, c], out[s, c]
                # Rows come in rising order, so a tie stays with the lowest row. NaN is larger than any number
                # (`value <= best` is false) and stays (`best == best` is false).
                if argmax[s, c] < 0 or (not value <= best) & (best == best):
                    out[s, c], argmax[s, c] = value, row


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
