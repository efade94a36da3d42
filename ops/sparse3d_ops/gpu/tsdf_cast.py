"""Triton body of looking at a truncated distance field with a camera: a lane walks a pixel's ray."""

import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.hashing import find, in_range, pack_key
from sparse3d_ops.gpu.launch import lanes, launch
from sparse3d_ops.gpu.tsdf_blocks import direction
from sparse3d_ops.gpu.visible_samples import to_the_exit

BLOCK = 64  # a block walks as long as its longest ray: fewer lanes wait for each other


@triton.jit
def row_of(slot_keys, slot_rows, slots, i, j, l, SIDE: tl.constexpr, wanted):
    """Rows of the blocks of lattice points, -1 where there is none."""
    a, b, c = tl.floor(i / SIDE), tl.floor(j / SIDE), tl.floor(l / SIDE)
    wanted = wanted & in_range(a, b, c)
    a, b, c = (
        tl.where(wanted, a, 0.0).to(tl.int64),
        tl.where(wanted, b, 0.0).to(tl.int64),
        tl.where(wanted, c, 0.0).to(tl.int64),
    )
    return find(slot_keys, slot_rows, slots, pack_key(tl.zeros_like(a), a, b, c), wanted).to(tl.int64)


@triton.jit
def place_of(slot_keys, slot_rows, slots, x, y, z, corner: tl.constexpr, SIDE: tl.constexpr, wanted):
    """Where an array (B, SIDE^3) holds the lattice point at a corner of the cell of (x, y, z); -1 where there
    is no block."""
    i = tl.floor(x) + (corner >> 2)
    j = tl.floor(y) + (corner >> 1 & 1)
    l = tl.floor(z) + (corner & 1)
    row = row_of(slot_keys, slot_rows, slots, i, j, l, SIDE, wanted)
    p, q, r = i - tl.floor(i / SIDE) * SIDE, j - tl.floor(j / SIDE) * SIDE, l - tl.floor(l / SIDE) * SIDE
    at = tl.where(row >= 0, (p * SIDE + q) * SIDE + r, 0.0).to(tl.int64)
    return tl.where(row >= 0, row * SIDE * SIDE * SIDE + at, -1)


@triton.jit
def places_of(slot_keys, slot_rows, slots, x, y, z, SIDE: tl.constexpr, wanted):
    """Of the eight points around; each is looked up once, whatever is read there."""
    p0 = place_of(slot_keys, slot_rows, slots, x, y, z, 0, SIDE, wanted)
    wanted = wanted & (p0 >= 0)
    p1 = place_of(slot_keys, slot_rows, slots, x, y, z, 1, SIDE, wanted)
    p2 = place_of(slot_keys, slot_rows, slots, x, y, z, 2, SIDE, wanted)
    p3 = place_of(slot_keys, slot_rows, slots, x, y, z, 3, SIDE, wanted)
    p4 = place_of(slot_keys, slot_rows, slots, x, y, z, 4, SIDE, wanted)
    p5 = place_of(slot_keys, slot_rows, slots, x, y, z, 5, SIDE, wanted)
    p6 = place_of(slot_keys, slot_rows, slots, x, y, z, 6, SIDE, wanted)
    p7 = place_of(slot_keys, slot_rows, slots, x, y, z, 7, SIDE, wanted)
    return p0, p1, p2, p3, p4, p5, p6, p7


@triton.jit
def value_at(array, place, wanted):
    """Of an array (B, SIDE^3); NaN where there is no block."""
    return tl.load(array + place, mask=wanted & (place >= 0), other=float("nan"))


@triton.jit
def mixed(v0, v1, v2, v3, v4, v5, v6, v7, fx, fy, fz):
    """The trilinear interpolation, rounded as the numba body rounds."""
    a, b = v0 + fz * (v1 - v0), v2 + fz * (v3 - v2)
    c, d = v4 + fz * (v5 - v4), v6 + fz * (v7 - v6)
    a, c = a + fy * (b - a), c + fy * (d - c)
    return a + fx * (c - a)


