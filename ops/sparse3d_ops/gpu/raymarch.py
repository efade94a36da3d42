"""Triton bodies of rays through boxes and occupied space; `cpu/raymarch.py` says what is computed.

A lane walks one ray, twice: once to count its samples and once to write them.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.hashing import find, pack_key
from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 128
INF = tl.constexpr(float("inf"))
SLIVER = tl.constexpr(1e-6)  # of a step: a shorter rest of a ray belongs to the bin before


@triton.jit
def divided(a, b):
    """a / b, and inf where b is 0."""
    return tl.where(b == 0, INF, a / tl.where(b == 0, 1.0, b))


@triton.jit
def slab(origin, direction, low, high, near, far):
    inside = (low <= origin) & (origin <= high)
    first = divided(low - origin, direction)
    last = divided(high - origin, direction)
    first, last = tl.where(first > last, last, first), tl.where(first > last, first, last)
    near_cut, far_cut = tl.where(first > near, first, near), tl.where(last < far, last, far)
    still = direction == 0
    return (
        tl.where(still, tl.where(inside, near, INF), near_cut),
        tl.where(still, tl.where(inside, far, -INF), far_cut),
    )


@triton.jit
def load3(rows, i, inside):
    """Columns of (N, 3) as float64; rows outside read 0."""
    return (
        tl.load(rows + 3 * i, mask=inside, other=0).to(tl.float64),
        tl.load(rows + 3 * i + 1, mask=inside, other=0).to(tl.float64),
        tl.load(rows + 3 * i + 2, mask=inside, other=0).to(tl.float64),
    )


@triton.jit
def span(ox, oy, oz, dx, dy, dz, low, high, near, far):
    """The part of [near, far] in which the rays are in the box; (inf, -inf) where they are nowhere."""
    size = tl.abs(dx) + tl.abs(dy) + tl.abs(dz)
    total = tl.abs(ox) + tl.abs(oy) + tl.abs(oz) + size
    near, far = slab(ox, dx, tl.load(low), tl.load(high), near, far)
    near, far = slab(oy, dy, tl.load(low + 1), tl.load(high + 1), near, far)
    near, far = slab(oz, dz, tl.load(low + 2), tl.load(high + 2), near, far)
    there = (near <= far) & (size > 0) & (total < INF)
    return tl.where(there, near, INF), tl.where(there, far, -INF)


@triton.jit(do_not_specialize=["items"])
def ray_box_kernel(origins, directions, low, high, near, far, items, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < items
    ox, oy, oz = load3(origins, i, inside)
    dx, dy, dz = load3(directions, i, inside)
    first = tl.zeros((BLOCK,), tl.float64)
    first, last = span(ox, oy, oz, dx, dy, dz, low, high, first, first + INF)
    tl.store(near + i, first.to(near.dtype.element_ty), mask=inside)
    tl.store(far + i, last.to(far.dtype.element_ty), mask=inside)


def ray_box(
    origins: Tensor, directions: Tensor, low: Tensor, high: Tensor, near: Tensor, far: Tensor
) -> None:
    launch(ray_box_kernel, len(near), BLOCK, origins, directions, low, high, near, far)


class Walk(NamedTuple):
    """What both walks of `march` read."""

    origins: Tensor
    directions: Tensor
    near: Tensor
    far: Tensor
    offset: Tensor
    blocks: Tensor
    low: Tensor
    high: Tensor
    step: float

    def arguments(self) -> tuple[Any, ...]:
        """In the order of the kernel; the step as a tensor, for a kernel gets numbers as float32."""
        step = torch.tensor([self.step], dtype=torch.float64, device=self.origins.device)
        return *self[:5], self.blocks, self.low, self.high, step, *self.blocks.shape


@triton.jit
def cell_of(position, size):
    return tl.minimum(tl.maximum(position.to(tl.int64), 0), size - 1)


@triton.jit
def face_of(cell, shift, b):
    return ((cell >> shift) + (b > 0).to(tl.int64)) << shift


@triton.jit
def at_face(face, a, b):
    """t at a face, inf where the ray stands still. By 1 / b, as the numba body: it decides on the last
    bit."""
    inverse = divided(tl.full(b.shape, 1, tl.float64), b)
    still = tl.abs(inverse) == INF
    return tl.where(still, INF, (face.to(tl.float64) - a) * tl.where(still, 1.0, inverse))


@triton.jit(do_not_specialize=["items", "nx", "ny", "nz", "most"])
def march_kernel(
    origins,
    directions,
    near,
    far,
    offset,
    blocks,
    low,
    high,
    step,
    nx,
    ny,
    nz,
    ray_starts,
    t_out,
    dt_out,
    most,
    items,
    FILL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Without FILL the samples are counted, into ray_starts (R,): -1 for rays of more than `most` bins."""
    r = lanes(BLOCK)
    inside = r < items
    ox, oy, oz = load3(origins, r, inside)
    dx, dy, dz = load3(directions, r, inside)
    first = tl.load(near + r, mask=inside, other=1).to(tl.float64)
    last = tl.load(far + r, mask=inside, other=0).to(tl.float64)
    ordered = first <= last
    start, end = span(ox, oy, oz, dx, dy, dz, low, high, first, last)
    there = ordered & (start < end)
    start, end = tl.where(there, start, 0.0), tl.where(there, end, 0.0)
    length = tl.load(step)
    number = tl.ceil((end - start) / length - SLIVER)
    number = tl.where(there, tl.where(number > 1, number, 1.0), 0.0)
    fits = number <= most
    bins = tl.where(fits, number, 0.0).to(tl.int64)
    u = tl.load(offset + r, mask=inside, other=0).to(tl.float64)
    low_x, low_y, low_z = tl.load(low), tl.load(low + 1), tl.load(low + 2)
    sx = nx.to(tl.float64) / (tl.load(high) - low_x)
    sy = ny.to(tl.float64) / (tl.load(high + 1) - low_y)
    sz = nz.to(tl.float64) / (tl.load(high + 2) - low_z)
    there = bins > 0  # numbers of other rays may not be finite
    ax, bx = tl.where(there, (ox - low_x) * sx, 0.0), tl.where(there, dx * sx, 0.0)
    ay, by = tl.where(there, (oy - low_y) * sy, 0.0), tl.where(there, dy * sy, 0.0)
    az, bz = tl.where(there, (oz - low_z) * sz, 0.0), tl.where(there, dz * sz, 0.0)
    at = tl.zeros((BLOCK,), tl.int64)
    if FILL:
        at = tl.load(ray_starts + r, mask=inside, other=0)
    k = tl.zeros((BLOCK,), tl.int64)
    walking = k < bins
    while tl.max(walking.to(tl.int32), 0) > 0:
        begin = start + k.to(tl.float64) * length
        dt = tl.where(k + 1 < bins, length, end - begin)
        t = begin + u * dt
        t = tl.where(walking, t, start)
        x, y, z = cell_of(ax + t * bx, nx), cell_of(ay + t * by, ny), cell_of(az + t * bz, nz)
        block = tl.load(blocks + (x * ny + y) * nz + z, mask=walking, other=1).to(tl.int64)
        kept = walking & (block == 0)
        if FILL:
            tl.store(t_out + at, t.to(t_out.dtype.element_ty), mask=kept)
            tl.store(dt_out + at, dt.to(dt_out.dtype.element_ty), mask=kept)
        at += kept.to(tl.int64)
        shift = tl.where(kept, 0, block - 1)
        out = at_face(face_of(x, shift, bx), ax, bx)
        out = tl.minimum(out, at_face(face_of(y, shift, by), ay, by))
        out = tl.minimum(out, at_face(face_of(z, shift, bz), az, bz))
        bin_out = tl.floor((out - start) * (1 / length) - u)
        bin_out = tl.where(bin_out < bins.to(tl.float64), bin_out, bins.to(tl.float64)).to(tl.int64)
        k = tl.where(kept, k + 1, tl.maximum(k + 1, bin_out))
        walking = k < bins
    if not FILL:
        tl.store(ray_starts + r, tl.where(fits, at, -1), mask=inside)


