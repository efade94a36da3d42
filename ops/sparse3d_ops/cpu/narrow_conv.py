"""Numba bodies of sparse convolution in narrow groups, depthwise convolution among them (groups of one).

Groups are as wide in the inputs as in the outputs, `width` = 1, 2, 4 or 8 channels, and at most a vector. A
vector of outputs then needs one vector of each neighbour, whose lanes change places within their groups: sums
stay in registers, and every row is read once for each tap. Results do not depend on the number of threads.
"""

import numba
import numpy as np

from sparse3d_ops.cpu.microkernel import VECTOR_BYTES, bits_set, highest_bit, lowest_bit, prefetch
from sparse3d_ops.cpu.pair_lists import MOST_TAPS, SPARE, list_runs, present, take
from sparse3d_ops.cpu.row_kernels import add_products, sum_of_neighbours

WIDTHS = (1, 2, 4, 8)
TILE = 128  # outputs that a thread takes at once
AHEAD = 8  # outputs whose newest neighbour is fetched before it is needed
RUN = 128  # outputs of a slice that follow each other
RUNS = 4  # whose pairs are listed at once

_sum_1_1, _sum_1_2, _sum_1_4 = (sum_of_neighbours[1, n] for n in (1, 2, 4))
_sum_2_1, _sum_2_2, _sum_2_4 = (sum_of_neighbours[2, n] for n in (1, 2, 4))
_sum_4_1, _sum_4_2, _sum_4_4 = (sum_of_neighbours[4, n] for n in (1, 2, 4))
_sum_8_1, _sum_8_2 = (sum_of_neighbours[8, n] for n in (1, 2))
_add_1_1, _add_1_4 = (add_products[1, n] for n in (1, 4))
_add_2_1, _add_2_4 = (add_products[2, n] for n in (1, 4))
_add_4_1, _add_4_4 = (add_products[4, n] for n in (1, 4))
_add_8_1, _add_8_2 = (add_products[8, n] for n in (1, 2))


@numba.njit(inline="always")
def _sum_columns(x, x_base, stride, table, bits, taps, weight, width, blocks, more, out):
    """`blocks` (1, 2 or 4) vectors of an output row at `out`: see `sum_of_neighbours`."""
    tap_stride = width * stride
    if width == 1:
        if blocks == 4:
            _sum_1_4(x, x_base, stride, table, bits, taps, weight, tap_stride, more, out)
        elif blocks == 2:
            _sum_1_2(x, x_base, stride, table, bits, taps, weight, tap_stride, more, out)
        else:
            _sum_1_1(x, x_base, stride, table, bits, taps, weight, tap_stride, more, out)
    elif width == 2:
        if blocks == 4:
            _sum_2_4(x, x_base, stride, table, bits, taps, weight, tap_stride, more, out)
        elif blocks == 2:
            _sum_2_2(x, x_base, stride, table, bits, taps, weight, tap_stride, more, out)
        else:
            _sum_2_1(x, x_base, stride, table, bits, taps, weight, tap_stride, more, out)
    elif width == 4:
        if blocks == 4:
            _sum_4_4(x, x_base, stride, table, bits, taps, weight, tap_stride, more, out)
        elif blocks == 2:
            _sum_4_2(x, x_base, stride, table, bits, taps, weight, tap_stride, more, out)
        else:
            _sum_4_1(x, x_base, stride, table, bits, taps, weight, tap_stride, more, out)
    elif blocks == 2:
        _sum_8_2(x, x_base, stride, table, bits, taps, weight, tap_stride, more, out)
    else:
        _sum_8_1(x, x_base, stride, table, bits, taps, weight, tap_stride, more, out)


