"""Numba bodies of products of planes and lines; `low_rank.py` says what they are.

Of a mode, `a` and `b` are the axes of its plane and `m` that of its line. A position's place along an axis is
its cell and how far it is in it.
"""

import numba
import numpy as np

from sparse3d_ops.cpu.hash_encoding import CHUNK, place, within
from sparse3d_ops.cpu.row_kernels import add_scaled


@numba.njit(inline="always")
def across(m):
    """The axes of the plane of a mode."""
    return (1 if m == 0 else 0), (1 if m == 2 else 2)


@numba.njit(inline="always")
def corner(m, i, j, side):
    """Row of a plane's lattice point. Unsigned, as numba looks for a negative index at every access."""
    return np.uint64((m * side + i) * side + j)


@numba.njit(inline="always")
def bilinear(u, v):
    """Weights of the corners (0, 0), (0, 1), (1, 0), (1, 1) of a cell."""
    one = type(u)(1)  # a literal would make doubles of them
    return (one - u) * (one - v), (one - u) * v, u * (one - v), u * v


@numba.njit(inline="always")
def located(positions, n, m, side):
    """Cell and place in it along the axes of a mode's plane, and along its line."""
    a, b = across(m)
    i, u = place(positions[n, a], side - 1)
    j, v = place(positions[n, b], side - 1)
    k, w = place(positions[n, m], side - 1)
    return i, u, j, v, k, w


@numba.njit(inline="always")
def on_plane(planes, p, q, weights, c):
    """A component between the corners of a cell, whose rows begin at p and at q."""
    one = np.uint64(1)
    low = weights[0] * planes[p, c] + weights[1] * planes[p + one, c]
    return low + weights[2] * planes[q, c] + weights[3] * planes[q + one, c]


@numba.njit(inline="always")
def on_line(lines, row, w, c):
    return lines[row, c] + w * (lines[row + np.uint64(1), c] - lines[row, c])


@numba.njit(parallel=True, cache=True, nogil=True)
def products(planes, lines, positions, out):
    side, channels = len(lines) // 3, lines.shape[1]
    for chunk in numba.prange((len(positions) + CHUNK - 1) // CHUNK):
        for n in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(positions))):
            for m in range(3):
                i, u, j, v, k, w = located(positions, n, m, side)
                weights = bilinear(u, v)
                p, q = corner(m, i, j, side), corner(m, i + 1, j, side)
                row, begin = np.uint64(m * side + k), m * channels
                for c in range(channels):
                    plane = on_plane(planes, p, q, weights, c)
                    out[n, begin + c] = plane * on_line(lines, row, w, c)


@numba.njit(parallel=True, cache=True, nogil=True)
def parts_of(grad, planes, lines, positions, to_planes, to_lines):
    """What comes back to plane and line of each mode at each position: (N, 3 C) each."""
    side, channels = len(lines) // 3, lines.shape[1]
    for chunk in numba.prange((len(positions) + CHUNK - 1) // CHUNK):
        for n in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(positions))):
            for m in range(3):
                i, u, j, v, k, w = located(positions, n, m, side)
                weights = bilinear(u, v)
                p, q = corner(m, i, j, side), corner(m, i + 1, j, side)
                row, begin = np.uint64(m * side + k), m * channels
                for c in range(channels):
                    plane = on_plane(planes, p, q, weights, c)
                    to_lines[n, begin + c] = grad[n, begin + c] * plane
                for c in range(channels):
                    to_planes[n, begin + c] = grad[n, begin + c] * on_line(lines, row, w, c)


@numba.njit(inline="always")
def add(out, row, weight, values, n, begin):
    size, channels = np.int64(out.itemsize), out.shape[1]
    source = np.int64(values.ctypes.data) + (n * values.shape[1] + begin) * size
    to = np.int64(out.ctypes.data) + np.int64(row) * channels * size
    add_scaled(values, source, out, to, type(out[0, 0])(weight), channels)  # pyright: ignore[reportCallIssue]


