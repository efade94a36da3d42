"""Triton bodies of sparse convolution: masked implicit GEMM.

A tile is a set of output rows with similar taps (`tap_order`) and a block of output columns. Its program
walks over the taps that any of its rows has and over blocks of input channels; each step is a product of
gathered input rows (zero where a row lacks the tap) and a block of the tap's weights. Each output is written
once: no atomics, so results repeat bit for bit for one `Choice`. Where the taps are split, or the steps of a
tile are sliced, partial sums are written and added in order.

float16 and bfloat16 are multiplied as they are and summed in float32; float32 uses TF32 only where
`torch.backends.cuda.matmul` allows it; float64 is summed in float64. Input channels that do not fill a step
share it with other taps (`pack`). A weight that is not finite reaches every row of a tile that has its tap:
0 * inf is not 0.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu import autotune, narrow_groups, partial_sums, tap_order
from sparse3d_ops.gpu.launch import launch_grid


@triton.jit(do_not_specialize=["n_in", "n_out", "volume", "span", "tiles", "columns", "chunks"])
def convolve_tile(
    x,
    weight,
    table,
    order,
    taps,
    counts,
    visit,
    out,
    n_in,
    n_out,
    volume,
    span,
    tiles,
    columns,
    depth,
    width,
    chunks,
    x_row,
    weight_tap,
    weight_in,
    weight_out,
    out_row,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    STEP: tl.constexpr,
    PACK: tl.constexpr,
    WHOLE: tl.constexpr,
    SLICES: tl.constexpr,
    DOUBLE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """One tile of one slice of one split of one group.

    `depth` and `width` are channels of a group; `chunks` steps go through the depth of a tap; `columns`
    blocks through the width. WHOLE: STEP divides `depth`. PACK > 1: a step holds STEP / PACK channels of each
    of PACK taps. `out` holds a buffer (n_out, out_row) for each split and slice.
    """
    block, part, group = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    split, piece = part // SLICES, part % SLICES
    place = split.to(tl.int64) * tiles
    tile = tl.load(visit + place + block // columns)
    here = taps + (place + tile) * span
    count = tl.load(counts + place + tile)
    position = tile * ROWS + tl.arange(0, ROWS)
    live = position < n_out
    out_index = tl.load(order + split.to(tl.int64) * n_out + position, mask=live, other=0).to(tl.int64)
    table_row = table + out_index * volume
    column = (block % columns) * COLUMNS + tl.arange(0, COLUMNS)
    wanted = column < width
    x_group = x + group * depth
    weight_column = weight + (group * width + column).to(tl.int64) * weight_out
    SUM: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    total = tl.zeros((ROWS, COLUMNS), SUM)
    lane = tl.arange(0, STEP)
    steps = (count + PACK - 1) // PACK if PACK > 1 else count * chunks
    begin, end = steps * piece // SLICES, steps * (piece + 1) // SLICES
    if PACK > 1:
        for step in range(begin, end):
            slot = step * PACK + lane // (STEP // PACK)
            channel = lane % (STEP // PACK)
            valid = (slot < count) & (channel < depth)
            tap = tl.load(here + slot, mask=valid, other=0)
            entry = tl.load(table_row[:, None] + tap[None, :], mask=live[:, None] & valid[None, :], other=-1)
            # As unsigned numbers, -1 and rows beyond the last are both too large.
            found = entry.to(tl.uint32, bitcast=True) < n_in
            a = tl.load(x_group + entry.to(tl.int64) * x_row + channel[None, :], mask=found, other=0.0)
            start = weight_column[None, :] + (tap.to(tl.int64) * weight_tap + channel * weight_in)[:, None]
            b = tl.load(start, mask=valid[:, None] & wanted[None, :], other=0.0)
            total = tl.dot(a, b, total, input_precision=PRECISION, out_dtype=SUM)
    else:
        # The tap and its entries are read a step ahead. So rows and weights hang on nothing that is loaded in
        # their own step, and Triton fetches them `num_stages` steps ahead; otherwise it fetches them one.
        # After the last step this reads tap 0 in vain.
        tap = tl.load(here + begin // chunks, mask=begin < end, other=0)
        entry = tl.load(table_row + tap, mask=live, other=-1)
        for step in range(begin, end):
            next_tap = tl.load(here + (step + 1) // chunks, mask=end > step + 1, other=0)
            next_entry = tl.load(table_row + next_tap, mask=live, other=-1)
            channel = (step % chunks) * STEP + lane
            found = entry.to(tl.uint32, bitcast=True) < n_in
            row = x_group + entry.to(tl.int64) * x_row
            start = weight_column[None, :] + (tap.to(tl.int64) * weight_tap + channel * weight_in)[:, None]
            if WHOLE:
                a = tl.load(row[:, None] + channel[None, :], mask=found[:, None], other=0.0)
                b = tl.load(start, mask=wanted[None, :], other=0.0)
            else:
                inside = channel < depth
                a = tl.load(row[:, None] + channel[None, :], mask=found[:, None] & inside[None, :], other=0.0)
                b = tl.load(start, mask=inside[:, None] & wanted[None, :], other=0.0)
            total = tl.dot(a, b, total, input_precision=PRECISION, out_dtype=SUM)
            tap, entry = next_tap, next_entry
    target = out + (part.to(tl.int64) * n_out + out_index) * out_row + group * width
    tl.store(
        target[:, None] + column[None, :],
        total.to(out.dtype.element_ty),
        mask=live[:, None] & wanted[None, :],
    )


class Choice(NamedTuple):
    """How a convolution is cut up: a tile's output rows and columns, input channels a step, warps, stages of
    loads ahead, splits of the taps, slices of a tile's steps."""

    rows: int
    columns: int
    step: int
    warps: int
    stages: int
    splits: int = 1
    slices: int = 1