@triton.jit
def slope(a, b, c, d, e, f, g, h, s, t):
    """How it rises from the side a, b, c, d to the side e, f, g, h, at (s, t) of it."""
    first, second = (e - a) + t * ((f - b) - (e - a)), (g - c) + t * ((h - d) - (g - c))
    return first + s * (second - first)


@triton.jit
def eight(array, p0, p1, p2, p3, p4, p5, p6, p7, wanted):
    """The values of an array at the eight points around."""
    v0, v1 = value_at(array, p0, wanted), value_at(array, p1, wanted)
    v2, v3 = value_at(array, p2, wanted), value_at(array, p3, wanted)
    v4, v5 = value_at(array, p4, wanted), value_at(array, p5, wanted)
    v6, v7 = value_at(array, p6, wanted), value_at(array, p7, wanted)
    return v0, v1, v2, v3, v4, v5, v6, v7


@triton.jit
def sample(values, weights, least, x, y, z, p0, p1, p2, p3, p4, p5, p6, p7, wanted):
    """The values at places, NaN where one of the eight points around is not known."""
    v0, v1, v2, v3, v4, v5, v6, v7 = eight(weights, p0, p1, p2, p3, p4, p5, p6, p7, wanted)
    known = wanted & (v0 >= least) & (v1 >= least) & (v2 >= least) & (v3 >= least)
    known = known & (v4 >= least) & (v5 >= least) & (v6 >= least) & (v7 >= least)
    v0, v1, v2, v3, v4, v5, v6, v7 = eight(values, p0, p1, p2, p3, p4, p5, p6, p7, known)
    fx, fy, fz = x - tl.floor(x), y - tl.floor(y), z - tl.floor(z)
    return tl.where(known, mixed(v0, v1, v2, v3, v4, v5, v6, v7, fx, fy, fz), float("nan"))


@triton.jit
def tint_at(colors, channel: tl.constexpr, place, SIDE: tl.constexpr, wanted):
    """Of colors (B, 3, SIDE^3)."""
    row = place // (SIDE * SIDE * SIDE)
    plane = colors + (2 * row + channel) * SIDE * SIDE * SIDE + place
    return tl.load(plane, mask=wanted & (place >= 0), other=0)


