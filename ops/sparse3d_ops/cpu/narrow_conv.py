"""Numba bodies of sparse convolution in narrow groups, depthwise convolution among them (groups of one).

Groups are as wide in the inputs as in the outputs, `width` = 1, 2, 4 or 8 channels, and at most a vector. A
vector of outputs then needs one vector of each neighbour, whose lanes change places within their groups: sums
stay in registers, and every row is read once for each tap. Results do not depend on the number of threads.
"""

import numba
import numpy as np

from sparse3d_ops.cpu.microkernel import VECTOR_BYTES
from sparse3d_ops.cpu.pair_lists import SPARE, list_runs, list_taps, take
from sparse3d_ops.cpu.row_kernels import add_products, sum_of_products

WIDTHS = (1, 2, 4, 8)
TILE = 128  # outputs that a thread takes at once
RUN = 128  # outputs of a slice that follow each other
RUNS = 4  # whose pairs are listed at once

_sum_1_1, _sum_1_4 = (sum_of_products[1, n] for n in (1, 4))
_sum_2_1, _sum_2_4 = (sum_of_products[2, n] for n in (1, 4))
_sum_4_1, _sum_4_4 = (sum_of_products[4, n] for n in (1, 4))
_sum_8_1, _sum_8_4 = (sum_of_products[8, n] for n in (1, 4))
_add_1_1, _add_1_4 = (add_products[1, n] for n in (1, 4))
_add_2_1, _add_2_4 = (add_products[2, n] for n in (1, 4))
_add_4_1, _add_4_4 = (add_products[4, n] for n in (1, 4))
_add_8_1, _add_8_2 = (add_products[8, n] for n in (1, 2))


@numba.njit(inline="always")
def _sum_columns(x, x_list, weight_list, columns, weight_stride, width, pairs, out):
    """The first `columns` bytes, whole vectors, of an output row at `out`."""
    offset = np.int64(0)
    while columns - offset >= 4 * VECTOR_BYTES:
        if width == 1:
            _sum_1_4(x, x_list, weight_list, offset, weight_stride, pairs, out)
        elif width == 2:
            _sum_2_4(x, x_list, weight_list, offset, weight_stride, pairs, out)
        elif width == 4:
            _sum_4_4(x, x_list, weight_list, offset, weight_stride, pairs, out)
        else:
            _sum_8_4(x, x_list, weight_list, offset, weight_stride, pairs, out)
        offset += 4 * VECTOR_BYTES
    while offset < columns:
        if width == 1:
            _sum_1_1(x, x_list, weight_list, offset, weight_stride, pairs, out)
        elif width == 2:
            _sum_2_1(x, x_list, weight_list, offset, weight_stride, pairs, out)
        elif width == 4:
            _sum_4_1(x, x_list, weight_list, offset, weight_stride, pairs, out)
        else:
            _sum_8_1(x, x_list, weight_list, offset, weight_stride, pairs, out)
        offset += VECTOR_BYTES


@numba.njit(parallel=True, cache=True, nogil=True, fastmath={"contract"})
def convolve(x, weight, table, threads, out):
    """out[:, c] = sum over taps v and i < width of x[table[:, v], c // width * width + i] * weight[v, i, c].

    x (N_in, C), weight (V, width, C). Returns whether all entries of the table were rows of x or -1.
    """
    outputs, volume = table.shape
    channels, width, size = x.shape[1], weight.shape[1], np.int64(x.itemsize)
    x_base, out_base, weight_base = (
        np.int64(x.ctypes.data),
        np.int64(out.ctypes.data),
        np.int64(weight.ctypes.data),
    )
    stride = channels * size
    whole = stride // VECTOR_BYTES * VECTOR_BYTES  # bytes of a row that fill vectors
    tiles, taken = (outputs + TILE - 1) // TILE, np.zeros(1, np.int64)
    wrong = np.zeros(1, np.int64)
    for _ in numba.prange(threads):
        taps = np.empty(volume + 1, np.int64)
        x_rows, weight_rows = np.empty(volume, np.int64), np.empty(volume, np.int64)
        x_list, weight_list = np.int64(x_rows.ctypes.data), np.int64(weight_rows.ctypes.data)
        tile = take(taken)
        while tile < tiles:
            for o in range(tile * TILE, min(outputs, (tile + 1) * TILE)):
                count = list_taps(table, o, len(x), taps)
                if count < 0:
                    wrong[0] = 1
                for n in range(count):
                    x_rows[n] = x_base + np.int64(table[o, taps[n]]) * stride
                    weight_rows[n] = weight_base + taps[n] * width * stride
                if count > 0:
                    place = out_base + o * stride
                    _sum_columns(x, x_list, weight_list, whole, stride, width, count, place)
                for c in range(whole // size if count > 0 else 0, channels):
                    out[o, c] = 0
                    for n in range(count):
                        row, first = table[o, taps[n]], c // width * width
                        for i in range(width):
                            out[o, c] += x[row, first + i] * weight[taps[n], i, c]
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
