"""Triton bodies of finding the blocks that depth maps and rays touch: a lane follows a ray."""

import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.hashing import find, in_range, pack_key
from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 128


@triton.jit
def ahead(cell, last, begin, way):
    """At which part of the way from `begin` an axis leaves `cell`; infinite in the last one."""
    plane = tl.where(last > cell, cell + 1, cell).to(tl.float64)
    return tl.where(cell == last, float("inf"), (plane - begin) / tl.where(way == 0, 1.0, way))


@triton.jit
def direction(numbers, first: tl.constexpr, column, row):
    return (
        tl.load(numbers + first) * column + tl.load(numbers + first + 1) * row + tl.load(numbers + first + 2)
    )


@triton.jit(do_not_specialize=["items", "width"])
def depth_kernel(depth, numbers, places, keys, width, items, WRITE: tl.constexpr, BLOCK: tl.constexpr):
    """WRITE: `places` are where the keys of each pixel begin, and `keys` is an output; else `places` are how
    many there are, an output: -1 for a pixel that sees further than keys reach."""
    i = lanes(BLOCK)
    inside = i < items
    z = tl.load(depth + i, mask=inside, other=0).to(tl.float64)
    truncation, near, far = tl.load(numbers + 12), tl.load(numbers + 13), tl.load(numbers + 14)
    seen = inside & (z >= near) & (z <= far) & (z > 0)
    z = tl.where(seen, z, 1.0)
    column, row = (i % width).to(tl.float64), (i // width).to(tl.float64)
    vx, vy = direction(numbers, 3, column, row), direction(numbers, 6, column, row)
    vz = direction(numbers, 9, column, row)
    begin, end = tl.maximum(z - truncation, 0.0), z + truncation
    ax, ay = tl.load(numbers) + begin * vx, tl.load(numbers + 1) + begin * vy
    az = tl.load(numbers + 2) + begin * vz
    bx, by = tl.load(numbers) + end * vx, tl.load(numbers + 1) + end * vy
    bz = tl.load(numbers + 2) + end * vz
    fits = in_range(tl.floor(ax), tl.floor(ay), tl.floor(az)) & in_range(
        tl.floor(bx), tl.floor(by), tl.floor(bz)
    )
    walking = seen & fits
    a = tl.where(walking, tl.floor(ax), 0.0).to(tl.int64)
    b = tl.where(walking, tl.floor(ay), 0.0).to(tl.int64)
    c = tl.where(walking, tl.floor(az), 0.0).to(tl.int64)
    la = tl.where(walking, tl.floor(bx), 0.0).to(tl.int64)
    lb = tl.where(walking, tl.floor(by), 0.0).to(tl.int64)
    lc = tl.where(walking, tl.floor(bz), 0.0).to(tl.int64)
    steps = tl.abs(la - a) + tl.abs(lb - b) + tl.abs(lc - c)
    if WRITE:
        at = tl.load(places + i, mask=inside, other=0)
        step = tl.zeros((BLOCK,), tl.int64)
        while tl.max(walking.to(tl.int32), 0) > 0:
            tl.store(keys + at + step, pack_key(tl.zeros_like(a), a, b, c), mask=walking)
            tx, ty, tz = ahead(a, la, ax, bx - ax), ahead(b, lb, ay, by - ay), ahead(c, lc, az, bz - az)
            along_x = (tx <= ty) & (tx <= tz)
            along_y = (ty <= tz) & (along_x == 0)
            along_z = (along_x == 0) & (along_y == 0)
            a += tl.where(along_x, tl.where(la > a, 1, -1), 0)
            b += tl.where(along_y, tl.where(lb > b, 1, -1), 0)
            c += tl.where(along_z, tl.where(lc > c, 1, -1), 0)
            walking = walking & (step < steps)
            step += 1
    else:
        found = tl.where(walking, steps + 1, 0)
        tl.store(places + i, tl.where(seen & (fits == 0), -1, found), mask=inside)


def count(depth: Tensor, numbers: Tensor, counts: Tensor) -> None:
    """counts (H W,) is an output."""
    launch(depth_kernel, depth.numel(), BLOCK, depth, numbers, counts, counts, depth.shape[1], WRITE=False)


def fill(depth: Tensor, numbers: Tensor, starts: Tensor, keys: Tensor) -> None:
    """keys (S,) is an output, with repeats."""
    launch(depth_kernel, depth.numel(), BLOCK, depth, numbers, starts, keys, depth.shape[1], WRITE=True)


@triton.jit
def followed(points, i, numbers, wanted):
    """Rays i in voxels: directions (3) of length 1, lengths, axes along which they run most, and whether
    there is a ray."""
    size = tl.load(numbers + 6)
    x = tl.load(points + 3 * i, mask=wanted, other=0) / size - tl.load(numbers)
    y = tl.load(points + 3 * i + 1, mask=wanted, other=0) / size - tl.load(numbers + 1)
    z = tl.load(points + 3 * i + 2, mask=wanted, other=0) / size - tl.load(numbers + 2)
    length = tl.sqrt(x * x + y * y + z * z)
    there = wanted & (length >= tl.load(numbers + 4)) & (length <= tl.load(numbers + 5)) & (length > 0)
    length = tl.where(there, length, 1.0)
    x, y, z = (
        tl.where(there, x, 0.0) / length,
        tl.where(there, y, 0.0) / length,
        tl.where(there, z, 1.0) / length,
    )
    first = (tl.abs(x) >= tl.abs(y)) & (tl.abs(x) >= tl.abs(z))
    axis = tl.where(first, 0, tl.where(tl.abs(y) >= tl.abs(z), 1, 2))
    return x, y, z, length, axis, there


@triton.jit
def first_of(x, y, z, axis):
    """What `cpu.tsdf_blocks.in_order` has first."""
    return tl.where(axis == 0, x, tl.where(axis == 1, y, z))


@triton.jit
def second_of(x, y, z, axis):
    return tl.where(axis == 0, y, x)


@triton.jit
def third_of(x, y, z, axis):
    return tl.where(axis == 2, y, z)


@triton.jit
def planes(origin, v, begin, end):
    """The first and the last lattice plane that a ray passes between two places on its way."""
    p, q = origin + begin * v, origin + end * v
    return tl.ceil(tl.minimum(p, q)), tl.floor(tl.maximum(p, q))


@triton.jit
def near_the_point(length, truncation):
    """Where the part of a ray begins and ends that tells of the surface."""
    return tl.maximum(length - truncation, 0.0), length + truncation


@triton.jit
def free_way(length, truncation, near):
    """Where the part of a ray begins and ends that tells of free space."""
    return near + tl.zeros_like(length), tl.maximum(length - truncation, near)


@triton.jit
def block_of(a, b, c, corner: tl.constexpr, side, axis, wanted):
    """The key of the block of a lattice point at a corner of the square of (b, c) in plane a, and whether it
    has one."""
    ba, bb = tl.floor(a / side), tl.floor((b + (corner >> 1)) / side)
    bc = tl.floor((c + (corner & 1)) / side)
    fits = in_range(ba, bb, bc)
    ka = tl.where(wanted & fits, ba, 0.0).to(tl.int64)
    kb = tl.where(wanted & fits, bb, 0.0).to(tl.int64)
    kc = tl.where(wanted & fits, bc, 0.0).to(tl.int64)
    ix = tl.where(axis == 0, ka, kb)
    iy = tl.where(axis == 0, kb, tl.where(axis == 1, ka, kc))
    iz = tl.where(axis == 2, ka, kc)
    return pack_key(tl.zeros_like(ix), ix, iy, iz), fits


@triton.jit(do_not_specialize=["items", "side", "most"])
def ray_kernel(points, numbers, side, most, found, bad, items, BLOCK: tl.constexpr):
    """found (N, most) comes in 0 and holds the keys of a ray, with repeats; bad (N,) is set for a ray that
    leads too far."""
    i = lanes(BLOCK)
    x, y, z, length, axis, there = followed(points, i, numbers, i < items)
    ox, oy, oz = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
    va, vb, vc = first_of(x, y, z, axis), second_of(x, y, z, axis), third_of(x, y, z, axis)
    oa, ob, oc = first_of(ox, oy, oz, axis), second_of(ox, oy, oz, axis), third_of(ox, oy, oz, axis)
    begin, end = near_the_point(length, tl.load(numbers + 3))
    a, last = planes(oa, va, begin, end)
    column = tl.zeros((BLOCK,), tl.int64)
    walking = there & (a <= last)
    while tl.max(walking.to(tl.int32), 0) > 0:
        t = (a - oa) / va
        b, c = tl.floor(ob + t * vb), tl.floor(oc + t * vc)
        for corner in tl.static_range(4):
            key, fits = block_of(a, b, c, corner, side, axis, walking)
            tl.store(found + i * most + column + corner, key, mask=walking & fits)
            tl.store(bad + i, tl.full((BLOCK,), 1, tl.int32), mask=walking & (fits == 0))
        column += 4
        a += 1
        walking = walking & (a <= last)


def ray_blocks(points: Tensor, numbers: Tensor, side: int, found: Tensor, bad: Tensor) -> None:
    launch(ray_kernel, len(points), BLOCK, points, numbers, side, found.shape[1], found, bad)


@triton.jit(do_not_specialize=["items", "side", "slots"])
def free_kernel(
    points,
    numbers,
    side,
    slot_keys,
    slot_rows,
    slots,
    places,
    keys,
    rays,
    items,
    WRITE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """WRITE: `places` are where the keys of each ray begin, keys and rays are outputs, with repeats; else
    `places` are how many there are, an output: -1 for a ray that leads too far."""
    i = lanes(BLOCK)
    inside = i < items
    x, y, z, length, axis, there = followed(points, i, numbers, inside)
    ox, oy, oz = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
    va, vb, vc = first_of(x, y, z, axis), second_of(x, y, z, axis), third_of(x, y, z, axis)
    oa, ob, oc = first_of(ox, oy, oz, axis), second_of(ox, oy, oz, axis), third_of(ox, oy, oz, axis)
    begin, end = free_way(length, tl.load(numbers + 3), tl.load(numbers + 4))
    a, last = planes(oa, va, begin, end)
    at = tl.zeros((BLOCK,), tl.int64)
    if WRITE:
        at = tl.load(places + i, mask=inside, other=0)
    far = inside & (inside == 0)
    before = tl.zeros((BLOCK,), tl.int64)  # the last key: most points lie in the block of the one before
    walking = there & (a <= last)
    while tl.max(walking.to(tl.int32), 0) > 0:
        t = (a - oa) / va
        b, c = tl.floor(ob + t * vb), tl.floor(oc + t * vc)
        for corner in tl.static_range(4):
            key, fits = block_of(a, b, c, corner, side, axis, walking)
            far = far | (walking & (fits == 0))
            new = walking & fits & (key != before)
            before = tl.where(new, key, before)
            known = new & (find(slot_keys, slot_rows, slots, key, new) >= 0)
            if WRITE:
                tl.store(keys + at, key, mask=known)
                tl.store(rays + at, i.to(tl.int64), mask=known)
            at += tl.where(known, 1, 0)
        a += 1
        walking = walking & (a <= last)
    if not WRITE:
        tl.store(places + i, tl.where(far, -1, at), mask=inside)


def count_free(
    points: Tensor, numbers: Tensor, side: int, slot_keys: Tensor, slot_rows: Tensor, counts: Tensor
) -> None:
    """counts (N,) is an output."""
    table = slot_keys, slot_rows, len(slot_keys)
    outputs = counts, counts, counts
    launch(free_kernel, len(points), BLOCK, points, numbers, side, *table, *outputs, WRITE=False)


def fill_free(
    points: Tensor,
    numbers: Tensor,
    side: int,
    slot_keys: Tensor,
    slot_rows: Tensor,
    starts: Tensor,
    keys: Tensor,
    rays: Tensor,
) -> None:
    """keys (S,) and rays (S,) int64 are outputs, with repeats."""
    table = slot_keys, slot_rows, len(slot_keys)
    launch(free_kernel, len(points), BLOCK, points, numbers, side, *table, starts, keys, rays, WRITE=True)
