"""Triton body of the nearest points: a lane owns a query, and sorts what it finds into its rows."""

import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.hashing import find, in_range, pack_key
from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 64  # lanes of a block wait for that with the most points around it
BATCHES = 512


@triton.jit(do_not_specialize=["items", "slots", "count"])
def nearest_kernel(
    slot_keys,
    slot_rows,
    slots,
    starts,
    order,
    points,
    queries,
    cells,
    rows,
    squares,
    count,
    items,
    BLOCK: tl.constexpr,
    BATCHES: tl.constexpr,
):
    """points and queries float64; rows come in -1 and squares inf."""
    q = lanes(BLOCK)
    inside = q < items
    b = tl.load(cells + 4 * q, mask=inside, other=-1).to(tl.int64)
    x = tl.load(cells + 4 * q + 1, mask=inside, other=0).to(tl.int64)
    y = tl.load(cells + 4 * q + 2, mask=inside, other=0).to(tl.int64)
    z = tl.load(cells + 4 * q + 3, mask=inside, other=0).to(tl.int64)
    looks = inside & (b >= 0) & (b < BATCHES)
    qx = tl.load(queries + 3 * q, mask=inside, other=0)
    qy = tl.load(queries + 3 * q + 1, mask=inside, other=0)
    qz = tl.load(queries + 3 * q + 2, mask=inside, other=0)
    last = q * count + count - 1
    o = 0
    while o < 27:
        i, j, k = x + o // 9 - 1, y + o // 3 % 3 - 1, z + o % 3 - 1
        voxel = find(slot_keys, slot_rows, slots, pack_key(b, i, j, k), looks & in_range(i, j, k))
        here = voxel >= 0
        at = tl.load(starts + voxel, mask=here, other=0)
        end = tl.load(starts + voxel + 1, mask=here, other=0)
        while tl.max((at < end).to(tl.int32), 0) > 0:
            open_lanes = at < end
            row = tl.load(order + at, mask=open_lanes, other=0)
            dx = tl.load(points + 3 * row, mask=open_lanes, other=0) - qx
            dy = tl.load(points + 3 * row + 1, mask=open_lanes, other=0) - qy
            dz = tl.load(points + 3 * row + 2, mask=open_lanes, other=0) - qz
            d = dx * dx + dy * dy + dz * dz
            # In place of the last one if it is nearer, then past those that are further away.
            was, was_row = tl.load(squares + last, mask=open_lanes), tl.load(rows + last, mask=open_lanes)
            moves = open_lanes & ((d < was) | ((d == was) & (row < was_row)))
            tl.store(squares + last, d, mask=moves)
            tl.store(rows + last, row, mask=moves)
            place = count - 1
            while (place > 0) & (tl.max(moves.to(tl.int32), 0) > 0):
                before = q * count + place - 1
                was = tl.load(squares + before, mask=moves)
                was_row = tl.load(rows + before, mask=moves)
                moves = moves & ((d < was) | ((d == was) & (row < was_row)))
                tl.store(squares + before + 1, was, mask=moves)
                tl.store(rows + before + 1, was_row, mask=moves)
                tl.store(squares + before, d, mask=moves)
                tl.store(rows + before, row, mask=moves)
                place -= 1
            at += 1
        o += 1


def nearest(
    slot_keys: Tensor,
    slot_rows: Tensor,
    starts: Tensor,
    order: Tensor,
    points: Tensor,
    queries: Tensor,
    cells: Tensor,
    rows: Tensor,
    squares: Tensor,
) -> None:
    rows.fill_(-1)
    squares.fill_(float("inf"))
    tables = slot_keys, slot_rows, len(slot_keys), starts, order, points, queries, cells
    launch(nearest_kernel, len(rows), BLOCK, *tables, rows, squares, rows.shape[1], BATCHES=BATCHES)
