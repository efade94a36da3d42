"""Numba body of looking at a truncated distance field with a camera: 16 rays at a time, a pixel a lane.

Only samples in cells that `tsdf_marks` marks are looked at, in the depths in which their tile of pixels can
see any; all others cannot be inside. Which samples there are does not depend on that. Lanes wait for each
other before and after what costs most: a look at eight points around, and the two that decide.

`table` is that of `tsdf_marks`; `field` are the addresses of what it finds around blocks, of values, weights
and colours: addresses, because numba counts references to arrays that functions pass on, and these atomic
counts cost more than all else here. Cells are int32: MOST_SAMPLES of a ray, and blocks of 18 bits, fit.
"""

# Intrinsics look to a type checker as if they took their typing context too.
# pyright: reportCallIssue=false, reportGeneralTypeIssues=false

from typing import Any, NamedTuple

import numba
import numpy as np

from sparse3d_ops.cpu.integer_lanes import (
    ceil,
    floor,
    gather_float32,
    gather_int32,
    gather_int64,
    sqrt,
    to_float64,
    to_int32,
    to_int64,
)
from sparse3d_ops.cpu.lanes import LANES, any_lane, least, most, spread_number, steps, store, where
from sparse3d_ops.cpu.tsdf_marks import OCTANT, PAGE, SLOTS, TILE

PACKET = 4  # so many pixels along a side are walked at once


class Ray(NamedTuple):
    """16 rays, in voxels: places are o + t v, t being z in metres."""

    ox: Any  # of all: float64
    oy: Any
    oz: Any
    vx: Any  # from here on lanes of float64
    vy: Any
    vz: Any
    ix: Any  # 1 / v
    iy: Any
    iz: Any
    rate: Any  # samples a metre
    step: Any  # metres between samples


@numba.njit
def every(number):
    """int32 lanes."""
    return spread_number(np.int32(number))


@numba.njit
def entries(table, a, b, c, wanted):
    """What the pages hold for blocks (int32 lanes), -1 also where there is no page; and whether there is."""
    x, y, z = (a >> PAGE) - table[2], (b >> PAGE) - table[3], (c >> PAGE) - table[4]
    paged = wanted & (x >= 0) & (y >= 0) & (z >= 0) & (x < table[5]) & (y < table[6]) & (z < table[7])
    page = gather_int32(table[0], to_int64((x * table[6] + y) * table[7] + z), paged)
    paged = paged & (page >= 0)
    inner = (1 << PAGE) - 1
    at = ((a & inner) << PAGE | (b & inner)) << PAGE | (c & inner)
    entry = gather_int32(table[1], to_int64(page << (3 * PAGE) | at), paged)
    return where(paged, entry, every(-1)), paged


@numba.njit
def to_leave(cell, shift, v, inverse, origin):
    """At which t rays are out of the cubes of side 1 << shift that cells lie in, along one axis."""
    ahead = where(v < 0, every(0), every(1))
    return (to_float64(((cell >> shift) + ahead) << shift) - origin) * inverse


@numba.njit
def next_inside(table, cells, bits, ray, k, end, walking):
    """The number of the next sample, from k on, that lies in a cell with a point inside, or one beyond `end`
    along the optical axis."""
    octants = bits - OCTANT
    seeking = walking
    while any_lane(seeking):
        t = k * ray.step
        seeking = seeking & (t <= end)
        x = to_int32(floor(ray.ox + t * ray.vx))
        y = to_int32(floor(ray.oy + t * ray.vy))
        z = to_int32(floor(ray.oz + t * ray.vz))
        entry, paged = entries(table, x >> bits, y >> bits, z >> bits, seeking)
        here = seeking & (entry >= 0)
        last = (1 << bits) - 1
        a, b, c = (x & last) >> OCTANT, (y & last) >> OCTANT, (z & last) >> OCTANT
        word = (a << octants | b) << octants | c
        marks = gather_int64(cells, to_int64(entry) << (3 * octants) | to_int64(word), here)
        inner = (1 << OCTANT) - 1
        bit = ((x & inner) << OCTANT | (y & inner)) << OCTANT | (z & inner)
        found = here & ((marks >> to_int64(bit) & 1) != 0)
        # What can be left without a look: the octant, or at least a cube of 2^3 cells of it.
        few = marks >> to_int64(bit & 0b101010) & 0b1100110000000000110011
        cube = where(here & (marks != 0), every(OCTANT - 1), every(OCTANT))
        shift = where(here, cube, where(paged, every(bits), every(bits + PAGE)))
        leave = least(
            to_leave(x, shift, ray.vx, ray.ix, ray.ox),
            least(to_leave(y, shift, ray.vy, ray.iy, ray.oy), to_leave(z, shift, ray.vz, ray.iz, ray.oz)),
        )
        beyond = most(floor(least(leave, end) * ray.rate - 1e-6), k) + 1
        onward = where(few != 0, k + 1, beyond)
        seeking = seeking & ~found
        k = where(seeking, onward, k)
    return k


