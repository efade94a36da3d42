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
def share(x, upper: tl.constexpr):
    part = x - tl.floor(x)
    return part if upper else 1 - part


@triton.jit
def sample(slot_keys, slot_rows, slots, values, weights, least, x, y, z, SIDE: tl.constexpr, wanted):
    """The values at places, NaN where one of the eight points around is not known."""
    value = tl.zeros_like(x)
    known = wanted
    for corner in tl.static_range(8):
        row, at = point_of(slot_keys, slot_rows, slots, x, y, z, corner, SIDE, wanted)
        here = wanted & (row >= 0)
        at = row * SIDE * SIDE * SIDE + at
        known = known & here & (tl.load(weights + at, mask=here, other=0).to(tl.float64) >= least)
        part = share(x, corner >> 2) * share(y, corner >> 1 & 1) * share(z, corner & 1)
        value += part * tl.load(values + at, mask=here, other=0).to(tl.float64)
    return tl.where(known, value, float("nan"))


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
    step = 1 / tl.sqrt(vx * vx + vy * vy + vz * vz)
    k = tl.ceil(near / step)
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
    t, g = high, f_high
    for _ in tl.static_range(2):
        going = found & (g == g)
        t = tl.where(going, low - f_low / (f_high - f_low) * (high - low), t)
        x, y, z = ox + t * vx, oy + t * vy, oz + t * vz
        value = sample(slot_keys, slot_rows, slots, values, weights, least, x, y, z, SIDE, going)
        g = tl.where(going, value, g)
        above, below = going & (g > 0), going & (g <= 0)
        high, f_high = tl.where(above, t, high), tl.where(above, g, f_high)
        low, f_low = tl.where(below, t, low), tl.where(below, g, f_low)
    found = found & (t <= far)
    tl.store(depth + pixel, t.to(tl.float32), mask=found)
    found = found & (g == g)
    x, y, z = ox + t * vx, oy + t * vy, oz + t * vz
    gx, gy, gz = tl.zeros_like(t), tl.zeros_like(t), tl.zeros_like(t)
    red, green, blue = tl.zeros_like(t), tl.zeros_like(t), tl.zeros_like(t)
    for corner in tl.static_range(8):
        own, at = point_of(slot_keys, slot_rows, slots, x, y, z, corner, SIDE, found)
        value = tl.load(values + own * SIDE * SIDE * SIDE + at, mask=found, other=0).to(tl.float64)
        sx, sy, sz = share(x, corner >> 2), share(y, corner >> 1 & 1), share(z, corner & 1)
        gx += (1.0 if corner & 4 else -1.0) * sy * sz * value
        gy += (1.0 if corner & 2 else -1.0) * sx * sz * value
        gz += (1.0 if corner & 1 else -1.0) * sx * sy * value
        if TINTED:
            plane = colors + 3 * own * SIDE * SIDE * SIDE + at
            red += sx * sy * sz * tl.load(plane, mask=found, other=0).to(tl.float64)
            green += sx * sy * sz * tl.load(plane + SIDE * SIDE * SIDE, mask=found, other=0).to(tl.float64)
            blue += sx * sy * sz * tl.load(plane + 2 * SIDE * SIDE * SIDE, mask=found, other=0).to(tl.float64)
    length = tl.sqrt(gx * gx + gy * gy + gz * gz)
    sloped = found & (length > 0)
    length = tl.where(sloped, length, 1.0)
    tl.store(normals + 3 * pixel, (-gx / length).to(tl.float32), mask=sloped)
    tl.store(normals + 3 * pixel + 1, (-gy / length).to(tl.float32), mask=sloped)
    tl.store(normals + 3 * pixel + 2, (-gz / length).to(tl.float32), mask=sloped)
    if TINTED:
        tl.store(seen + 3 * pixel, red.to(tl.float32), mask=found)
        tl.store(seen + 3 * pixel + 1, green.to(tl.float32), mask=found)
        tl.store(seen + 3 * pixel + 2, blue.to(tl.float32), mask=found)


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
