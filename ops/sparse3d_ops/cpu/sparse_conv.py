"""Numba bodies of sparse convolution over dense neighbour tables.

Output rows are taken in tiles of TILE; for each tap the pairs (input row, output row) of a tile are listed,
and the micro-kernel adds input rows times the tap's weights into output rows that stay in cache. Each output
row belongs to one thread and sums its taps in ascending order: results do not depend on the number of
threads.

Columns come in whole vectors: the caller pads weights and outputs, and widens narrow groups with zeros.
Depthwise convolution, which has one multiply-add for each number that it reads, has bodies of its own.
"""

import numba
import numpy as np

from sparse3d_ops.cpu.microkernel import (
    MOST_BLOCKS,
    OUTER_ROWS,
    ROWS,
    VECTOR_BYTES,
    accumulate_outer_1,
    accumulate_outer_2,
    accumulate_outer_4,
    accumulate_outer_row,
    accumulate_rows_1,
    accumulate_rows_2,
    accumulate_rows_3,
    accumulate_rows_4,
    lowest_bit,
    not_negative,
    prefetch,
    sum_of_products_1,
    sum_of_products_4,
)

TILE = 256
MOST_TAPS = 62  # bits of a word that can be shifted without a thought for its sign
MOST_ROWS = max(ROWS)  # address lists are padded to whole register tiles with a row that is thrown away


@numba.njit(inline="always")
def _present(table, output):
    """Bit t of the result tells whether an output has a neighbour at tap t; 16 to MOST_TAPS taps."""
    volume, row = table.shape[1], np.int64(table.ctypes.data) + 4 * output * table.shape[1]
    bits = np.int64(0)
    for begin in range(0, volume, 16):
        tap = min(begin, volume - 16)  # the last sixteen may overlap those before
        bits |= not_negative(row + 4 * tap) << tap  # pyright: ignore[reportCallIssue]
    return bits


@numba.njit(inline="always")
def _list_pairs(table, begin, end, x_base, x_stride, out_base, out_stride, x_rows, out_rows, counts):
    """Row addresses of the pairs of each tap within a tile of outputs, and their numbers; x_rows and out_rows
    (V, TILE + MOST_ROWS) and counts (V,) are outputs.

    Few of the taps of an output have a neighbour. Where a word holds a bit for each tap, only those are
    walked; without branches else, one tap after the other.
    """
    volume = table.shape[1]
    counts[:] = 0
    if 16 <= volume <= MOST_TAPS:
        for o in range(begin, end):
            bits, out_row = _present(table, o), out_base + np.int64(o) * out_stride
            while bits:
                tap = lowest_bit(bits)  # pyright: ignore[reportCallIssue]
                bits &= bits - 1
                count = counts[tap]
                x_rows[tap, count] = x_base + np.int64(table[o, tap]) * x_stride
                out_rows[tap, count] = out_row
                counts[tap] = count + 1
        return
    for tap in range(volume):
        count = 0
        for o in range(begin, end):
            row = table[o, tap]
            x_rows[tap, count] = x_base + np.int64(row) * x_stride
            out_rows[tap, count] = out_base + np.int64(o) * out_stride
            count += 1 if row >= 0 else 0
        counts[tap] = count


@numba.njit(inline="always")
def _fetch(rows, count, stride):
    """Ask for the listed rows, `stride` bytes each."""
    for p in range(count):
        for line in range(0, stride, 64):
            prefetch(rows[p] + line)  # pyright: ignore[reportCallIssue]