@numba.njit
def points_around(table, around, bits, x, y, z, wanted):
    """Numbers (int64 lanes) of the eight lattice points around the cells of places, corner 4 dx + 2 dy + dz,
    and where there are all."""
    i, j, l = to_int32(floor(x)), to_int32(floor(y)), to_int32(floor(z))
    entry, _ = entries(table, i >> bits, j >> bits, l >> bits, wanted)
    row = where(entry < 0, -2 - entry, entry)
    there = wanted & (row >= 0)
    last = (1 << bits) - 1
    i, j, l = i & last, j & last, l & last
    # Of those one further: whether they lie in the next block, and where in their block.
    u, v, w = (i + 1 >> bits) << 2, (j + 1 >> bits) << 1, l + 1 >> bits
    i, i1 = i << (2 * bits), (i + 1 & last) << (2 * bits)
    j, j1, l1 = j << bits, (j + 1 & last) << bits, l + 1 & last
    first = to_int64(row) << 3
    p1, there = point(around, first, bits, w, i | j | l1, there)
    p2, there = point(around, first, bits, v, i | j1 | l, there)
    p3, there = point(around, first, bits, v | w, i | j1 | l1, there)
    p4, there = point(around, first, bits, u, i1 | j | l, there)
    p5, there = point(around, first, bits, u | w, i1 | j | l1, there)
    p6, there = point(around, first, bits, u | v, i1 | j1 | l, there)
    p7, there = point(around, first, bits, u | v | w, i1 | j1 | l1, there)
    p0 = to_int64(row) << (3 * bits) | to_int64(i | j | l)
    return (p0, p1, p2, p3, p4, p5, p6, p7), there


@numba.njit
def point(around, first, bits, step, at, there):
    """The number of point `at` in the blocks at `step` from those whose neighbours stand at `first`."""
    row = gather_int32(around, first | to_int64(step), there)
    return to_int64(row) << (3 * bits) | to_int64(at), there & (row >= 0)


@numba.njit
def eight(address, p, wanted):
    """The values of eight points."""
    return (
        gather_float32(address, p[0], wanted),
        gather_float32(address, p[1], wanted),
        gather_float32(address, p[2], wanted),
        gather_float32(address, p[3], wanted),
        gather_float32(address, p[4], wanted),
        gather_float32(address, p[5], wanted),
        gather_float32(address, p[6], wanted),
        gather_float32(address, p[7], wanted),
    )


@numba.njit
def between(a, b, share):
    return to_float64(a) + share * to_float64(b - a)


@numba.njit
def mixed(v, x, y, z):
    """The trilinear interpolation of eight values at places."""
    fx, fy, fz = x - floor(x), y - floor(y), z - floor(z)
    a, b = between(v[0], v[1], fz), between(v[2], v[3], fz)
    c, d = between(v[4], v[5], fz), between(v[6], v[7], fz)
    a, c = a + fy * (b - a), c + fy * (d - c)
    return a + fx * (c - a)


@numba.njit
def least_of(v):
    return least(least(least(v[0], v[1]), least(v[2], v[3])), least(least(v[4], v[5]), least(v[6], v[7])))


@numba.njit
def sample(table, field, bits, least_weight, x, y, z, wanted):
    """Values at places, and where they are known; and the numbers of the points around."""
    around, values, weights, _ = field
    p, known = points_around(table, around, bits, x, y, z, wanted)
    known = known & (least_of(eight(weights, p, known)) >= least_weight)
    return mixed(eight(values, p, known), x, y, z), known, p


