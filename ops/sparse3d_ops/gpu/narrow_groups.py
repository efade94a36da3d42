"""Triton bodies of sparse convolution with many narrow groups, depthwise above all.

A group of one or a few channels would leave most of a matrix unit's tile empty, so each output channel sums
its few products itself: out[o, c] = sum over taps v and channels j of the group of x[table[o, v], first(c) +
j] * weight[v, j, c]. Sums are float32 (float64 for float64), taps ascending, no atomics. Reading the rows is
what costs here, so tiles are plain blocks of rows and nothing is tuned.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu import partial_sums, tap_order
from sparse3d_ops.gpu.launch import launch_grid

# Below this, in or out, groups go here: matrix units take sixteen channels at least.
NARROW = 16
ROWS, MOST_COLUMNS = 32, 64
# Programs that a weight gradient's pieces are made for.
PROGRAMS = 2048
PAIRS = 32


@triton.jit(do_not_specialize=["n_in", "n_out", "volume", "depth", "group_width"])
def convolve_channels(
    x,
    weight,
    table,
    out,
    n_in,
    n_out,
    volume,
    depth,
    group_width,
    in_channels,
    channels,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DOUBLE: tl.constexpr,
):
    """A block of output rows and channels; x (N_in, in_channels), weight (V, depth, channels)."""
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    live, wanted = row < n_out, column < channels
    first = (column // group_width) * depth
    SUM: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    total = tl.zeros((ROWS, COLUMNS), SUM)
    for tap in range(volume):
        entry = tl.load(table + row * volume + tap, mask=live, other=-1)
        # As unsigned numbers, -1 and rows beyond the last are both too large.
        found = (entry.to(tl.uint32, bitcast=True) < n_in)[:, None] & wanted[None, :]
        start = x + entry.to(tl.int64) * in_channels
        for j in range(depth):
            a = tl.load(start[:, None] + (first + j)[None, :], mask=found, other=0.0).to(SUM)
            factor = tl.load(weight + (tap * depth + j) * channels + column, mask=wanted, other=0.0)
            total = tl.where(found, total + a * factor.to(SUM)[None, :], total)
    tl.store(
        out + row[:, None] * channels + column[None, :],
        total.to(out.dtype.element_ty),
        mask=live[:, None] & wanted[None, :],
    )


@triton.jit(do_not_specialize=["depth", "group_width"])
def gradient_channels(
    x,
    grad,
    pair_in,
    pair_out,
    begins,
    ends,
    partial,
    depth,
    group_width,
    in_channels,
    channels,
    PAIRS: tl.constexpr,
    COLUMNS: tl.constexpr,
    DOUBLE: tl.constexpr,
):
    """partial[piece, j, c] = sum over the pairs of a piece of x[in, first(c) + j] * grad[out, c]."""
    piece, j = tl.program_id(0), tl.program_id(2)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    wanted = column < channels
    source = (column // group_width) * depth + j
    lane = tl.arange(0, PAIRS)
    SUM: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    total = tl.zeros((PAIRS, COLUMNS), SUM)
    end = tl.load(ends + piece)
    for begin in range(tl.load(begins + piece), end, PAIRS):
        pair = begin + lane
        valid = pair < end
        rows = tl.load(pair_in + pair, mask=valid, other=0).to(tl.int64) * in_channels
        outs = tl.load(pair_out + pair, mask=valid, other=0).to(tl.int64) * channels
        both = valid[:, None] & wanted[None, :]
        a = tl.load(x + rows[:, None] + source[None, :], mask=both, other=0.0)
        b = tl.load(grad + outs[:, None] + column[None, :], mask=both, other=0.0)
        total += a.to(SUM) * b.to(SUM)
    target = partial + (piece.to(tl.int64) * depth + j) * channels + column
    tl.store(target, tl.sum(total, 0), mask=wanted)


def fits(depth: int, width: int, groups: int) -> bool:
    """Whether groups of so many input and output channels go here."""
    return groups > 1 and min(depth, width) < NARROW


def _columns(channels: int) -> int:
    return min(MOST_COLUMNS, triton.next_power_of_2(channels))


def convolve(features: Tensor, weight: Tensor, table: Tensor, groups: int) -> Tensor:
    """(N_in, Cin), (V, Cin / groups, Cout), (N_out, V) -> (N_out, Cout). All are contiguous."""
    n_out, channels = table.shape[0], weight.shape[2]
    out = features.new_empty(n_out, channels)
    columns = _columns(channels)
    launch_grid(
        convolve_channels,
        (triton.cdiv(n_out, ROWS), triton.cdiv(channels, columns)),
        features,
        weight,
        table,
        out,
        min(features.shape[0], partial_sums.MOST_ROWS),
        n_out,
        table.shape[1],
        weight.shape[1],
        channels // groups,
        features.shape[1],
        channels,
        ROWS=ROWS,
        COLUMNS=columns,
        DOUBLE=features.dtype == torch.float64,
    )
    return out


def weight_gradient(
    features: Tensor, grad: Tensor, known: tap_order.TapOrder, pairs: tap_order.Pairs, groups: int
) -> Tensor:
    """(N_in, Cin), (N_out, Cout) -> (V, Cin / groups, Cout). Inputs are contiguous."""
    depth, channels = features.shape[1] // groups, grad.shape[1]
    columns = _columns(channels)
    blocks = triton.cdiv(channels, columns) * depth
    length = partial_sums.piece_length(
        pairs.counts, PROGRAMS // blocks, depth * channels * max(4, grad.element_size()), 4 * PAIRS
    )
    pieces = known.chunks(pairs, length)
    partial = features.new_empty(
        (len(pieces.begin), depth, channels), dtype=partial_sums.sum_type(features.dtype)
    )
    if len(pieces.begin):
        launch_grid(
            gradient_channels,
            (len(pieces.begin), triton.cdiv(channels, columns), depth),
            features,
            grad,
            pairs.inputs,
            pairs.outputs,
            pieces.begin,
            pieces.end,
            partial,
            depth,
            channels // groups,
            features.shape[1],
            channels,
            PAIRS=PAIRS,
            COLUMNS=columns,
            DOUBLE=features.dtype == torch.float64,
        )
    return partial_sums.add_by_tap(partial, pieces.first, features.dtype)