@numba.njit(inline="always")
def _sum_few(x, weight, table, bits, begin, end, out):
    """Rows of `out` that do not fill a vector; bits (words, outputs) as in `convolve`."""
    width = weight.shape[1]
    for o in range(begin, end):
        for c in range(x.shape[1]):
            out[o, c] = 0
            for word in range(len(bits)):
                left = bits[word, o - begin]
                while left:
                    tap = word * MOST_TAPS + lowest_bit(left)  # pyright: ignore[reportCallIssue]
                    left &= left - 1
                    for i in range(width):
                        out[o, c] += x[table[o, tap], c // width * width + i] * weight[tap, i, c]


@numba.njit(parallel=True, cache=True, nogil=True, fastmath={"contract"})
def convolve(x, weight, table, threads, out):
    """out[:, c] = sum over taps v and i < width of x[table[:, v], c // width * width + i] * weight[v, i, c].

    x (N_in, C), weight (V, width, C). Returns whether all entries of the table were rows of x or -1.
    """
    outputs, volume = table.shape
    channels, width, size = x.shape[1], weight.shape[1], np.int64(x.itemsize)
    x_base, out_base, weight_base, table_base = (
        np.int64(x.ctypes.data),
        np.int64(out.ctypes.data),
        np.int64(weight.ctypes.data),
        np.int64(table.ctypes.data),
    )
    stride = channels * size
    tiles, taken = (outputs + TILE - 1) // TILE, np.zeros(1, np.int64)
    words = (volume + MOST_TAPS - 1) // MOST_TAPS
    wrong = np.zeros(1, np.int64)
    for _ in numba.prange(threads):
        bits = np.zeros((words, TILE + AHEAD), np.int64)
        tile = take(taken)
        while tile < tiles:
            begin, end = tile * TILE, min(outputs, (tile + 1) * TILE)
            for word in range(words):
                tap = word * MOST_TAPS
                last = min(volume, tap + MOST_TAPS)
                for o in range(begin, end):
                    found = present(table, o, tap, last, len(x))
                    if found < 0:
                        wrong[0] = 1
                    bits[word, o - begin] = max(found, 0)
            bits[:, end - begin :] = 0
            column = np.int64(0)  # in bytes
            while stride - column > 0 and stride >= VECTOR_BYTES:
                vectors = max((stride - column) // VECTOR_BYTES, 1)
                blocks = min(4 if vectors >= 4 else 2 if vectors >= 2 else 1, 16 // width)
                ahead = 0 if column else AHEAD
                column = min(column, stride - VECTOR_BYTES)  # the last vector may overlap the one before
                for word in range(words):
                    tap = word * MOST_TAPS
                    panel = weight_base + tap * width * stride + column
                    for o in range(begin, end):
                        left, later = bits[word, o - begin], bits[word, o - begin + ahead]
                        if ahead and later:
                            # Where rows are sorted, the row of the highest tap is the one that no output
                            # before has asked for.
                            tap_ahead = tap + highest_bit(later)  # pyright: ignore[reportCallIssue]
                            newest = table[o + AHEAD, tap_ahead]
                            for line in range(0, stride, 64):
                                prefetch(x_base + newest * stride + line)  # pyright: ignore[reportCallIssue]
                        rows, place = table_base + 4 * (o * volume + tap), out_base + o * stride + column
                        if left:
                            _sum_columns(
                                x,
                                x_base + column,
                                stride,
                                rows,
                                left,
                                bits_set(left),  # pyright: ignore[reportCallIssue]
                                panel,
                                width,
                                blocks,
                                word,
                                place,
                            )
                        elif word == 0:
                            for c in range(column // size, (column + blocks * VECTOR_BYTES) // size):
                                out[o, c] = 0
                column += blocks * VECTOR_BYTES
            if stride < VECTOR_BYTES:
                _sum_few(x, weight, table, bits, begin, end, out)
            tile = take(taken)
    return wrong[0] == 0


@numba.njit(inline="always")
def _add_columns(x, x_list, grad_list, columns, width, pairs, out, stride):
    """The first `columns` bytes, whole vectors, of `width` rows at `out`, `stride` apart."""
    offset, large = np.int64(0), (2 if width == 8 else 4) * VECTOR_BYTES
    while columns - offset >= large:
        if width == 1:
            _add_1_4(x, x_list, grad_list, offset, pairs, out, stride)
        elif width == 2:
            _add_2_4(x, x_list, grad_list, offset, pairs, out, stride)
        elif width == 4:
            _add_4_4(x, x_list, grad_list, offset, pairs, out, stride)
        else:
            _add_8_2(x, x_list, grad_list, offset, pairs, out, stride)
        offset += large
    while offset < columns:
        if width == 1:
            _add_1_1(x, x_list, grad_list, offset, pairs, out, stride)
        elif width == 2:
            _add_2_1(x, x_list, grad_list, offset, pairs, out, stride)
        elif width == 4:
            _add_4_1(x, x_list, grad_list, offset, pairs, out, stride)
        else:
            _add_8_1(x, x_list, grad_list, offset, pairs, out, stride)
        offset += VECTOR_BYTES


@numba.njit(parallel=True, cache=True, nogil=True, fastmath={"contract"})
def weight_gradient(x, grad, table, partial):
    """Weight gradient of `convolve`; partial (slices, V, width, C) and the result as in `sparse_conv`."""
    outputs, volume = table.shape
    slices, width, channels, size = len(partial), partial.shape[2], x.shape[1], np.int64(x.itemsize)
    stride, whole = channels * size, channels * size // VECTOR_BYTES * VECTOR_BYTES
    runs = (outputs + RUN - 1) // RUN
    partial_base, grad_base = np.int64(partial.ctypes.data), np.int64(grad.ctypes.data)
    wrong = np.zeros(1, np.int64)
    for s in numba.prange(slices):
        partial[s] = 0
        x_lists = np.empty((volume, RUN * RUNS + SPARE), np.int64)
        grad_lists = np.empty((volume, RUN * RUNS + SPARE), np.int64)
        counts = np.empty(volume, np.int64)
        for listed in range(s, runs, slices * RUNS):
            last = min(listed + slices * RUNS, runs)
            if not list_runs(
                table, listed, last, slices, RUN, x, stride, grad_base, stride, x_lists, grad_lists, counts
            ):
                wrong[0] = 1
            for tap in range(volume):
                if counts[tap] == 0:
                    continue
                x_list, grad_list = (
                    np.int64(x_lists[tap].ctypes.data),
                    np.int64(grad_lists[tap].ctypes.data),
                )
                base = partial_base + (s * volume + tap) * width * stride
                _add_columns(x, x_list, grad_list, whole, width, counts[tap], base, stride)
                for n in range(counts[tap] if whole < stride else 0):
                    row = (x_lists[tap, n] - np.int64(x.ctypes.data)) // stride
                    o = (grad_lists[tap, n] - grad_base) // stride
                    for c in range(whole // size, channels):
                        for i in range(width):
                            partial[s, tap, i, c] += x[row, c // width * width + i] * grad[o, c]
    return wrong[0] == 0