# What is tried, in rounds: a tile shape, then how deep its loads run ahead, then splits and slices.
TILES = (
    (128, 128, 64, 8),
    (128, 128, 32, 4),
    (128, 64, 64, 4),
    (128, 64, 32, 4),
    (128, 32, 32, 4),
    (64, 128, 64, 4),
    (64, 64, 64, 4),
    (64, 64, 32, 4),
    (64, 32, 32, 4),
    (128, 256, 64, 8),
    (64, 16, 16, 4),
    (32, 64, 32, 2),
)
STAGES = (2, 3, 4, 5)
CUTS = ((1, 1), (2, 1), (3, 1), (1, 2), (1, 4), (2, 2))
# Partial sums of more than this are not worth their memory.
MOST_PARTIAL_BYTES = 1 << 30


class Shape(NamedTuple):
    """What a choice may depend on. `rows` are the output's; channels are a group's."""

    rows: int
    volume: int
    depth: int
    width: int
    groups: int
    item_bytes: int

    def fits(self, choice: Choice) -> bool:
        """No tile is twice as wide as there are columns, no step deeper than channels or two taps of 16 ask
        for, and partial sums and shared memory suffice."""
        parts = choice.splits * choice.slices
        partial = 0 if parts == 1 else parts * self.rows * self.width * self.groups * max(4, self.item_bytes)
        return (
            choice.columns < max(32, 2 * self.width)
            and choice.step < max(64, 2 * self.depth)
            and choice.splits <= self.volume
            and partial <= MOST_PARTIAL_BYTES
            and self.tile_bytes(choice) <= 200 << 10
        )

    def tile_bytes(self, choice: Choice) -> int:
        """Shared memory of a step's operands in all stages."""
        return choice.stages * choice.step * (choice.rows + choice.columns) * self.item_bytes


def default_choice(shape: Shape) -> Choice:
    """A choice without trying: 48 KiB of shared memory suffice, so every GPU has room for it. It depends on
    sizes alone: no GPU, driver or earlier run changes the order of sums."""
    columns = min(64, max(16, triton.next_power_of_2(shape.width)))
    step = min(32 if shape.item_bytes == 2 else 16, max(16, triton.next_power_of_2(shape.depth)))
    rows = 64 if shape.item_bytes == 8 else 128
    # Few tiles leave most of a GPU idle; slices of their steps fill it.
    tiles = triton.cdiv(shape.rows, rows) * triton.cdiv(shape.width, columns) * shape.groups
    slices = 4 if tiles <= 64 else 2 if tiles <= 128 else 1
    return Choice(rows, columns, step, 4, 2 if shape.item_bytes == 8 else 3, 1, slices)


def allowed(choice: Choice) -> bool:
    """Whether a choice read from a file is one that could have been made here."""
    powers = all(
        value & (value - 1) == 0 for value in (choice.rows, choice.columns, choice.step, choice.warps)
    )
    return (
        powers
        and 16 <= choice.rows <= 256
        and 16 <= choice.columns <= 256
        and 16 <= choice.step <= 128
        and 1 <= choice.warps <= 16
        and choice.stages in range(1, 8)
        and choice.splits in (1, 2, 3, 4)
        and choice.slices in (1, 2, 4, 8)
    )


