"""Numba body of looking at a truncated distance field with a camera.

Samples that cannot be at the surface are not looked at: before the first and behind the last block with an
inside that a tile of pixels can see, in blocks that are not there, and in octants of blocks without an
inside. Which samples there are does not depend on that.

Helpers take addresses instead of arrays: numba counts references to arrays that functions pass on, and these
atomic counts cost more than all else here.
"""

import math
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

TILE = 8  # pixels along a side
PAGE = 3  # a page of the table of blocks holds 1 << PAGE of them along a side
NONE, NO_PAGE = np.int64(-1), np.int64(-2)


def _load(kind: types.Number, width: ir.Type) -> Any:
    @intrinsic
    def load(typing_context, address, number):
        """Element `number` of the array that begins at an address; not checked."""
        signature = kind(types.int64, types.int64)

        def generate(context, builder, signature, arguments):
            begin = builder.inttoptr(arguments[0], ir.PointerType(width))
            return builder.load(builder.gep(begin, [arguments[1]], source_etype=width), typ=width)

        return signature, generate

    return load


float_at = _load(types.float32, ir.FloatType())
int_at = _load(types.int32, ir.IntType(32))


@numba.njit(cache=True, nogil=True)
def page_table(blocks, low, size, directory, pages):
    """Rows of blocks (N, 4) by their place: `directory` (size[0] * size[1] * size[2],) int32 numbers the
    pages, -1 where there is none, from page `low` (3,) on; pages (P, 512) int32 hold rows, -1 where there is
    no block. Both are outputs and come in -1. Returns how many pages there are; `pages` may be empty, then
    they are only counted."""
    count = 0
    inner = (1 << PAGE) - 1
    for n in range(len(blocks)):
        a, b, c = blocks[n, 1], blocks[n, 2], blocks[n, 3]
        x, y, z = (a >> PAGE) - low[0], (b >> PAGE) - low[1], (c >> PAGE) - low[2]
        at = (x * size[1] + y) * size[2] + z
        if directory[at] < 0:
            directory[at] = count
            count += 1
        if len(pages):
            pages[directory[at], ((a & inner) << PAGE | (b & inner)) << PAGE | (c & inner)] = n
    return count


@numba.njit
def row_of(table, a, b, c):
    """Row of block (a, b, c), NONE, or NO_PAGE. table: the addresses of directory and pages, low (3), size
    (3)."""
    x, y, z = (a >> PAGE) - table[2], (b >> PAGE) - table[3], (c >> PAGE) - table[4]
    if x < 0 or y < 0 or z < 0 or x >= table[5] or y >= table[6] or z >= table[7]:
        return NO_PAGE
    page = np.int64(int_at(table[0], (x * table[6] + y) * table[7] + z))
    if page < 0:
        return NO_PAGE
    inner = (1 << PAGE) - 1
    at = ((a & inner) << PAGE | (b & inner)) << PAGE | (c & inner)
    return np.int64(int_at(table[1], (page << (3 * PAGE)) + at))


@numba.njit(parallel=True, cache=True, nogil=True)
def octants_with_inside(table, values, blocks):
    """(B,) uint8, a bit for each octant 4 dx + 2 dy + dz of a block: whether one of the points around its
    cells is inside, and perhaps where none is."""
    half = values.shape[1] // 2
    # By octant: bit 0 any point, bits 3, 2, 1 those at its lowest x, y, z.
    sides = np.zeros((len(values), 8), np.uint8)
    for n in numba.prange(len(blocks)):
        for octant in range(8):
            a, b, c = (octant >> 2) * half, (octant >> 1 & 1) * half, (octant & 1) * half
            found = np.int64(0)
            for x in range(a, a + half):
                for y in range(b, b + half):
                    for z in range(c, c + half):
                        found += values[n, x, y, z] > 0
            if found:
                at_x = at_y = at_z = np.int64(0)
                for p in range(half):
                    for q in range(half):
                        at_x += values[n, a, b + p, c + q] > 0
                        at_y += values[n, a + p, b, c + q] > 0
                        at_z += values[n, a + p, b + q, c] > 0
                sides[n, octant] = 1 | (at_x > 0) << 3 | (at_y > 0) << 2 | (at_z > 0) << 1
    inside = np.zeros(len(values), np.uint8)
    for n in numba.prange(len(blocks)):
        for octant in range(8):
            for k in range(8):
                # The octant at k from this one: bits that both have are carried to the next block.
                x = np.int64(blocks[n, 1]) + ((octant & k) >> 2)
                y = np.int64(blocks[n, 2]) + ((octant & k) >> 1 & 1)
                row = row_of(table, x, y, np.int64(blocks[n, 3]) + (octant & k & 1))
                if row >= 0:
                    found = np.int64(sides[row, octant ^ k])
                    if found and (found >> 1) & k == k:
                        inside[n] |= np.uint8(1 << octant)
                        break
    return inside


