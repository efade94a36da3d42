"""Numba bodies of marching cubes over blocks: mark what is inside, find the cases of the cells and the edges
that the surface crosses, number these edges row by row, write the triangles.

A row is the Z points (b, x, y, .). Most rows have no surface, so all that is done for each point is done on
bytes, row by row, and vectorises.
"""

import numba
import numpy as np

_INSIDE, _UNKNOWN = np.uint8(1), np.uint8(2)


@numba.njit(parallel=True, cache=True, nogil=True)
def flag(values, weights, level, min_weight):
    """(N,), (N,) or (0,) -> (N,) uint8: 1 for inside, 2 for not known."""
    flags = np.empty(len(values), np.uint8)
    if len(weights):
        for p in numba.prange(len(values)):
            unknown = (values[p] != values[p]) | (not weights[p] >= min_weight)
            flags[p] = np.uint8(values[p] > level) | np.uint8(unknown) << np.uint8(1)
    else:
        for p in numba.prange(len(values)):
            flags[p] = np.uint8(values[p] > level) | np.uint8(values[p] != values[p]) << np.uint8(1)
    return flags


@numba.njit(inline="always")
def point_at(neighbours, size, b, x, y, z, corner):
    """Number of the point at a corner of a cell, -1 where there is no block."""
    X, Y, Z = size
    x, y, z = x + (corner >> 2), y + (corner >> 1 & 1), z + (corner & 1)
    over = 0
    if x == X:
        x, over = 0, 4
    if y == Y:
        y, over = 0, over + 2
    if z == Z:
        z, over = 0, over + 1
    if over:
        b = neighbours[b, over]
        if b < 0:
            return np.int64(-1)
    return ((b * X + x) * Y + y) * Z + z


@numba.njit(parallel=True, cache=True, nogil=True)
def find_cases(flags, neighbours, size, counts, edges, crossed):
    """-> the cases of the cells (N,) uint8, 0 where a corner is not known; for each axis whether a vertex
    lies on the edge from a point along it (3, N) uint8; triangles of each row (B X Y,)."""
    X, Y, Z = size
    blocks = len(neighbours)
    case = np.empty(len(flags), np.uint8)
    marks = np.zeros((3, len(flags)), np.uint8)
    triangles = np.zeros(blocks * X * Y, np.int64)
    for slab in numba.prange(blocks * X):
        b, x = slab // X, slab % X
        even, unknown = np.empty(Z + 1, np.uint8), np.empty(Z + 1, np.uint8)
        for y in range(Y):
            _gather_row(flags, neighbours, size, b, x, y, even, unknown)
            row = slab * Y + y
            begin = row * Z
            found = np.uint8(0)
            for z in range(Z):
                whole = even[z] | even[z + 1] << np.uint8(1)
                known = unknown[z] | unknown[z + 1] < np.uint8(1)
                c = whole if known else np.uint8(0)
                case[begin + z] = c
                found |= np.uint8(c > 0) & np.uint8(c < 255)
            if found:
                for z in range(Z):
                    c = case[begin + z]
                    if 0 < c < 255:
                        triangles[row] += counts[c]
                        _mark(marks, neighbours, size, b, x, y, z, edges, crossed[c])
    return case, marks, triangles


@numba.njit(inline="always")
def _gather_row(flags, neighbours, size, b, x, y, even, unknown):
    """Of the Z + 1 quadruples of points that bound the cells of a row from below and above: bit 2 j of `even`
    says whether the point at (dx, dy) = (j // 2, j % 2) is inside, `unknown` whether one is not known."""
    X, Y, Z = size
    even[:] = 0
    unknown[:] = 0
    for j in range(4):
        i, k = x + (j >> 1), y + (j & 1)
        over = 0
        if i == X:
            i, over = 0, 4
        if k == Y:
            k, over = 0, over + 2
        shift = np.uint8(2 * j)
        there, above = neighbours[b, over], neighbours[b, over + 1]
        if there >= 0:
            begin = ((there * X + i) * Y + k) * Z
            for z in range(Z):
                f = flags[begin + z]
                even[z] |= (f & _INSIDE) << shift
                unknown[z] |= f >> _INSIDE
        else:
            unknown[:Z] = 1
        if above >= 0:
            f = flags[((above * X + i) * Y + k) * Z]
            even[Z] |= (f & _INSIDE) << shift
            unknown[Z] |= f >> _INSIDE
        else:
            unknown[Z] = 1


@numba.njit(inline="always")
def _mark(marks, neighbours, size, b, x, y, z, edges, crossed):
    # Cells of other threads may mark the same edge: with the same byte, so it does not matter who is last.
    for e in range(12):
        if crossed >> e & 1:
            marks[edges[e] & 3, point_at(neighbours, size, b, x, y, z, edges[e] >> 2)] = 1


@numba.njit(parallel=True, cache=True, nogil=True)
def count_marks(marks, Z):
    """(3, N) -> vertices of each row."""
    total = np.empty(marks.shape[1] // max(Z, 1), np.int64)
    for row in numba.prange(len(total)):
        n = 0
        for z in range(row * Z, (row + 1) * Z):
            n += np.int64(marks[0, z] + marks[1, z] + marks[2, z])
        total[row] = n
    return total


@numba.njit(parallel=True, cache=True, nogil=True)
def number_vertices(marks, neighbours, size, vertex, rank, low, high):
    """rank (N,) is written for points that have vertices: how many come before them in their row."""
    X, Y, Z = size
    for row in numba.prange(len(vertex) - 1):
        n = vertex[row]
        if vertex[row + 1] == n:
            continue
        b, x, y = row // (X * Y), row // Y % X, row % Y
        for z in range(Z):
            p = row * Z + z
            if marks[0, p] | marks[1, p] | marks[2, p]:
                rank[p] = n - vertex[row]
                for axis in range(3):
                    if marks[axis, p]:
                        low[n] = p
                        high[n] = point_at(neighbours, size, b, x, y, z, 4 >> axis)
                        n += 1


@numba.njit(parallel=True, cache=True, nogil=True)
def write_faces(case, ends, neighbours, size, face, table, counts, faces):
    X, Y, Z = size
    vertex, rank, marks = ends
    for row in numba.prange(len(face) - 1):
        at = face[row]
        if face[row + 1] == at:
            continue
        b, x, y = row // (X * Y), row // Y % X, row % Y
        for z in range(Z):
            c = case[row * Z + z]
            if c == 0 or c == 255:
                continue
            for t in range(counts[c]):
                for k in range(3):
                    edge = table[c, t, k]
                    p = point_at(neighbours, size, b, x, y, z, edge >> 2)
                    n = vertex[p // Z] + rank[p]
                    if edge & 3 > 0:
                        n += marks[0, p]
                    if edge & 3 > 1:
                        n += marks[1, p]
                    faces[at, k] = n
                at += 1
