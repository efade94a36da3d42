"""Numba bodies of the multiresolution hash encoding.

All of them are derivatives of one form, the sum over points n, levels l and corners k of weight[n, l, k] *
table[entry[n, l, k]] . grad[n, l]. `tangents` (N, 3), where it is not empty, puts the derivative of the
weights along it in the place of the weights. `first` (L + 1,) are the levels' first rows in the table.

Points go in chunks and a chunk goes level by level: one level's entries and the chunk's rows stay in the
cache.
"""

import numba
import numpy as np

from sparse3d_ops.hash_encoding import PRIME_Y, PRIME_Z

CHUNK = 4096


@numba.njit(inline="always")
def place(x, resolution):
    """Cell of a coordinate and the place in it; outside of [0, 1] of the nearest border. NaN stays NaN."""
    p = x * type(x)(resolution)
    if x < 0:
        p = type(x)(0)
    elif x > 1:
        p = type(x)(resolution)
    cell = min(np.int64(p), resolution - 1) if p == p else np.int64(0)
    return cell, p - type(x)(cell)


@numba.njit(inline="always")
def entries(x, y, z, resolution, size, base):
    """Rows of the eight corners, k = 4 dx + 2 dy + dz, of a cell in a level of so many entries. Unsigned, as
    numba looks for a negative index at every access."""
    side = resolution + 1
    if side * side * side <= size:
        e = np.uint64(base + (x * side + y) * side + z)
        one, up_y, up_x = np.uint64(1), np.uint64(side), np.uint64(side * side)
        f = e + up_x
        return e, e + one, e + up_y, e + up_y + one, f, f + one, f + up_y, f + up_y + one
    mask = size - 1
    y0, z0 = y * PRIME_Y, z * PRIME_Z
    y1, z1 = y0 + PRIME_Y, z0 + PRIME_Z
    a, b, c, d = y0 ^ z0, y0 ^ z1, y1 ^ z0, y1 ^ z1
    u = x + 1
    return (
        np.uint64(base + ((x ^ a) & mask)),
        np.uint64(base + ((x ^ b) & mask)),
        np.uint64(base + ((x ^ c) & mask)),
        np.uint64(base + ((x ^ d) & mask)),
        np.uint64(base + ((u ^ a) & mask)),
        np.uint64(base + ((u ^ b) & mask)),
        np.uint64(base + ((u ^ c) & mask)),
        np.uint64(base + ((u ^ d) & mask)),
    )


@numba.njit(inline="always")
def corner_weights(fx, fy, fz):
    one = type(fx)(1)  # a literal would make doubles of them
    gx, gy, gz = one - fx, one - fy, one - fz
    a, b, c, d = gy * gz, gy * fz, fy * gz, fy * fz
    return gx * a, gx * b, gx * c, gx * d, fx * a, fx * b, fx * c, fx * d


@numba.njit(inline="always")
def tangent_weights(fx, fy, fz, vx, vy, vz):
    """Derivative of the weights along v, which is in cells."""
    one = type(fx)(1)  # a literal would make doubles of them
    gx, gy, gz = one - fx, one - fy, one - fz
    a, b, c, d = gy * gz, gy * fz, fy * gz, fy * fz
    # Along y and z the products of two change by these.
    da, db, dc, dd = -vy * gz - gy * vz, gy * vz - vy * fz, vy * gz - fy * vz, vy * fz + fy * vz
    return (
        gx * da - vx * a,
        gx * db - vx * b,
        gx * dc - vx * c,
        gx * dd - vx * d,
        fx * da + vx * a,
        fx * db + vx * b,
        fx * dc + vx * c,
        fx * dd + vx * d,
    )


@numba.njit(inline="always")
def within(x, v, resolution):
    """A tangent in cells; a coordinate that was moved to the border does not move along."""
    return v * type(x)(resolution) if 0 <= x <= 1 else type(x)(0)


@numba.njit(inline="always")
def weights_at(positions, tangents, n, fx, fy, fz, resolution):
    if len(tangents) == 0:
        return corner_weights(fx, fy, fz)
    return tangent_weights(
        fx,
        fy,
        fz,
        within(positions[n, 0], tangents[n, 0], resolution),
        within(positions[n, 1], tangents[n, 1], resolution),
        within(positions[n, 2], tangents[n, 2], resolution),
    )


@numba.njit(parallel=True, cache=True, nogil=True)
def encode(table, positions, tangents, resolutions, first, out):
    channels = table.shape[1]
    for chunk in numba.prange((len(positions) + CHUNK - 1) // CHUNK):
        for level in range(len(resolutions)):
            resolution, base, size = resolutions[level], first[level], first[level + 1] - first[level]
            for n in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(positions))):
                x, fx = place(positions[n, 0], resolution)
                y, fy = place(positions[n, 1], resolution)
                z, fz = place(positions[n, 2], resolution)
                e0, e1, e2, e3, e4, e5, e6, e7 = entries(x, y, z, resolution, size, base)
                w0, w1, w2, w3, w4, w5, w6, w7 = weights_at(positions, tangents, n, fx, fy, fz, resolution)
                # Two features at a time: sixteen loads are under way at once, in eight pairs.
                for c in range(0, channels, 2):
                    d = c + 1
                    a, b = w0 * table[e0, c], w0 * table[e0, d]
                    a, b = a + w1 * table[e1, c], b + w1 * table[e1, d]
                    a, b = a + w2 * table[e2, c], b + w2 * table[e2, d]
                    a, b = a + w3 * table[e3, c], b + w3 * table[e3, d]
                    a, b = a + w4 * table[e4, c], b + w4 * table[e4, d]
                    a, b = a + w5 * table[e5, c], b + w5 * table[e5, d]
                    a, b = a + w6 * table[e6, c], b + w6 * table[e6, d]
                    a, b = a + w7 * table[e7, c], b + w7 * table[e7, d]
                    out[n, level * channels + c] = a
                    out[n, level * channels + d] = b


