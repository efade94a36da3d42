"""Triton bodies of sampling from weights of bins; `cpu/sampling.py` says what is computed.

One lane sums up the bins of a ray, and one lane looks for each sample.
"""

import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.composite import ray_of
from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 128


@triton.jit
def load_positive(rows, i, here):
    value = tl.load(rows + i, mask=here, other=0).to(tl.float64)
    return tl.where(value > 0, value, 0.0)


@triton.jit(do_not_specialize=["items"])
def reached_kernel(length, weights, ray_starts, reached, items, BLOCK: tl.constexpr):
    r = lanes(BLOCK)
    inside = r < items
    first, last = ray_of(ray_starts, r, inside)
    total = tl.zeros((BLOCK,), tl.float64)
    i = first
    while tl.max((i < last).to(tl.int32), 0) > 0:
        total += load_positive(weights, i, i < last)
        tl.store(reached + i, total, mask=i < last)
        i += 1
    last = tl.where(total == 0, last, first)
    i = first
    while tl.max((i < last).to(tl.int32), 0) > 0:
        total += load_positive(length, i, i < last)
        tl.store(reached + i, total, mask=i < last)
        i += 1


@triton.jit(do_not_specialize=["items", "count"])
def inverse_kernel(begin, length, ray_starts, uniforms, reached, out, count, items, BLOCK: tl.constexpr):
    lane = lanes(BLOCK)
    inside = lane < items
    first, last = ray_of(ray_starts, lane // count, inside)
    there = inside & (first < last)
    total = tl.load(reached + last - 1, mask=there, other=0)
    uniform = tl.load(uniforms + lane, mask=inside, other=0).to(tl.float64)
    wanted = tl.minimum(tl.maximum(uniform, 0.0), 1.0) * total
    low, high = first, last - 1
    while tl.max((there & (low < high)).to(tl.int32), 0) > 0:
        looking = there & (low < high)
        middle = (low + high) // 2
        here = tl.load(reached + middle, mask=looking, other=0)
        enough = (here > wanted) | (here == total)
        high = tl.where(looking & enough, middle, high)
        low = tl.where(looking & (enough == 0), middle + 1, low)
    before = tl.load(reached + low - 1, mask=there & (low > first), other=0)
    own = tl.load(reached + low, mask=there, other=0) - before
    part = tl.where(own > 0, tl.minimum((wanted - before) / tl.where(own > 0, own, 1.0), 1.0), 0.0)
    start = tl.load(begin + low, mask=there, other=float("inf")).to(tl.float64)
    place = start + part * tl.load(length + low, mask=there, other=0).to(tl.float64)
    tl.store(out + lane, place.to(out.dtype.element_ty), mask=inside)


def inverse_cdf(
    begin: Tensor,
    length: Tensor,
    weights: Tensor,
    ray_starts: Tensor,
    uniforms: Tensor,
    reached: Tensor,
    out: Tensor,
) -> None:
    launch(reached_kernel, len(out), BLOCK, length, weights, ray_starts, reached)
    launch(
        inverse_kernel, out.numel(), BLOCK, begin, length, ray_starts, uniforms, reached, out, out.shape[1]
    )
