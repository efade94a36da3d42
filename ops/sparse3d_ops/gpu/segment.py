"""Triton bodies of the segment reductions.

A lane owns one channel of one segment and walks its rows in their input order, as the numba bodies do. So
that few long segments keep a GPU busy too, rows are cut into pieces of CHUNK, and what the pieces give is
reduced once more, in order. Where the cuts lie depends on the lengths alone: results are the same bits every
time, and those of the numba bodies for segments of at most CHUNK rows.
"""

from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 128
CHUNK = 256  # long enough that the second reduction is short, short enough for 10^5 rows to fill a GPU


def sorted_rows(segment: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """offsets (S + 1,) and order (N,) int64: the rows of segment s, in rising order, are
    order[offsets[s]:offsets[s + 1]]. Ids outside of [0, S) are in no segment."""
    # Half of the bits are half of the passes of the sort.
    ids = segment.int() if num_segments < 1 << 31 else segment
    ids, order = torch.sort(ids, stable=True)
    bounds = torch.arange(num_segments + 1, dtype=ids.dtype, device=ids.device)
    return torch.searchsorted(ids, bounds), order


def pieces(offsets: Tensor, rows: int) -> tuple[Tensor, Tensor, Tensor]:
    """begin and end (P,) of pieces of at most CHUNK places that each lie in one segment, and offsets (S + 1,)
    of the pieces of each segment. P is the largest number that S segments of `rows` places can need, so that
    nothing has to be waited for; pieces at the end may be empty."""
    segments = len(offsets) - 1
    needed = (offsets.diff() + CHUNK - 1) // CHUNK
    last = needed.cumsum(0)
    piece = torch.arange(segments + rows // CHUNK, device=offsets.device)
    owner = torch.searchsorted(last, piece, right=True).clamp_max(segments - 1)
    begin = offsets[owner] + (piece - (last - needed)[owner]) * CHUNK
    end = torch.minimum(begin + CHUNK, offsets[owner + 1])
    return begin, end, torch.cat([last.new_zeros(1), last])


@triton.jit(do_not_specialize=["items", "channels"])
def sum_kernel(values, order, begin, end, out, channels, items, HAS_ORDER: tl.constexpr, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < items
    segment, channel = i // channels, i % channels
    k = tl.load(begin + segment, mask=inside, other=0)
    stop = tl.load(end + segment, mask=inside, other=0)
    total = tl.zeros((BLOCK,), out.dtype.element_ty)
    while tl.max((k < stop).to(tl.int32), 0) > 0:
        here = k < stop
        row = k
        if HAS_ORDER:
            row = tl.load(order + k, mask=here, other=0)
        total += tl.load(values + row * channels + channel, mask=here, other=0)
        k += 1
    tl.store(out + i, total, mask=inside)


def sum_in_pieces(
    sum_rows: Callable[[Tensor, Tensor, Tensor], None], offsets: Tensor, rows: int, out: Tensor
):
    """Sum what `sum_rows(begin, end, out)` sums over places begin[s] to end[s], in pieces when there may be
    many."""
    if out.numel() == 0 or rows <= CHUNK:
        sum_rows(offsets[:-1], offsets[1:], out)
        return
    begin, end, of_segment = pieces(offsets, rows)
    partial = out.new_empty(len(begin), out.shape[1])
    sum_rows(begin, end, partial)
    first, last = of_segment[:-1], of_segment[1:]
    launch(sum_kernel, out.numel(), BLOCK, partial, first, first, last, out, out.shape[1], HAS_ORDER=False)


def segment_sum(values: Tensor, offsets: Tensor, order: Tensor, out: Tensor) -> None:
    def sum_rows(begin: Tensor, end: Tensor, into: Tensor) -> None:
        channels = into.shape[1]
        launch(sum_kernel, into.numel(), BLOCK, values, order, begin, end, into, channels, HAS_ORDER=True)

    sum_in_pieces(sum_rows, offsets, len(order), out)


def segment_mean(values: Tensor, offsets: Tensor, order: Tensor, out: Tensor) -> None:
    segment_sum(values, offsets, order, out)
    out /= offsets.diff().clamp_min(1)[:, None]


@triton.jit(do_not_specialize=["items", "channels"])
def max_kernel(
    values, order, begin, end, out, argmax, channels, items, HAS_ORDER: tl.constexpr, BLOCK: tl.constexpr
):
    i = lanes(BLOCK)
    inside = i < items
    segment, channel = i // channels, i % channels
    k = tl.load(begin + segment, mask=inside, other=0)
    stop = tl.load(end + segment, mask=inside, other=0)
    best = tl.zeros((BLOCK,), out.dtype.element_ty)
    at = tl.full((BLOCK,), -1, tl.int64)
    while tl.max((k < stop).to(tl.int32), 0) > 0:
        here = k < stop
        row = k
        if HAS_ORDER:
            row = tl.load(order + k, mask=here, other=0)
        value = tl.load(values + row * channels + channel, mask=here, other=0)
        # Rows rise, so a strict comparison lets the lowest row win ties; value != value is NaN.
        better = here & ((at < 0) | (value > best) | ((value != value) & (best == best)))
        best = tl.where(better, value, best)
        at = tl.where(better, row, at)
        k += 1
    tl.store(out + i, best, mask=inside)
    tl.store(argmax + i, at, mask=inside)


def segment_max(values: Tensor, offsets: Tensor, order: Tensor, out: Tensor, argmax: Tensor) -> None:
    channels, rows = out.shape[1], len(order)

    def max_rows(begin, end, into, at, rows_of=None):
        ordered = rows_of is None
        source, order_of = (values, order) if ordered else (rows_of, begin)
        launch(
            max_kernel,
            into.numel(),
            BLOCK,
            source,
            order_of,
            begin,
            end,
            into,
            at,
            channels,
            HAS_ORDER=ordered,
        )

    if out.numel() == 0 or rows <= CHUNK:
        max_rows(offsets[:-1], offsets[1:], out, argmax)
        return
    begin, end, of_segment = pieces(offsets, rows)
    partial = out.new_empty(len(begin), channels)
    partial_argmax = argmax.new_empty(partial.shape)
    max_rows(begin, end, partial, partial_argmax)
    max_rows(of_segment[:-1], of_segment[1:], out, argmax, partial)
    row = partial_argmax.gather(0, argmax.clamp_min(0))
    argmax.copy_(torch.where(argmax < 0, argmax, row))
