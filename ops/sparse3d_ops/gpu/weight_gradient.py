"""Triton bodies of the weight gradient of sparse convolution.

The pairs (input row, output row) of a tap, listed once a table (`tap_order`), are cut into pieces of a fixed
number of pairs. A program multiplies the gathered rows of one piece: x^T g for a block of input and of
output channels. Pieces are summed in float32 (float64 for float64), kept apart, and added in order: no
atomics, bitwise repeatable for one `Choice`. The length of a piece depends on sizes and the choice, never on
the GPU.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu import autotune, narrow_groups, partial_sums, tap_order
from sparse3d_ops.gpu.launch import launch_grid
from sparse3d_ops.gpu.sparse_conv import precision, precision_name


@triton.jit(do_not_specialize=["groups", "in_blocks", "out_blocks"])
def gradient_piece(
    x,
    grad,
    pair_in,
    pair_out,
    begins,
    ends,
    partial,
    depth,
    width,
    groups,
    in_blocks,
    out_blocks,
    IN: tl.constexpr,
    OUT: tl.constexpr,
    PAIRS: tl.constexpr,
    DOUBLE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """partial[piece] (depth, groups * width): one block of input and output channels of one group."""
    blocks = in_blocks * out_blocks
    piece, block, group = tl.program_id(0) // blocks, tl.program_id(0) % blocks, tl.program_id(1)
    channel = (block // out_blocks) * IN + tl.arange(0, IN)
    column = (block % out_blocks) * OUT + tl.arange(0, OUT)
    deep, wide = channel < depth, column < width
    x_group, grad_group = x + group * depth, grad + group * width
    SUM: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    total = tl.zeros((IN, OUT), SUM)
    lane = tl.arange(0, PAIRS)
    first, end = tl.load(begins + piece), tl.load(ends + piece)
    # Pairs are read a step ahead, so that rows hang on nothing that is loaded in their step.
    pair_row = tl.load(pair_in + first + lane, mask=first + lane < end, other=0)
    pair_out_row = tl.load(pair_out + first + lane, mask=first + lane < end, other=0)
    for begin in range(first, end, PAIRS):
        following = begin + PAIRS + lane
        next_row = tl.load(pair_in + following, mask=following < end, other=0)
        next_out_row = tl.load(pair_out + following, mask=following < end, other=0)
        valid = begin + lane < end
        rows = pair_row.to(tl.int64) * (groups * depth)
        outs = pair_out_row.to(tl.int64) * (groups * width)
        a = tl.load(
            x_group + rows[:, None] + channel[None, :], mask=valid[:, None] & deep[None, :], other=0.0
        )
        b = tl.load(
            grad_group + outs[:, None] + column[None, :], mask=valid[:, None] & wide[None, :], other=0.0
        )
        total = tl.dot(tl.trans(a), b, total, input_precision=PRECISION, out_dtype=SUM)
        pair_row, pair_out_row = next_row, next_out_row
    target = partial + (piece.to(tl.int64) * depth + channel) * (groups * width) + group * width
    tl.store(target[:, None] + column[None, :], total, mask=deep[:, None] & wide[None, :])


class Choice(NamedTuple):
    """Block of input and of output channels, pairs a step, warps, stages of loads ahead, and how many
    programs the pieces are made for."""

    channels: int
    columns: int
    pairs: int
    warps: int
    stages: int
    programs: int


TILES = (
    (64, 64, 64, 4),
    (64, 64, 32, 4),
    (32, 32, 64, 4),
    (64, 128, 32, 4),
    (128, 64, 32, 4),
    (128, 128, 32, 8),
    (128, 128, 64, 8),
    (16, 64, 64, 4),
    (16, 16, 64, 2),
)
STAGES = (2, 3, 4)
PROGRAMS = (512, 1024, 2048, 8192)


class Shape(NamedTuple):
    """What a choice may depend on. `counts` are the pairs of each tap; channels are a group's."""

    counts: tuple[int, ...]
    depth: int
    width: int
    groups: int
    item_bytes: int

    def fits(self, choice: Choice) -> bool:
        room = choice.stages * choice.pairs * (choice.channels + choice.columns) * self.item_bytes
        return (
            choice.channels < max(32, 2 * self.depth)
            and choice.columns < max(32, 2 * self.width)
            and room <= 200 << 10
        )

    def piece_length(self, choice: Choice) -> int:
        blocks = triton.cdiv(self.depth, choice.channels) * triton.cdiv(self.width, choice.columns)
        bytes_each = self.depth * self.width * self.groups * max(4, self.item_bytes)
        programs = choice.programs // (blocks * self.groups)
        return partial_sums.piece_length(self.counts, programs, bytes_each, 4 * choice.pairs)


