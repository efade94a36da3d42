"""Triton bodies that list the splats of each tile, front to back.

Splats are sorted by depth, their entries are written in that order, and a stable sort of the entries by tile
keeps it. Of two splats at one depth the lower row comes first, so what comes out is one and the same whatever
the sort does inside.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.composite import ray_of_sample
from sparse3d_ops.gpu.launch import lanes, launch
from sparse3d_ops.splat_tiles import TILE as SIDE

BLOCK = 256
TILE = tl.constexpr(SIDE)
# Entries that torch sorts at once: it refuses 2^31 and more.
MOST_SORTED = 1 << 30


@triton.jit
def within(place, tiles):
    """Rounded down, into [0, tiles]; 0 for NaN."""
    most = tiles.to(place.dtype)
    place = tl.where(place > 0, place, 0.0)
    return tl.floor(tl.where(place < most, place, most)).to(tl.int32)


@triton.jit(do_not_specialize=["items", "across", "down"])
def count_kernel(means2d, reach, depths, boxes, counts, behind, across, down, items, BLOCK: tl.constexpr):
    """boxes (N, 4): first and last tile + 1, across and down; counts (N,): how many tiles these are; behind
    (1,) comes in 0 and is set where a splat that reaches somewhere has no depth."""
    n = lanes(BLOCK)
    inside = n < items
    x, y = tl.load(means2d + 2 * n, mask=inside, other=0), tl.load(means2d + 2 * n + 1, mask=inside, other=0)
    rx, ry = tl.load(reach + 2 * n, mask=inside, other=0), tl.load(reach + 2 * n + 1, mask=inside, other=0)
    seen = inside & (rx > 0)
    depth = tl.load(depths + n, mask=seen, other=1)
    tl.store(behind + tl.zeros_like(n), tl.full((BLOCK,), 1, tl.int64), mask=seen & ((depth > 0) == 0))
    left, top = within((x - rx) / TILE, across), within((y - ry) / TILE, down)
    right = tl.maximum(within((x + rx) / TILE + 1, across), left)
    bottom = tl.maximum(within((y + ry) / TILE + 1, down), top)
    right, bottom = tl.where(seen, right, left), tl.where(seen, bottom, top)
    tl.store(boxes + 4 * n, left, mask=inside)
    tl.store(boxes + 4 * n + 1, right, mask=inside)
    tl.store(boxes + 4 * n + 2, top, mask=inside)
    tl.store(boxes + 4 * n + 3, bottom, mask=inside)
    tl.store(counts + n, (right - left).to(tl.int64) * (bottom - top), mask=inside)


def count(places: Sequence[Tensor], across: int, down: int) -> tuple[Tensor, Tensor, Tensor]:
    """means2d, reach and depths -> boxes of tiles (N, 4) int32, where the slots of each splat begin (N + 1,)
    int64, and whether one has no depth, () int64."""
    means2d, reach, depths = places
    splats, device = len(means2d), means2d.device
    boxes = torch.empty(splats, 4, dtype=torch.int32, device=device)
    counts = torch.empty(splats, dtype=torch.int64, device=device)
    behind = torch.zeros(1, dtype=torch.int64, device=device)
    launch(count_kernel, splats, BLOCK, means2d, reach, depths, boxes, counts, behind, across, down)
    return boxes, starts_of(counts), behind[0]


def starts_of(counts: Tensor) -> Tensor:
    """(N,) -> (N + 1,): the sums of what comes before."""
    return torch.nn.functional.pad(counts.cumsum(0), (1, 0))


@triton.jit(do_not_specialize=["items", "splats", "across"])
def entry_kernel(order, begins, boxes, tile_of, owner, splats, across, items, BLOCK: tl.constexpr):
    """For each entry, those of the nearest splat first: its tile and its splat. begins (splats + 1,) says
    where those of the k-th nearest, row order[k], begin."""
    e = lanes(BLOCK)
    inside = e < items
    k = ray_of_sample(begins, splats, e, inside)
    n = tl.load(order + k, mask=inside, other=0)
    place = e - tl.load(begins + k, mask=inside, other=0)
    left = tl.load(boxes + 4 * n, mask=inside, other=0).to(tl.int64)
    wide = tl.load(boxes + 4 * n + 1, mask=inside, other=1).to(tl.int64) - left
    wide = tl.where(inside, wide, 1)
    top = tl.load(boxes + 4 * n + 2, mask=inside, other=0).to(tl.int64)
    tile = (top + place // wide) * across + left + place % wide
    tl.store(tile_of + e, tile.to(tile_of.dtype.element_ty), mask=inside)
    tl.store(owner + e, n.to(tl.int32), mask=inside)


@triton.jit(do_not_specialize=["items", "first"])
def list_kernel(
    tiles, entries, runs, places, owner, begin_of, offsets, splats, slots, first, items, BLOCK: tl.constexpr
):
    """Of entries sorted by tile, (items,) from the entry `first` on: those of tile t begin at runs[t], and go
    to places[t] in the lists."""
    p = lanes(BLOCK)
    inside = p < items
    tile = tl.load(tiles + p, mask=inside, other=0).to(tl.int64)
    e = tl.load(entries + p, mask=inside, other=0) + first
    n = tl.load(owner + e, mask=inside, other=0)
    place = tl.load(places + tile, mask=inside, other=0) + p - tl.load(runs + tile, mask=inside, other=0)
    slot = tl.load(offsets + n, mask=inside, other=0) + e - tl.load(begin_of + n, mask=inside, other=0)
    tl.store(splats + place, n, mask=inside)
    tl.store(slots + place, slot, mask=inside)


def fill(
    depths: Tensor, boxes: Tensor, offsets: Tensor, entries: int, across: int, down: int
) -> tuple[Tensor, Tensor, Tensor]:
    """starts (tiles + 1,), splats (entries,) and slots (entries,) of `list_splats`."""
    device, tiles = depths.device, across * down
    counts = offsets.diff()
    order = torch.sort(torch.where(counts > 0, depths.detach(), torch.inf), stable=True).indices
    begins = starts_of(counts[order])
    begin_of = torch.empty_like(counts)
    begin_of[order] = begins[:-1]
    # Half of the bits are half of the passes of a radix sort.
    kind = torch.int16 if tiles < 1 << 15 else torch.int32
    tile_of = torch.empty(entries, dtype=kind, device=device)
    owner = torch.empty(entries, dtype=torch.int32, device=device)
    launch(entry_kernel, entries, BLOCK, order, begins, boxes, tile_of, owner, len(counts), across)
    numbers = torch.arange(tiles + 1, dtype=kind, device=device)
    parts = []
    for first in range(0, entries, MOST_SORTED):
        here, rows = torch.sort(tile_of[first : first + MOST_SORTED], stable=True)
        parts.append((first, here, rows, torch.searchsorted(here, numbers)))
    lengths = sum((runs.diff() for *_, runs in parts), torch.zeros(tiles, dtype=torch.int64, device=device))
    starts = starts_of(lengths)
    splats = torch.empty(entries, dtype=torch.int32, device=device)
    slots = torch.empty(entries, dtype=torch.int64, device=device)
    places = starts[:-1]
    for first, here, rows, runs in parts:
        inputs = here, rows, runs, places, owner, begin_of, offsets, splats, slots
        launch(list_kernel, len(here), BLOCK, *inputs, first)
        places = places + runs.diff()
    return starts, splats, slots