def march_count(walk: Walk, most: int) -> Tensor:
    """Samples of each ray (R,) int64, -1 where it has more than `most` bins."""
    counts = torch.empty(len(walk.origins), dtype=torch.int64, device=walk.origins.device)
    unused = walk.origins
    launch(
        march_kernel,
        len(counts),
        BLOCK,
        *walk.arguments(),
        counts,
        unused,
        unused,
        most,
        FILL=False,
    )
    return counts


def march_fill(walk: Walk, ray_starts: Tensor, t: Tensor, dt: Tensor) -> None:
    most = 1 << 62  # the count has looked at it
    launch(
        march_kernel,
        len(walk.origins),
        BLOCK,
        *walk.arguments(),
        ray_starts,
        t,
        dt,
        most,
        FILL=True,
    )


@triton.jit
def along(origins, directions, low, voxel_size, lowest, axis, r, inside):
    """a, b of one axis in units of voxels from the voxel `lowest`."""
    scale = 1 / tl.load(voxel_size + axis)
    o = tl.load(origins + 3 * r + axis, mask=inside, other=0).to(tl.float64)
    d = tl.load(directions + 3 * r + axis, mask=inside, other=0).to(tl.float64)
    a = (o - tl.load(low + axis)) * scale - tl.load(lowest + axis).to(tl.float64)
    return a, d * scale


@triton.jit
def floor_of(position):
    return tl.floor(position).to(tl.int64)


@triton.jit
def next_cell(cell, face, b, leaves, position):
    up = b > 0
    there = floor_of(position)
    inner = tl.where(
        up, tl.maximum(cell, tl.minimum(there, face - 1)), tl.minimum(cell, tl.maximum(there, face))
    )
    return tl.where(leaves, face - 1 + up.to(tl.int64), inner)


@triton.jit
def among(cell, size):
    return (cell >= 0) & (cell < size)


