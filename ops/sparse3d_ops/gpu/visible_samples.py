"""Triton body of the samples that rays see: a lane owns a ray and walks it twice, to count and to write."""

import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.hashing import find, in_range, pack_key
from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 64  # a block walks as long as its longest ray: fewer lanes wait for each other


@triton.jit
def to_the_exit(p, v, cell):
    ahead = tl.where(v > 0, cell + 1 - p, cell - p)
    return tl.where(v == 0, float("inf"), ahead / tl.where(v == 0, 1.0, v))


@triton.jit
def softplus(x):
    return tl.maximum(x, 0.0) + tl.log(1.0 + tl.exp(-tl.abs(x)))


@triton.jit
def axis(values, r, column: tl.constexpr, inside):
    return tl.load(values + 3 * r + column, mask=inside, other=0).to(tl.float64)


@triton.jit(do_not_specialize=["items", "slots"])
def walk_kernel(
    slot_keys,
    slot_rows,
    slots,
    corner_rows,
    values,
    origins,
    directions,
    spans,
    offsets,
    numbers,
    places,
    found_t,
    found_voxel,
    items,
    WRITE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """WRITE: `places` are the rays' first samples and found_t, found_voxel outputs; else `places` are the
    counts, an output."""
    r = lanes(BLOCK)
    inside = r < items
    low_x, low_y, low_z = tl.load(numbers), tl.load(numbers + 1), tl.load(numbers + 2)
    size, step = tl.load(numbers + 3), tl.load(numbers + 4)
    thin, stop = tl.load(numbers + 5), tl.load(numbers + 6)
    near = tl.load(spans + 2 * r, mask=inside, other=0).to(tl.float64)
    far = tl.load(spans + 2 * r + 1, mask=inside, other=0).to(tl.float64)
    offset = tl.load(offsets + r, mask=inside, other=0).to(tl.float64)
    px = (axis(origins, r, 0, inside) - low_x) / size
    py = (axis(origins, r, 1, inside) - low_y) / size
    pz = (axis(origins, r, 2, inside) - low_z) / size
    vx, vy = axis(directions, r, 0, inside) / size, axis(directions, r, 1, inside) / size
    vz = axis(directions, r, 2, inside) / size
    total = px + py + pz + vx + vy + vz + near + far + offset
    walking = inside & (tl.abs(total) < float("inf"))  # false for NaN as well
    k = tl.zeros((BLOCK,), tl.int64)
    found = tl.zeros((BLOCK,), tl.int64)
    light = tl.full((BLOCK,), 1.0, tl.float64)
    begin = tl.load(places + r, mask=inside, other=0) if WRITE else found
    while tl.max(walking.to(tl.int32), 0) > 0:
        t = near + (k.to(tl.float64) + offset) * step
        walking = walking & (t < far)
        x, y, z = px + t * vx, py + t * vy, pz + t * vz
        near_by = walking & (tl.abs(x) < 1e9) & (tl.abs(y) < 1e9) & (tl.abs(z) < 1e9)
        x, y, z = tl.where(near_by, x, 0.0), tl.where(near_by, y, 0.0), tl.where(near_by, z, 0.0)
        a, b, c = tl.floor(x).to(tl.int64), tl.floor(y).to(tl.int64), tl.floor(z).to(tl.int64)
        held = near_by & in_range(a, b, c)
        row = find(slot_keys, slot_rows, slots, pack_key(tl.zeros_like(a), a, b, c), held)
        held = held & (row >= 0)
        rest = tl.minimum(to_the_exit(x, vx, a), tl.minimum(to_the_exit(y, vy, b), to_the_exit(z, vz, c)))
        ahead = tl.where(near_by & (rest < far), tl.floor(rest / step), (far - t) / step)
        ahead = tl.maximum(tl.where(near_by & (row < 0), ahead, 1.0), 1.0)
        fx, fy, fz = x - a, y - b, z - c
        value = tl.zeros((BLOCK,), tl.float64)
        for corner in tl.static_range(8):
            wx = fx if corner & 4 else 1 - fx
            wy = fy if corner & 2 else 1 - fy
            wz = fz if corner & 1 else 1 - fz
            point = tl.load(corner_rows + row.to(tl.int64) * 8 + corner, mask=held, other=0)
            value += wx * wy * wz * tl.load(values + point, mask=held, other=0).to(tl.float64)
        depth = softplus(value) * step
        seen = held & (depth >= thin)
        if WRITE:
            tl.store(found_t + begin + found, t.to(found_t.dtype.element_ty), mask=seen)
            tl.store(found_voxel + begin + found, row, mask=seen)
        found += seen.to(tl.int64)
        light = tl.where(seen, light * tl.exp(-depth), light)
        walking = walking & (light >= stop)
        k += tl.where(walking, ahead, 1.0).to(tl.int64)
    if not WRITE:
        tl.store(places + r, found, mask=inside)


def _walk(slot_keys, slot_rows, corner_rows, rays, numbers, places, t, voxel, write: bool) -> None:
    slots, count = len(slot_keys), len(rays[1])
    launch(
        walk_kernel,
        count,
        BLOCK,
        slot_keys,
        slot_rows,
        slots,
        corner_rows,
        *rays,
        numbers.double(),
        places,
        t,
        voxel,
        WRITE=write,
    )


def count(slot_keys: Tensor, slot_rows: Tensor, corner_rows: Tensor, *rest: Tensor) -> None:
    """rest: values, origins, directions, spans, offsets, numbers, counts (R,), an output."""
    *rays, numbers, counts = rest
    _walk(slot_keys, slot_rows, corner_rows, rays, numbers, counts, rays[0], corner_rows, write=False)


def fill(slot_keys: Tensor, slot_rows: Tensor, corner_rows: Tensor, *rest: Tensor) -> None:
    """rest: values, origins, directions, spans, offsets, numbers, starts, and the outputs t and voxel."""
    *rays, numbers, starts, t, voxel = rest
    _walk(slot_keys, slot_rows, corner_rows, rays, numbers, starts, t, voxel, write=True)
