"""Triton bodies of attention within sets.

A program owns a block of queries (or, for the gradients by key and value, of keys) of one set and head, and
walks the set's other side block by block, in order: no atomics, the same bits every time. Forward keeps a
running maximum and sum, so that sets may be longer than a block. float32 products use TF32 only where
`torch.backends.cuda.matmul` allows it.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import launch_grid
from sparse3d_ops.gpu.sparse_conv import precision

MOST = 32  # rows of a block: sets are short, and a block's scores stay in registers


@triton.jit
def _rows_of(order, begin, first, count, BLOCK: tl.constexpr):
    """Rows of a block of a set's places, and which are there."""
    place = first + tl.arange(0, BLOCK)
    live = place < count
    return tl.load(order + begin + place, mask=live, other=0), live


@triton.jit
def _tile(source, row, live, width, head, DEPTH: tl.constexpr, CHANNELS: tl.constexpr):
    """(BLOCK, CHANNELS) channels of a head, zero beyond DEPTH and where no row is."""
    channel = tl.arange(0, CHANNELS)
    start = source + row[:, None] * width + head * DEPTH + channel[None, :]
    return tl.load(start, mask=live[:, None] & (channel < DEPTH)[None, :], other=0.0)


@triton.jit
def _store(target, values, row, live, width, head, DEPTH: tl.constexpr, CHANNELS: tl.constexpr):
    channel = tl.arange(0, CHANNELS)
    start = target + row[:, None] * width + head * DEPTH + channel[None, :]
    mask = live[:, None] & (channel < DEPTH)[None, :]
    tl.store(start, values.to(target.dtype.element_ty), mask=mask)


@triton.jit(do_not_specialize=["width", "heads", "blocks"])
def attend_kernel(
    q,
    k,
    v,
    order,
    offsets,
    scale,
    out,
    lse,
    width,
    heads,
    blocks,
    DEPTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    DOUBLE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    SUM: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    owner, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    of_set, block = owner // blocks, owner % blocks
    begin = tl.load(offsets + of_set)
    count = tl.load(offsets + of_set + 1) - begin
    if block * BLOCK < count:
        row, live = _rows_of(order, begin, block * BLOCK, count, BLOCK)
        queries = _tile(q, row, live, width, head, DEPTH, CHANNELS)
        factor = tl.load(scale)
        peak = tl.full((BLOCK,), float("-inf"), SUM)
        total = tl.zeros((BLOCK,), SUM)
        sums = tl.zeros((BLOCK, CHANNELS), SUM)
        for first in range(0, count, BLOCK):
            other, there = _rows_of(order, begin, first, count, BLOCK)
            keys = _tile(k, other, there, width, head, DEPTH, CHANNELS)
            values = _tile(v, other, there, width, head, DEPTH, CHANNELS)
            scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION, out_dtype=SUM) * factor
            scores = tl.where(there[None, :], scores, float("-inf"))
            higher = tl.maximum(peak, tl.max(scores, 1))
            weights = tl.exp(scores - higher[:, None])
            fade = tl.exp(peak - higher)
            total = total * fade + tl.sum(weights, 1)
            weights = weights.to(values.dtype)
            sums = sums * fade[:, None]
            sums = tl.dot(weights, values, sums, input_precision=PRECISION, out_dtype=SUM)
            peak = higher
        _store(out, sums / total[:, None], row, live, width, head, DEPTH, CHANNELS)
        tl.store(lse + row * heads + head, peak + tl.log(total), mask=live)


