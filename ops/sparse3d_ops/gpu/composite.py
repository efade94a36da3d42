"""Triton bodies of volume rendering along packed rays; `cpu/composite.py` says what is summed.

A lane walks one ray, in order.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 128


def as_tensor(value: float, like: Tensor) -> Tensor:
    """A kernel gets numbers as float32, and this one with all its digits."""
    return torch.tensor([value], dtype=like.dtype, device=like.device)


@triton.jit
def one_minus_exp(x):
    """1 - exp(-x) without cancellation: a series for small x."""
    series = x * (1 - x * (0.5 - x * (1.0 / 6 - x * (1.0 / 24 - x * (1.0 / 120 - x * (1.0 / 720))))))
    return tl.where(tl.abs(x) < 0.01, series, 1 - tl.exp(-x))


@triton.jit
def ray_of(ray_starts, r, inside):
    return tl.load(ray_starts + r, mask=inside, other=0), tl.load(ray_starts + r + 1, mask=inside, other=0)


@triton.jit(do_not_specialize=["items"])
def weights_kernel(sigma, dt, ray_starts, stop, opacity, weights, items, BLOCK: tl.constexpr):
    r = lanes(BLOCK)
    inside = r < items
    i, end = ray_of(ray_starts, r, inside)
    limit = tl.load(stop)
    reaching = tl.full((BLOCK,), 1, weights.dtype.element_ty)
    total = tl.zeros((BLOCK,), weights.dtype.element_ty)
    while tl.max((i < end).to(tl.int32), 0) > 0:
        here = i < end
        depth = tl.load(sigma + i, mask=here, other=0) * tl.load(dt + i, mask=here, other=0)
        weight = tl.where(reaching < limit, 0.0, reaching * one_minus_exp(depth)).to(reaching.dtype)
        tl.store(weights + i, weight, mask=here)
        reaching -= weight
        total += weight
        i += 1
    tl.store(opacity + r, total, mask=inside)


@triton.jit(do_not_specialize=["items", "channels"])
def accumulate_kernel(weights, values, ray_starts, out, channels, items, BLOCK: tl.constexpr):
    lane = lanes(BLOCK)
    inside = lane < items
    r, channel = lane // channels, lane % channels
    i, end = ray_of(ray_starts, r, inside)
    total = tl.zeros((BLOCK,), out.dtype.element_ty)
    while tl.max((i < end).to(tl.int32), 0) > 0:
        here = i < end
        weight = tl.load(weights + i, mask=here, other=0)
        value = tl.load(values + i * channels + channel, mask=here & (weight != 0), other=0)
        total += weight * value
        i += 1
    tl.store(out + lane, total, mask=inside)


def accumulate(weights: Tensor, values: Tensor, ray_starts: Tensor, out: Tensor) -> None:
    launch(accumulate_kernel, out.numel(), BLOCK, weights, values, ray_starts, out, out.shape[1])


def composite(
    sigma: Tensor,
    values: Tensor,
    dt: Tensor,
    ray_starts: Tensor,
    stop: float,
    out: Tensor,
    opacity: Tensor,
    weights: Tensor,
) -> None:
    limit = as_tensor(stop, sigma)
    launch(weights_kernel, len(opacity), BLOCK, sigma, dt, ray_starts, limit, opacity, weights)
    accumulate(weights, values, ray_starts, out)


@triton.jit(do_not_specialize=["items", "channels"])
def backward_kernel(
    grad_out,
    grad_opacity,
    grad_weights,
    values,
    weights,
    ray_starts,
    stop,
    of_depth,
    of_values,
    channels,
    items,
    BLOCK: tl.constexpr,
):
    r = lanes(BLOCK)
    inside = r < items
    begin, end = ray_of(ray_starts, r, inside)
    limit = tl.load(stop)
    of_opacity = tl.load(grad_opacity + r, mask=inside, other=0)
    reaching = tl.full((BLOCK,), 1, weights.dtype.element_ty)
    i = begin
    live = begin
    while tl.max((i < end).to(tl.int32), 0) > 0:
        here = i < end
        alive = here & (reaching >= limit)
        reaching -= tl.load(weights + i, mask=alive, other=0)
        tl.store(of_depth + i, tl.where(alive, reaching, 0.0), mask=here)
        live += alive.to(tl.int64)
        i += 1
    i = end - 1
    behind = tl.zeros((BLOCK,), weights.dtype.element_ty)
    while tl.max((i >= begin).to(tl.int32), 0) > 0:
        here = i >= begin
        alive = here & (i < live)
        weight = tl.load(weights + i, mask=alive, other=0)
        q = of_opacity + tl.load(grad_weights + i, mask=alive, other=0)
        for channel in range(channels):
            ray_grad = tl.load(grad_out + r * channels + channel, mask=alive, other=0)
            q += ray_grad * tl.load(values + i * channels + channel, mask=alive, other=0)
            tl.store(of_values + i * channels + channel, weight * ray_grad, mask=here)
        depth = q * tl.load(of_depth + i, mask=alive, other=0) - behind
        tl.store(of_depth + i, depth, mask=alive)
        behind += q * weight
        i -= 1


def composite_backward(
    grad_out: Tensor,
    grad_opacity: Tensor,
    grad_weights: Tensor,
    values: Tensor,
    weights: Tensor,
    ray_starts: Tensor,
    stop: float,
    of_depth: Tensor,
    of_values: Tensor,
) -> None:
    grads = grad_out, grad_opacity, grad_weights
    inputs = *grads, values, weights, ray_starts, as_tensor(stop, weights)
    launch(backward_kernel, len(grad_opacity), BLOCK, *inputs, of_depth, of_values, values.shape[1])


@triton.jit(do_not_specialize=["items"])
def running_kernel(values, ray_starts, out, items, REVERSE: tl.constexpr, BLOCK: tl.constexpr):
    r = lanes(BLOCK)
    inside = r < items
    begin, end = ray_of(ray_starts, r, inside)
    total = tl.zeros((BLOCK,), tl.float64)
    k = begin
    while tl.max((k < end).to(tl.int32), 0) > 0:
        here = k < end
        i = k
        if REVERSE:
            i = begin + end - 1 - k
        tl.store(out + i, total.to(out.dtype.element_ty), mask=here)
        total += tl.load(values + i, mask=here, other=0).to(tl.float64)
        k += 1


def running_sum(values: Tensor, ray_starts: Tensor, reverse: bool, out: Tensor) -> None:
    launch(running_kernel, len(ray_starts) - 1, BLOCK, values, ray_starts, out, REVERSE=reverse)