@numba.njit
def slope(a, b, c, d, e, f, g, h, s, t):
    """How a trilinear interpolation rises from the side a, b, c, d to the side e, f, g, h, at (s, t) of it:
    the second of each pair lies along t, the second pair along s."""
    first = to_float64(e - a) + t * to_float64((f - b) - (e - a))
    second = to_float64(g - c) + t * to_float64((h - d) - (g - c))
    return first + s * (second - first)


@numba.njit
def next_run(slots, first):
    """The slots [begin, end) of the first run of ones from slot `first` on; none begins at SLOTS."""
    while first < SLOTS and not slots >> np.uint64(first) & np.uint64(1):
        first += 1
    end = first
    while end < SLOTS and slots >> np.uint64(end) & np.uint64(1):
        end += 1
    return first, end


@numba.njit
def first_hit(table, cells, field, bits, ray, slots, limits, least_weight, walking):
    """(found, low, before, high, after): where rays come from outside to inside between their samples at
    `low` and `high` along the optical axis, with the values there. limits: near, far, where slots begin, how
    thick they are."""
    around, values, weights, _ = field
    near, far, begin, thickness = limits
    k = ceil(near * ray.rate)
    nowhere = k * 0
    low, before, high, after = nowhere, nowhere, nowhere, nowhere
    found = walking & (nowhere > 0)
    was_inside = nowhere - 2  # the number of the last sample that was inside
    first, last = next_run(slots, 0)
    while first < SLOTS and any_lane(walking):
        end = min(far, begin + last * thickness)
        k = most(k, floor((begin + first * thickness) * ray.rate))
        going = walking
        while any_lane(going):
            # All on to their next sample that is inside after one that was not, or not known.
            seeking = going
            f = nowhere
            while any_lane(seeking):
                k = next_inside(table, cells, bits, ray, k, end, seeking)
                t = k * ray.step
                seeking = seeking & (t <= end)
                going = going & (t <= end)
                if not any_lane(seeking):
                    break
                x, y, z = ray.ox + t * ray.vx, ray.oy + t * ray.vy, ray.oz + t * ray.vz
                q, there = points_around(table, around, bits, x, y, z, seeking)
                g = mixed(eight(values, q, there), x, y, z)
                inside = there & (g > 0)
                turned = inside & (was_inside < k - 1) & (t - ray.step >= near)
                was_inside = where(inside, k, was_inside)
                f = where(turned, g, f)
                seeking = seeking & ~turned
                k = where(seeking, k + 1, k)
            if not any_lane(going):
                break
            # Both samples once more, with weights.
            t, s = k * ray.step, k * ray.step - ray.step
            x, y, z = ray.ox + t * ray.vx, ray.oy + t * ray.vy, ray.oz + t * ray.vz
            p, there = points_around(table, around, bits, x, y, z, going)
            turned = there & (least_of(eight(weights, p, there)) >= least_weight)
            x, y, z = ray.ox + s * ray.vx, ray.oy + s * ray.vy, ray.oz + s * ray.vz
            g, known, p = sample(table, field, bits, least_weight, x, y, z, turned)
            turned = turned & known & (g <= 0)
            low, before = where(turned, s, low), where(turned, g, before)
            high, after = where(turned, t, high), where(turned, f, after)
            found = found | turned
            walking, going = walking & ~turned, going & ~turned
            k = where(going, k + 1, k)
        first, last = next_run(slots, last)
    return found, low, before, high, after


