"""Numba bodies of sparse convolution over dense neighbour tables.

Output rows are taken in tiles of TILE; for each tap the pairs (input row, output row) of a tile are listed,
and the micro-kernel adds input rows times the tap's weights into output rows that stay in cache. Each output
row belongs to one thread and sums its taps in ascending order: results do not depend on the number of
threads, nor on which of them takes a tile.

Columns come in whole vectors: the caller pads weights and outputs, and widens narrow groups with zeros.
Groups of few channels, which have few multiply-adds for each number that is read, have bodies of their own
(`narrow_conv.py`).
"""

import numba
import numpy as np

from sparse3d_ops.cpu.microkernel import (
    MOST_BLOCKS,
    OUTER_ROWS,
    ROWS,
    VECTOR_BYTES,
    accumulate_half_1,
    accumulate_half_2,
    accumulate_half_3,
    accumulate_half_4,
    accumulate_outer_1,
    accumulate_outer_2,
    accumulate_outer_4,
    accumulate_outer_row,
    accumulate_rows_1,
    accumulate_rows_2,
    accumulate_rows_3,
    accumulate_rows_4,
)
from sparse3d_ops.cpu.pair_lists import SPARE, fetch, list_pairs, list_runs, take

TILE = 256
RUN = 128  # outputs of a slice that follow each other
RUNS = 8  # whose pairs are listed at once
CHUNK = 64  # pairs of a tap whose rows stay in the first-level cache while each is read many times
MOST_ROWS = max(ROWS)  # address lists are padded to whole register tiles with a row that is thrown away
assert MOST_ROWS <= SPARE


@numba.njit(inline="always")
def _add_tap(x, x_list, x_offset, out_list, count, offset, end, panel, stride, depth):
    """Add `count` listed rows times one tap's weights to columns of the listed outputs, which are bytes
    `offset` .. `end` of a row; `panel` is the address of the tap's first row of weights, rows `stride`
    apart."""
    while offset < end:
        left, p = (end - offset) // VECTOR_BYTES, np.int64(0)
        if left >= 4 and MOST_BLOCKS >= 4:
            while count - p > (ROWS[4] + 1) // 2:
                x_row, out_row = x_list + 8 * p, out_list + 8 * p
                accumulate_rows_4(x, x_row, x_offset, out_row, offset, panel + offset, stride, depth)
                p += ROWS[4]
            if p < count:
                x_row, out_row = x_list + 8 * p, out_list + 8 * p
                accumulate_half_4(x, x_row, x_offset, out_row, offset, panel + offset, stride, depth)
            offset += 4 * VECTOR_BYTES
        elif left == 3 and MOST_BLOCKS >= 3:
            while count - p > (ROWS[3] + 1) // 2:
                x_row, out_row = x_list + 8 * p, out_list + 8 * p
                accumulate_rows_3(x, x_row, x_offset, out_row, offset, panel + offset, stride, depth)
                p += ROWS[3]
            if p < count:
                x_row, out_row = x_list + 8 * p, out_list + 8 * p
                accumulate_half_3(x, x_row, x_offset, out_row, offset, panel + offset, stride, depth)
            offset += 3 * VECTOR_BYTES
        elif left >= 2:
            while count - p > (ROWS[2] + 1) // 2:
                x_row, out_row = x_list + 8 * p, out_list + 8 * p
                accumulate_rows_2(x, x_row, x_offset, out_row, offset, panel + offset, stride, depth)
                p += ROWS[2]
            if p < count:
                x_row, out_row = x_list + 8 * p, out_list + 8 * p
                accumulate_half_2(x, x_row, x_offset, out_row, offset, panel + offset, stride, depth)
            offset += 2 * VECTOR_BYTES
        else:
            while count - p > (ROWS[1] + 1) // 2:
                x_row, out_row = x_list + 8 * p, out_list + 8 * p
                accumulate_rows_1(x, x_row, x_offset, out_row, offset, panel + offset, stride, depth)
                p += ROWS[1]
            if p < count:
                x_row, out_row = x_list + 8 * p, out_list + 8 * p
                accumulate_half_1(x, x_row, x_offset, out_row, offset, panel + offset, stride, depth)
            offset += VECTOR_BYTES


@numba.njit(cache=True, nogil=True)
def _convolve_tile(x, weight, table, groups, begin, end, x_lists, out_lists, counts, waste, out):
    """Outputs `begin` .. `end` of `convolve`, in a function of its own so that LLVM shares out the registers
    among what is here alone. x_lists, out_lists and counts are scratch, `waste` a row for what register
    tiles are filled up with. Returns whether all entries were rows of x or -1."""
    volume, depth, width, size = table.shape[1], weight.shape[1], weight.shape[2], np.int64(x.itemsize)
    x_stride, stride, span = x.shape[1] * size, width * size, width // groups * size
    for o in range(begin, end):
        for c in range(width):
            out[o, c] = 0
    counts[:] = 0
    out_base = np.int64(out.ctypes.data)
    if not list_pairs(table, begin, end, x, x_stride, x_stride, out_base, stride, x_lists, out_lists, counts):
        return False
    for tap in range(volume):
        count, x_rows, out_rows = counts[tap], x_lists[tap], out_lists[tap]
        if count == 0:
            continue
        for r in range(count, count + MOST_ROWS):
            x_rows[r] = x_rows[0]
            out_rows[r] = waste.ctypes.data
        x_list, out_list = np.int64(x_rows.ctypes.data), np.int64(out_rows.ctypes.data)
        panel = np.int64(weight.ctypes.data) + tap * depth * stride
        for g in range(groups):
            x_offset, first = g * depth * size, g * span
            _add_tap(x, x_list, x_offset, out_list, count, first, first + span, panel, stride, depth)
    return True


