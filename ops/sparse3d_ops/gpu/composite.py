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
    out: Tensor,
    opacity: Tensor,
    weights: Tensor,
    stop: float,
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
    of_depth: Tensor,
    of_values: Tensor,
    stop: float,
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


def running_sum(values: Tensor, ray_starts: Tensor, out: Tensor, reverse: bool) -> None:
    launch(running_kernel, len(ray_starts) - 1, BLOCK, values, ray_starts, out, REVERSE=reverse)


@triton.jit
def ray_of_sample(ray_starts, rays, i, inside):
    """Number of the ray of each sample: the last one that begins at or before it, by halving."""
    low = tl.zeros(i.shape, tl.int64)
    high = low + rays
    while tl.max((high - low > 1).to(tl.int32), 0) > 0:
        middle = (low + high) // 2
        before = tl.load(ray_starts + middle, mask=inside & (high - low > 1), other=0) <= i
        low = tl.where(before & (high - low > 1), middle, low)
        high = tl.where(before, high, tl.maximum(middle, low + 1))
    return low


@triton.jit(do_not_specialize=["items", "channels", "number"])
def dot_kernel(rays, values, ray_starts, out, channels, number, items, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < items
    r = ray_of_sample(ray_starts, number, i, inside)
    total = tl.zeros((BLOCK,), out.dtype.element_ty)
    for channel in range(channels):
        value = tl.load(values + i * channels + channel, mask=inside, other=0)
        total += tl.load(rays + r * channels + channel, mask=inside, other=0) * value
    tl.store(out + i, total, mask=inside)


def ray_dot(rays: Tensor, values: Tensor, ray_starts: Tensor, out: Tensor) -> None:
    channels = values.shape[1]
    launch(dot_kernel, len(out), BLOCK, rays, values, ray_starts, out, channels, len(rays))


@triton.jit(do_not_specialize=["items", "channels", "number"])
def scale_kernel(rays, weights, ray_starts, out, channels, number, items, BLOCK: tl.constexpr):
    lane = lanes(BLOCK)
    inside = lane < items
    i, channel = lane // channels, lane % channels
    r = ray_of_sample(ray_starts, number, i, inside)
    value = tl.load(rays + r * channels + channel, mask=inside, other=0)
    tl.store(out + lane, tl.load(weights + i, mask=inside, other=0) * value, mask=inside)


def ray_scale(rays: Tensor, weights: Tensor, ray_starts: Tensor, out: Tensor) -> None:
    channels = rays.shape[1]
    launch(scale_kernel, out.numel(), BLOCK, rays, weights, ray_starts, out, channels, len(rays))


@triton.jit
def load_place(weights, t, origin, i, here):
    """Weight of a sample and its distance from the ray's first, float64."""
    w = tl.load(weights + i, mask=here, other=0).to(tl.float64)
    return w, tl.where(here, tl.load(t + i, mask=here, other=0).to(tl.float64) - origin, 0.0)


@triton.jit(do_not_specialize=["items"])
def distortion_kernel(weights, t, dt, ray_starts, out, items, BLOCK: tl.constexpr):
    r = lanes(BLOCK)
    inside = r < items
    i, end = ray_of(ray_starts, r, inside)
    origin = tl.load(t + i, mask=i < end, other=0).to(tl.float64)
    weight = tl.zeros((BLOCK,), tl.float64)
    moment, pairs, own = weight, weight, weight
    while tl.max((i < end).to(tl.int32), 0) > 0:
        here = i < end
        w, place = load_place(weights, t, origin, i, here)
        pairs += w * (place * weight - moment)
        own += w * w * tl.load(dt + i, mask=here, other=0).to(tl.float64)
        weight += w
        moment += w * place
        i += 1
    tl.store(out + r, (2 * pairs + own / 3).to(out.dtype.element_ty), mask=inside)


def distortion(weights: Tensor, t: Tensor, dt: Tensor, ray_starts: Tensor, out: Tensor) -> None:
    launch(distortion_kernel, len(out), BLOCK, weights, t, dt, ray_starts, out)


@triton.jit(do_not_specialize=["items"])
def distortion_backward_kernel(
    grad, weights, t, dt, ray_starts, of_weights, of_t, of_dt, items, BLOCK: tl.constexpr
):
    r = lanes(BLOCK)
    inside = r < items
    begin, end = ray_of(ray_starts, r, inside)
    origin = tl.load(t + begin, mask=begin < end, other=0).to(tl.float64)
    g = tl.load(grad + r, mask=inside, other=0).to(tl.float64)
    all_weight = tl.zeros((BLOCK,), tl.float64)
    all_moment, weight, moment = all_weight, all_weight, all_weight
    i = begin
    while tl.max((i < end).to(tl.int32), 0) > 0:
        w, place = load_place(weights, t, origin, i, i < end)
        all_weight += w
        all_moment += w * place
        i += 1
    i = begin
    while tl.max((i < end).to(tl.int32), 0) > 0:
        here = i < end
        w, place = load_place(weights, t, origin, i, here)
        length = tl.load(dt + i, mask=here, other=0).to(tl.float64)
        weight_behind, moment_behind = all_weight - weight - w, all_moment - moment - w * place
        spread = place * (weight - weight_behind) - (moment - moment_behind)
        kind = of_weights.dtype.element_ty
        tl.store(of_weights + i, (g * (2 * spread + 2 * w * length / 3)).to(kind), mask=here)
        tl.store(of_t + i, (g * 2 * w * (weight - weight_behind)).to(kind), mask=here)
        tl.store(of_dt + i, (g * w * w / 3).to(kind), mask=here)
        weight += w
        moment += w * place
        i += 1


def distortion_backward(
    grad: Tensor,
    weights: Tensor,
    t: Tensor,
    dt: Tensor,
    ray_starts: Tensor,
    of_weights: Tensor,
    of_t: Tensor,
    of_dt: Tensor,
) -> None:
    inputs = grad, weights, t, dt, ray_starts
    launch(distortion_backward_kernel, len(grad), BLOCK, *inputs, of_weights, of_t, of_dt)