def default_choice(shape: Shape) -> Choice:
    """A choice without trying; fits 48 KiB of shared memory and depends on sizes alone."""
    channels = min(64, max(16, triton.next_power_of_2(shape.depth)))
    columns = min(64, max(16, triton.next_power_of_2(shape.width)))
    return Choice(channels, columns, 64 if shape.item_bytes == 2 else 16, 4, 2, 1024)


def allowed(choice: Choice) -> bool:
    """Whether a choice read from a file is one that could have been made here."""
    powers = all(value & (value - 1) == 0 for value in choice[:4])
    return (
        powers
        and all(16 <= value <= 128 for value in choice[:3])
        and 1 <= choice.warps <= 16
        and choice.stages in range(1, 8)
        and 1 <= choice.programs <= 1 << 16
    )


def rounds(shape: Shape) -> list[autotune.Round[Choice]]:
    """The search: each round varies the best choice so far in one respect."""

    def tiles(best: Choice) -> Iterator[Choice]:
        for channels, columns, pairs, warps in TILES:
            yield best._replace(channels=channels, columns=columns, pairs=pairs, warps=warps)

    def programs(best: Choice) -> Iterator[Choice]:
        for count in PROGRAMS:
            yield best._replace(programs=count)

    def stages(best: Choice) -> Iterator[Choice]:
        for count in STAGES:
            yield best._replace(stages=count)

    def fitting(vary):
        return lambda best: [choice for choice in vary(best) if shape.fits(choice)]

    return [fitting(tiles), fitting(programs), fitting(stages)]


def gradient_with(
    choice: Choice,
    features: Tensor,
    grad: Tensor,
    known: tap_order.TapOrder,
    pairs: tap_order.Pairs,
    groups: int,
) -> Tensor:
    """(N_in, Cin), (N_out, Cout) -> (V, Cin / groups, Cout), cut up by `choice`. Inputs are contiguous."""
    depth, channels = features.shape[1] // groups, grad.shape[1]
    width = channels // groups
    shape = Shape(pairs.counts, depth, width, groups, features.element_size())
    pieces = known.chunks(pairs, shape.piece_length(choice))
    partial = features.new_empty(
        (len(pieces.begin), depth, channels), dtype=partial_sums.sum_type(features.dtype)
    )
    in_blocks, out_blocks = triton.cdiv(depth, choice.channels), triton.cdiv(width, choice.columns)
    if len(pieces.begin):
        launch_grid(
            gradient_piece,
            (len(pieces.begin) * in_blocks * out_blocks, groups),
            features,
            grad,
            pairs.inputs,
            pairs.outputs,
            pieces.begin,
            pieces.end,
            partial,
            depth,
            width,
            groups,
            in_blocks,
            out_blocks,
            IN=choice.channels,
            OUT=choice.columns,
            PAIRS=choice.pairs,
            DOUBLE=features.dtype == torch.float64,
            PRECISION=precision(features.dtype),
            num_warps=choice.warps,
            num_stages=choice.stages,
        )
    return partial_sums.add_by_tap(partial, pieces.first, features.dtype)


def weight_gradient(features: Tensor, grad: Tensor, table: Tensor, groups: int) -> Tensor:
    """The op `sparse_conv_weight_gradient` for inputs that were checked and are not empty."""
    known = tap_order.of(table)
    features, grad = features.detach().contiguous(), grad.detach().contiguous()
    pairs = known.pairs(table)
    depth, width = features.shape[1] // groups, grad.shape[1] // groups
    if narrow_groups.fits(depth, width, groups):
        return narrow_groups.weight_gradient(features, grad, known, pairs, groups)
    shape = Shape(pairs.counts, depth, width, groups, features.element_size())
    choice = autotune.choose(
        f"weight gradient {precision_name(features.dtype)} pairs 2^{sum(pairs.counts).bit_length()} "
        f"taps {table.shape[1]} channels {depth}x{width} groups {groups}",
        features.device,
        default_choice(shape),
        rounds(shape),
        allowed,
        lambda choice: gradient_with(choice, features, grad, known, pairs, groups),
    )
    return gradient_with(choice, features, grad, known, pairs, groups)
