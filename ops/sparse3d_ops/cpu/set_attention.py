"""Numba bodies of attention within sets.

One thread owns a set, so no two write to one row. Scores are kept with the queries of a set along the last
axis, padded to whole vectors, so that sums over keys and channels and the softmax all run over neighbouring
floats; products and sums are those of the convolution, over lists of addresses of rows. Notation: n voxels of
a set at rows order[begin:end], d channels of a head, L = n padded to PAD.
"""

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

from sparse3d_ops.cpu.sparse_conv import MOST_ROWS, _add_outer, _add_tap

PAD = 16  # float32 lanes of the widest vectors
MOST_CHUNKS = 256  # groups of sets that are handed to threads; each makes its scratch once

LOG2_E = np.float32(1.4426950408889634)
LN2_HIGH, LN2_LOW = np.float32(0.693145751953125), np.float32(1.42860682030941723212e-6)
LEAST = np.float32(-87.0)  # exp of it is a normal number; what is smaller adds nothing to a sum of 1 or more


@intrinsic
def _float_of(typing_context, bits):
    """The float32 with these 32 bits."""

    def generate(context, builder, signature, arguments):
        return builder.bitcast(arguments[0], ir.FloatType())

    return types.float32(types.int32), generate


def exponential(x):
    """exp(x) for x <= 0; NaN for NaN."""
    return np.exp(x)


@overload(exponential, inline="always")
def _exponential(x):
    if x != types.float32:
        return lambda x: np.exp(x)

    def fast(x):
        # 2^k * e^r with |r| <= ln(2) / 2, whose series is cut where it falls below float32's rounding.
        # Written out, because LLVM makes vectors of it and not of a call. A NaN comes through r.
        x = x if not x < LEAST else LEAST
        k = np.floor(x * LOG2_E + np.float32(0.5))
        r = (x - k * LN2_HIGH) - k * LN2_LOW
        p = np.float32(1 / 720)
        p = p * r + np.float32(1 / 120)
        p = p * r + np.float32(1 / 24)
        p = p * r + np.float32(1 / 6)
        p = p * r + np.float32(0.5)
        p = p * r + np.float32(1)
        p = p * r + np.float32(1)
        bits = (np.int32(k) + np.int32(127)) << np.int32(23)
        return p * _float_of(bits)  # pyright: ignore[reportCallIssue]

    return fast


@numba.njit(inline="always")
def _columns(source, order, begin, end, first, depth, target, length, scale):
    """target (depth, length) = the rows of a set, channels `first` on, transposed, scaled, zero padded."""
    n = end - begin
    for i in range(n):
        row = order[begin + i]
        for c in range(depth):
            target[c, i] = source[row, first + c] * scale
    for c in range(depth):
        for i in range(n, length):
            target[c, i] = 0


@numba.njit(inline="always")
def _list_rows(source, order, begin, end, listed):
    """Addresses of a set's rows; the list is filled up to whole register tiles with the first of them."""
    base, stride = np.int64(source.ctypes.data), np.int64(source.shape[1] * source.itemsize)
    n = end - begin
    for j in range(n):
        listed[j] = base + order[begin + j] * stride
    for j in range(n, n + MOST_ROWS):
        listed[j] = listed[0]


@numba.njit(inline="always")
def _list_scratch(scratch, listed):
    """Addresses of the rows of a square of scratch, which has MOST_ROWS to spare."""
    for j in range(len(scratch)):
        listed[j] = np.int64(scratch.ctypes.data) + j * scratch.shape[1] * scratch.itemsize


@numba.njit(cache=True, nogil=True)  # compiled once, not at each of its places
def _products(source, rows, first, depth, columns, n, length, out, out_rows):
    """out (n, length) = source[rows, first:first + depth] @ columns (depth, length)."""
    for j in range(n):
        for i in range(length):
            out[j, i] = 0
    size = np.int64(source.itemsize)
    _add_tap(
        source,
        np.int64(rows.ctypes.data),
        first * size,
        np.int64(out_rows.ctypes.data),
        n,
        np.int64(0),
        length * size,
        np.int64(columns.ctypes.data),
        columns.shape[1] * size,
        depth,
    )


@numba.njit(cache=True, nogil=True)  # compiled once, not at each of its places
def _sums(source, rows, first, depth, weight_rows, n, length, out):
    """out (depth, length) = source[rows, first:first + depth].T @ weights (n, length), listed by rows."""
    for c in range(depth):
        for i in range(length):
            out[c, i] = 0
    size = np.int64(source.itemsize)
    _add_outer(
        source,
        np.int64(rows.ctypes.data),
        first * size,
        np.int64(weight_rows.ctypes.data),
        n,
        np.int64(0),
        length * size,
        np.int64(out.ctypes.data),
        out.shape[1] * size,
        depth,
    )


@numba.njit(inline="always")
def _rows(columns, order, begin, end, first, depth, scale, out):
    """The way back from `_columns`: out[rows, first:first + depth] = columns (depth, length), scaled."""
    for i in range(end - begin):
        row = order[begin + i]
        for c in range(depth):
            out[row, first + c] = columns[c, i] * scale


@numba.njit(inline="always")
def _transpose(square, n, length, out):
    """out (n, length) = the first n columns of square (n, length), transposed and zero padded."""
    for i in range(n):
        for j in range(n):
            out[i, j] = square[j, i]
        for j in range(n, length):
            out[i, j] = 0


