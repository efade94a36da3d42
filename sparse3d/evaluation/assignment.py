"""Optimal assignment of rows to columns, one row after the other: bodies in numba.

The Hungarian algorithm by shortest augmenting paths with potentials (Jonker and Volgenant, Computing 1987).
After each row the assignment is optimal for the rows so far, so one pass over detections by falling score
gives the best matching at every score threshold. A row may stay without a column, at weight 0: weights are
non-negative, and 0 says that two do not fit.
"""

import numba
import numpy as np


@numba.njit(cache=True, nogil=True)
def _cost(weights, row, column):
    """Of giving `row` a column; the columns beyond the real ones are one for each row to stay free with."""
    return -weights[row, column] if column < weights.shape[1] else 0.0


@numba.njit(cache=True, nogil=True)
def start(rows, columns):
    """State of an assignment of nothing: (owner, row potentials, column potentials).

    owner (columns + rows + 1,) int64 is the row of each column or -1; its last entry is scratch.
    """
    width = columns + rows
    return np.full(width + 1, -1, dtype=np.int64), np.zeros(rows), np.zeros(width + 1)


@numba.njit(cache=True, nogil=True)
def add_row(weights, row, owner, u, v):
    """Bring `row` into the assignment. `weights` (rows, columns) float64 >= 0; the state is of `start`."""
    width = len(owner) - 1
    slack = np.full(width, np.inf)
    before = np.empty(width, dtype=np.int64)
    done = np.zeros(width + 1, dtype=np.bool_)
    owner[width] = row
    at = width
    while owner[at] >= 0:
        done[at] = True
        nearest, following = np.inf, -1
        for column in range(width):
            if done[column]:
                continue
            reduced = _cost(weights, owner[at], column) - u[owner[at]] - v[column]
            if reduced < slack[column]:
                slack[column], before[column] = reduced, at
            if slack[column] < nearest:
                nearest, following = slack[column], column
        for column in range(width + 1):
            if done[column]:
                u[owner[column]] += nearest
                v[column] -= nearest
            elif column < width:
                slack[column] -= nearest
        at = following
    while at != width:  # give every column on the way to the row that reached it
        owner[at] = owner[before[at]]
        at = before[at]
    owner[width] = -1


@numba.njit(cache=True, nogil=True)
def assign_all(weights):
    """(rows,) int64: the column of each row, -1 for none, of an assignment of the greatest sum of weights."""
    rows, columns = weights.shape
    owner, u, v = start(rows, columns)
    for row in range(rows):
        add_row(weights, row, owner, u, v)
    out = np.full(rows, -1, dtype=np.int64)
    for column in range(columns):
        if owner[column] >= 0 and weights[owner[column], column] > 0:
            out[owner[column]] = column
    return out
