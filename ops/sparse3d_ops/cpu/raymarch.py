"""Numba bodies of rays through boxes and occupied space.

Positions are float64. In units of cells a ray is a + t b, with a = (origin - low) * scale and b = direction *
scale; where a block is left is computed from its number and not from the cell before, so errors do not add
up.
"""

import math

import numba
import numpy as np


@numba.njit(inline="always")
def slab(origin, direction, low, high, near, far):
    """The part of [near, far] in which low <= origin + t direction <= high; near > far where there is
    none."""
    if direction == 0:
        return (near, far) if low <= origin <= high else (np.inf, -np.inf)
    first, last = (low - origin) / direction, (high - origin) / direction
    if first > last:
        first, last = last, first
    return max(near, first), min(far, last)


@numba.njit(inline="always")
def span(origins, directions, r, low, high, near, far):
    """The part of [near, far] in which ray r is in the box; (inf, -inf) where it is nowhere."""
    size = 0.0
    for axis in range(3):
        o, d = np.float64(origins[r, axis]), np.float64(directions[r, axis])
        size += abs(d)
        near, far = slab(o, d, low[axis], high[axis], near, far)
        if not math.isfinite(o + d):  # comparisons with NaN would pass
            size = np.nan
    return (near, far) if near <= far and 0 < size < np.inf else (np.inf, -np.inf)


@numba.njit(parallel=True, cache=True, nogil=True)
def ray_box(origins, directions, low, high, near, far):
    for r in numba.prange(len(origins)):
        near[r], far[r] = span(origins, directions, r, low, high, 0.0, np.inf)


