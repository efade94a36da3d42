"""Numba bodies of sparse convolution over dense neighbour tables.

Output rows are taken in tiles of TILE; for each tap the pairs (input row, output row) of a tile are listed,
and the micro-kernel adds input rows times the tap's weights into output rows that stay in cache. Each output
row belongs to one thread and sums its taps in ascending order: results do not depend on the number of
threads.

The dense bodies take columns padded to whole vectors: the caller pads weights and outputs.
"""

import numba
import numpy as np

from sparse3d_ops.cpu.microkernel import (
    ROWS,
    VECTOR_BYTES,
    accumulate_outer_1x1,
    accumulate_outer_4x2,
    accumulate_outer_4x4,
    accumulate_outer_8x1,
    accumulate_outer_16x1,
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
            prefetch(x_rows[p] + line)
    return count


@numba.njit(parallel=True, cache=True, nogil=True)
def convolve(x, weight, table, out):
    """out (N_out, Cout) = sum over taps of x[table[:, tap]] @ weight[tap]; x (N_in, Cin), weight (V, Cin,
    Cout)."""
    outputs, volume = table.shape
    depth, width = weight.shape[1], weight.shape[2]
    size = np.int64(x.itemsize)
    lanes = VECTOR_BYTES // size
    x_base, out_base, weight_base = (
        np.int64(x.ctypes.data),
        np.int64(out.ctypes.data),
        np.int64(weight.ctypes.data),
    )
    for tile in numba.prange((outputs + TILE - 1) // TILE):
        begin = tile * TILE
        end = min(outputs, begin + TILE)
        for o in range(begin, end):
            for c in range(width):
                out[o, c] = 0
        # Two lists: while one tap is computed, the rows of the next are on their way into the cache.
        lists = np.empty((2, 2, TILE + MOST_ROWS), np.int64)
        waste = np.zeros(width, x.dtype)
        following = _list_pairs(
            table, 0, begin, end, x_base, depth * size, out_base, width * size, lists[0, 0], lists[0, 1]
        )
        for tap in range(volume):
            count = following
            x_rows, out_rows = lists[tap % 2, 0], lists[tap % 2, 1]
            if tap + 1 < volume:
                x_next, out_next = lists[(tap + 1) % 2, 0], lists[(tap + 1) % 2, 1]
                following = _list_pairs(
                    table, tap + 1, begin, end, x_base, depth * size, out_base, width * size, x_next, out_next
                )
            if count == 0:
                continue
            x_list, out_list = np.int64(x_rows.ctypes.data), np.int64(out_rows.ctypes.data)
            for r in range(count, count + MOST_ROWS):
                x_rows[r] = x_rows[0]
                out_rows[r] = waste.ctypes.data
            column = np.int64(0)
            while column < width:
                offset = column * size
                panel = weight_base + tap * depth * width * size + offset
                left = (width - column) // lanes
                if left >= 4:
                    for p in range(0, count, ROWS[4]):
                        accumulate_rows_4(
                            x, x_list + 8 * p, out_list + 8 * p, offset, panel, width * size, depth
                        )
                    column += 4 * lanes
                elif left == 3:
                    for p in range(0, count, ROWS[3]):
                        accumulate_rows_3(
                            x, x_list + 8 * p, out_list + 8 * p, offset, panel, width * size, depth
                        )
                    column += 3 * lanes
                elif left >= 2:
                    for p in range(0, count, ROWS[2]):
                        accumulate_rows_2(
                            x, x_list + 8 * p, out_list + 8 * p, offset, panel, width * size, depth
                        )
                    column += 2 * lanes
                else:
                    for p in range(0, count, ROWS[1]):
                        accumulate_rows_1(
                            x, x_list + 8 * p, out_list + 8 * p, offset, panel, width * size, depth
                        )
                    column += lanes


@numba.njit(parallel=True, cache=True, nogil=True)
def weight_gradient(x, grad, table, partial):
    """partial[s, tap] = sum of outer(x[table[o, tap]], grad[o]) over the outputs of slice s; grad (N_out,
    Cout).

    The number of slices is the caller's and does not depend on threads; the caller adds slices in order.
    """
    outputs, volume = table.shape
    slices, depth, width = partial.shape[0], partial.shape[2], partial.shape[3]
    size = np.int64(x.itemsize)
    lanes = VECTOR_BYTES // size
    x_base, grad_base, partial_base = (
        np.int64(x.ctypes.data),
        np.int64(grad.ctypes.data),
        np.int64(partial.ctypes.data),
    )
    tiles = (outputs + TILE - 1) // TILE
    stride = width * size
    for s in numba.prange(slices):
        partial[s] = 0
        x_rows, grad_rows = np.empty(TILE, np.int64), np.empty(TILE, np.int64)
        x_list, grad_list = np.int64(x_rows.ctypes.data), np.int64(grad_rows.ctypes.data)
        for tile in range(tiles * s // slices, tiles * (s + 1) // slices):
            begin = tile * TILE
            end = min(outputs, begin + TILE)
            for tap in range(volume):
                count = _list_pairs(
                    table, tap, begin, end, x_base, depth * size, grad_base, stride, x_rows, grad_rows
                )
                if count == 0:
                    continue
                base = partial_base + (s * volume + tap) * depth * stride
                column = np.int64(0)
                while column < width:
                    here = column * size
                    c = np.int64(0)
                    if width - column >= 4 * lanes:
                        while depth - c >= 4:
                            place = base + c * stride + here
                            accumulate_outer_4x4(x, x_list, grad_list, c * size, here, count, place, stride)
                            c += 4
                        while c < depth:
                            for block in range(4):
                                at = here + block * VECTOR_BYTES
                                place = base + c * stride + at
                                accumulate_outer_1x1(x, x_list, grad_list, c * size, at, count, place, stride)
                            c += 1
                        column += 4 * lanes
                    elif width - column >= 2 * lanes:
                        while depth - c >= 8:
                            place = base + c * stride + here
                            accumulate_outer_4x2(x, x_list, grad_list, c * size, here, count, place, stride)
                            c += 8
                        while c < depth:
                            for block in range(2):
                                at = here + block * VECTOR_BYTES
                                place = base + c * stride + at
                                accumulate_outer_1x1(x, x_list, grad_list, c * size, at, count, place, stride)
                            c += 1
                        column += 2 * lanes
                    else:
                        while depth - c >= 16:
                            place = base + c * stride + here
                            accumulate_outer_16x1(x, x_list, grad_list, c * size, here, count, place, stride)
                            c += 16
                        while depth - c >= 8:
                            place = base + c * stride + here
                            accumulate_outer_8x1(x, x_list, grad_list, c * size, here, count, place, stride)
                            c += 8
                        while c < depth:
                            place = base + c * stride + here
                            accumulate_outer_1x1(x, x_list, grad_list, c * size, here, count, place, stride)
                            c += 1
                        column += lanes


@numba.njit(parallel=True, cache=True, nogil=True, fastmath={"contract"})
def convolve_groups(x, weight, table, groups, out):
    """Grouped convolution without the micro-kernel; weight (V, Cin / groups, Cout)."""
    outputs, volume = table.shape
    depth, width = weight.shape[1], weight.shape[2] // groups
    for o in numba.prange(outputs):
        for c in range(out.shape[1]):
            out[o, c] = 0
        for tap in range(volume):
            row = table[o, tap]
            if row < 0:
                continue
            if depth == 1 and width == 1:
                for c in range(out.shape[1]):
                    out[o, c] += x[row, c] * weight[tap, 0, c]
            else:
                for g in range(groups):
                    for i in range(depth):
                        value = x[row, g * depth + i]
                        for c in range(g * width, (g + 1) * width):
                            out[o, c] += value * weight[tap, i, c]


@numba.njit(parallel=True, cache=True, nogil=True, fastmath={"contract"})
def weight_gradient_groups(x, grad, table, groups, partial):
    """Weight gradient of `convolve_groups`; partial (slices, V, Cin / groups, Cout)."""
    outputs, volume = table.shape
    slices, depth, width = partial.shape[0], partial.shape[2], partial.shape[3] // groups
    for s in numba.prange(slices):
        partial[s] = 0
        for o in range(outputs * s // slices, outputs * (s + 1) // slices):
            for tap in range(volume):
                row = table[o, tap]
                if row < 0:
                    continue
                if depth == 1 and width == 1:
                    for c in range(partial.shape[3]):
                        partial[s, tap, 0, c] += x[row, c] * grad[o, c]
                else:
                    for g in range(groups):
                        for i in range(depth):
                            value = x[row, g * depth + i]
                            for c in range(g * width, (g + 1) * width):
                                partial[s, tap, i, c] += value * grad[o, c]
