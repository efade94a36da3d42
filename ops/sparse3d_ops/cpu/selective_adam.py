"""Numba body of Adam on the rows that were seen."""

import math

import numba


@numba.njit(parallel=True, cache=True, nogil=True)
def step(values, gradient, mean, square, lr, beta1, beta2, eps):
    """All (N, C); the numbers are of the same type."""
    one = type(lr)(1)
    for n in numba.prange(len(values)):
        seen = False
        for c in range(values.shape[1]):
            seen |= gradient[n, c] != 0
        if seen:
            for c in range(values.shape[1]):
                g = gradient[n, c]
                m = beta1 * mean[n, c] + (one - beta1) * g
                s = beta2 * square[n, c] + (one - beta2) * (g * g)
                mean[n, c], square[n, c] = m, s
                values[n, c] -= lr * m / (math.sqrt(s) + eps)
