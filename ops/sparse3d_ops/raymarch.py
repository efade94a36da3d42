"""Where rays meet boxes, occupied space and voxels: packed samples and intervals.

A ray is origins[r] + t * directions[r], (R, 3) each; t is in metres where directions have unit length, which
is not checked. Packed results: what belongs to ray r stands at ray_starts[r] to ray_starts[r + 1], front to
back, in the order of the rays. Rays that are not finite, and rays whose direction is zero, meet nothing.

Positions are computed in float64 whatever the dtype, and rounded once, so that skipping empty space never
changes which samples there are. No gradients: where samples lie is a choice and not a function to learn.
Every result is the same bits for any number of threads.
"""

import math
import weakref
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops.checks import (
    INDICES,
    check_range,
    check_same_device,
    check_tensor,
    remember,
    remembered,
)
from sparse3d_ops.hashing import BATCH_LIMIT, check_table, unpack

EXACT = (torch.float32, torch.float64)
LEVELS = 5  # of empty blocks: 1, 2, 4, 8 and 16 cells a side
MOST_STEPS = 1 << 24  # of one ray: far more than any use, few enough for float64 to tell all of them apart


class Intervals(NamedTuple):
    """ray_starts (R + 1,) int64; row (S,) int32 of the voxel that the ray is in from t0 (S,) to t1 (S,)."""

    ray_starts: Tensor
    row: Tensor
    t0: Tensor
    t1: Tensor


class Samples(NamedTuple):
    """ray_starts (R + 1,) int64; t (S,) where a sample looks, dt (S,) the length that it stands for,
    metres."""

    ray_starts: Tensor
    t: Tensor
    dt: Tensor


def _check_rays(origins: Tensor, directions: Tensor, **others: Tensor) -> None:
    check_tensor("origins", origins, ("R", 3), EXACT)
    check_tensor("directions", directions, (origins.shape[0], 3), (origins.dtype,))
    check_same_device(("origins", origins), ("directions", directions), *others.items())


def _check_limits(origins: Tensor, near: Tensor, far: Tensor) -> None:
    check_tensor("near", near, (origins.shape[0],), (origins.dtype,))
    check_tensor("far", far, (origins.shape[0],), (origins.dtype,))


def _check_box(low: Tensor, high: Tensor) -> None:
    check_tensor("low", low, (3,), EXACT)
    check_tensor("high", high, (3,), EXACT)
    known = remembered(low, "below")  # which corner was found to be above, and not written to since
    if known is None or known() is not high or remembered(high, "above") is None:
        corners = torch.stack((low.detach().double(), high.detach().double()))
        if not bool(torch.isfinite(corners).all() & (corners[0] < corners[1]).all()):
            raise ValueError(
                f"low is {low.tolist()} and high {high.tolist()}, expected finite corners with low < high"
            )
        remember(low, "below", weakref.ref(high))
        remember(high, "above", True)