@numba.njit(parallel=True, cache=True, nogil=True, fastmath={"contract"})
def attend(heads, most, q, k, v, order, offsets, scale, out, lse):
    """out (N, C) and lse (N, heads), the logarithm of each query's sum of exponentials; most: longest set."""
    sets, depth = len(offsets) - 1, q.shape[1] // heads
    widest = (most + PAD - 1) // PAD * PAD
    chunks = min(MOST_CHUNKS, sets)
    for chunk in numba.prange(chunks):
        queries, sums = np.empty((depth, widest), q.dtype), np.empty((depth, widest), q.dtype)
        weights = np.zeros((most + MOST_ROWS, widest), q.dtype)  # the rows to spare are never read
        key_rows, value_rows, weight_rows = np.empty((3, most + MOST_ROWS), np.int64)
        _list_scratch(weights, weight_rows)
        peak, total = np.empty(widest, q.dtype), np.empty(widest, q.dtype)
        for s in range(sets * chunk // chunks, sets * (chunk + 1) // chunks):
            begin, end = offsets[s], offsets[s + 1]
            n = end - begin
            length = (n + PAD - 1) // PAD * PAD
            if n == 0:
                continue
            _list_rows(k, order, begin, end, key_rows)
            _list_rows(v, order, begin, end, value_rows)
            for h in range(heads):
                first = h * depth
                _columns(q, order, begin, end, first, depth, queries, length, scale[0])
                _products(k, key_rows, first, depth, queries, n, length, weights, weight_rows)
                for i in range(length):
                    peak[i] = weights[0, i]
                    total[i] = 0
                for j in range(1, n):
                    here = weights[j]
                    for i in range(length):
                        peak[i] = here[i] if here[i] > peak[i] else peak[i]
                for j in range(n):
                    here = weights[j]
                    for i in range(length):
                        p = exponential(here[i] - peak[i])
                        here[i] = p
                        total[i] += p
                _sums(v, value_rows, first, depth, weight_rows, n, length, sums)
                for i in range(n):
                    row = order[begin + i]
                    share = 1 / total[i]
                    for c in range(depth):
                        out[row, first + c] = sums[c, i] * share
                    lse[row, h] = peak[i] + np.log(total[i])


@numba.njit(parallel=True, cache=True, nogil=True, fastmath={"contract"})
def attend_backward(heads, most, grad, q, k, v, lse, delta, order, offsets, scale, dq, dk, dv):
    """Gradients (N, C) from that of the output and delta (N, heads): sum over channels of grad * out, less
    the gradient of lse. Weights are computed once more from lse."""
    sets, depth = len(offsets) - 1, q.shape[1] // heads
    widest = (most + PAD - 1) // PAD * PAD
    chunks = min(MOST_CHUNKS, sets)
    for chunk in numba.prange(chunks):
        queries, grads = np.empty((depth, widest), q.dtype), np.empty((depth, widest), q.dtype)
        sums = np.empty((depth, widest), q.dtype)
        weights, slopes, turned = np.zeros((3, most + MOST_ROWS, widest), q.dtype)
        rows = np.empty((4, most + MOST_ROWS), np.int64)
        weight_rows, slope_rows, turned_rows = np.empty((3, most + MOST_ROWS), np.int64)
        _list_scratch(weights, weight_rows)
        _list_scratch(slopes, slope_rows)
        _list_scratch(turned, turned_rows)
        log_total, level = np.empty(widest, q.dtype), np.empty(widest, q.dtype)
        for s in range(sets * chunk // chunks, sets * (chunk + 1) // chunks):
            begin, end = offsets[s], offsets[s + 1]
            n = end - begin
            length = (n + PAD - 1) // PAD * PAD
            if n == 0:
                continue
            _list_rows(q, order, begin, end, rows[0])
            _list_rows(k, order, begin, end, rows[1])
            _list_rows(v, order, begin, end, rows[2])
            _list_rows(grad, order, begin, end, rows[3])
            for h in range(heads):
                first = h * depth
                _columns(q, order, begin, end, first, depth, queries, length, scale[0])
                _columns(grad, order, begin, end, first, depth, grads, length, 1)
                _columns(lse, order, begin, end, h, 1, log_total[None], length, 1)
                _columns(delta, order, begin, end, h, 1, level[None], length, 1)
                _products(k, rows[1], first, depth, queries, n, length, weights, weight_rows)
                _products(v, rows[2], first, depth, grads, n, length, slopes, slope_rows)
                for j in range(n):
                    p, ds = weights[j], slopes[j]
                    for i in range(length):
                        p[i] = exponential(p[i] - log_total[i])
                        ds[i] = p[i] * (ds[i] - level[i])
                _sums(k, rows[1], first, depth, slope_rows, n, length, sums)
                _rows(sums, order, begin, end, first, depth, scale[0], dq)
                # Sums over queries run over columns, so now the keys have to lie side by side.
                _transpose(weights, n, length, turned)
                _sums(grad, rows[3], first, depth, turned_rows, n, length, sums)
                _rows(sums, order, begin, end, first, depth, 1, dv)
                _transpose(slopes, n, length, turned)
                _sums(q, rows[0], first, depth, turned_rows, n, length, sums)
                _rows(sums, order, begin, end, first, depth, scale[0], dk)
