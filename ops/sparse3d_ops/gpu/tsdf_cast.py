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
def point_of(slot_keys, slot_rows, slots, x, y, z, corner: tl.constexpr, SIDE: tl.constexpr, wanted):
    """Row and number within the block of the lattice point at a corner of the cell of (x, y, z)."""
    i = tl.floor(x) + (corner >> 2)
    j = tl.floor(y) + (corner >> 1 & 1)
    l = tl.floor(z) + (corner & 1)
    row = row_of(slot_keys, slot_rows, slots, i, j, l, SIDE, wanted)
    p, q, r = i - tl.floor(i / SIDE) * SIDE, j - tl.floor(j / SIDE) * SIDE, l - tl.floor(l / SIDE) * SIDE
    at = tl.where(row >= 0, (p * SIDE + q) * SIDE + r, 0.0).to(tl.int64)
    return row, at


@triton.jit
def value_at(slot_keys, slot_rows, slots, array, x, y, z, corner: tl.constexpr, SIDE: tl.constexpr, wanted):
    """Of an array (B, SIDE^3); NaN where there is no block."""
    row, at = point_of(slot_keys, slot_rows, slots, x, y, z, corner, SIDE, wanted)
    there = wanted & (row >= 0)
    return tl.load(array + row * SIDE * SIDE * SIDE + at, mask=there, other=float("nan"))


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
def eight(slot_keys, slot_rows, slots, array, x, y, z, SIDE: tl.constexpr, wanted):
    """The values of an array at the eight points around."""
    v0 = value_at(slot_keys, slot_rows, slots, array, x, y, z, 0, SIDE, wanted)
    v1 = value_at(slot_keys, slot_rows, slots, array, x, y, z, 1, SIDE, wanted)
    v2 = value_at(slot_keys, slot_rows, slots, array, x, y, z, 2, SIDE, wanted)
    v3 = value_at(slot_keys, slot_rows, slots, array, x, y, z, 3, SIDE, wanted)
    v4 = value_at(slot_keys, slot_rows, slots, array, x, y, z, 4, SIDE, wanted)
    v5 = value_at(slot_keys, slot_rows, slots, array, x, y, z, 5, SIDE, wanted)
    v6 = value_at(slot_keys, slot_rows, slots, array, x, y, z, 6, SIDE, wanted)
    v7 = value_at(slot_keys, slot_rows, slots, array, x, y, z, 7, SIDE, wanted)
    return v0, v1, v2, v3, v4, v5, v6, v7


@triton.jit
def sample(slot_keys, slot_rows, slots, values, weights, least, x, y, z, SIDE: tl.constexpr, wanted):
    """The values at places, NaN where one of the eight points around is not known."""
    v0, v1, v2, v3, v4, v5, v6, v7 = eight(slot_keys, slot_rows, slots, weights, x, y, z, SIDE, wanted)
    known = wanted & (v0 >= least) & (v1 >= least) & (v2 >= least) & (v3 >= least)
    known = known & (v4 >= least) & (v5 >= least) & (v6 >= least) & (v7 >= least)
    v0, v1, v2, v3, v4, v5, v6, v7 = eight(slot_keys, slot_rows, slots, values, x, y, z, SIDE, known)
    fx, fy, fz = x - tl.floor(x), y - tl.floor(y), z - tl.floor(z)
    return tl.where(known, mixed(v0, v1, v2, v3, v4, v5, v6, v7, fx, fy, fz), float("nan"))


@triton.jit
def tint(slot_keys, slot_rows, slots, colors, channel: tl.constexpr, x, y, z, SIDE: tl.constexpr, wanted):
    """One channel of colors (B, 3, SIDE^3), interpolated."""
    fx, fy, fz = x - tl.floor(x), y - tl.floor(y), z - tl.floor(z)
    v0 = tint_at(slot_keys, slot_rows, slots, colors, channel, x, y, z, 0, SIDE, wanted)
    v1 = tint_at(slot_keys, slot_rows, slots, colors, channel, x, y, z, 1, SIDE, wanted)
    v2 = tint_at(slot_keys, slot_rows, slots, colors, channel, x, y, z, 2, SIDE, wanted)
    v3 = tint_at(slot_keys, slot_rows, slots, colors, channel, x, y, z, 3, SIDE, wanted)
    v4 = tint_at(slot_keys, slot_rows, slots, colors, channel, x, y, z, 4, SIDE, wanted)
    v5 = tint_at(slot_keys, slot_rows, slots, colors, channel, x, y, z, 5, SIDE, wanted)
    v6 = tint_at(slot_keys, slot_rows, slots, colors, channel, x, y, z, 6, SIDE, wanted)
    v7 = tint_at(slot_keys, slot_rows, slots, colors, channel, x, y, z, 7, SIDE, wanted)
    return mixed(v0, v1, v2, v3, v4, v5, v6, v7, fx, fy, fz)


@triton.jit
def tint_at(
    slot_keys, slot_rows, slots, colors, channel: tl.constexpr, x, y, z, corner: tl.constexpr,
    SIDE: tl.constexpr, wanted,
):  # fmt: skip
    row, at = point_of(slot_keys, slot_rows, slots, x, y, z, corner, SIDE, wanted)
    plane = colors + (3 * row + channel) * SIDE * SIDE * SIDE + at
    return tl.load(plane, mask=wanted & (row >= 0), other=0)


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
        there = walking & (
            row_of(slot_keys, slot_rows, slots, tl.floor(x), tl.floor(y), tl.floor(z), SIDE, walking) >= 0
        )
        f = sample(slot_keys, slot_rows, slots, values, weights, least, x, y, z, SIDE, there)
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
    g = sample(slot_keys, slot_rows, slots, values, weights, least, x, y, z, SIDE, found)
    t = tl.where(g > 0, low - f_low / (g - f_low) * (first - low), first)
    t = tl.where(g <= 0, first - g / (f_high - g) * (high - first), t)
    found = found & (t <= far)
    tl.store(depth + pixel, t.to(tl.float32), mask=found)
    found = found & (g == g)
    v0, v1, v2, v3, v4, v5, v6, v7 = eight(slot_keys, slot_rows, slots, values, x, y, z, SIDE, found)
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
            color = tint(slot_keys, slot_rows, slots, colors, channel, x, y, z, SIDE, found)
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