@numba.njit
def show(table, field, bits, ray, hit, far, least_weight, tinted, out):
    """Depth, normal and colour of what `first_hit` found, in seven times 16 numbers `out`; 0 where there is
    nothing."""
    _, values, _, colors = field
    found, low, before, high, after = hit
    nothing = low * 0
    t = low - before / (after - before) * (high - low)
    x, y, z = ray.ox + t * ray.vx, ray.oy + t * ray.vy, ray.oz + t * ray.vz
    g, known, p = sample(table, field, bits, least_weight, x, y, z, found)
    # Between two known places there may be one that is not: the line decides, without normal and colour.
    sooner = low - before / (g - before) * (t - low)
    later = t - g / (after - g) * (high - t)
    t = where(known, where(g > 0, sooner, later), t)
    found = found & (t <= far)
    known = known & found
    store(where(found, t, nothing), out, 0)
    v = eight(values, p, known)
    fx, fy, fz = x - floor(x), y - floor(y), z - floor(z)
    gx = slope(v[0], v[1], v[2], v[3], v[4], v[5], v[6], v[7], fy, fz)
    gy = slope(v[0], v[1], v[4], v[5], v[2], v[3], v[6], v[7], fx, fz)
    gz = slope(v[0], v[2], v[4], v[6], v[1], v[3], v[5], v[7], fx, fy)
    length = sqrt(gx * gx + gy * gy + gz * gz)
    sloped = known & (length > 0)
    store(where(sloped, (0 - gx) / length, nothing), out, LANES)
    store(where(sloped, (0 - gy) / length, nothing), out, 2 * LANES)
    store(where(sloped, (0 - gz) / length, nothing), out, 3 * LANES)
    if tinted:
        for n in range(3):
            # Colours lie in three planes a block.
            plane = colors + (np.int64(4 * n) << (3 * bits))
            q = (
                in_plane(p[0], bits),
                in_plane(p[1], bits),
                in_plane(p[2], bits),
                in_plane(p[3], bits),
                in_plane(p[4], bits),
                in_plane(p[5], bits),
                in_plane(p[6], bits),
                in_plane(p[7], bits),
            )
            store(where(known, mixed(eight(plane, q, known), x, y, z), nothing), out, (4 + n) * LANES)


@numba.njit
def in_plane(p, bits):
    """The number of a point in its block's first of three planes."""
    return p + ((p >> (3 * bits)) << (3 * bits + 1))


@numba.njit
def ray_through(numbers, column, row):
    vx = numbers[3] * column + numbers[4] * row + numbers[5]
    vy = numbers[6] * column + numbers[7] * row + numbers[8]
    vz = numbers[9] * column + numbers[10] * row + numbers[11]
    rate = sqrt(vx * vx + vy * vy + vz * vz)
    return Ray(
        numbers[0], numbers[1], numbers[2], vx, vy, vz, inverse(vx), inverse(vy), inverse(vz), rate, 1 / rate
    )


@numba.njit
def inverse(v):
    """1 / v, and a large number for 0: such a ray never leaves along this axis."""
    return where(v != 0, 1 / v, v * 0 + 1e300)


@numba.njit(parallel=True, cache=True, nogil=True)
def cast(
    table, cells, around, values, weights, colors, bits, numbers, slots, reach, order, depth, normals, seen
):
    """cells and around of `tsdf_marks`; values and weights (B n,), colors (B 3 n,); numbers of the op; slots
    of `fill_slots`, which begin at reach[0] and are reach[1] thick; order (rows of tiles,): in which they are
    worked on. depth (H, W), normals and seen (H, W, 3) are outputs."""
    height, width = depth.shape
    near, far, least_weight = numbers[21], numbers[22], numbers[23]
    limits = near, far, reach[0], reach[1]
    tinted = len(seen) > 0
    field = (
        np.int64(around.ctypes.data),
        np.int64(values.ctypes.data),
        np.int64(weights.ctypes.data),
        np.int64(colors.ctypes.data),
    )
    marks = np.int64(cells.ctypes.data)
    across, split = slots.shape[1], TILE // PACKET
    for tile in numba.prange(slots.shape[0] * across):
        line, place = order[tile // across], tile % across
        out = np.zeros(7 * LANES)
        for packet in range(split**2):
            top, left = line * TILE + packet // split * PACKET, place * TILE + packet % split * PACKET
            if slots[line, place]:
                lane = steps(np.float64(0))
                down = floor(lane / PACKET)
                column, row = lane - PACKET * down + left, down + top
                ray = ray_through(numbers, column, row)
                walking = (row < height) & (column < width)
                depths = slots[line, place]
                hit = first_hit(table, marks, field, bits, ray, depths, limits, least_weight, walking)
                show(table, field, bits, ray, hit, far, least_weight, tinted, out)
            for n in range(LANES):
                v, u = top + n // PACKET, left + n % PACKET
                if v < height and u < width:
                    depth[v, u] = out[n]
                    for k in range(3):
                        normals[v, u, k] = out[(1 + k) * LANES + n]
                        if tinted:
                            seen[v, u, k] = out[(4 + k) * LANES + n]
