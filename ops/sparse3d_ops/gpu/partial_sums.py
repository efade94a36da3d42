"""Partial sums of sparse convolution: their type, their number, and how they are added in a fixed order."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import launch_grid

# Rows that an int32 table can name.
MOST_ROWS = (1 << 31) - 1
# Memory for the partial sums of a weight gradient.
MOST_BYTES = 512 << 20
BLOCK = 512


def sum_type(dtype: torch.dtype) -> torch.dtype:
    """Type in which numbers of a type are summed."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def piece_length(counts: tuple[int, ...], pieces: int, bytes_each: int, least: int) -> int:
    """Pairs of a piece, a power of two of at least `least`, for about so many pieces of all taps' pairs.
    Depends on sizes alone: the length decides in which order is summed."""
    room = max(1, MOST_BYTES // bytes_each - len(counts))
    return triton.next_power_of_2(max(least, triton.cdiv(sum(counts), max(1, min(pieces, room)))))


@triton.jit(do_not_specialize=["size"])
def _add_buffers(buffers, out, size, COUNT: tl.constexpr, BLOCK: tl.constexpr):
    """out[i] = sum of COUNT buffers at i, in order."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    inside = index < size
    here = buffers + index
    total = tl.load(here, mask=inside, other=0.0)
    for _ in range(1, COUNT):
        here += size
        total += tl.load(here, mask=inside, other=0.0)
    tl.store(out + index, total.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["size"])
def _add_by_tap(partial, first, out, size, BLOCK: tl.constexpr):
    """out[tap, i] = sum of the pieces of the tap at i, in order; zero where a tap has none."""
    tap = tl.program_id(1)
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < size
    total = tl.zeros((BLOCK,), partial.dtype.element_ty)
    for piece in range(tl.load(first + tap), tl.load(first + tap + 1)):
        total += tl.load(partial + piece * size + index, mask=inside, other=0.0)
    tl.store(out + tap.to(tl.int64) * size + index, total.to(out.dtype.element_ty), mask=inside)


def add_buffers(buffers: Tensor, dtype: torch.dtype) -> Tensor:
    """(parts, ...) -> (...), added in order and rounded once."""
    out = buffers.new_empty(buffers.shape[1:], dtype=dtype)
    grid = (triton.cdiv(out.numel(), BLOCK),)
    launch_grid(_add_buffers, grid, buffers, out, out.numel(), COUNT=len(buffers), BLOCK=BLOCK)
    return out


def add_by_tap(partial: Tensor, first: Tensor, dtype: torch.dtype) -> Tensor:
    """Pieces (P, depth, channels), those of tap v at first[v] .. first[v + 1] -> (V, depth, channels), added
    in order and rounded once."""
    volume, size = len(first) - 1, partial.shape[1] * partial.shape[2]
    out = partial.new_empty((volume, *partial.shape[1:]), dtype=dtype)
    launch_grid(_add_by_tap, (triton.cdiv(size, BLOCK), volume), partial, first, out, size, BLOCK=BLOCK)
    return out