@triton.jit(do_not_specialize=["items", "slots", "nx", "ny", "nz", "shift"])
def traverse_kernel(
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
    nx,
    ny,
    nz,
    slots,
    touch_share,
    ray_starts,
    row,
    t0,
    t1,
    items,
    FILL: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Without FILL the intervals are counted, into ray_starts (R,)."""
    r = lanes(BLOCK)
    inside = r < items
    ax, bx = along(origins, directions, low, voxel_size, lowest, 0, r, inside)
    ay, by = along(origins, directions, low, voxel_size, lowest, 1, r, inside)
    az, bz = along(origins, directions, low, voxel_size, lowest, 2, r, inside)
    t = tl.load(near + r, mask=inside, other=1).to(tl.float64)
    end = tl.load(far + r, mask=inside, other=0).to(tl.float64)
    speed = tl.maximum(tl.maximum(tl.abs(bx), tl.abs(by)), tl.abs(bz))
    total = tl.abs(ax) + tl.abs(ay) + tl.abs(az) + tl.abs(bx) + tl.abs(by) + tl.abs(bz)
    walking = (t <= end) & (total < INF) & (speed > 0)
    sx, sy, sz = (nx << shift).to(tl.int64), (ny << shift).to(tl.int64), (nz << shift).to(tl.int64)
    t, end = slab(ax, bx, 0.0, sx.to(tl.float64), t, end)
    t, end = slab(ay, by, 0.0, sy.to(tl.float64), t, end)
    t, end = slab(az, bz, 0.0, sz.to(tl.float64), t, end)
    walking = walking & (t < end)
    walking = walking & ((bx != 0) | (ax < sx)) & ((by != 0) | (ay < sy)) & ((bz != 0) | (az < sz))
    # Numbers of other rays may not be finite.
    t, end = tl.where(walking, t, 0.0), tl.where(walking, end, 0.0)
    ax, ay, az = tl.where(walking, ax, 0.0), tl.where(walking, ay, 0.0), tl.where(walking, az, 0.0)
    bx, by, bz = tl.where(walking, bx, 1.0), tl.where(walking, by, 1.0), tl.where(walking, bz, 1.0)
    x = tl.minimum(tl.maximum(floor_of(ax + t * bx), 0), sx - 1)
    y = tl.minimum(tl.maximum(floor_of(ay + t * by), 0), sy - 1)
    z = tl.minimum(tl.maximum(floor_of(az + t * bz), 0), sz - 1)
    touch = tl.load(touch_share) / tl.where(walking, speed, 1.0)
    b = tl.load(batch + r, mask=inside, other=0).to(tl.int64)
    first_x, first_y, first_z = tl.load(lowest), tl.load(lowest + 1), tl.load(lowest + 2)
    at = tl.zeros((BLOCK,), tl.int64)
    if FILL:
        at = tl.load(ray_starts + r, mask=inside, other=0)
    while tl.max(walking.to(tl.int32), 0) > 0:
        place = ((x >> shift) * ny + (y >> shift)) * nz + (z >> shift)
        block = tl.load(blocks + place, mask=walking, other=1).to(tl.int64)
        edge = tl.where(block == 0, 0, shift + block - 1)
        face_x, face_y, face_z = face_of(x, edge, bx), face_of(y, edge, by), face_of(z, edge, bz)
        tx, ty, tz = at_face(face_x, ax, bx), at_face(face_y, ay, by), at_face(face_z, az, bz)
        out = tl.minimum(tl.minimum(tx, ty), tz)
        stop = tl.minimum(out, end)
        wanted = walking & (block == 0) & (stop - t > touch)
        found = find(slot_keys, slot_rows, slots, pack_key(b, x + first_x, y + first_y, z + first_z), wanted)
        hit = found >= 0
        if FILL:
            tl.store(row + at, found, mask=hit)
            tl.store(t0 + at, t.to(t0.dtype.element_ty), mask=hit)
            tl.store(t1 + at, stop.to(t1.dtype.element_ty), mask=hit)
        at += hit.to(tl.int64)
        walking = walking & (out < end)
        step = tl.where(walking, out, 0.0)
        x = next_cell(x, face_x, bx, tx <= out, ax + step * bx)
        y = next_cell(y, face_y, by, ty <= out, ay + step * by)
        z = next_cell(z, face_z, bz, tz <= out, az + step * bz)
        t = tl.maximum(t, step)
        walking = walking & among(x, sx) & among(y, sy) & among(z, sz)
    if not FILL:
        tl.store(ray_starts + r, at, mask=inside)


def traverse(
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    slot_keys: Tensor,
    slot_rows: Tensor,
    batch: Tensor,
    low: Tensor,
    voxel_size: Tensor,
    lowest: Tensor,
    blocks: Tensor,
    shift: int,
    ray_starts: Tensor,
    row: Tensor,
    t0: Tensor,
    t1: Tensor,
    fill: bool,
) -> None:
    table = slot_keys, slot_rows, batch
    touch = torch.tensor([1e-8], dtype=torch.float64, device=origins.device)
    place = low, voxel_size, lowest, blocks, shift, *blocks.shape, len(slot_keys), touch
    rays = origins, directions, near, far
    out = ray_starts, row, t0, t1
    launch(traverse_kernel, len(origins), BLOCK, *rays, *table, *place, *out, FILL=fill)
