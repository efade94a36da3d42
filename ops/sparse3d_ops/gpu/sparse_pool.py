"""Triton bodies of max pooling over kernel maps. A lane owns one channel of one output (or input) row."""

import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 256


@triton.jit(do_not_specialize=["items", "channels"])
def maximum_kernel(features, table, out, argmax, taps, channels, items, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < items
    o, channel = i // channels, i % channels
    best = tl.zeros((BLOCK,), out.dtype.element_ty)
    at = tl.full((BLOCK,), -1, tl.int32)
    place = table + o * taps
    for _ in range(taps):
        row = tl.load(place, mask=inside, other=-1)
        there = row >= 0
        value = tl.load(features + row.to(tl.int64) * channels + channel, mask=there, other=0)
        # A strict comparison lets the lowest tap win ties; value != value is NaN, which wins over numbers.
        better = there & ((at < 0) | (value > best) | ((value != value) & (best == best)))
        best = tl.where(better, value, best)
        at = tl.where(better, row, at)
        place += 1
    tl.store(out + i, best, mask=inside)
    tl.store(argmax + i, at, mask=inside)


def maximum(features: Tensor, table: Tensor, out: Tensor, argmax: Tensor) -> None:
    """out (N_out, C) = maximum over the taps; argmax its input row; 0 and -1 where there is no neighbour."""
    taps = table.shape[1]
    launch(maximum_kernel, out.numel(), BLOCK, features, table, out, argmax, taps, out.shape[1])


@triton.jit(do_not_specialize=["items", "channels"])
def gradient_kernel(grad, argmax, reverse, out, taps, channels, items, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < items
    row, channel = i // channels, i % channels
    total = tl.zeros((BLOCK,), out.dtype.element_ty)
    place = reverse + row * taps
    for _ in range(taps):
        o = tl.load(place, mask=inside, other=-1)
        at = o.to(tl.int64) * channels + channel
        taken = tl.load(argmax + at, mask=o >= 0, other=-1) == row
        total += tl.load(grad + at, mask=taken, other=0)
        place += 1
    tl.store(out + i, total, mask=inside)


def maximum_gradient(grad: Tensor, argmax: Tensor, reverse: Tensor, out: Tensor) -> None:
    """out (N_in, C): each input gathers the gradients of the outputs that took it, tap by tap."""
    taps = reverse.shape[1]
    launch(gradient_kernel, out.numel(), BLOCK, grad, argmax, reverse, out, taps, out.shape[1])
