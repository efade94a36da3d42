"""Numba bodies of the structural similarity.

Pictures are rows of W C numbers. A thread owns a row of windows: it sums the eleven rows of pixels, then
along the row. All inner loops go along a row and have no sum of their own, so they become vector
instructions.
"""

import numba
import numpy as np

TAPS = 11


@numba.njit(nogil=True)
def moments(x, y, weights, channels, row, tall, found):
    """found (4, (W - 10) C): means of x, y, x^2 + y^2 and x y in the windows of a row; tall (4, W C) is
    room."""
    zero = weights.dtype.type(0)
    tall[:] = zero
    found[:] = zero
    t0, t1, t2, t3 = tall[0], tall[1], tall[2], tall[3]
    for k in range(TAPS):
        w, a, b = weights[k], x[row + k], y[row + k]
        for j in range(len(a)):
            wa, wb = w * a[j], w * b[j]
            t0[j] += wa
            t1[j] += wb
            t2[j] += wa * a[j] + wb * b[j]
            t3[j] += wa * b[j]
    for m in range(4):
        into = found[m]
        for k in range(TAPS):
            w, shifted = weights[k], tall[m, k * channels :]
            for j in range(len(into)):
                into[j] += w * shifted[j]


@numba.njit(parallel=True, cache=True, nogil=True)
def similarity(x, y, weights, channels, c1, c2, out):
    for row in numba.prange(len(out)):
        tall, found = np.empty((4, x.shape[1]), x.dtype), np.empty((4, out.shape[1]), x.dtype)
        moments(x, y, weights, channels, row, tall, found)
        mx, my, squares, product, into = found[0], found[1], found[2], found[3], out[row]
        for j in range(len(into)):
            both, means = mx[j] * my[j], mx[j] * mx[j] + my[j] * my[j]
            over = (both + both + c1) * ((product[j] - both) + (product[j] - both) + c2)
            into[j] = over / ((means + c1) * (squares[j] - means + c2))


@numba.njit(parallel=True, cache=True, nogil=True)
def slope(grad, x, y, weights, channels, c1, c2, out):
    """The slopes of S in mu_x, in the mean of x^2 and in that of x y go back through the windows:
    d/dx = W^T a + 2 x W^T b + y W^T c."""
    zero = weights.dtype.type(0)
    rows, width = grad.shape[0], x.shape[1]
    wide = np.empty((3, rows, width), x.dtype)  # the three after the way back along the rows
    for row in numba.prange(rows):
        tall, found = np.empty((4, width), x.dtype), np.empty((4, grad.shape[1]), x.dtype)
        moments(x, y, weights, channels, row, tall, found)
        mx, my, squares, product, g = found[0], found[1], found[2], found[3], grad[row]
        for j in range(len(g)):
            both, means = mx[j] * my[j], mx[j] * mx[j] + my[j] * my[j]
            n1, n2 = both + both + c1, (product[j] - both) + (product[j] - both) + c2
            d1, d2 = means + c1, squares[j] - means + c2
            part = g[j] / (d1 * d2)
            s = n1 * n2 * part
            of_mean = my[j] * (n2 - n1) * part + mx[j] * (s / d2 - s / d1)
            # All three halved twice over: their factors of 2 are one, at the end.
            mx[j], my[j], squares[j] = of_mean, -s / d2, n1 * part
        for m in range(3):
            into = wide[m, row]
            into[:] = zero
            for k in range(TAPS):
                w, shifted, source = weights[k], into[k * channels :], found[m]
                for j in range(len(source)):
                    shifted[j] += w * source[j]
    for row in numba.prange(len(out)):
        total = np.zeros((3, width), x.dtype)
        t0, t1, t2, into, a, b = total[0], total[1], total[2], out[row], x[row], y[row]
        for k in range(max(0, row - rows + 1), min(TAPS, row + 1)):
            w, p, q, r = weights[k], wide[0, row - k], wide[1, row - k], wide[2, row - k]
            for j in range(width):
                t0[j] += w * p[j]
                t1[j] += w * q[j]
                t2[j] += w * r[j]
        for j in range(width):
            half = t0[j] + a[j] * t1[j] + b[j] * t2[j]
            into[j] = half + half
