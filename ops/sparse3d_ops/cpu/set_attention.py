"""Numba bodies of attention within sets.

One thread owns a set, so no two write to one row. Scores are kept with the queries of a set along the last
axis, padded to whole vectors, so that sums over keys and channels and the softmax all run over neighbouring
floats. Notation: n voxels of a set at rows order[begin:end], d channels of a head, L = n padded to PAD.
"""

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic, overload

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
def _products(source, row, first, depth, columns, length, out):
    """out (length,) = source[row, first:first + depth] @ columns (depth, length), four channels at a time."""
    for i in range(length):
        out[i] = 0
    whole = depth // 4 * 4
    for c in range(0, whole, 4):
        a0, a1 = source[row, first + c], source[row, first + c + 1]
        a2, a3 = source[row, first + c + 2], source[row, first + c + 3]
        x0, x1, x2, x3 = columns[c], columns[c + 1], columns[c + 2], columns[c + 3]
        for i in range(length):
            out[i] += (a0 * x0[i] + a1 * x1[i]) + (a2 * x2[i] + a3 * x3[i])
    for c in range(whole, depth):
        a0, x0 = source[row, first + c], columns[c]
        for i in range(length):
            out[i] += a0 * x0[i]


@numba.njit(inline="always")
def _sums(source, order, begin, end, first, depth, weights, length, out):
    """out (depth, length) = source[rows, first:first + depth].T @ weights (n, length), by four rows."""
    n = end - begin
    for c in range(depth):
        for i in range(length):
            out[c, i] = 0
    whole = n // 4 * 4
    for j in range(0, whole, 4):
        r0, r1, r2, r3 = order[begin + j], order[begin + j + 1], order[begin + j + 2], order[begin + j + 3]
        w0, w1, w2, w3 = weights[j], weights[j + 1], weights[j + 2], weights[j + 3]
        for c in range(depth):
            a0, a1, a2, a3 = (
                source[r0, first + c],
                source[r1, first + c],
                source[r2, first + c],
                source[r3, first + c],
            )
            here = out[c]
            for i in range(length):
                here[i] += (a0 * w0[i] + a1 * w1[i]) + (a2 * w2[i] + a3 * w3[i])
    for j in range(whole, n):
        r0, w0 = order[begin + j], weights[j]
        for c in range(depth):
            a0, here = source[r0, first + c], out[c]
            for i in range(length):
                here[i] += a0 * w0[i]


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
        weights = np.empty((most, widest), q.dtype)
        peak, total = np.empty(widest, q.dtype), np.empty(widest, q.dtype)
        for s in range(sets * chunk // chunks, sets * (chunk + 1) // chunks):
            begin, end = offsets[s], offsets[s + 1]
            n = end - begin
            length = (n + PAD - 1) // PAD * PAD
            for h in range(heads):
                first = h * depth
                _columns(q, order, begin, end, first, depth, queries, length, scale[0])
                for j in range(n):
                    _products(k, order[begin + j], first, depth, queries, length, weights[j])
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
                _sums(v, order, begin, end, first, depth, weights, length, sums)
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
        weights, slopes = np.empty((most, widest), q.dtype), np.empty((most, widest), q.dtype)
        turned = np.empty((most, widest), q.dtype)
        log_total, level = np.empty(widest, q.dtype), np.empty(widest, q.dtype)
        for s in range(sets * chunk // chunks, sets * (chunk + 1) // chunks):
            begin, end = offsets[s], offsets[s + 1]
            n = end - begin
            length = (n + PAD - 1) // PAD * PAD
            for h in range(heads):
                first = h * depth
                _columns(q, order, begin, end, first, depth, queries, length, scale[0])
                _columns(grad, order, begin, end, first, depth, grads, length, 1)
                _columns(lse, order, begin, end, h, 1, log_total[None], length, 1)
                _columns(delta, order, begin, end, h, 1, level[None], length, 1)
                for j in range(n):
                    row = order[begin + j]
                    p, ds = weights[j], slopes[j]
                    _products(k, row, first, depth, queries, length, p)
                    _products(v, row, first, depth, grads, length, ds)
                    for i in range(length):
                        p[i] = exponential(p[i] - log_total[i])
                        ds[i] = p[i] * (ds[i] - level[i])
                _sums(k, order, begin, end, first, depth, slopes, length, sums)
                _rows(sums, order, begin, end, first, depth, scale[0], dq)
                # Sums over queries run over columns, so now the keys have to lie side by side.
                _transpose(weights, n, length, turned)
                _sums(grad, order, begin, end, first, depth, turned, length, sums)
                _rows(sums, order, begin, end, first, depth, 1, dv)
                _transpose(slopes, n, length, turned)
                _sums(q, order, begin, end, first, depth, turned, length, sums)
                _rows(sums, order, begin, end, first, depth, scale[0], dk)