@numba.njit(parallel=True, cache=True, nogil=True)
def empty_blocks(blocks, levels):
    """blocks (X, Y, Z) uint8 comes in 1 for empty cells, 0 for occupied ones. A block is empty when its eight
    parts are."""
    nx, ny, nz = blocks.shape
    for level in range(1, levels):
        edge, half = 1 << level, 1 << (level - 1)
        for bx in numba.prange((nx + edge - 1) // edge):
            x0, x1 = bx * edge, min((bx + 1) * edge, nx)
            for y0 in range(0, ny, edge):
                y1 = min(y0 + edge, ny)
                for z0 in range(0, nz, edge):
                    z1 = min(z0 + edge, nz)
                    empty = True
                    for x in range(x0, x1, half):
                        for y in range(y0, y1, half):
                            for z in range(z0, z1, half):
                                empty &= blocks[x, y, z] >= level
                    if empty:
                        for x in range(x0, x1):
                            for y in range(y0, y1):
                                for z in range(z0, z1):
                                    blocks[x, y, z] = level + 1


SLIVER = 1e-6  # of a step: what is left at the end of a ray, if shorter, belongs to the bin before


@numba.njit(inline="always")
def bins_of(start, end, step):
    """Number of bins of a ray, as a float: it may be too large for an integer."""
    return max(1.0, math.ceil((end - start) / step - SLIVER)) if start < end else 0.0


@numba.njit(inline="always")
def bin_of(start, end, step, k, bins):
    """Begin and length of bin k."""
    begin = start + k * step
    return begin, (step if k + 1 < bins else end - begin)


@numba.njit(parallel=True, cache=True, nogil=True)
def march_spans(origins, directions, near, far, low, high, step, spans, word_starts, most):
    """spans (R, 2), the part of each ray in the box, and word_starts (R + 1,), places of its words of 64
    bins, are outputs. Returns the first ray with more than `most` bins, -1 when there is none."""
    for r in numba.prange(len(origins)):
        first, last = np.float64(near[r]), np.float64(far[r])
        if first <= last:
            first, last = span(origins, directions, r, low, high, first, last)
        else:
            first, last = np.inf, -np.inf
        spans[r, 0], spans[r, 1] = first, last
        bins = bins_of(first, last, step)
        word_starts[r + 1] = (np.int64(bins) + 63) >> 6 if bins <= most else -1
    word_starts[0] = 0
    for r in range(len(origins)):
        if word_starts[r + 1] < 0:
            return r
        word_starts[r + 1] += word_starts[r]
    return -1


@numba.njit(inline="always")
def cell_of(position, size):
    """Clamped: rounding may put a point of a face outside."""
    return min(max(np.int64(position), 0), size - 1)


@numba.njit(inline="always")
def leave(a, inverse, cell, shift, ahead):
    """t where the ray leaves the block of 2^shift cells a side around the cell along one axis; `ahead` is 1
    where it runs upwards, and `inverse` 1 / b, infinite where it stands still."""
    return ((((cell >> shift) + ahead) << shift) - a) * inverse


@numba.njit(inline="always")
def along(origin, direction, low, scale):
    """a, b, 1 / b and whether b > 0, of one axis in units of cells."""
    a, b = (origin - low) * scale, direction * scale
    # A ray that stands still leaves upwards, at inf: a cell's upper face lies above it, unless it was
    # clamped.
    return a, b, (1 / b if b != 0 else np.inf), np.int64(b >= 0)


@numba.njit(parallel=True, cache=True, nogil=True)
def march_count(origins, directions, offset, blocks, low, high, step, spans, word_starts, kept, ray_starts):
    """kept (words,) int64, a bit for each bin, and ray_starts (R + 1,) are outputs."""
    nx, ny, nz = blocks.shape
    sx, sy, sz = nx / (high[0] - low[0]), ny / (high[1] - low[1]), nz / (high[2] - low[2])
    per_step = 1 / step
    for r in numba.prange(len(origins)):
        start, end = spans[r, 0], spans[r, 1]
        first = word_starts[r]
        for word in range(first, word_starts[r + 1]):
            kept[word] = 0
        u, bins = np.float64(offset[r]), np.int64(bins_of(start, end, step))
        ax, bx, inverse_x, up_x = along(origins[r, 0], directions[r, 0], low[0], sx)
        ay, by, inverse_y, up_y = along(origins[r, 1], directions[r, 1], low[1], sy)
        az, bz, inverse_z, up_z = along(origins[r, 2], directions[r, 2], low[2], sz)
        k, count = np.int64(0), np.int64(0)
        while k < bins:
            begin, length = bin_of(start, end, step, k, bins)
            t = begin + u * length
            i, j, l = cell_of(ax + t * bx, nx), cell_of(ay + t * by, ny), cell_of(az + t * bz, nz)
            block = np.int64(blocks[i, j, l])
            if block == 0:
                kept[first + (k >> 6)] |= np.int64(1) << (k & 63)
                count += 1
                k += 1
                continue
            # What is not a number (no distance times inf) is less than nothing and decides nothing.
            out = leave(ax, inverse_x, i, block - 1, up_x)
            other = leave(ay, inverse_y, j, block - 1, up_y)
            out = other if other < out else out
            other = leave(az, inverse_z, l, block - 1, up_z)
            out = other if other < out else out
            # Rounded down: the last sample before the face is looked at too, whatever was rounded.
            bin_out = (out - start) * per_step - u
            if bin_out >= bins:
                break
            k += 1
            if bin_out > k:
                k = np.int64(bin_out)
        ray_starts[r + 1] = count
    ray_starts[0] = 0
    for r in range(len(origins)):
        ray_starts[r + 1] += ray_starts[r]


@numba.njit(parallel=True, cache=True, nogil=True)
def march_fill(offset, step, spans, word_starts, kept, ray_starts, t, dt):
    for r in numba.prange(len(offset)):
        start, end, u = spans[r, 0], spans[r, 1], np.float64(offset[r])
        bins = np.int64(bins_of(start, end, step))
        at = ray_starts[r]
        for word in range(word_starts[r], word_starts[r + 1]):
            bits, k = kept[word], (word - word_starts[r]) << 6
            if bits == 0:
                continue
            for bit in range(64):
                if (bits >> bit) & 1:
                    begin, length = bin_of(start, end, step, k + bit, bins)
                    t[at], dt[at] = begin + u * length, length
                    at += 1