@triton.jit(do_not_specialize=["width", "heads", "blocks"])
def query_gradient_kernel(
    grad,
    q,
    k,
    v,
    lse,
    delta,
    order,
    offsets,
    scale,
    dq,
    width,
    heads,
    blocks,
    DEPTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    DOUBLE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    SUM: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    owner, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    of_set, block = owner // blocks, owner % blocks
    begin = tl.load(offsets + of_set)
    count = tl.load(offsets + of_set + 1) - begin
    if block * BLOCK < count:
        row, live = _rows_of(order, begin, block * BLOCK, count, BLOCK)
        queries = _tile(q, row, live, width, head, DEPTH, CHANNELS)
        grads = _tile(grad, row, live, width, head, DEPTH, CHANNELS)
        log_total = tl.load(lse + row * heads + head, mask=live, other=0.0)
        level = tl.load(delta + row * heads + head, mask=live, other=0.0)
        factor = tl.load(scale)
        sums = tl.zeros((BLOCK, CHANNELS), SUM)
        for first in range(0, count, BLOCK):
            other, there = _rows_of(order, begin, first, count, BLOCK)
            keys = _tile(k, other, there, width, head, DEPTH, CHANNELS)
            values = _tile(v, other, there, width, head, DEPTH, CHANNELS)
            scores = tl.dot(queries, tl.trans(keys), input_precision=PRECISION, out_dtype=SUM) * factor
            weights = tl.exp(tl.where(there[None, :], scores, float("-inf")) - log_total[:, None])
            slopes = tl.dot(grads, tl.trans(values), input_precision=PRECISION, out_dtype=SUM)
            slopes = (weights * (slopes - level[:, None])).to(keys.dtype)
            sums = tl.dot(slopes, keys, sums, input_precision=PRECISION, out_dtype=SUM)
        _store(dq, sums * factor, row, live, width, head, DEPTH, CHANNELS)


@triton.jit(do_not_specialize=["width", "heads", "blocks"])
def key_gradient_kernel(
    grad,
    q,
    k,
    v,
    lse,
    delta,
    order,
    offsets,
    scale,
    dk,
    dv,
    width,
    heads,
    blocks,
    DEPTH: tl.constexpr,
    CHANNELS: tl.constexpr,
    BLOCK: tl.constexpr,
    DOUBLE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    SUM: tl.constexpr = tl.float64 if DOUBLE else tl.float32
    owner, head = tl.program_id(0).to(tl.int64), tl.program_id(1)
    of_set, block = owner // blocks, owner % blocks
    begin = tl.load(offsets + of_set)
    count = tl.load(offsets + of_set + 1) - begin
    if block * BLOCK < count:
        row, live = _rows_of(order, begin, block * BLOCK, count, BLOCK)
        keys = _tile(k, row, live, width, head, DEPTH, CHANNELS)
        values = _tile(v, row, live, width, head, DEPTH, CHANNELS)
        factor = tl.load(scale)
        of_keys = tl.zeros((BLOCK, CHANNELS), SUM)
        of_values = tl.zeros((BLOCK, CHANNELS), SUM)
        for first in range(0, count, BLOCK):
            other, there = _rows_of(order, begin, first, count, BLOCK)
            queries = _tile(q, other, there, width, head, DEPTH, CHANNELS)
            grads = _tile(grad, other, there, width, head, DEPTH, CHANNELS)
            log_total = tl.load(lse + other * heads + head, mask=there, other=0.0)
            level = tl.load(delta + other * heads + head, mask=there, other=0.0)
            scores = tl.dot(keys, tl.trans(queries), input_precision=PRECISION, out_dtype=SUM) * factor
            known = live[:, None] & there[None, :]
            weights = tl.exp(tl.where(known, scores, float("-inf")) - log_total[None, :])
            of_values = tl.dot(
                weights.to(grads.dtype), grads, of_values, input_precision=PRECISION, out_dtype=SUM
            )
            slopes = tl.dot(values, tl.trans(grads), input_precision=PRECISION, out_dtype=SUM)
            slopes = (weights * (slopes - level[None, :])).to(queries.dtype)
            of_keys = tl.dot(slopes, queries, of_keys, input_precision=PRECISION, out_dtype=SUM)
        _store(dk, of_keys * factor, row, live, width, head, DEPTH, CHANNELS)
        _store(dv, of_values, row, live, width, head, DEPTH, CHANNELS)


def _launch(kernel: Any, tensors: list[Tensor], offsets: Tensor, set_size: int, heads: int) -> None:
    """One program for each block of each set and head."""
    first = tensors[0]
    rows, width = first.shape
    if rows == 0:
        return
    depth = width // heads
    block = max(16, min(MOST, triton.next_power_of_2(set_size)))
    blocks = triton.cdiv(set_size, block)
    launch_grid(
        kernel,
        ((len(offsets) - 1) * blocks, heads),
        *tensors,
        width,
        heads,
        blocks,
        DEPTH=depth,
        CHANNELS=max(16, triton.next_power_of_2(depth)),
        BLOCK=block,
        DOUBLE=first.dtype == torch.float64,
        PRECISION=precision(first.dtype),
        num_warps=2,
    )


def attend(heads: int, set_size: int, q, k, v, order, offsets, scale, out, lse) -> None:
    _launch(attend_kernel, [q, k, v, order, offsets, scale, out, lse], offsets, set_size, heads)


def attend_backward(
    heads: int, set_size: int, grad, q, k, v, lse, delta, order, offsets, scale, dq, dk, dv
) -> None:
    inputs = [grad, q, k, v, lse, delta, order, offsets, scale]
    _launch(query_gradient_kernel, [*inputs, dq], offsets, set_size, heads)
    _launch(key_gradient_kernel, [*inputs, dk, dv], offsets, set_size, heads)
