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
    prefetch,
)

TILE = 256
MOST_ROWS = max(ROWS)  # address lists are padded to whole register tiles with a row that is thrown away


@numba.njit(inline="always")
def _list_pairs(table, tap, begin, end, x_base, x_stride, out_base, out_stride, x_rows, out_rows):
    """Row addresses of the pairs of one tap within a tile of outputs. Returns their number."""
    count = 0
    for o in range(begin, end):
        row = table[o, tap]
        x_rows[count] = x_base + np.int64(row) * x_stride
        out_rows[count] = out_base + np.int64(o) * out_stride
        count += 1 if row >= 0 else 0
    for p in range(count):
        for line in range(0, x_stride, 64):
            prefetch(x_rows[p] + line)  # pyright: ignore[reportCallIssue]
    return count


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
        # Two pairs of lists: while one tap is computed, the rows of the next are on their way into the cache.
        lists = np.empty((2, 2, TILE + MOST_ROWS), np.int64)
        waste = np.zeros(width, x.dtype)
        following = _list_pairs(
            table, 0, begin, end, x_base, x_stride, out_base, stride, lists[0, 0], lists[0, 1]
        )
        for tap in range(volume):
            count = following
            x_rows, out_rows = lists[tap % 2, 0], lists[tap % 2, 1]
            if tap + 1 < volume:
                x_next, out_next = lists[(tap + 1) % 2, 0], lists[(tap + 1) % 2, 1]
                following = _list_pairs(
                    table, tap + 1, begin, end, x_base, x_stride, out_base, stride, x_next, out_next
                )
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
        x_rows, grad_rows = np.empty(TILE, np.int64), np.empty(TILE, np.int64)
        x_list, grad_list = np.int64(x_rows.ctypes.data), np.int64(grad_rows.ctypes.data)
        for tile in range(tiles * s // slices, tiles * (s + 1) // slices):
            begin = tile * TILE
            end = min(outputs, begin + TILE)
            for tap in range(volume):
                count = _list_pairs(
                    table, tap, begin, end, x_base, x_stride, grad_base, stride, x_rows, grad_rows
                )
                if count == 0:
                    continue
                base = partial_base + (s * volume + tap) * depth * stride
                for g in range(groups):
                    x_offset, first = g * depth * size, g * span
                    _add_outer(
                        x, x_list, x_offset, grad_list, count, first, first + span, base, stride, depth
                    )


@numba.njit(inline="always")
def _list_taps(neighbors, taps):
    """The taps at which an output has a neighbour; returns their number. A list without branches costs less
    than the wrong guesses of a branch for each tap."""
    count = 0
    for tap in range(len(neighbors)):
        taps[count] = tap
        count += 1 if neighbors[tap] >= 0 else 0
    return count


@numba.njit(parallel=True, cache=True, nogil=True, fastmath={"contract"})
def convolve_depthwise(x, weight, table, out):
    """out[:, c] = sum over taps of x[table[:, tap], c] * weight[tap, c]; x (N_in, C), weight (V, C)."""
    outputs, volume = table.shape
    channels = x.shape[1]
    for tile in numba.prange((outputs + TILE - 1) // TILE):
        taps = np.empty(volume + 1, np.int64)
        for o in range(tile * TILE, min(outputs, (tile + 1) * TILE)):
            for c in range(channels):
                out[o, c] = 0
            for n in range(_list_taps(table[o], taps)):
                tap = taps[n]
                row = table[o, tap]
                for c in range(channels):
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
            for n in range(_list_taps(table[o], taps)):
                tap = taps[n]
                row = table[o, tap]
                for c in range(channels):
                    partial[s, tap, c] += x[row, c] * grad[o, c]