@numba.njit(inline="always")
def _add_tap(x, x_list, x_offset, out_list, count, offset, end, panel, stride, depth):
    """Add `count` listed rows times one tap's weights to columns of the listed outputs, which are bytes
    `offset` .. `end` of a row; `panel` is the address of the tap's first row of weights, rows `stride`
    apart."""
    while offset < end:
        left = (end - offset) // VECTOR_BYTES
        if left >= 4 and MOST_BLOCKS >= 4:
            for p in range(0, count, ROWS[4]):
                here = 8 * p
                accumulate_rows_4(
                    x, x_list + here, x_offset, out_list + here, offset, panel + offset, stride, depth
                )
            offset += 4 * VECTOR_BYTES
        elif left == 3 and MOST_BLOCKS >= 3:
            for p in range(0, count, ROWS[3]):
                here = 8 * p
                accumulate_rows_3(
                    x, x_list + here, x_offset, out_list + here, offset, panel + offset, stride, depth
                )
            offset += 3 * VECTOR_BYTES
        elif left >= 2:
            for p in range(0, count, ROWS[2]):
                here = 8 * p
                accumulate_rows_2(
                    x, x_list + here, x_offset, out_list + here, offset, panel + offset, stride, depth
                )
            offset += 2 * VECTOR_BYTES
        else:
            for p in range(0, count, ROWS[1]):
                here = 8 * p
                accumulate_rows_1(
                    x, x_list + here, x_offset, out_list + here, offset, panel + offset, stride, depth
                )
            offset += VECTOR_BYTES


