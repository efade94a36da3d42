"""Triton bodies of the structural similarity: first along the columns, then along the rows, a lane a number.

Pictures are rows of W C numbers, `width` of them; windows have `inner` = (W - 10) C along a row.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 256
TAPS = 11


@triton.jit(do_not_specialize=["items", "width"])
def columns_kernel(x, y, weights, tall, width, items, BLOCK: tl.constexpr, TAPS: tl.constexpr):
    """tall (4, H - 10, width): sums of eleven rows of x, y, x^2 + y^2 and x y."""
    i = lanes(BLOCK)
    inside = i < items
    t0 = tl.zeros((BLOCK,), tall.dtype.element_ty)
    t1, t2, t3 = t0, t0, t0
    for k in range(TAPS):
        w = tl.load(weights + k)
        a = tl.load(x + i + k * width, mask=inside, other=0)
        b = tl.load(y + i + k * width, mask=inside, other=0)
        wa, wb = w * a, w * b
        t0 += wa
        t1 += wb
        t2 += wa * a + wb * b
        t3 += wa * b
    tl.store(tall + i, t0, mask=inside)
    tl.store(tall + items + i, t1, mask=inside)
    tl.store(tall + 2 * items + i, t2, mask=inside)
    tl.store(tall + 3 * items + i, t3, mask=inside)


@triton.jit
def moments(tall, weights, size, at, channels, inside, BLOCK: tl.constexpr, TAPS: tl.constexpr):
    """The four moments of windows that begin at `at` in each of the four sums of `size` numbers."""
    m0 = tl.zeros((BLOCK,), tall.dtype.element_ty)
    m1, m2, m3 = m0, m0, m0
    for k in range(TAPS):
        w = tl.load(weights + k)
        here = tall + at + k * channels
        m0 += w * tl.load(here, mask=inside, other=0)
        m1 += w * tl.load(here + size, mask=inside, other=0)
        m2 += w * tl.load(here + 2 * size, mask=inside, other=0)
        m3 += w * tl.load(here + 3 * size, mask=inside, other=0)
    return m0, m1, m2, m3


@triton.jit(do_not_specialize=["items", "width", "inner", "size", "channels"])
def similarity_kernel(
    tall,
    weights,
    constants,
    out,
    width,
    inner,
    size,
    channels,
    items,
    BLOCK: tl.constexpr,
    TAPS: tl.constexpr,
):
    i = lanes(BLOCK)
    inside = i < items
    at = i // inner * width + i % inner
    mx, my, squares, product = moments(tall, weights, size, at, channels, inside, BLOCK, TAPS)
    c1, c2 = tl.load(constants), tl.load(constants + 1)
    both, means = mx * my, mx * mx + my * my
    over = (both + both + c1) * ((product - both) + (product - both) + c2)
    tl.store(out + i, over / ((means + c1) * (squares - means + c2)), mask=inside)


@triton.jit(do_not_specialize=["items", "width", "inner", "size", "channels"])
def slopes_kernel(
    grad,
    tall,
    weights,
    constants,
    slopes,
    width,
    inner,
    size,
    channels,
    items,
    BLOCK: tl.constexpr,
    TAPS: tl.constexpr,
):
    """slopes (3, H - 10, inner): half of those of S in mu_x, in the mean of x^2 and in that of x y."""
    i = lanes(BLOCK)
    inside = i < items
    at = i // inner * width + i % inner
    mx, my, squares, product = moments(tall, weights, size, at, channels, inside, BLOCK, TAPS)
    c1, c2 = tl.load(constants), tl.load(constants + 1)
    both, means = mx * my, mx * mx + my * my
    n1, n2 = both + both + c1, (product - both) + (product - both) + c2
    d1, d2 = means + c1, squares - means + c2
    part = tl.load(grad + i, mask=inside, other=0) / (d1 * d2)
    s = n1 * n2 * part
    tl.store(slopes + i, my * (n2 - n1) * part + mx * (s / d2 - s / d1), mask=inside)
    tl.store(slopes + items + i, -s / d2, mask=inside)
    tl.store(slopes + 2 * items + i, n1 * part, mask=inside)


@triton.jit(do_not_specialize=["items", "width", "inner", "channels"])
def spread_kernel(
    slopes, weights, wide, width, inner, channels, items, BLOCK: tl.constexpr, TAPS: tl.constexpr
):
    """wide (3, H - 10, width): the way back along the rows, of all three at once."""
    i = lanes(BLOCK)
    row, j = i // width, i % width
    total = tl.zeros((BLOCK,), wide.dtype.element_ty)
    for k in range(TAPS):
        from_j = j - k * channels
        there = (i < items) & (from_j >= 0) & (from_j < inner)
        total += tl.load(weights + k) * tl.load(slopes + row * inner + from_j, mask=there, other=0)
    tl.store(wide + i, total, mask=i < items)


@triton.jit(do_not_specialize=["items", "width", "rows"])
def slope_kernel(wide, x, y, weights, out, width, rows, items, BLOCK: tl.constexpr, TAPS: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < items
    row, j = i // width, i % width
    t0 = tl.zeros((BLOCK,), out.dtype.element_ty)
    t1, t2 = t0, t0
    size = rows * width
    for k in range(TAPS):
        from_row = row - k
        there = inside & (from_row >= 0) & (from_row < rows)
        w, here = tl.load(weights + k), wide + from_row * width + j
        t0 += w * tl.load(here, mask=there, other=0)
        t1 += w * tl.load(here + size, mask=there, other=0)
        t2 += w * tl.load(here + 2 * size, mask=there, other=0)
    half = t0 + tl.load(x + i, mask=inside, other=0) * t1 + tl.load(y + i, mask=inside, other=0) * t2
    tl.store(out + i, half + half, mask=inside)


def _columns(x: Tensor, y: Tensor, weights: Tensor) -> Tensor:
    height, width, channels = x.shape
    tall = x.new_empty(4, height - TAPS + 1, width * channels)
    launch(columns_kernel, tall[0].numel(), BLOCK, x, y, weights, tall, width * channels, TAPS=TAPS)
    return tall


def _constants(like: Tensor, c1: float, c2: float) -> Tensor:
    return torch.tensor([c1, c2], dtype=like.dtype, device=like.device)


def similarity(x: Tensor, y: Tensor, weights: Tensor, c1: float, c2: float, out: Tensor) -> None:
    tall, channels = _columns(x, y, weights), x.shape[2]
    width, inner, size = x.shape[1] * channels, out.shape[1] * channels, tall[0].numel()
    constants = _constants(x, c1, c2)
    sizes = width, inner, size, channels
    launch(similarity_kernel, out.numel(), BLOCK, tall, weights, constants, out, *sizes, TAPS=TAPS)


def slope(grad: Tensor, x: Tensor, y: Tensor, weights: Tensor, c1: float, c2: float, out: Tensor) -> None:
    tall, channels, rows = _columns(x, y, weights), x.shape[2], len(grad)
    width, inner, size = x.shape[1] * channels, grad.shape[1] * channels, tall[0].numel()
    slopes, wide = grad.new_empty(3, *grad.shape), grad.new_empty(3, rows, width)
    constants = _constants(x, c1, c2)
    sizes = width, inner, size, channels
    inputs = grad, tall, weights, constants, slopes
    launch(slopes_kernel, grad.numel(), BLOCK, *inputs, *sizes, TAPS=TAPS)
    launch(spread_kernel, wide.numel(), BLOCK, slopes, weights, wide, width, inner, channels, TAPS=TAPS)
    launch(slope_kernel, out.numel(), BLOCK, wide, x, y, weights, out, width, rows, TAPS=TAPS)
