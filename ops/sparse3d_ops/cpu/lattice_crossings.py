"""Numba bodies of what triangles do to a lattice: which of its edges they cross, and what they look like
within its voxels.

A host's work, done once for a mesh: it runs through the triangles, which is nothing that waits for a GPU.
Places are float64 in voxel units; the lattice edge (x, y, z, axis) goes from the point (x, y, z) one step
along its axis.
"""

import math

import numba
import numpy as np

from sparse3d_ops.cpu.hashing import find, in_range, pack_key


@numba.njit(cache=True, nogil=True)
def _side(ub, uc, vb, vc, pb, pc):
    """On which side of the line from u to v the point p lies: 1, -1, 0 for a line of no length.

    Exactly the other for the line from v to u, and a point on the line is taken to lie a trifle further along
    b, then along c: so of two triangles that share a side one has the points on it, and never both or none.
    """
    sign = 1
    if vb < ub or (vb == ub and vc < uc):
        ub, uc, vb, vc, sign = vb, vc, ub, uc, -1
    value = (vb - ub) * (pc - uc) - (vc - uc) * (pb - ub)
    if value == 0:
        value = uc - vc
        if value == 0:
            value = vb - ub
    return sign if value > 0 else (-sign if value < 0 else 0)


@numba.njit(cache=True, nogil=True)
def _crossings_of(t, face, axis, begin, write, edges, heights, sides, faces):
    """The lattice lines along an axis that pass a triangle (3, 3): how many; they are written from `begin` on
    where `write`."""
    b, c = (axis + 1) % 3, (axis + 2) % 3
    area = (t[1, b] - t[0, b]) * (t[2, c] - t[0, c]) - (t[1, c] - t[0, c]) * (t[2, b] - t[0, b])
    if area == 0:
        return 0
    found = 0
    turn = 1 if area > 0 else -1
    low = math.ceil(min(t[0, b], t[1, b], t[2, b]))
    high = math.floor(max(t[0, b], t[1, b], t[2, b]))
    for i in range(low, high + 1):
        least, most = np.inf, -np.inf
        for k in range(3):
            ub, uc, vb, vc = t[k, b], t[k, c], t[(k + 1) % 3, b], t[(k + 1) % 3, c]
            if min(ub, vb) <= i <= max(ub, vb):
                if ub == vb:
                    least, most = min(least, uc, vc), max(most, uc, vc)
                else:
                    at = uc + (i - ub) / (vb - ub) * (vc - uc)
                    least, most = min(least, at), max(most, at)
        if least > most:
            continue
        slack = 1e-9 * (1 + abs(least) + abs(most))
        for j in range(math.ceil(least - slack), math.floor(most + slack) + 1):
            inside = True
            for k in range(3):
                u, v = t[k], t[(k + 1) % 3]
                if _side(u[b], u[c], v[b], v[c], float(i), float(j)) != turn:
                    inside = False
                    break
            if not inside:
                continue
            if write:
                db, dc = i - t[0, b], j - t[0, c]
                v = (db * (t[2, c] - t[0, c]) - dc * (t[2, b] - t[0, b])) / area
                w = (dc * (t[1, b] - t[0, b]) - db * (t[1, c] - t[0, c])) / area
                height = t[0, axis] + v * (t[1, axis] - t[0, axis]) + w * (t[2, axis] - t[0, axis])
                height = min(
                    max(height, min(t[0, axis], t[1, axis], t[2, axis])),
                    max(t[0, axis], t[1, axis], t[2, axis]),
                )
                # A lattice a trifle further along, as in `_side`, has its point beyond what touches it.
                row, step = begin + found, math.ceil(height) - 1
                edges[row, axis], edges[row, b], edges[row, c], edges[row, 3] = step, i, j, axis
                heights[row], sides[row], faces[row] = height - step, turn, face
            found += 1
    return found