@numba.njit(parallel=True, cache=True, nogil=True)
def sum_planes(parts, positions, strips, out):
    side, channels = np.int64(np.sqrt(len(out) // 3)), out.shape[1]
    for task in numba.prange(3 * strips):
        m, strip = task % 3, task // 3
        low, high = side * strip // strips, side * (strip + 1) // strips
        a, b = across(m)
        out[(m * side + low) * side : (m * side + high) * side] = 0
        for n in range(len(positions)):
            i, u = place(positions[n, a], side - 1)
            # A cell's points are its own number and the next one.
            if low - 1 <= i < high:
                j, v = place(positions[n, b], side - 1)
                w00, w01, w10, w11 = bilinear(u, v)
                if low <= i:
                    p = corner(m, i, j, side)
                    add(out, p, w00, parts, n, m * channels)
                    add(out, p + np.uint64(1), w01, parts, n, m * channels)
                if i + 1 < high:
                    q = corner(m, i + 1, j, side)
                    add(out, q, w10, parts, n, m * channels)
                    add(out, q + np.uint64(1), w11, parts, n, m * channels)


@numba.njit(parallel=True, cache=True, nogil=True)
def sum_lines(parts, positions, strips, out):
    side, channels = len(out) // 3, out.shape[1]
    for task in numba.prange(3 * strips):
        m, strip = task % 3, task // 3
        low, high = side * strip // strips, side * (strip + 1) // strips
        out[m * side + low : m * side + high] = 0
        for n in range(len(positions)):
            k, w = place(positions[n, m], side - 1)
            if low - 1 <= k < high:
                row = np.uint64(m * side + k)
                if low <= k:
                    add(out, row, type(w)(1) - w, parts, n, m * channels)
                if k + 1 < high:
                    add(out, row + np.uint64(1), w, parts, n, m * channels)


def table_gradients(grad, planes, lines, positions, to_planes, to_lines):
    """A thread owns a mode, or a strip of its points where there are more threads than modes, and adds in the
    order of the positions: the same bits for any number of threads, without atomics and without a sort."""
    strips = (numba.get_num_threads() + 2) // 3
    parts = np.empty_like(grad), np.empty_like(grad)
    parts_of(grad, planes, lines, positions, *parts)
    with numba.parallel_chunksize(1):  # the middle has more than the border: strips are dealt out one by one
        sum_planes(parts[0], positions, strips, to_planes)
        sum_lines(parts[1], positions, strips, to_lines)


@numba.njit(parallel=True, cache=True, nogil=True)
def position_gradient(grad, planes, lines, positions, out):
    side, channels = len(lines) // 3, lines.shape[1]
    for n in numba.prange(len(positions)):
        out[n, 0] = out[n, 1] = out[n, 2] = 0
        for m in range(3):
            a, b = across(m)
            i, u, j, v, k, w = located(positions, n, m, side)
            p, q = corner(m, i, j, side), corner(m, i + 1, j, side)
            one, row = np.uint64(1), np.uint64(m * side + k)
            along_a = along_b = along_m = type(u)(0)
            for c in range(channels):
                g = grad[n, m * channels + c]
                p00, p01, p10, p11 = planes[p, c], planes[p + one, c], planes[q, c], planes[q + one, c]
                low, high = p00 + v * (p01 - p00), p10 + v * (p11 - p10)
                rise = lines[row + one, c] - lines[row, c]
                line = g * (lines[row, c] + w * rise)
                along_a += line * (high - low)
                along_b += line * ((p01 - p00) + u * ((p11 - p10) - (p01 - p00)))
                along_m += g * rise * (low + u * (high - low))
            out[n, a] += within(positions[n, a], along_a, side - 1)
            out[n, b] += within(positions[n, b], along_b, side - 1)
            out[n, m] += within(positions[n, m], along_m, side - 1)