def rounds(shape: Shape) -> list[autotune.Round[Choice]]:
    """The search: each round varies the best choice so far in one respect."""

    def tile_shapes(best: Choice) -> Iterator[Choice]:
        for rows, columns, step, warps in TILES:
            yield best._replace(rows=rows, columns=columns, step=step, warps=warps)

    def stages(best: Choice) -> Iterator[Choice]:
        for count in STAGES:
            yield best._replace(stages=count)

    def cuts(best: Choice) -> Iterator[Choice]:
        for splits, slices in CUTS:
            yield best._replace(splits=splits, slices=slices)

    def fitting(vary):
        return lambda best: [choice for choice in vary(best) if shape.fits(choice)]

    return [fitting(tile_shapes), fitting(cuts), fitting(stages)]


def precision(dtype: torch.dtype) -> str:
    """How float32 products are made: TF32 only where the user allows it for matrix products."""
    allows = dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"
    return "tf32" if allows else "ieee"


def precision_name(dtype: torch.dtype) -> str:
    return "tf32" if precision(dtype) == "tf32" else str(dtype).removeprefix("torch.")


def convolve_with(
    choice: Choice, features: Tensor, weight: Tensor, table: Tensor, known: tap_order.TapOrder, groups: int
) -> Tensor:
    """(N_in, Cin), (V, Cin / groups, Cout), (N_out, V) -> (N_out, Cout), cut up by `choice`. `weight` may
    have any strides; `features` and `table` are contiguous."""
    n_out, volume = table.shape
    depth, channels = weight.shape[1], weight.shape[2]
    width = channels // groups
    order, taps, counts, visit = known.tiles(table, choice.splits, choice.rows)
    tiles, columns = counts.shape[1], triton.cdiv(width, choice.columns)
    parts = choice.splits * choice.slices
    kept = features.dtype if parts == 1 else partial_sums.sum_type(features.dtype)
    sums = features.new_empty((parts, n_out, channels), dtype=kept)
    launch_grid(
        convolve_tile,
        (tiles * columns, parts, groups),
        features,
        weight,
        table,
        order,
        taps,
        counts,
        visit,
        sums,
        min(features.shape[0], partial_sums.MOST_ROWS),
        n_out,
        volume,
        taps.shape[2],
        tiles,
        columns,
        depth,
        width,
        triton.cdiv(depth, choice.step),
        features.stride(0),
        *weight.stride(),
        channels,
        ROWS=choice.rows,
        COLUMNS=choice.columns,
        STEP=choice.step,
        PACK=max(1, choice.step // triton.next_power_of_2(depth)),
        WHOLE=depth % choice.step == 0,
        SLICES=choice.slices,
        DOUBLE=features.dtype == torch.float64,
        PRECISION=precision(features.dtype),
        num_warps=choice.warps,
        num_stages=choice.stages,
    )
    return sums[0] if parts == 1 else partial_sums.add_buffers(sums, features.dtype)


def convolve(features: Tensor, weight: Tensor, table: Tensor, groups: int) -> Tensor:
    """The op `sparse_conv` for inputs that were checked and are not empty."""
    known = tap_order.of(table)
    features, table = features.detach().contiguous(), table.contiguous()
    weight = weight.detach()
    if narrow_groups.fits(weight.shape[1], weight.shape[2] // groups, groups):
        return narrow_groups.convolve(features, weight.contiguous(), table, groups)
    depth, width = weight.shape[1], weight.shape[2] // groups
    shape = Shape(table.shape[0], table.shape[1], depth, width, groups, features.element_size())
    if precision(features.dtype) == "tf32" and weight.stride(1) != 1:
        # Tensor cores take 32-bit operands along the summed channels only: so arranged, they are copied in
        # pieces of 16 bytes instead of 4.
        weight = weight.transpose(1, 2).contiguous().transpose(1, 2)
    # Weights that come transposed, as those of input gradients do, are read along another axis.
    layout = "rows" if weight.stride(2) == 1 else "columns"
    choice = autotune.choose(
        f"convolve {precision_name(features.dtype)} rows 2^{shape.rows.bit_length()} taps {shape.volume} "
        f"channels {depth}x{width} groups {groups} weight by {layout}",
        features.device,
        default_choice(shape),
        rounds(shape),
        allowed,
        lambda choice: convolve_with(choice, features, weight, table, known, groups),
    )
    return convolve_with(choice, features, weight, table, known, groups)