@numba.njit(parallel=True, cache=True, nogil=True)
def count_crossings(triangles, counts):
    """triangles (F, 3, 3) in voxel units; counts (F,) int64 is an output."""
    edges, heights = np.empty((0, 4), np.int32), np.empty(0)
    sides, faces = np.empty(0, np.int8), np.empty(0, np.int32)
    for f in numba.prange(len(triangles)):
        total = 0
        for axis in range(3):
            total += _crossings_of(triangles[f], f, axis, 0, False, edges, heights, sides, faces)
        counts[f] = total


@numba.njit(parallel=True, cache=True, nogil=True)
def crossings(triangles, starts, edges, heights, sides, faces):
    """Of triangle f from row starts[f] on: edges (M, 4) int32, heights (M,) float64 above the edges' lower
    ends in (0, 1], sides (M,) int8, 1 where the triangle's outside lies further along the axis and -1 where
    it lies before, faces (M,) int32."""
    for f in numba.prange(len(triangles)):
        row = starts[f]
        for axis in range(3):
            row += _crossings_of(triangles[f], f, axis, row, True, edges, heights, sides, faces)


@numba.njit(cache=True, nogil=True)
def _clip(polygon, count, axis, bound, keeps_below, other):
    """Sutherland and Hodgman: the part of a polygon on one side of a plane across an axis, into `other`."""
    kept = 0
    for k in range(count):
        p, q = polygon[k], polygon[(k + 1) % count]
        a, b = p[axis] - bound, q[axis] - bound
        if keeps_below:
            a, b = -a, -b
        if a >= 0:
            other[kept] = p
            kept += 1
        if (a > 0 and b < 0) or (a < 0 and b > 0):
            part = a / (a - b)
            for i in range(3):
                other[kept, i] = p[i] + part * (q[i] - p[i])
            other[kept, axis] = bound
            kept += 1
    return kept


@numba.njit(cache=True, nogil=True)
def _clipped_area(t, x, y, z, one, two):
    """Area of the part of a triangle that lies in the voxel (x, y, z). one, two (16, 3) are room."""
    one[:3] = t
    count = 3
    corner = (x, y, z)
    for axis in range(3):
        count = _clip(one, count, axis, corner[axis], False, two)
        if count < 3:
            return 0.0
        count = _clip(two, count, axis, corner[axis] + 1, True, one)
        if count < 3:
            return 0.0
    ax = ay = az = 0.0
    for k in range(1, count - 1):
        u0, u1, u2 = one[k, 0] - one[0, 0], one[k, 1] - one[0, 1], one[k, 2] - one[0, 2]
        v0, v1, v2 = one[k + 1, 0] - one[0, 0], one[k + 1, 1] - one[0, 1], one[k + 1, 2] - one[0, 2]
        ax += u1 * v2 - u2 * v1
        ay += u2 * v0 - u0 * v2
        az += u0 * v1 - u1 * v0
    return math.sqrt(ax * ax + ay * ay + az * az) / 2


@numba.njit(cache=True, nogil=True)
def add_plane(forms, row, n, p, weight):
    """forms (N, 13) holds of each voxel the quadratic form v A v - 2 b v: A as (00, 01, 02, 11, 12, 22), b
    (3,), then the sum (3,) and number of crossings. p in the voxel's own coordinates."""
    offset = n[0] * p[0] + n[1] * p[1] + n[2] * p[2]
    at = 0
    for i in range(3):
        for j in range(i, 3):
            forms[row, at] += weight * n[i] * n[j]
            at += 1
        forms[row, 6 + i] += weight * n[i] * offset


@numba.njit(cache=True, nogil=True)
def add_crossings(slot_keys, slot_rows, edges, heights, normals, faces, forms):
    """The plane at each crossing, to the four voxels around its edge; all of them are in the table."""
    place = np.empty(3)
    for m in range(len(edges)):
        axis = edges[m, 3]
        b, c = (axis + 1) % 3, (axis + 2) % 3
        n = normals[faces[m]]
        for k in range(4):
            place[axis], place[b], place[c] = heights[m], k >> 1, k & 1
            x = edges[m, 0] - np.int64(place[0] if axis != 0 else 0)
            y = edges[m, 1] - np.int64(place[1] if axis != 1 else 0)
            z = edges[m, 2] - np.int64(place[2] if axis != 2 else 0)
            row = find(slot_keys, slot_rows, pack_key(0, x, y, z))
            add_plane(forms, row, n, place, 1.0)
            for i in range(3):
                forms[row, 9 + i] += place[i]
            forms[row, 12] += 1


