"""Numba bodies of max pooling over kernel maps. A row of the output (or gradient) belongs to one thread."""

import numba


@numba.njit(parallel=True, cache=True, nogil=True)
def maximum(features, table, out, argmax):
    """out (N_out, C) = maximum over the taps; argmax its input row, -1 (and 0) where a row has no neighbour.

    The lowest tap wins ties; a NaN wins over everything, so that it is not hidden.
    """
    for o in numba.prange(table.shape[0]):
        for c in range(features.shape[1]):
            out[o, c] = 0
            argmax[o, c] = -1
        for tap in range(table.shape[1]):
            row = table[o, tap]
            if row < 0:
                continue
            for c in range(features.shape[1]):
                value = features[row, c]
                best = out[o, c]
                if argmax[o, c] < 0 or value > best or (value != value and best == best):
                    out[o, c] = value
                    argmax[o, c] = row


@numba.njit(parallel=True, cache=True, nogil=True)
def maximum_gradient(grad, argmax, reverse, out):
    """out (N_in, C): each input gathers the gradients of the outputs that took it."""
    for row in numba.prange(reverse.shape[0]):
        for c in range(grad.shape[1]):
            out[row, c] = 0
        for tap in range(reverse.shape[1]):
            o = reverse[row, tap]
            if o < 0:
                continue
            for c in range(grad.shape[1]):
                if argmax[o, c] == row:
                    out[row, c] += grad[o, c]