@numba.njit(parallel=True, cache=True, nogil=True)
def convolve(x, weight, table, groups, out):
    """out (N_out, Cout) = sum over taps of x[table[:, tap]] @ weight[tap], group by group; x (N_in, Cin),
    weight (V, Cin / groups, Cout)."""
    outputs, volume = table.shape
    depth, width = weight.shape[1], weight.shape[2]
    size = np.int64(x.itemsize)
    x_base, out_base, weight_base = (
        np.int64(x.ctypes.data),
        np.int64(out.ctypes.data),
        np.int64(weight.ctypes.data),
    )
    x_stride, stride, span = x.shape[1] * size, width * size, width // groups * size
    for tile in numba.prange((outputs + TILE - 1) // TILE):
        begin = tile * TILE
        end = min(outputs, begin + TILE)
        for o in range(begin, end):
            for c in range(width):
                out[o, c] = 0
        x_lists = np.empty((volume, TILE + MOST_ROWS), np.int64)
        out_lists = np.empty((volume, TILE + MOST_ROWS), np.int64)
        counts = np.empty(volume, np.int64)
        waste = np.zeros(width, x.dtype)
        _list_pairs(table, begin, end, x_base, x_stride, out_base, stride, x_lists, out_lists, counts)
        _fetch(x_lists[0], counts[0], x_stride)
        for tap in range(volume):
            # While one tap is computed, the rows of the next are on their way into the cache.
            if tap + 1 < volume:
                _fetch(x_lists[tap + 1], counts[tap + 1], x_stride)
            count, x_rows, out_rows = counts[tap], x_lists[tap], out_lists[tap]
            if count == 0:
                continue
            for r in range(count, count + MOST_ROWS):
                x_rows[r] = x_rows[0]
                out_rows[r] = waste.ctypes.data
            x_list, out_list = np.int64(x_rows.ctypes.data), np.int64(out_rows.ctypes.data)
            panel = weight_base + tap * depth * stride
            for g in range(groups):
                x_offset, first = g * depth * size, g * span
                _add_tap(x, x_list, x_offset, out_list, count, first, first + span, panel, stride, depth)


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
    grad (N_out, Cout), partial (slices, V, Cin / groups, Cout).

    The number of slices is the caller's and does not depend on threads; the caller adds slices in order.
    """
    outputs, volume = table.shape
    slices, depth, width = partial.shape[0], partial.shape[2], partial.shape[3]
    size = np.int64(x.itemsize)
    x_base, grad_base, partial_base = (
        np.int64(x.ctypes.data),
        np.int64(grad.ctypes.data),
        np.int64(partial.ctypes.data),
    )
    x_stride, stride, span = x.shape[1] * size, width * size, width // groups * size
    tiles = (outputs + TILE - 1) // TILE
    for s in numba.prange(slices):
        partial[s] = 0
        x_lists = np.empty((volume, TILE + MOST_ROWS), np.int64)
        grad_lists = np.empty((volume, TILE + MOST_ROWS), np.int64)
        counts = np.empty(volume, np.int64)
        for tile in range(tiles * s // slices, tiles * (s + 1) // slices):
            begin = tile * TILE
            end = min(outputs, begin + TILE)
            _list_pairs(table, begin, end, x_base, x_stride, grad_base, stride, x_lists, grad_lists, counts)
            for tap in range(volume):
                count = counts[tap]
                _fetch(x_lists[tap], count, x_stride)
                if count == 0:
                    continue
                x_list = np.int64(x_lists[tap].ctypes.data)
                grad_list = np.int64(grad_lists[tap].ctypes.data)
                base = partial_base + (s * volume + tap) * depth * stride
                for g in range(groups):
                    x_offset, first = g * depth * size, g * span
                    _add_outer(
                        x, x_list, x_offset, grad_list, count, first, first + span, base, stride, depth
                    )


@numba.njit(inline="always")
def _list_taps(table, output, taps):
    """The taps at which an output has a neighbour; returns their number. As `_list_pairs` does it."""
    volume, count = table.shape[1], 0
    if 16 <= volume <= MOST_TAPS:
        bits = _present(table, output)
        while bits:
            taps[count] = lowest_bit(bits)  # pyright: ignore[reportCallIssue]
            bits &= bits - 1
            count += 1
        return count
    for tap in range(volume):
        taps[count] = tap
        count += 1 if table[output, tap] >= 0 else 0
    return count


@numba.njit(parallel=True, cache=True, nogil=True, fastmath={"contract"})
def convolve_depthwise(x, weight, table, out):
    """out[:, c] = sum over taps of x[table[:, tap], c] * weight[tap, c]; x (N_in, C), weight (V, C)."""
    outputs, volume = table.shape
    channels, size = x.shape[1], np.int64(x.itemsize)
    x_base, out_base, weight_base = (
        np.int64(x.ctypes.data),
        np.int64(out.ctypes.data),
        np.int64(weight.ctypes.data),
    )
    stride = channels * size
    whole = stride // VECTOR_BYTES * VECTOR_BYTES  # bytes of a row that fill vectors
    for tile in numba.prange((outputs + TILE - 1) // TILE):
        taps = np.empty(volume + 1, np.int64)
        x_rows, weight_rows = np.empty(volume, np.int64), np.empty(volume, np.int64)
        x_list, weight_list = np.int64(x_rows.ctypes.data), np.int64(weight_rows.ctypes.data)
        for o in range(tile * TILE, min(outputs, (tile + 1) * TILE)):
            count = _list_taps(table, o, taps)
            for n in range(count):
                x_rows[n] = x_base + np.int64(table[o, taps[n]]) * stride
                weight_rows[n] = weight_base + taps[n] * stride
            place, offset = out_base + o * stride, np.int64(0)
            while count and offset < whole:
                if whole - offset >= 4 * VECTOR_BYTES:
                    sum_of_products_4(x, x_list, weight_list, offset, count, place)
                    offset += 4 * VECTOR_BYTES
                else:
                    sum_of_products_1(x, x_list, weight_list, offset, count, place)
                    offset += VECTOR_BYTES
            rest = offset // size  # the columns from here on fill no vector
            for c in range(rest, channels):
                out[o, c] = 0
            for n in range(count if rest < channels else 0):
                row, tap = table[o, taps[n]], taps[n]
                for c in range(rest, channels):
                    out[o, c] += x[row, c] * weight[tap, c]


@numba.njit(parallel=True, cache=True, nogil=True, fastmath={"contract"})
def weight_gradient_depthwise(x, grad, table, partial):
    """Weight gradient of `convolve_depthwise`; partial (slices, V, C) as in `weight_gradient`."""
    outputs, volume = table.shape
    slices, channels = len(partial), x.shape[1]
    for s in numba.prange(slices):
        partial[s] = 0
        taps = np.empty(volume + 1, np.int64)
        for o in range(outputs * s // slices, outputs * (s + 1) // slices):
            for n in range(_list_taps(table, o, taps)):
                tap = taps[n]
                row = table[o, tap]
                for c in range(channels):
                    partial[s, tap, c] += x[row, c] * grad[o, c]