@numba.njit(cache=True, nogil=True)
def _strip(t, b, c, i):
    """How far along the axis c the part of a triangle reaches that lies between i and i + 1 along b."""
    least, most = np.inf, -np.inf
    for k in range(3):
        ub, uc, vb, vc = t[k, b], t[k, c], t[(k + 1) % 3, b], t[(k + 1) % 3, c]
        if max(ub, vb) < i or min(ub, vb) > i + 1:
            continue
        at, to = uc, vc
        if ub != vb:
            at = uc + (min(max(i, ub), i + 1) - ub) / (vb - ub) * (vc - uc)
            to = uc + (min(max(i, vb), i + 1) - ub) / (vb - ub) * (vc - uc)
        least, most = min(least, at, to), max(most, at, to)
    return least, most


@numba.njit(cache=True, nogil=True)
def add_faces(slot_keys, slot_rows, triangles, normals, weight, forms):
    """The plane of each triangle, to the voxels that it lies in, weighted by the area in them: what cuts a
    surface into triangles does not matter. Walks over the columns of voxels across which it is flattest."""
    one, two, place = np.empty((16, 3)), np.empty((16, 3)), np.empty(3)
    for f in range(len(triangles)):
        t, n = triangles[f], normals[f]
        if n[0] == 0 and n[1] == 0 and n[2] == 0:
            continue
        axis = 0
        for k in range(1, 3):
            if abs(n[k]) > abs(n[axis]):
                axis = k
        b, c = (axis + 1) % 3, (axis + 2) % 3
        tall = (abs(n[b]) + abs(n[c])) / (2 * abs(n[axis]))
        bottom = min(t[0, axis], t[1, axis], t[2, axis])
        top = max(t[0, axis], t[1, axis], t[2, axis])
        low, high = min(t[0, b], t[1, b], t[2, b]), max(t[0, b], t[1, b], t[2, b])
        for i in range(math.floor(low), math.floor(high) + 1):
            least, most = _strip(t, b, c, i)
            for j in range(math.floor(least), math.floor(most) + 1):
                middle = t[0, axis] - (n[b] * (i + 0.5 - t[0, b]) + n[c] * (j + 0.5 - t[0, c])) / n[axis]
                first = math.floor(max(middle - tall, bottom))
                for h in range(first, math.floor(min(middle + tall, top)) + 1):
                    place[axis], place[b], place[c] = h, i, j
                    x, y, z = np.int64(place[0]), np.int64(place[1]), np.int64(place[2])
                    if not in_range(x, y, z):
                        continue
                    row = find(slot_keys, slot_rows, pack_key(0, x, y, z))
                    if row < 0:
                        continue
                    area = _clipped_area(t, float(x), float(y), float(z), one, two)
                    if area > 0:
                        for k in range(3):
                            place[k] = t[0, k] - place[k]
                        add_plane(forms, row, n, place, weight * area)


