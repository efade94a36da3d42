"""Triton body of the voxel query: a lane owns a position and walks the offsets in their order."""

import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.hashing import find, in_range, pack_key
from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 64  # a block walks until its last lane is full: fewer lanes wait for each other


@triton.jit(do_not_specialize=["items", "slots", "offset_count", "samples"])
def query_kernel(
    slot_keys,
    slot_rows,
    slots,
    positions,
    batch,
    offsets,
    offset_count,
    geometry,
    rows,
    samples,
    items,
    BLOCK: tl.constexpr,
):
    """geometry: size of a voxel along x, y, z and the square of the radius, float64. rows comes in -1."""
    q = lanes(BLOCK)
    inside = q < items
    x = tl.load(positions + 3 * q, mask=inside, other=0)
    y = tl.load(positions + 3 * q + 1, mask=inside, other=0)
    z = tl.load(positions + 3 * q + 2, mask=inside, other=0)
    b = tl.load(batch + q, mask=inside, other=0).to(tl.int64)
    size_x, size_y, size_z = tl.load(geometry), tl.load(geometry + 1), tl.load(geometry + 2)
    square = tl.load(geometry + 3)
    # Numbers beyond int64, infinities and NaN (which fails every comparison) are in no voxel.
    open_lanes = inside & (tl.abs(x) < 1e9) & (tl.abs(y) < 1e9) & (tl.abs(z) < 1e9)
    i = tl.floor(tl.where(open_lanes, x, 0)).to(tl.int64)
    j = tl.floor(tl.where(open_lanes, y, 0)).to(tl.int64)
    k = tl.floor(tl.where(open_lanes, z, 0)).to(tl.int64)
    found = tl.zeros((BLOCK,), tl.int64)
    offset = 0
    while (offset < offset_count) & (tl.max(open_lanes.to(tl.int32), 0) > 0):
        a = i + tl.load(offsets + 3 * offset)
        d = j + tl.load(offsets + 3 * offset + 1)
        c = k + tl.load(offsets + 3 * offset + 2)
        dx, dy, dz = (a + 0.5 - x) * size_x, (d + 0.5 - y) * size_y, (c + 0.5 - z) * size_z
        near = open_lanes & (dx * dx + dy * dy + dz * dz < square) & in_range(a, d, c)
        row = find(slot_keys, slot_rows, slots, pack_key(b, a, d, c), near)
        tl.store(rows + q * samples + found, row, mask=row >= 0)
        found += (row >= 0).to(tl.int64)
        open_lanes = open_lanes & (found < samples)
        offset += 1


def voxel_query(
    slot_keys: Tensor,
    slot_rows: Tensor,
    positions: Tensor,
    batch: Tensor,
    offsets: Tensor,
    geometry: Tensor,
    rows: Tensor,
) -> None:
    rows.fill_(-1)
    launch(
        query_kernel,
        len(rows),
        BLOCK,
        slot_keys,
        slot_rows,
        len(slot_keys),
        positions,
        batch,
        offsets,
        len(offsets),
        geometry,
        rows,
        rows.shape[1],
    )