@numba.njit(parallel=True, cache=True, nogil=True)
def sum_by_entry(grad, positions, tangents, resolutions, first, parts, out):
    levels, channels = len(resolutions), out.shape[1]
    for task in numba.prange(levels * parts):
        level, part = task // parts, task % parts
        resolution, base, size = resolutions[level], first[level], first[level + 1] - first[level]
        begin = np.uint64(base + size * part // parts)
        end = np.uint64(base + size * (part + 1) // parts)
        for e in range(begin, end):
            for c in range(channels):
                out[e, c] = 0
        for n in range(len(positions)):
            x, fx = place(positions[n, 0], resolution)
            y, fy = place(positions[n, 1], resolution)
            z, fz = place(positions[n, 2], resolution)
            corners = entries(x, y, z, resolution, size, base)
            weights = weights_at(positions, tangents, n, fx, fy, fz, resolution)
            for k in range(8):
                e = corners[k]
                if begin <= e < end:
                    for c in range(0, channels, 2):
                        out[e, c] += weights[k] * grad[n, level * channels + c]
                        out[e, c + 1] += weights[k] * grad[n, level * channels + c + 1]


def table_gradient(grad, positions, tangents, resolutions, first, out):
    """A thread owns a level, or part of its entries where there are more threads than levels, and adds in the
    order of the points: the same bits for any number of threads, without atomics and without a sort."""
    parts = max(1, numba.get_num_threads() // len(resolutions))
    with numba.parallel_chunksize(1):  # fine levels take longer: they are dealt out one by one
        sum_by_entry(grad, positions, tangents, resolutions, first, parts, out)


@numba.njit(parallel=True, cache=True, nogil=True)
def position_gradient(table, grad, positions, tangents, resolutions, first, out):
    channels = table.shape[1]
    for chunk in numba.prange((len(positions) + CHUNK - 1) // CHUNK):
        begin, end = chunk * CHUNK, min((chunk + 1) * CHUNK, len(positions))
        for n in range(begin, end):
            out[n, 0] = out[n, 1] = out[n, 2] = 0
        for level in range(len(resolutions)):
            resolution, base, size = resolutions[level], first[level], first[level + 1] - first[level]
            for n in range(begin, end):
                x, fx = place(positions[n, 0], resolution)
                y, fy = place(positions[n, 1], resolution)
                z, fz = place(positions[n, 2], resolution)
                e0, e1, e2, e3, e4, e5, e6, e7 = entries(x, y, z, resolution, size, base)
                q0 = q1 = q2 = q3 = q4 = q5 = q6 = q7 = type(fx)(0)
                for c in range(channels):
                    g = grad[n, level * channels + c]
                    q0 += g * table[e0, c]
                    q1 += g * table[e1, c]
                    q2 += g * table[e2, c]
                    q3 += g * table[e3, c]
                    q4 += g * table[e4, c]
                    q5 += g * table[e5, c]
                    q6 += g * table[e6, c]
                    q7 += g * table[e7, c]
                one = type(fx)(1)
                gx, gy, gz = one - fx, one - fy, one - fz
                # Differences along one axis, on the four edges of the cell along it.
                x0, x1, x2, x3 = q4 - q0, q5 - q1, q6 - q2, q7 - q3
                y0, y1, y2, y3 = q2 - q0, q3 - q1, q6 - q4, q7 - q5
                z0, z1, z2, z3 = q1 - q0, q3 - q2, q5 - q4, q7 - q6
                if len(tangents) == 0:
                    sx = gy * (gz * x0 + fz * x1) + fy * (gz * x2 + fz * x3)
                    sy = gx * (gz * y0 + fz * y1) + fx * (gz * y2 + fz * y3)
                    sz = gx * (gy * z0 + fy * z1) + fx * (gy * z2 + fy * z3)
                else:
                    # The same, once more derived, along the tangent.
                    vx = within(positions[n, 0], tangents[n, 0], resolution)
                    vy = within(positions[n, 1], tangents[n, 1], resolution)
                    vz = within(positions[n, 2], tangents[n, 2], resolution)
                    xy = gz * (x2 - x0) + fz * (x3 - x1)
                    xz = gy * (x1 - x0) + fy * (x3 - x2)
                    yz = gx * (y1 - y0) + fx * (y3 - y2)
                    sx, sy, sz = vy * xy + vz * xz, vx * xy + vz * yz, vx * xz + vy * yz
                out[n, 0] += within(positions[n, 0], sx, resolution)
                out[n, 1] += within(positions[n, 1], sy, resolution)
                out[n, 2] += within(positions[n, 2], sz, resolution)
