"""Numba body of the pieces of a sparse band: which of its lattice points are on the same side of a surface.

A host's work: a union of sets goes through its points one after the other, and is done once for a mesh.
"""

import numba
import numpy as np

SIDE = 4  # lattice points along a block; point (i, j, k) of it stands at 16 i + 4 j + k


@numba.njit(inline="always")
def _root(parent, i):
    while parent[i] != i:
        parent[i] = parent[parent[i]]
        i = parent[i]
    return i


@numba.njit(inline="always")
def _join(parent, i, j):
    i, j = _root(parent, i), _root(parent, j)
    if i < j:
        parent[j] = i
    elif j < i:
        parent[i] = j


@numba.njit(inline="always")
def _next(beside, b, p, axis):
    """Block and place of the point that follows along an axis; a block of -1 where there is none."""
    step = 16 >> (2 * axis)
    if p // step % SIDE < SIDE - 1:
        return np.int64(b), p + step
    return np.int64(beside[b, axis]), p - (SIDE - 1) * step


@numba.njit(cache=True, nogil=True)
def pieces(distances, beside, spacing, least, parent):
    """distances (B, 64) from a surface, of the points of blocks; beside (B, 6) int32 rows of the blocks that
    follow along x, y, z and of those before, -1 for none. parent (64 B,) int32 is an output: the first point
    of each point's piece.

    Two neighbours are joined where the surface is too far away to pass between them: where their distances
    together are more than `spacing`; and none that is nearer than `least`.
    """
    for i in range(len(parent)):
        parent[i] = i
    for b in range(len(distances)):
        for p in range(64):
            d = distances[b, p]
            for axis in range(3):
                c, q = _next(beside, b, p, axis)
                if c >= 0 and d + distances[c, q] > spacing and min(d, distances[c, q]) >= least:
                    _join(parent, 64 * b + p, 64 * c + q)
    for i in range(len(parent)):
        parent[i] = _root(parent, i)


@numba.njit(cache=True, nogil=True)
def farthest(distances, parent, most):
    """most (P,) int32 is an output: at each first point of a piece the point of it that is furthest from the
    surface, of equal ones the first; elsewhere -1."""
    most[:] = -1
    for i in range(len(parent)):
        r = parent[i]
        if most[r] < 0 or distances[i] > distances[most[r]]:
            most[r] = i


@numba.njit(cache=True, nogil=True)
def torn(distances, inside, beside, spacing, marks):
    """marks (B, 64) bool come in False: neighbours on different sides between which no surface passes."""
    for b in range(len(distances)):
        for p in range(64):
            for axis in range(3):
                c, q = _next(beside, b, p, axis)
                if c < 0 or inside[b, p] == inside[c, q]:
                    continue
                if distances[b, p] + distances[c, q] > spacing:
                    marks[b, p] = marks[c, q] = True


@numba.njit(inline="always")
def _neighbour(beside, b, p, side):
    """Block and place of the neighbour after (side 0 to 2) or before (3 to 5) along an axis."""
    if side < 3:
        return _next(beside, b, p, side)
    step = 16 >> (2 * (side - 3))
    if p // step % SIDE > 0:
        return np.int64(b), p - step
    return np.int64(beside[b, side]), p + (SIDE - 1) * step


@numba.njit(parallel=True, cache=True, nogil=True)
def spread(labels, beside, crossed, fresh):
    """One step of a growth over lattice edges that no surface crosses: labels (B, 64) uint8, 0 for none yet;
    crossed (B, 64, 3) bool of the edges that begin at each point. fresh (B, 64) uint8 is an output: the least
    label among the neighbours of each point without one. Returns how many points got one."""
    grown = 0
    for b in numba.prange(len(labels)):
        for p in range(64):
            fresh[b, p] = labels[b, p]
            if labels[b, p] != 0:
                continue
            for side in range(6):
                c, q = _neighbour(beside, b, p, side)
                if c < 0 or labels[c, q] == 0:
                    continue
                if crossed[b, p, side] if side < 3 else crossed[c, q, side - 3]:
                    continue
                if fresh[b, p] == 0 or labels[c, q] < fresh[b, p]:
                    fresh[b, p] = labels[c, q]
            grown += fresh[b, p] != 0
    return grown