@numba.njit(parallel=True, cache=True, nogil=True)
def convolve(x, weight, table, groups, threads, out):
    """out (N_out, Cout) = sum over taps of x[table[:, tap]] @ weight[tap], group by group; x (N_in, Cin),
    weight (V, Cin / groups, Cout). Returns whether all entries of the table were rows of x or -1."""
    outputs, volume = table.shape
    tiles, taken = (outputs + TILE - 1) // TILE, np.zeros(1, np.int64)
    wrong = np.zeros(1, np.int64)
    for _ in numba.prange(threads):
        x_lists = np.empty((volume, TILE + SPARE), np.int64)
        out_lists = np.empty((volume, TILE + SPARE), np.int64)
        counts, waste = np.empty(volume, np.int64), np.zeros(weight.shape[2], x.dtype)
        tile = take(taken)
        while tile < tiles:
            begin = tile * TILE
            end = min(outputs, begin + TILE)
            if not _convolve_tile(
                x, weight, table, groups, begin, end, x_lists, out_lists, counts, waste, out
            ):
                wrong[0] = 1
            tile = take(taken)
    return wrong[0] == 0


@numba.njit(inline="always")
def _add_outer(x, x_list, x_offset, grad_list, count, column, end, base, stride, depth):
    """Add the outer products of `count` listed pairs to columns `column` .. `end` (bytes) of one tap's weight
    gradient at `base`, rows `stride` apart."""
    size = np.int64(x.itemsize)
    while column < end:
        left = (end - column) // VECTOR_BYTES
        blocks = 4 if left >= 4 and MOST_BLOCKS >= 4 else 2 if left >= 2 else 1
        c = np.int64(0)
        if blocks == 4:
            while depth - c >= 4:
                place = base + c * stride + column
                accumulate_outer_4(x, x_list, grad_list, x_offset + c * size, column, count, place, stride)
                c += 4
        elif blocks == 2:
            while depth - c >= OUTER_ROWS:
                place = base + c * stride + column
                accumulate_outer_2(x, x_list, grad_list, x_offset + c * size, column, count, place, stride)
                c += OUTER_ROWS
        else:
            while depth - c >= 8:
                place = base + c * stride + column
                accumulate_outer_1(x, x_list, grad_list, x_offset + c * size, column, count, place, stride)
                c += 8
        while c < depth:
            for block in range(blocks):
                at = column + block * VECTOR_BYTES
                place = base + c * stride + at
                accumulate_outer_row(x, x_list, grad_list, x_offset + c * size, at, count, place, stride)
            c += 1
        column += blocks * VECTOR_BYTES


@numba.njit(parallel=True, cache=True, nogil=True)
def weight_gradient(x, grad, table, groups, partial):
    """partial[s, tap] = sum of outer(x[table[o, tap]], grad[o]) over the outputs of slice s, group by group;
    grad (N_out, Cout), partial (slices, V, Cin / groups, Cout). Returns what `convolve` does.

    The number of slices is the caller's and does not depend on threads; the caller adds slices in order.
    Slices take runs of outputs in turns, so that each has its share of crowded and of empty places.
    """
    outputs, volume = table.shape
    slices, depth, width, size = partial.shape[0], partial.shape[2], partial.shape[3], np.int64(x.itemsize)
    grad_base, partial_base = np.int64(grad.ctypes.data), np.int64(partial.ctypes.data)
    x_stride, stride, span = x.shape[1] * size, width * size, width // groups * size
    runs = (outputs + RUN - 1) // RUN
    wrong = np.zeros(1, np.int64)
    for s in numba.prange(slices):
        partial[s] = 0
        x_lists = np.empty((volume, RUN * RUNS + SPARE), np.int64)
        grad_lists = np.empty((volume, RUN * RUNS + SPARE), np.int64)
        counts = np.empty(volume, np.int64)
        for listed in range(s, runs, slices * RUNS):
            last = min(listed + slices * RUNS, runs)
            if not list_runs(
                table, listed, last, slices, RUN, x, x_stride, grad_base, stride, x_lists, grad_lists, counts
            ):
                wrong[0] = 1
            for tap in range(volume):
                base = partial_base + (s * volume + tap) * depth * stride
                for first in range(0, counts[tap], CHUNK):
                    count = min(CHUNK, counts[tap] - first)
                    fetch(x_lists[tap], first, first + count, x_stride)
                    x_list = np.int64(x_lists[tap].ctypes.data) + 8 * first
                    grad_list = np.int64(grad_lists[tap].ctypes.data) + 8 * first
                    for g in range(groups):
                        x_offset, at = g * depth * size, g * span
                        _add_outer(x, x_list, x_offset, grad_list, count, at, at + span, base, stride, depth)
    return wrong[0] == 0


@numba.njit(parallel=True, cache=True, nogil=True)
def add_slices(partial, out):
    """out (rows, C) = sum of partial (slices, rows, at least C) over its slices, first to last."""
    for r in numba.prange(len(out)):
        for c in range(out.shape[1]):
            out[r, c] = partial[0, r, c]
        for s in range(1, len(partial)):
            for c in range(out.shape[1]):
                out[r, c] += partial[s, r, c]
