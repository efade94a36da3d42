"""Numba bodies of rays through boxes and occupied space.

Positions are float64. In units of cells a ray is a + t b, with a = (origin - low) * scale and b = direction *
scale; where a block is left is computed from its number and not from the cell before, so errors do not add
up.
"""

import math

import numba
import numpy as np

from sparse3d_ops.cpu.hashing import find, pack_key


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
    return max(1.0, np.ceil((end - start) / step - SLIVER)) if start < end else 0.0


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
def along(origin, direction, low, scale):
    """a, b, 1 / b and whether b > 0, of one axis in units of cells. 1 / b is inf where the ray stands
    still."""
    a, b = (origin - low) * scale, direction * scale
    return a, b, (1 / b if b != 0 else np.inf), np.int64(b > 0)


@numba.njit(inline="always")
def face_of(cell, shift, up):
    """Number of the face through which a ray leaves the block of 2^shift cells a side around the cell."""
    return ((cell >> shift) + up) << shift


@numba.njit(inline="always")
def at_face(face, a, inverse):
    return (face - a) * inverse if abs(inverse) < np.inf else np.inf


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
            out = min(
                at_face(face_of(i, block - 1, up_x), ax, inverse_x),
                at_face(face_of(j, block - 1, up_y), ay, inverse_y),
                at_face(face_of(l, block - 1, up_z), az, inverse_z),
            )
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


TOUCH = 1e-8  # voxels: less of one on a ray is rounding


@numba.njit(inline="always")
def next_cell(cell, face, up, leaves, position):
    """Cell of an axis after a step: the one behind the face or, when the ray leaves elsewhere, where it is
    then, which is not behind the cell before and not beyond the face."""
    if leaves:
        return face - 1 + up
    if up:
        return max(cell, min(np.int64(math.floor(position)), face - 1))
    return min(cell, max(np.int64(math.floor(position)), face))


@numba.njit(parallel=True, cache=True, nogil=True)
def traverse(
    origins,
    directions,
    near,
    far,
    slot_keys,
    slot_rows,
    batch,
    low,
    voxel_size,
    lowest,
    blocks,
    shift,
    ray_starts,
    row,
    t0,
    t1,
    fill,
):
    """Counts the intervals of ray r into ray_starts[r + 1] or, with `fill`, writes them. Cells count from the
    voxel `lowest` (3,); blocks (X, Y, Z) of 2^shift cells a side cover all voxels."""
    size = np.array([n << shift for n in blocks.shape], np.float64)
    zero = np.zeros(3)
    for r in numba.prange(len(origins)):
        ax, bx, inverse_x, up_x = along(
            np.float64(origins[r, 0]), np.float64(directions[r, 0]), low[0], 1 / voxel_size[0]
        )
        ay, by, inverse_y, up_y = along(
            np.float64(origins[r, 1]), np.float64(directions[r, 1]), low[1], 1 / voxel_size[1]
        )
        az, bz, inverse_z, up_z = along(
            np.float64(origins[r, 2]), np.float64(directions[r, 2]), low[2], 1 / voxel_size[2]
        )
        # Counted from the lowest voxel after the division: adding a whole number moves no face.
        ax, ay, az = ax - lowest[0], ay - lowest[1], az - lowest[2]
        t, end = np.float64(near[r]), np.float64(far[r])
        if not (t <= end):
            continue
        t, end = slab(ax, bx, zero[0], size[0], t, end)
        t, end = slab(ay, by, zero[1], size[1], t, end)
        t, end = slab(az, bz, zero[2], size[2], t, end)
        speed = max(abs(bx), abs(by), abs(bz))
        # Comparisons with NaN would pass, and a ray in the upper face of the last voxel is in none.
        finite = math.isfinite(ax + ay + az + bx + by + bz) and speed > 0
        if not (t < end and finite):
            continue
        if (bx == 0 and ax >= size[0]) or (by == 0 and ay >= size[1]) or (bz == 0 and az >= size[2]):
            continue
        x = min(max(np.int64(math.floor(ax + t * bx)), 0), np.int64(size[0]) - 1)
        y = min(max(np.int64(math.floor(ay + t * by)), 0), np.int64(size[1]) - 1)
        z = min(max(np.int64(math.floor(az + t * bz)), 0), np.int64(size[2]) - 1)
        touch = TOUCH / speed
        at, count = ray_starts[r], np.int64(0)
        while 0 <= x < size[0] and 0 <= y < size[1] and 0 <= z < size[2]:
            block = np.int64(blocks[x >> shift, y >> shift, z >> shift])
            edge = shift + block - 1 if block else 0
            face_x, face_y, face_z = face_of(x, edge, up_x), face_of(y, edge, up_y), face_of(z, edge, up_z)
            tx, ty = at_face(face_x, ax, inverse_x), at_face(face_y, ay, inverse_y)
            tz = at_face(face_z, az, inverse_z)
            out = min(tx, ty, tz)
            if block == 0 and min(out, end) - t > touch:
                # A cell beyond the range of a key carries over to a voxel below the lowest: there is none.
                key = pack_key(batch[r], x + lowest[0], y + lowest[1], z + lowest[2])
                found = find(slot_keys, slot_rows, key)
                if found >= 0:
                    if fill:
                        row[at + count], t0[at + count], t1[at + count] = found, t, min(out, end)
                    count += 1
            if not (out < end):
                break
            x = next_cell(x, face_x, up_x, tx <= out, ax + out * bx)
            y = next_cell(y, face_y, up_y, ty <= out, ay + out * by)
            z = next_cell(z, face_z, up_z, tz <= out, az + out * bz)
            t = max(t, out)
        if not fill:
            ray_starts[r + 1] = count