@numba.njit(cache=True, nogil=True)
def tile_ranges(blocks, inside, side, numbers, width, height):
    """(rows, columns, 2) float32: the least and the largest z at which the pixels of a tile can see blocks
    (N, 4) with `inside` (B,); inf and -inf where they see none."""
    rows, columns = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    ranges = np.empty((rows, columns, 2), np.float32)
    ranges[..., 0], ranges[..., 1] = np.inf, -np.inf
    # Directions are ways @ (column, row, 1): (column, row, 1) z is its inverse @ (place - origin).
    ways = np.empty((3, 3))
    for i in range(9):
        ways[i // 3, i % 3] = numbers[3 + i]
    back = np.linalg.inv(ways)
    for n in range(len(blocks)):
        if not inside[n]:
            continue
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
        left, top = max(left, 1.0), max(top, 1.0)
        right, bottom = min(right, float(width)), min(bottom, float(height))
        c0, c1 = np.int64(left - 1) // TILE, min(np.int64(right + 1) // TILE, columns - 1)
        r0, r1 = np.int64(top - 1) // TILE, min(np.int64(bottom + 1) // TILE, rows - 1)
        # A rounding outwards, so that nothing is lost by float32.
        low, high = low * (1 - 1e-6), high * (1 + 1e-6)
        for r in range(r0, r1 + 1):
            for c in range(c0, c1 + 1):
                ranges[r, c, 0] = min(ranges[r, c, 0], low)
                ranges[r, c, 1] = max(ranges[r, c, 1], high)
    return ranges


@numba.njit
def points_around(table, bits, own, i, j, l):
    """Numbers of the eight lattice points around the cell (i, j, l), corner 4 dx + 2 dy + dz, whose block is
    in row `own`; the first is NONE where one is missing."""
    last = (np.int64(1) << bits) - 1
    y, x = np.int64(1) << bits, np.int64(1) << (2 * bits)
    a, b, c = i >> bits, j >> bits, l >> bits
    i, j, l = i & last, j & last, l & last
    at = (i << bits | j) << bits | l
    if i < last and j < last and l < last:
        p = (own << (3 * bits)) + at
        return p, p + 1, p + y, p + y + 1, p + x, p + x + 1, p + x + y, p + x + y + 1
    # The row of the block that each corner lies in, asked for once.
    u, v, w = i == last, j == last, l == last
    r4 = row_of(table, a + 1, b, c) if u else own
    r2 = row_of(table, a, b + 1, c) if v else own
    r1 = row_of(table, a, b, c + 1) if w else own
    r6 = row_of(table, a + 1, b + 1, c) if u and v else (r4 if u else r2)
    r5 = row_of(table, a + 1, b, c + 1) if u and w else (r4 if u else r1)
    r3 = row_of(table, a, b + 1, c + 1) if v and w else (r2 if v else r1)
    r7 = row_of(table, a + 1, b + 1, c + 1) if u and v and w else (r6 if u and v else (r5 if u and w else r3))
    if u and not v and not w:
        r7 = r4
    dx, dy, dz = -i if u else np.int64(1), -j if v else np.int64(1), -l if w else np.int64(1)
    dx, dy = dx * x, dy * y
    p0 = (own << (3 * bits)) + at
    if min(min(r1, r2), min(min(r3, r4), min(min(r5, r6), r7))) < 0:
        p0 = NONE
    return (
        p0,
        (r1 << (3 * bits)) + at + dz,
        (r2 << (3 * bits)) + at + dy,
        (r3 << (3 * bits)) + at + dy + dz,
        (r4 << (3 * bits)) + at + dx,
        (r5 << (3 * bits)) + at + dx + dz,
        (r6 << (3 * bits)) + at + dx + dy,
        (r7 << (3 * bits)) + at + dx + dy + dz,
    )


@numba.njit
def eight(address, p):
    """The values of eight points."""
    return (
        float_at(address, p[0]),
        float_at(address, p[1]),
        float_at(address, p[2]),
        float_at(address, p[3]),
        float_at(address, p[4]),
        float_at(address, p[5]),
        float_at(address, p[6]),
        float_at(address, p[7]),
    )


@numba.njit
def mixed(v, fx, fy, fz):
    """The trilinear interpolation of eight values."""
    a, b = v[0] + fz * (v[1] - v[0]), v[2] + fz * (v[3] - v[2])
    c, d = v[4] + fz * (v[5] - v[4]), v[6] + fz * (v[7] - v[6])
    a, c = a + fy * (b - a), c + fy * (d - c)
    return a + fx * (c - a)


@numba.njit
def least_of(v):
    return min(min(min(v[0], v[1]), min(v[2], v[3])), min(min(v[4], v[5]), min(v[6], v[7])))


@numba.njit
def most_of(v):
    return max(max(max(v[0], v[1]), max(v[2], v[3])), max(max(v[4], v[5]), max(v[6], v[7])))


@numba.njit
def sample(table, bits, values, weights, least, x, y, z):
    """The value at a place, NaN where one of the eight points around is not known; and their numbers."""
    fx, fy, fz = math.floor(x), math.floor(y), math.floor(z)
    i, j, l = np.int64(fx), np.int64(fy), np.int64(fz)
    own = row_of(table, i >> bits, j >> bits, l >> bits)
    p = (NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE)
    if own >= 0:
        p = points_around(table, bits, own, i, j, l)
    if p[0] < 0 or not least_of(eight(weights, p)) >= least:
        return math.nan, p
    return mixed(eight(values, p), x - fx, y - fy, z - fz), p


@numba.njit
def slope(a, b, c, d, e, f, g, h, s, t):
    """How a trilinear interpolation rises from the side a, b, c, d to the side e, f, g, h, at (s, t) of it:
    the second of each pair lies along t, the second pair along s."""
    first, second = (e - a) + t * ((f - b) - (e - a)), (g - c) + t * ((h - d) - (g - c))
    return first + s * (second - first)


@numba.njit
def to_leave(cell, shift, v, inverse, origin):
    """At which t a ray is out of the cube of side 1 << shift that `cell` lies in, along one axis."""
    if v == 0:
        return math.inf
    return ((((cell >> shift) + (v > 0)) << shift) - origin) * inverse


@numba.njit(parallel=True, cache=True, nogil=True)
def cast(table, values, weights, colors, inside, bits, numbers, ranges, order, depth, normals, seen):
    """table of `row_of`, inside (B,) of `octants_with_inside`; values and weights (B n,), colors (B 3 n,); a
    block has a side of 1 << bits; order (rows of tiles,): in which they are worked on. depth (H, W), normals
    and seen (H, W, 3) are outputs.

    The rays of a tile take their steps in turn: a step waits for memory and for itself, and those of other
    rays fill the time.
    """
    height, width = depth.shape
    near, far, least = numbers[21], numbers[22], numbers[23]
    ox, oy, oz = numbers[0], numbers[1], numbers[2]
    tinted = len(seen) > 0
    value_at, weight_at = np.int64(values.ctypes.data), np.int64(weights.ctypes.data)
    color_at, points = np.int64(colors.ctypes.data), np.int64(1) << (3 * bits)
    across = ranges.shape[1]
    for tile in numba.prange(ranges.shape[0] * across):
        line = order[tile // across]
        top, left = line * TILE, tile % across * TILE
        bottom, right = min(top + TILE, height), min(left + TILE, width)
        for row in range(top, bottom):
            for column in range(left, right):
                depth[row, column] = 0
                for n in range(3):
                    normals[row, column, n] = 0
                    if tinted:
                        seen[row, column, n] = 0
        begin = max(near, np.float64(ranges[line, tile % across, 0]))
        end = min(far, np.float64(ranges[line, tile % across, 1]))
        if not begin <= end:
            continue
        ways, count = np.empty((TILE * TILE, 8)), 0
        number, walking = np.empty(TILE * TILE, np.int64), np.empty(TILE * TILE, np.int64)
        deep = np.zeros(TILE * TILE, np.bool_)
        for row in range(top, bottom):
            for column in range(left, right):
                ray = (row - top) * TILE + column - left
                vx = numbers[3] * column + numbers[4] * row + numbers[5]
                vy = numbers[6] * column + numbers[7] * row + numbers[8]
                vz = numbers[9] * column + numbers[10] * row + numbers[11]
                rate = math.sqrt(vx * vx + vy * vy + vz * vz)
                ways[ray, 0], ways[ray, 1], ways[ray, 2], ways[ray, 3] = vx, vy, vz, 1 / rate
                ways[ray, 4] = 1 / vx if vx != 0 else math.inf
                ways[ray, 5] = 1 / vy if vy != 0 else math.inf
                ways[ray, 6] = 1 / vz if vz != 0 else math.inf
                ways[ray, 7] = rate
                number[ray] = max(np.int64(math.ceil(near * rate)), np.int64(begin * rate))
                walking[count] = ray
                count += 1
        while count:
            going = 0
            for turn in range(count):
                ray = walking[turn]
                vx, vy, vz, step = ways[ray, 0], ways[ray, 1], ways[ray, 2], ways[ray, 3]
                k = number[ray]
                t = k * step
                if not t <= end:
                    continue
                walking[going] = ray
                going += 1
                x, y, z = ox + t * vx, oy + t * vy, oz + t * vz
                fx, fy, fz = math.floor(x), math.floor(y), math.floor(z)
                i, j, l = np.int64(fx), np.int64(fy), np.int64(fz)
                own = row_of(table, i >> bits, j >> bits, l >> bits)
                # No sample that lies surely within a block that is not there is looked at, nor within a block
                # or an octant without anything inside.
                shift = bits if own > NO_PAGE else bits + PAGE
                skipped = own < 0 or inside[own] == 0
                if not skipped:
                    shift = bits - 1
                    octant = (i >> shift & 1) << 2 | (j >> shift & 1) << 1 | (l >> shift & 1)
                    skipped = not inside[own] >> octant & 1
                if skipped:
                    leave = min(
                        to_leave(i, shift, vx, ways[ray, 4], ox),
                        min(
                            to_leave(j, shift, vy, ways[ray, 5], oy),
                            to_leave(l, shift, vz, ways[ray, 6], oz),
                        ),
                    )
                    deep[ray] = False
                    number[ray] = max(np.int64(min(leave, end) * ways[ray, 7] - 1e-6), k) + 1
                    continue
                number[ray] = k + 1
                was = deep[ray]
                deep[ray] = False
                p = points_around(table, bits, own, i, j, l)
                if p[0] < 0:
                    continue
                v = eight(value_at, p)
                if not most_of(v) > 0 or not mixed(v, x - fx, y - fy, z - fz) > 0:
                    continue
                deep[ray] = True
                if was:
                    continue
                # Inside after a sample that was not, or not known: both once more, with weights.
                s = t - step
                if not s >= near or not least_of(eight(weight_at, p)) >= least:
                    continue
                f = mixed(v, x - fx, y - fy, z - fz)
                x, y, z = ox + s * vx, oy + s * vy, oz + s * vz
                before, p = sample(table, bits, value_at, weight_at, least, x, y, z)
                if not before <= 0:
                    continue
                going -= 1
                low, high = s, t
                t = low - before / (f - before) * (high - low)
                x, y, z = ox + t * vx, oy + t * vy, oz + t * vz
                g, p = sample(table, bits, value_at, weight_at, least, x, y, z)
                if g > 0:
                    t = low - before / (g - before) * (t - low)
                elif g <= 0:
                    t -= g / (f - g) * (high - t)
                if t > far:
                    continue
                row, column = top + ray // TILE, left + ray % TILE
                depth[row, column] = t
                if not g == g:  # between two known places there is one that is not: no normal, no colour
                    continue
                fx, fy, fz = x - math.floor(x), y - math.floor(y), z - math.floor(z)
                v = eight(value_at, p)
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
                        seen[row, column, n] = mixed(tints(color_at, p, bits, points * n), fx, fy, fz)
            count = going


@numba.njit
def tints(address, p, bits, plane):
    """One channel of the colours of eight points, which lie in three planes a block."""
    begin = address + 4 * plane
    return (
        float_at(begin, p[0] + ((p[0] >> (3 * bits)) << (3 * bits + 1))),
        float_at(begin, p[1] + ((p[1] >> (3 * bits)) << (3 * bits + 1))),
        float_at(begin, p[2] + ((p[2] >> (3 * bits)) << (3 * bits + 1))),
        float_at(begin, p[3] + ((p[3] >> (3 * bits)) << (3 * bits + 1))),
        float_at(begin, p[4] + ((p[4] >> (3 * bits)) << (3 * bits + 1))),
        float_at(begin, p[5] + ((p[5] >> (3 * bits)) << (3 * bits + 1))),
        float_at(begin, p[6] + ((p[6] >> (3 * bits)) << (3 * bits + 1))),
        float_at(begin, p[7] + ((p[7] >> (3 * bits)) << (3 * bits + 1))),
    )