@triton.jit(do_not_specialize=["items", "slots", "width"])
def cast_kernel(
    slot_keys,
    slot_rows,
    slots,
    values,
    weights,
    colors,
    numbers,
    width,
    depth,
    normals,
    seen,
    items,
    SIDE: tl.constexpr,
    TINTED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """depth, normals and seen come in 0."""
    pixel = lanes(BLOCK)
    inside = pixel < items
    column, row = (pixel % width).to(tl.float64), (pixel // width).to(tl.float64)
    ox, oy, oz = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
    vx, vy = direction(numbers, 3, column, row), direction(numbers, 6, column, row)
    vz = direction(numbers, 9, column, row)
    near, far, least = tl.load(numbers + 21), tl.load(numbers + 22), tl.load(numbers + 23)
    rate = tl.sqrt(vx * vx + vy * vy + vz * vz)
    step = 1 / rate
    k = tl.ceil(near * rate)
    before = tl.full((BLOCK,), float("nan"), tl.float64)
    low, high = tl.zeros((BLOCK,), tl.float64), tl.zeros((BLOCK,), tl.float64)
    f_low, f_high = tl.zeros((BLOCK,), tl.float64), tl.full((BLOCK,), 1.0, tl.float64)
    found = pixel < 0
    walking = inside & (k * step <= far)
    while tl.max(walking.to(tl.int32), 0) > 0:
        t = k * step
        x, y, z = ox + t * vx, oy + t * vy, oz + t * vz
        p0, p1, p2, p3, p4, p5, p6, p7 = places_of(slot_keys, slot_rows, slots, x, y, z, SIDE, walking)
        there = walking & (p0 >= 0)
        f = sample(values, weights, least, x, y, z, p0, p1, p2, p3, p4, p5, p6, p7, there)
        hit = there & (f > 0) & (before <= 0)
        low, high = tl.where(hit, t - step, low), tl.where(hit, t, high)
        f_low, f_high = tl.where(hit, before, f_low), tl.where(hit, f, f_high)
        found = found | hit
        before = tl.where(there, f, float("nan"))
        # Samples that lie surely within a block that is not there are not looked at.
        rest = to_the_exit(x / SIDE, vx / SIDE, tl.floor(x / SIDE))
        rest = tl.minimum(rest, to_the_exit(y / SIDE, vy / SIDE, tl.floor(y / SIDE)))
        rest = tl.minimum(rest, to_the_exit(z / SIDE, vz / SIDE, tl.floor(z / SIDE)))
        skipped = tl.maximum(tl.floor(tl.minimum(rest, far) / step - 1e-6), 1.0)
        k += tl.where(there, 1.0, skipped)
        walking = walking & (hit == 0) & (k * step <= far)
    first = low - f_low / (f_high - f_low) * (high - low)
    x, y, z = ox + first * vx, oy + first * vy, oz + first * vz
    p0, p1, p2, p3, p4, p5, p6, p7 = places_of(slot_keys, slot_rows, slots, x, y, z, SIDE, found)
    g = sample(values, weights, least, x, y, z, p0, p1, p2, p3, p4, p5, p6, p7, found)
    t = tl.where(g > 0, low - f_low / (g - f_low) * (first - low), first)
    t = tl.where(g <= 0, first - g / (f_high - g) * (high - first), t)
    found = found & (t <= far)
    tl.store(depth + pixel, t.to(tl.float32), mask=found)
    found = found & (g == g)
    v0, v1, v2, v3, v4, v5, v6, v7 = eight(values, p0, p1, p2, p3, p4, p5, p6, p7, found)
    fx, fy, fz = x - tl.floor(x), y - tl.floor(y), z - tl.floor(z)
    gx = slope(v0, v1, v2, v3, v4, v5, v6, v7, fy, fz)
    gy = slope(v0, v1, v4, v5, v2, v3, v6, v7, fx, fz)
    gz = slope(v0, v2, v4, v6, v1, v3, v5, v7, fx, fy)
    length = tl.sqrt(gx * gx + gy * gy + gz * gz)
    sloped = found & (length > 0)
    length = tl.where(sloped, length, 1.0)
    tl.store(normals + 3 * pixel, (-gx / length).to(tl.float32), mask=sloped)
    tl.store(normals + 3 * pixel + 1, (-gy / length).to(tl.float32), mask=sloped)
    tl.store(normals + 3 * pixel + 2, (-gz / length).to(tl.float32), mask=sloped)
    if TINTED:
        for channel in tl.static_range(3):
            c0, c1 = tint_at(colors, channel, p0, SIDE, found), tint_at(colors, channel, p1, SIDE, found)
            c2, c3 = tint_at(colors, channel, p2, SIDE, found), tint_at(colors, channel, p3, SIDE, found)
            c4, c5 = tint_at(colors, channel, p4, SIDE, found), tint_at(colors, channel, p5, SIDE, found)
            c6, c7 = tint_at(colors, channel, p6, SIDE, found), tint_at(colors, channel, p7, SIDE, found)
            color = mixed(c0, c1, c2, c3, c4, c5, c6, c7, fx, fy, fz)
            tl.store(seen + 3 * pixel + channel, color.to(tl.float32), mask=found)


def cast(
    slot_keys: Tensor,
    slot_rows: Tensor,
    values: Tensor,
    weights: Tensor,
    colors: Tensor,
    numbers: Tensor,
    depth: Tensor,
    normals: Tensor,
    seen: Tensor,
) -> None:
    height, width = depth.shape
    launch(
        cast_kernel,
        height * width,
        BLOCK,
        slot_keys,
        slot_rows,
        len(slot_keys),
        values,
        weights,
        colors,
        numbers,
        width,
        depth,
        normals,
        seen,
        SIDE=values.shape[1],
        TINTED=len(colors) > 0,
    )
