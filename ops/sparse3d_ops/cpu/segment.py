"""Numba bodies of the segment reductions.

Rows are visited through `order`, the stable sort of the segment ids, so that one thread owns a segment and adds its
rows in their input order: the result does not depend on the number of threads.
"""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def segment_offsets(segment, offsets, order):
    """Counting sort. offsets (S+1,) and order (N,) are outputs; rows of segment s are order[offsets[s]:offsets[s+1]]."""
    count = len(offsets) - 1
    offsets[:] = 0
    for row in range(len(segment)):
        offsets[segment[row] + 1] += 1
    for s in range(count):
        offsets[s + 1] += offsets[s]
    cursor = offsets[:-1].copy()
    for row in range(len(segment)):
        s = segment[row]
        order[cursor[s]] = row
        cursor[s] += 1


@numba.njit(parallel=True, cache=True, nogil=True)
def segment_sum(values, offsets, order, out):
    for s in numba.prange(len(offsets) - 1):
        for c in range(values.shape[1]):
            out[s, c] = 0
        for k in range(offsets[s], offsets[s + 1]):
            row = np.int64(order[k])
            for c in range(values.shape[1]):
                out[s, c] += values[row, c]
