"""Numba body of looking at a truncated distance field with a camera.

Samples that cannot be known are not looked at: before the first and behind the last block that a tile of
pixels can see, and within a block that is not there. Which samples there are does not depend on that.
"""

import math

import numba
import numpy as np

from sparse3d_ops.cpu.hashing import find, first_slot, in_range, pack_key
from sparse3d_ops.cpu.visible_samples import to_the_exit

TILE = 8  # pixels along a side
KNOWN = 1 << 8  # blocks of which a thread remembers the rows


@numba.njit(cache=True, nogil=True)
def tile_ranges(blocks, side, numbers, width, height):
    """(rows, columns, 2) float32: the least and the largest z at which the pixels of a tile can see blocks
    (N, 4); inf and -inf where they see none."""
    rows, columns = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    ranges = np.empty((rows, columns, 2), np.float32)
    ranges[..., 0], ranges[..., 1] = np.inf, -np.inf
    # Directions are ways @ (column, row, 1): (column, row, 1) z is its inverse @ (place - origin).
    ways = np.empty((3, 3))
    for i in range(9):
        ways[i // 3, i % 3] = numbers[3 + i]
    back = np.linalg.inv(ways)
    for n in range(len(blocks)):
        low, high = math.inf, -math.inf
        left = top = math.inf
        right = bottom = -math.inf
        for corner in range(8):
            x = (blocks[n, 1] + (corner >> 2)) * side - numbers[0]
            y = (blocks[n, 2] + (corner >> 1 & 1)) * side - numbers[1]
            z = (blocks[n, 3] + (corner & 1)) * side - numbers[2]
            u = back[0, 0] * x + back[0, 1] * y + back[0, 2] * z
            v = back[1, 0] * x + back[1, 1] * y + back[1, 2] * z
            w = back[2, 0] * x + back[2, 1] * y + back[2, 2] * z
            low, high = min(low, w), max(high, w)
            if w > 1e-9:
                left, right = min(left, u / w), max(right, u / w)
                top, bottom = min(top, v / w), max(bottom, v / w)
        if high <= 0:
            continue
        if low <= 1e-9:  # the block reaches behind the camera: it may be anywhere in the picture
            low, left, top, right, bottom = 0.0, 0.0, 0.0, float(width), float(height)
        if right < -1 or bottom < -1 or left > width or top > height:
            continue
        c0, c1 = max(np.int64(left - 1) // TILE, 0), min(np.int64(right + 1) // TILE, columns - 1)
        r0, r1 = max(np.int64(top - 1) // TILE, 0), min(np.int64(bottom + 1) // TILE, rows - 1)
        # A rounding outwards, so that nothing is lost by float32.
        low, high = low * (1 - 1e-6), high * (1 + 1e-6)
        for r in range(r0, r1 + 1):
            for c in range(c0, c1 + 1):
                ranges[r, c, 0] = min(ranges[r, c, 0], low)
                ranges[r, c, 1] = max(ranges[r, c, 1], high)
    return ranges


@numba.njit(inline="always")
def remembered(slot_keys, slot_rows, keys, rows, a, b, c):
    """Slot of `keys` (KNOWN,) and `rows` (KNOWN, 8) that has block (a, b, c): the rows of it and of the
    blocks at 4 dx + 2 dy + dz beyond, -1 where there is none."""
    key = pack_key(0, a, b, c)
    slot = first_slot(key, KNOWN - 1)
    if keys[slot] != key:
        keys[slot] = key
        rows[slot, 0] = find(slot_keys, slot_rows, key)
        for k in range(1, 8):
            rows[slot, k] = np.int32(-2)  # not asked for yet
    return slot


@numba.njit(inline="always")
def beyond(slot_keys, slot_rows, rows, slot, a, b, c, over):
    """The row of a neighbour of a remembered block."""
    row = rows[slot, over]
    if row == -2:
        x, y, z = a + (over >> 2), b + (over >> 1 & 1), c + (over & 1)
        row = find(slot_keys, slot_rows, pack_key(0, x, y, z)) if in_range(x, y, z) else np.int32(-1)
        rows[slot, over] = row
    return row


@numba.njit(inline="always")
def mixed(v, fx, fy, fz):
    """The trilinear interpolation of eight values, corner 4 dx + 2 dy + dz."""
    a, b = v[0] + fz * (v[1] - v[0]), v[2] + fz * (v[3] - v[2])
    c, d = v[4] + fz * (v[5] - v[4]), v[6] + fz * (v[7] - v[6])
    a, c = a + fy * (b - a), c + fy * (d - c)
    return a + fx * (c - a)


@numba.njit(inline="always")
def around(slot_keys, slot_rows, keys, rows, side, x, y, z, at, block):
    """The eight lattice points around (x, y, z): their rows `block` (8,) and numbers there `at` (8,), outputs.
    Returns whether all have blocks."""
    i, j, k = np.int64(math.floor(x)), np.int64(math.floor(y)), np.int64(math.floor(z))
    a, b, c = i // side, j // side, k // side
    if not in_range(a, b, c):
        return False
    slot = remembered(slot_keys, slot_rows, keys, rows, a, b, c)
    if rows[slot, 0] < 0:
        return False
    i, j, k = i - a * side, j - b * side, k - c * side
    for corner in range(8):
        p, q, r = i + (corner >> 2), j + (corner >> 1 & 1), k + (corner & 1)
        over = (4 if p == side else 0) + (2 if q == side else 0) + (1 if r == side else 0)
        row = beyond(slot_keys, slot_rows, rows, slot, a, b, c, over) if over else rows[slot, 0]
        if row < 0:
            return False
        block[corner] = row
        at[corner] = ((p % side) * side + q % side) * side + r % side
    return True


@numba.njit(inline="always")
def value_at(field, weights, least, x, y, z, at, block, v):
    """The value at a place whose points `around` found, NaN where one is not known; v (8,) is an output."""
    for corner in range(8):
        if not weights[block[corner], at[corner]] >= least:
            return math.nan
        v[corner] = field[block[corner], at[corner]]
    return mixed(v, x - math.floor(x), y - math.floor(y), z - math.floor(z))


@numba.njit(parallel=True, cache=True, nogil=True)
def cast(
    slot_keys, slot_rows, values, weights, colors, side, numbers, ranges, depth, normals, seen
):
    """depth (H, W), normals and seen (H, W, 3) are outputs."""
    height, width = depth.shape
    ox, oy, oz = numbers[0], numbers[1], numbers[2]
    near, far, least = numbers[21], numbers[22], numbers[23]
    tinted = len(seen) > 0
    for band in numba.prange(len(ranges)):
        keys, rows = np.zeros(KNOWN, np.int64), np.empty((KNOWN, 8), np.int32)
        at, block = np.empty(8, np.int64), np.empty(8, np.int64)
        v, tint = np.empty(8), np.empty(8)
        for row in range(band * TILE, min((band + 1) * TILE, height)):
            for column in range(width):
                depth[row, column] = math.nan
                for k in range(3):
                    normals[row, column, k] = 0
                if tinted:
                    for k in range(3):
                        seen[row, column, k] = 0
                begin = max(near, np.float64(ranges[band, column // TILE, 0]))
                end = min(far, np.float64(ranges[band, column // TILE, 1]))
                if not begin <= end:
                    continue
                vx = numbers[3] * column + numbers[4] * row + numbers[5]
                vy = numbers[6] * column + numbers[7] * row + numbers[8]
                vz = numbers[9] * column + numbers[10] * row + numbers[11]
                step = 1 / math.sqrt(vx * vx + vy * vy + vz * vz)
                k = np.int64(math.ceil(near / step))
                k = max(k, np.int64(begin / step))
                before, f = math.nan, math.nan
                found = False
                while k * step <= end:
                    t = k * step
                    x, y, z = ox + t * vx, oy + t * vy, oz + t * vz
                    i, j, l = np.int64(math.floor(x)), np.int64(math.floor(y)), np.int64(math.floor(z))
                    a, b, c = i // side, j // side, l // side
                    if not in_range(a, b, c):
                        break
                    slot = remembered(slot_keys, slot_rows, keys, rows, a, b, c)
                    own = rows[slot, 0]
                    if own < 0:  # no sample that lies surely within this block is looked at
                        before = math.nan
                        rest = to_the_exit(x / side, vx / side, a)
                        rest = min(rest, to_the_exit(y / side, vy / side, b))
                        rest = min(rest, to_the_exit(z / side, vz / side, c))
                        k += max(np.int64(rest / step), 1)
                        continue
                    i, j, l = i - a * side, j - b * side, l - c * side
                    if i < side - 1 and j < side - 1 and l < side - 1:
                        p = (i * side + j) * side + l
                        plane = side * side
                        v[0], v[1] = values[own, p], values[own, p + 1]
                        v[2], v[3] = values[own, p + side], values[own, p + side + 1]
                        v[4], v[5] = values[own, p + plane], values[own, p + plane + 1]
                        v[6], v[7] = values[own, p + plane + side], values[own, p + plane + side + 1]
                        whole = True
                    else:
                        whole = around(slot_keys, slot_rows, keys, rows, side, x, y, z, at, block)
                        if whole:
                            for n in range(8):
                                v[n] = values[block[n], at[n]]
                    if not whole:
                        before = math.nan
                        k += 1
                        continue
                    top = max(max(max(v[0], v[1]), max(v[2], v[3])), max(max(v[4], v[5]), max(v[6], v[7])))
                    if not top > 0:  # not inside; whether it is known matters if the next one is
                        before = -1.0
                        k += 1
                        continue
                    f = mixed(v, x - math.floor(x), y - math.floor(y), z - math.floor(z))
                    if not (f > 0 and before <= 0):
                        before = f
                        k += 1
                        continue
                    # Of both samples, with weights now.
                    around(slot_keys, slot_rows, keys, rows, side, x, y, z, at, block)
                    f = value_at(values, weights, least, x, y, z, at, block, v)
                    s = (k - 1) * step
                    x, y, z = ox + s * vx, oy + s * vy, oz + s * vz
                    before = math.nan
                    if s >= near and around(slot_keys, slot_rows, keys, rows, side, x, y, z, at, block):
                        before = value_at(values, weights, least, x, y, z, at, block, v)
                    if before <= 0 and f > 0:
                        found = True
                        break
                    before = f
                    k += 1
                if not found:
                    continue
                low, high, f_low, f_high = (k - 1) * step, k * step, before, f
                t = low - f_low / (f_high - f_low) * (high - low)
                x, y, z = ox + t * vx, oy + t * vy, oz + t * vz
                g = math.nan
                if around(slot_keys, slot_rows, keys, rows, side, x, y, z, at, block):
                    g = value_at(values, weights, least, x, y, z, at, block, v)
                if g > 0:
                    high, f_high = t, g
                elif g <= 0:
                    low, f_low = t, g
                if g == g:
                    t = low - f_low / (f_high - f_low) * (high - low)
                    x, y, z = ox + t * vx, oy + t * vy, oz + t * vz
                    if around(slot_keys, slot_rows, keys, rows, side, x, y, z, at, block):
                        g = value_at(values, weights, least, x, y, z, at, block, v)
                if not (t >= near and t <= far):
                    continue
                depth[row, column] = t
                if g != g:  # between two known places there is one that is not: no normal, no colour
                    continue
                fx, fy, fz = x - math.floor(x), y - math.floor(y), z - math.floor(z)
                gx = slope(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], fy, fz)
                gy = slope(v[0], v[1], v[4], v[5], v[2], v[3], v[6], v[7], fx, fz)
                gz = slope(v[0], v[2], v[4], v[6], v[1], v[3], v[5], v[7], fx, fy)
                length = math.sqrt(gx * gx + gy * gy + gz * gz)
                if length > 0:
                    normals[row, column, 0] = -gx / length
                    normals[row, column, 1] = -gy / length
                    normals[row, column, 2] = -gz / length
                if tinted:
                    for n in range(3):
                        for corner in range(8):
                            tint[corner] = colors[block[corner], n, at[corner]]
                        seen[row, column, n] = mixed(tint, fx, fy, fz)


@numba.njit(inline="always")
def slope(a, b, c, d, e, f, g, h, s, t):
    """How a trilinear interpolation rises from the side a, b, c, d to the side e, f, g, h, at (s, t) of it:
    the second of each pair lies along t, the second pair along s."""
    first, second = (e - a) + t * ((f - b) - (e - a)), (g - c) + t * ((h - d) - (g - c))
    return first + s * (second - first)