@numba.njit(cache=True, nogil=True)
def add_borders(slot_keys, slot_rows, segments, weight, forms):
    """The distance from each segment (S, 2, 3), to the voxels that it lies in, weighted by its length in
    them."""
    across, place = np.empty(3), np.empty(3)
    for s in range(len(segments)):
        p, q = segments[s, 0], segments[s, 1]
        length = math.sqrt((q[0] - p[0]) ** 2 + (q[1] - p[1]) ** 2 + (q[2] - p[2]) ** 2)
        if length == 0:
            continue
        at = 0.0
        while at < 1:
            # The next plane of the lattice on the way.
            then = 1.0
            for k in range(3):
                d = q[k] - p[k]
                if d != 0:
                    here = p[k] + at * d
                    plane = math.floor(here + 1e-9) + 1 if d > 0 else math.ceil(here - 1e-9) - 1
                    then = min(then, (plane - p[k]) / d)
            then = max(then, at + 1e-12)
            part, middle = (min(then, 1.0) - at) * length, (at + min(then, 1.0)) / 2
            x = math.floor(p[0] + middle * (q[0] - p[0]))
            y = math.floor(p[1] + middle * (q[1] - p[1]))
            z = math.floor(p[2] + middle * (q[2] - p[2]))
            row = find(slot_keys, slot_rows, pack_key(0, x, y, z)) if in_range(x, y, z) else np.int32(-1)
            if row >= 0:
                place[0], place[1], place[2] = p[0] - x, p[1] - y, p[2] - z
                for k in range(3):  # of 1 - d d^T, the rows: their squares add up to it
                    for i in range(3):
                        across[i] = -(q[i] - p[i]) * (q[k] - p[k]) / (length * length)
                    across[k] += 1
                    add_plane(forms, row, across, place, weight * part)
            at = then


@numba.njit(cache=True, nogil=True)
def _least(form, fixed, v):
    """The place v of the least value where coordinates with fixed[i] >= 0 are that: solved by elimination."""
    a = np.empty((3, 4))
    at = 0
    for i in range(3):
        for j in range(i, 3):
            a[i, j] = a[j, i] = form[at]
            at += 1
        a[i, 3] = form[6 + i]
    for i in range(3):
        if fixed[i] >= 0:
            a[i, :] = 0
            a[i, i], a[i, 3] = 1, fixed[i]
    for k in range(3):
        best = k
        for i in range(k + 1, 3):
            if abs(a[i, k]) > abs(a[best, k]):
                best = i
        for j in range(4):
            a[k, j], a[best, j] = a[best, j], a[k, j]
        for i in range(k + 1, 3):
            factor = a[i, k] / a[k, k]
            for j in range(k, 4):
                a[i, j] -= factor * a[k, j]
    for k in range(2, -1, -1):
        v[k] = a[k, 3]
        for j in range(k + 1, 3):
            v[k] -= a[k, j] * v[j]
        v[k] /= a[k, k]


@numba.njit(cache=True, nogil=True)
def _value(form, v):
    total, at = 0.0, 0
    for i in range(3):
        for j in range(i, 3):
            total += form[at] * v[i] * v[j] * (1 if i == j else 2)
            at += 1
        total -= 2 * form[6 + i] * v[i]
    return total


@numba.njit(parallel=True, cache=True, nogil=True)
def solve(forms, regularization, vertices):
    """vertices (N, 3) is an output: where in its voxel each form, with regularization * count * |v - mean|^2,
    is least. Where that lies outside, the least value on the voxel's faces, edges and corners is looked for
    one by one: moving the outer place to the border would leave the surface."""
    for row in numba.prange(len(forms)):
        form, v, fixed, best = forms[row].copy(), np.empty(3), np.full(3, -1.0), np.zeros(3)
        pull = regularization * form[12]
        form[0] += pull
        form[3] += pull
        form[5] += pull
        for i in range(3):
            form[6 + i] += regularization * form[9 + i]
        _least(form, fixed, v)
        if not (0 <= v[0] <= 1 and 0 <= v[1] <= 1 and 0 <= v[2] <= 1):
            value = np.inf
            for way in range(1, 27):
                rest = way
                for i in range(3):
                    fixed[i] = rest % 3 - 1.0
                    rest //= 3
                if fixed[0] < 0 and fixed[1] < 0 and fixed[2] < 0:
                    continue
                _least(form, fixed, v)
                if 0 <= v[0] <= 1 and 0 <= v[1] <= 1 and 0 <= v[2] <= 1:
                    found = _value(form, v)
                    if found < value:
                        value = found
                        best[:] = v
            v[:] = best
        vertices[row] = v
