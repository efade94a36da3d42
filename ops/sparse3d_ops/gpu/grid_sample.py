"""Triton bodies of trilinear sampling from a sparse volume; `cpu/grid_sample.py` says what is summed.

The transposed sum goes through a stable sort of the corners instead of atomics: a lane adds what reaches one
channel of one row in the order of the queries.
"""

import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.hashing import find, in_range, pack_key
from sparse3d_ops.gpu.launch import lanes, launch
from sparse3d_ops.gpu.segment import sorted_rows, sum_in_pieces

BLOCK = 128
PAIRS = 32  # corners and channels of the tile of one step of `dot`
CHANNELS = 32


@triton.jit(do_not_specialize=["items", "slots"])
def corner_kernel(slot_keys, slot_rows, slots, shifted, batch, corners, items, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < items
    q, corner = i // 8, i % 8
    x = tl.load(shifted + 3 * q, mask=inside, other=0)
    y = tl.load(shifted + 3 * q + 1, mask=inside, other=0)
    z = tl.load(shifted + 3 * q + 2, mask=inside, other=0)
    b = tl.load(batch + q, mask=inside, other=0).to(tl.int64)
    # Numbers beyond int64, infinities and NaN (which fails every comparison) have no voxel around them.
    near = inside & (tl.abs(x) < 1e9) & (tl.abs(y) < 1e9) & (tl.abs(z) < 1e9)
    x = tl.floor(tl.where(near, x, 0)).to(tl.int64) + (corner >> 2)
    y = tl.floor(tl.where(near, y, 0)).to(tl.int64) + ((corner >> 1) & 1)
    z = tl.floor(tl.where(near, z, 0)).to(tl.int64) + (corner & 1)
    row = find(slot_keys, slot_rows, slots, pack_key(b, x, y, z), near & in_range(x, y, z))
    tl.store(corners + i, row, mask=inside)


def corner_rows(
    slot_keys: Tensor, slot_rows: Tensor, shifted: Tensor, batch: Tensor, corners: Tensor
) -> None:
    """`shifted` (Q, 3) are positions minus one half, `batch` lies in the range of a key."""
    slots = len(slot_keys)
    launch(corner_kernel, corners.numel(), BLOCK, slot_keys, slot_rows, slots, shifted, batch, corners)


@triton.jit(do_not_specialize=["items", "channels"])
def gather_kernel(features, corners, weights, out, channels, items, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < items
    q, channel = i // channels, i % channels
    total = tl.zeros((BLOCK,), out.dtype.element_ty)
    for corner in tl.static_range(8):
        row = tl.load(corners + 8 * q + corner, mask=inside, other=-1)
        weight = tl.load(weights + 8 * q + corner, mask=row >= 0, other=0)
        value = tl.load(features + row.to(tl.int64) * channels + channel, mask=row >= 0, other=0)
        total += (weight * value).to(total.dtype)
    tl.store(out + i, total, mask=inside)


def gather(features: Tensor, corners: Tensor, weights: Tensor, out: Tensor) -> None:
    launch(gather_kernel, out.numel(), BLOCK, features, corners, weights, out, out.shape[1])


@triton.jit(do_not_specialize=["items", "channels"])
def scatter_kernel(grad, weights, order, begin, end, out, channels, items, BLOCK: tl.constexpr):
    """Place k of the sorted corners is corner order[k] % 8 of query order[k] // 8."""
    i = lanes(BLOCK)
    inside = i < items
    row, channel = i // channels, i % channels
    k = tl.load(begin + row, mask=inside, other=0)
    stop = tl.load(end + row, mask=inside, other=0)
    total = tl.zeros((BLOCK,), out.dtype.element_ty)
    while tl.max((k < stop).to(tl.int32), 0) > 0:
        here = k < stop
        place = tl.load(order + k, mask=here, other=0)
        weight = tl.load(weights + place, mask=here, other=0)
        value = tl.load(grad + (place >> 3) * channels + channel, mask=here, other=0)
        total += (weight * value).to(total.dtype)
        k += 1
    tl.store(out + i, total, mask=inside)


def scatter(grad: Tensor, corners: Tensor, weights: Tensor, out: Tensor) -> None:
    """out[row] = sum of weights[q, k] * grad[q] over the corners (q, k) that name the row."""
    offsets, order = sorted_rows(corners.flatten(), len(out))

    def sum_rows(begin: Tensor, end: Tensor, into: Tensor) -> None:
        channels = into.shape[1]
        launch(scatter_kernel, into.numel(), BLOCK, grad, weights, order, begin, end, into, channels)

    sum_in_pieces(sum_rows, offsets, len(order), out)


@triton.jit(do_not_specialize=["items", "channels"])
def dot_kernel(grad, features, corners, out, channels, items, CHANNELS: tl.constexpr, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < items
    row = tl.load(corners + i, mask=inside, other=-1).to(tl.int64)
    total = tl.zeros((BLOCK,), out.dtype.element_ty)
    left = grad + (i // 8)[:, None] * channels
    right = features + row[:, None] * channels
    for start in range(0, channels, CHANNELS):
        channel = start + tl.arange(0, CHANNELS)[None, :]
        mask = (row >= 0)[:, None] & (channel < channels)
        product = tl.load(left + channel, mask=mask, other=0) * tl.load(right + channel, mask=mask, other=0)
        total += tl.sum(product, 1).to(total.dtype)
    tl.store(out + i, total, mask=inside)


def dot(grad: Tensor, features: Tensor, corners: Tensor, out: Tensor) -> None:
    """out[q, k] = the product of grad[q] and the features at corner k, 0 where there is none."""
    channels = features.shape[1]
    launch(dot_kernel, out.numel(), PAIRS, grad, features, corners, out, channels, CHANNELS=CHANNELS)
