"""Numba body of sampling from weights of bins."""

import numba
import numpy as np


@numba.njit(inline="always")
def positive(weight):
    """The weight, 0 where it is negative or NaN."""
    return np.float64(weight) if weight > 0 else 0.0


@numba.njit(parallel=True, cache=True, nogil=True)
def inverse_cdf(begin, length, weights, ray_starts, uniforms, reached, out):
    """reached (S,) float64 is room for the weight of a ray up to the end of each of its bins."""
    for r in numba.prange(len(out)):
        first, last = ray_starts[r], ray_starts[r + 1]
        total = 0.0
        for i in range(first, last):
            total += positive(weights[i])
            reached[i] = total
        by_length = total == 0
        if by_length:
            for i in range(first, last):
                total += positive(length[i])
                reached[i] = total
        for k in range(out.shape[1]):
            if first == last:
                out[r, k] = np.inf
                continue
            wanted = min(max(np.float64(uniforms[r, k]), 0.0), 1.0) * total
            # The first bin that reaches beyond what is wanted; with 1, the first that reaches all.
            low, high = first, last - 1
            while low < high:
                middle = (low + high) // 2
                if reached[middle] > wanted or reached[middle] == total:
                    high = middle
                else:
                    low = middle + 1
            before = reached[low - 1] if low > first else 0.0
            own = reached[low] - before
            part = min((wanted - before) / own, 1.0) if own > 0 else 0.0
            out[r, k] = begin[low] + part * length[low]