def _plain(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous()


def _double(tensor: Tensor) -> Tensor:
    return tensor.detach().double().contiguous()


@torch.library.custom_op("sparse3d::ray_box", mutates_args=(), device_types="cpu")
def ray_box(origins: Tensor, directions: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    """Where rays enter and leave an axis-aligned box: (R, 3), (R, 3), (3,), (3,) -> near (R,), far (R,).

    near is 0 for a ray that starts inside; what lies behind an origin is not met. A ray that misses has near
    = inf and far = -inf. Faces belong to the box. Raises ValueError for a box without volume.
    """
    from sparse3d_ops.cpu import raymarch as body

    near, far = _room_for_limits(origins, directions, low, high)
    rays = _plain(origins).numpy(), _plain(directions).numpy()
    body.ray_box(*rays, _double(low).numpy(), _double(high).numpy(), near.numpy(), far.numpy())
    return near, far


def _constant(ctx, inputs, output):
    """Setup of a result that gradients do not pass."""
    ctx.mark_non_differentiable(*(output if isinstance(output, tuple) else (output,)))


def _no_gradient(count: int):
    return lambda ctx, *grads: (None,) * count


ray_box.register_autograd(_no_gradient(4), setup_context=_constant)


@ray_box.register_kernel("cuda")
def _(origins: Tensor, directions: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    from sparse3d_ops.gpu import raymarch as body

    near, far = _room_for_limits(origins, directions, low, high)
    body.ray_box(_plain(origins), _plain(directions), _double(low), _double(high), near, far)
    return near, far


def _room_for_limits(origins: Tensor, directions: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    _check_rays(origins, directions, low=low, high=high)
    _check_box(low, high)
    return origins.new_empty(len(origins)), origins.new_empty(len(origins))


@ray_box.register_fake
def _(origins, directions, low, high):
    return origins.new_empty(origins.shape[0]), origins.new_empty(origins.shape[0])


@torch.library.custom_op("sparse3d::empty_blocks", mutates_args=(), device_types="cpu")
def empty_blocks(occupancy: Tensor) -> Tensor:
    """For each cell the largest aligned empty block around it: (X, Y, Z) bool -> (X, Y, Z) uint8.

    0: the cell is occupied; v: the whole block of 2^(v - 1) cells a side is empty, v at most 5. This is what
    `march` skips by; make it once for an occupancy that is marched through often.
    """
    from sparse3d_ops.cpu import raymarch as body

    _check_occupancy(occupancy, torch.bool)
    blocks = (~occupancy).to(torch.uint8, memory_format=torch.contiguous_format)
    body.empty_blocks(blocks.numpy(), LEVELS)
    return blocks


@empty_blocks.register_kernel("cuda")
def _(occupancy: Tensor) -> Tensor:
    _check_occupancy(occupancy, torch.bool)
    blocks = (~occupancy).to(torch.uint8, memory_format=torch.contiguous_format)
    level = occupancy.half()[None]
    for k in range(1, LEVELS):
        level = torch.nn.functional.max_pool3d(level, 2, ceil_mode=True)
        empty = level[0] == 0
        for axis, size in enumerate(occupancy.shape):
            empty = empty.repeat_interleave(1 << k, axis).narrow(axis, 0, size)
        blocks += empty
    return blocks


def _check_occupancy(occupancy: Tensor, dtype: torch.dtype) -> None:
    check_tensor("occupancy", occupancy, ("X", "Y", "Z"), (dtype,))
    if not occupancy.numel():
        raise ValueError(f"occupancy has shape {tuple(occupancy.shape)}, expected at least one cell")


@empty_blocks.register_fake
def _(occupancy):
    return occupancy.new_empty(occupancy.shape, dtype=torch.uint8)


def march(
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    occupancy: Tensor,
    low: Tensor,
    high: Tensor,
    step: float,
    offset: Tensor | None = None,
) -> Samples:
    """Samples at a fixed step along rays, where space is occupied.

    (R, 3), (R, 3), (R,), (R,), (X, Y, Z), (3,), (3,), metres, (R,) -> Samples. The part of a ray between near
    and far that is in the box from low to high is cut into bins of length `step`, the last one shorter. In
    each bin lies one sample, in the middle or, with `offset` in [0, 1), that part of the bin behind its begin
    (one number a ray: stratified jitter); it is kept when its cell of `occupancy` is occupied. Occupancy is
    bool, or uint8 as `empty_blocks` makes it, which is otherwise done in each call. Limits may be infinite; a
    ray with near > far, or NaN, has no samples. Raises ValueError for a step that is not above zero or that
    cuts a ray into more than 2^24 bins, and for offsets outside of [0, 1).
    """
    blocks = empty_blocks(occupancy) if occupancy.dtype == torch.bool else occupancy
    offset = torch.full_like(near, 0.5) if offset is None else offset
    return Samples(*march_blocks(origins, directions, near, far, blocks, low, high, step, offset))


@torch.library.custom_op("sparse3d::march", mutates_args=(), device_types="cpu")
def march_blocks(
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    blocks: Tensor,
    low: Tensor,
    high: Tensor,
    step: float,
    offset: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """The op behind `march`: -> ray_starts (R + 1,) int64, t (S,), dt (S,)."""
    from sparse3d_ops.cpu import raymarch as body

    _check_march(origins, directions, near, far, blocks, low, high, step, offset)
    rays = _plain(origins).numpy(), _plain(directions).numpy()
    limits = _plain(near).numpy(), _plain(far).numpy()
    box, jitter = (_double(low).numpy(), _double(high).numpy()), _plain(offset).numpy()
    spans = np.empty((len(origins), 2))
    word_starts, ray_starts = np.empty(len(origins) + 1, np.int64), np.empty(len(origins) + 1, np.int64)
    _refuse_long(body.march_spans(*rays, *limits, *box, step, spans, word_starts, MOST_STEPS), step)
    kept = np.empty(word_starts[-1], np.int64)
    walk = jitter, blocks.contiguous().numpy(), *box, step, spans, word_starts, kept, ray_starts
    body.march_count(*rays, *walk)
    t, dt = origins.new_empty(ray_starts[-1]), origins.new_empty(ray_starts[-1])
    body.march_fill(jitter, step, spans, word_starts, kept, ray_starts, t.numpy(), dt.numpy())
    return torch.from_numpy(ray_starts), t, dt


march_blocks.register_autograd(_no_gradient(9), setup_context=_constant)


@march_blocks.register_kernel("cuda")
def _(
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    blocks: Tensor,
    low: Tensor,
    high: Tensor,
    step: float,
    offset: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    from sparse3d_ops.gpu import raymarch as body

    _check_march(origins, directions, near, far, blocks, low, high, step, offset)
    rays = _plain(origins), _plain(directions), _plain(near), _plain(far)
    walk = body.Walk(*rays, _plain(offset), blocks.contiguous(), _double(low), _double(high), step)
    counts = body.march_count(walk, MOST_STEPS)
    ray_starts = torch.nn.functional.pad(counts.clamp_min(0).cumsum(0), (1, 0))
    total, shortest = torch.stack((ray_starts[-1], counts.min() if len(counts) else ray_starts[-1])).tolist()
    if shortest < 0:
        _refuse_long(int(counts.argmin()), step)
    t, dt = origins.new_empty(total), origins.new_empty(total)
    body.march_fill(walk, ray_starts, t, dt)
    return ray_starts, t, dt


@march_blocks.register_fake
def _(origins, directions, near, far, blocks, low, high, step, offset):
    count = torch.library.get_ctx().new_dynamic_size()
    ray_starts = origins.new_empty(origins.shape[0] + 1, dtype=torch.int64)
    return ray_starts, origins.new_empty(count), origins.new_empty(count)


def _check_march(
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    blocks: Tensor,
    low: Tensor,
    high: Tensor,
    step: float,
    offset: Tensor,
) -> None:
    others = {"near": near, "far": far, "occupancy": blocks, "low": low, "high": high, "offset": offset}
    _check_rays(origins, directions, **others)
    _check_limits(origins, near, far)
    _check_occupancy(blocks, torch.uint8)
    _check_box(low, high)
    if not 0 < step < float("inf"):
        raise ValueError(f"step is {step}, expected a finite length above 0")
    check_tensor("offset", offset, (origins.shape[0],), (origins.dtype,))
    if not remembered(offset, "fraction"):
        inside = (offset >= 0) & (offset < 1)
        if not bool(inside.all()):
            ray = int((~inside).nonzero()[0])
            raise ValueError(f"offset[{ray}] is {float(offset[ray])}, expected a value in [0, 1)")
        remember(offset, "fraction", True)


def _refuse_long(ray: int, step: float) -> None:
    if ray >= 0:
        raise ValueError(
            f"ray {ray} is cut into more than {MOST_STEPS} bins by a step of {step:g}; take a larger step or "
            "give its direction unit length"
        )


# ---- voxels of a table -------------------------------------------------------------------------------------


def traverse(
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    slot_keys: Tensor,
    slot_rows: Tensor,
    low: Tensor,
    voxel_size: float | Tensor,
    batch: Tensor | None = None,
) -> Intervals:
    """The voxels that rays cross, front to back, and where.

    (R, 3), (R, 3), (R,), (R,), a table of `hashing.build`, (3,) the corner of voxel (0, 0, 0), metres a voxel
    (a number, or (3,)), (R,) int32 or int64 the sample of the batch that each ray looks at (default: 0) ->
    Intervals. Voxel i reaches from i to, but not including, i + 1; the t at which a ray goes from one voxel
    to its neighbour are the same bits for both. A voxel that is touched by less than 1e-8 of its size is left
    out. (Amanatides and Woo, "A fast voxel traversal algorithm", 1987, over blocks of voxels.)
    """
    size = voxel_size
    if not isinstance(size, Tensor):
        size = torch.full((3,), size, dtype=torch.float64, device=low.device)
    if batch is None:
        batch = torch.zeros(origins.shape[0], dtype=torch.int64, device=origins.device)
    table = slot_keys, slot_rows
    return Intervals(*traverse_voxels(origins, directions, near, far, *table, low, size, batch))


@torch.library.custom_op("sparse3d::traverse", mutates_args=(), device_types="cpu")
def traverse_voxels(
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    slot_keys: Tensor,
    slot_rows: Tensor,
    low: Tensor,
    voxel_size: Tensor,
    batch: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The op behind `traverse`: -> ray_starts (R + 1,) int64, row (S,) int32, t0 (S,), t1 (S,)."""
    from sparse3d_ops.cpu import raymarch as body

    _check_traverse(origins, directions, near, far, slot_keys, slot_rows, low, voxel_size, batch)
    first, blocks, shift = _blocks_of(slot_keys)
    rays = _plain(origins).numpy(), _plain(directions).numpy(), _plain(near).numpy(), _plain(far).numpy()
    table = slot_keys.contiguous().numpy(), slot_rows.contiguous().numpy(), batch.contiguous().numpy()
    place = _double(low).numpy(), _double(voxel_size).numpy(), first.numpy(), blocks.numpy(), shift
    ray_starts = torch.zeros(len(origins) + 1, dtype=torch.int64)
    row, t = torch.empty(0, dtype=torch.int32), origins.new_empty(0)
    body.traverse(*rays, *table, *place, ray_starts.numpy(), row.numpy(), t.numpy(), t.numpy(), False)
    torch.cumsum(ray_starts, 0, out=ray_starts)
    total = int(ray_starts[-1])
    row, t0, t1 = row.new_empty(total), origins.new_empty(total), origins.new_empty(total)
    body.traverse(*rays, *table, *place, ray_starts.numpy(), row.numpy(), t0.numpy(), t1.numpy(), True)
    return ray_starts, row, t0, t1


traverse_voxels.register_autograd(_no_gradient(9), setup_context=_constant)


@traverse_voxels.register_kernel("cuda")
def _(
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    slot_keys: Tensor,
    slot_rows: Tensor,
    low: Tensor,
    voxel_size: Tensor,
    batch: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from sparse3d_ops.gpu import raymarch as body

    _check_traverse(origins, directions, near, far, slot_keys, slot_rows, low, voxel_size, batch)
    first, blocks, shift = _blocks_of(slot_keys)
    rays = _plain(origins), _plain(directions), _plain(near), _plain(far)
    table = slot_keys.contiguous(), slot_rows.contiguous(), batch.contiguous()
    place = _double(low), _double(voxel_size), first, blocks
    ray_starts = torch.zeros(len(origins) + 1, dtype=torch.int64, device=origins.device)
    row, t = slot_rows.new_empty(1), origins.new_empty(1)
    body.traverse(*rays, *table, *place, shift, ray_starts[1:], row, t, t, False)
    ray_starts = ray_starts.cumsum(0)
    total = int(ray_starts[-1])
    row, t0, t1 = row.new_empty(total), origins.new_empty(total), origins.new_empty(total)
    body.traverse(*rays, *table, *place, shift, ray_starts, row, t0, t1, True)
    return ray_starts, row, t0, t1


@traverse_voxels.register_fake
def _(origins, directions, near, far, slot_keys, slot_rows, low, voxel_size, batch):
    count = torch.library.get_ctx().new_dynamic_size()
    ray_starts = origins.new_empty(origins.shape[0] + 1, dtype=torch.int64)
    row = origins.new_empty(count, dtype=torch.int32)
    return ray_starts, row, origins.new_empty(count), origins.new_empty(count)


def _blocks_of(slot_keys: Tensor) -> tuple[Tensor, Tensor, int]:
    """first (3,) int64, the lowest voxel of a table; which blocks of 2^shift voxels a side from there on hold
    none, as `empty_blocks` tells; and shift, the least from 2 on for which they are no more than the
    slots."""
    keys = slot_keys[slot_keys != 0]
    if not len(keys):
        return keys.new_zeros(3), torch.ones(1, 1, 1, dtype=torch.uint8, device=keys.device), 2
    voxels = unpack(keys)[:, 1:].long()
    first = voxels.amin(0)
    extent, shift = (voxels.amax(0) - first + 1).tolist(), 2
    while math.prod(-(-size >> shift) for size in extent) > max(len(slot_keys), 1 << 12):
        shift += 1
    shape = [-(-size >> shift) for size in extent]
    occupancy = torch.zeros(shape, dtype=torch.bool, device=keys.device)
    occupancy[((voxels - first) >> shift).unbind(1)] = True
    return first, empty_blocks(occupancy), shift


def _check_traverse(
    origins: Tensor,
    directions: Tensor,
    near: Tensor,
    far: Tensor,
    slot_keys: Tensor,
    slot_rows: Tensor,
    low: Tensor,
    voxel_size: Tensor,
    batch: Tensor,
) -> None:
    others = {"near": near, "far": far, "slot_keys": slot_keys, "low": low, "voxel_size": voxel_size}
    _check_rays(origins, directions, **others, batch=batch)
    _check_limits(origins, near, far)
    check_table(slot_keys, slot_rows)
    check_tensor("low", low, (3,), EXACT)
    check_tensor("voxel_size", voxel_size, (3,), EXACT)
    if not remembered(voxel_size, "lengths") or not remembered(low, "finite"):
        if not bool(torch.isfinite(low).all()):
            raise ValueError(f"low is {low.tolist()}, expected a finite corner")
        if not bool(((voxel_size > 0) & torch.isfinite(voxel_size)).all()):
            raise ValueError(f"voxel_size is {voxel_size.tolist()}, expected finite lengths above 0")
        remember(voxel_size, "lengths", True)
        remember(low, "finite", True)
    check_tensor("batch", batch, (origins.shape[0],), INDICES)
    check_range("batch", batch, 0, BATCH_LIMIT)
