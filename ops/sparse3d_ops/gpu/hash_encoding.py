"""Triton bodies of the multiresolution hash encoding; `cpu/hash_encoding.py` says what is summed.

The table's gradient goes level by level: rows and weights of the corners are written out, and their stable
sort takes the place of atomics, as in the scatter of `gpu/grid_sample.py`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.grid_sample import scatter
from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 128
PRIME_Y, PRIME_Z = tl.constexpr(2654435761), tl.constexpr(805459861)


@triton.jit
def place(x, resolution):
    """Cell of a coordinate and the place in it; outside of [0, 1] of the nearest border. NaN stays NaN."""
    p = tl.where(x < 0, 0 * resolution.to(x.dtype), x * resolution.to(x.dtype))
    p = tl.where(x > 1, resolution.to(x.dtype), p)
    cell = tl.minimum(tl.where(p == p, p, 0 * resolution.to(x.dtype)).to(tl.int64), resolution - 1)
    return cell, p - cell.to(x.dtype)


@triton.jit
def entry(x, y, z, resolution, size):
    """Row of a corner in its level."""
    side = resolution + 1
    hashed = (x ^ (y * PRIME_Y) ^ (z * PRIME_Z)) & (size - 1)
    return tl.where(side * side * side <= size, (x * side + y) * side + z, hashed)


@triton.jit
def load_axis(positions, tangents, n, axis: tl.constexpr, resolution, inside, ALONG: tl.constexpr):
    """Cell, place in it, and the cells that a step along the axis, and along the tangent, moves by."""
    x = tl.load(positions + 3 * n + axis, mask=inside, other=0)
    cell, f = place(x, resolution)
    step = tl.where((x >= 0) & (x <= 1), resolution.to(x.dtype), 0 * resolution.to(x.dtype))
    v = step
    if ALONG:
        v = step * tl.load(tangents + 3 * n + axis, mask=inside, other=0)
    return cell, f, step, v


@triton.jit
def weight_of(
    fx, fy, fz, vx, vy, vz, dx: tl.constexpr, dy: tl.constexpr, dz: tl.constexpr, ALONG: tl.constexpr
):
    """Weight of a corner, or its derivative along v."""
    wx = fx if dx else 1 - fx
    wy = fy if dy else 1 - fy
    wz = fz if dz else 1 - fz
    weight = wx * wy * wz
    if ALONG:
        sx = vx if dx else -vx
        sy = vy if dy else -vy
        sz = vz if dz else -vz
        weight = sx * wy * wz + wx * sy * wz + wx * wy * sz
    return weight


@triton.jit(do_not_specialize=["items", "levels", "channels"])
def encode_kernel(
    table,
    positions,
    tangents,
    resolutions,
    sizes,
    first,
    out,
    levels,
    channels,
    items,
    ALONG: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """A lane takes one feature of one level of one point."""
    i = lanes(BLOCK)
    inside = i < items
    pair, channel = i // channels, i % channels
    n, level = pair // levels, pair % levels
    resolution = tl.load(resolutions + level, mask=inside, other=1)
    size = tl.load(sizes + level, mask=inside, other=1)
    base = tl.load(first + level, mask=inside, other=0)
    x, fx, _, vx = load_axis(positions, tangents, n, 0, resolution, inside, ALONG)
    y, fy, _, vy = load_axis(positions, tangents, n, 1, resolution, inside, ALONG)
    z, fz, _, vz = load_axis(positions, tangents, n, 2, resolution, inside, ALONG)
    total = tl.zeros((BLOCK,), out.dtype.element_ty)
    for k in tl.static_range(8):
        row = base + entry(x + (k >> 2), y + ((k >> 1) & 1), z + (k & 1), resolution, size)
        weight = weight_of(fx, fy, fz, vx, vy, vz, k >> 2, (k >> 1) & 1, k & 1, ALONG)
        total += (weight * tl.load(table + row * channels + channel, mask=inside, other=0)).to(total.dtype)
    tl.store(out + i, total, mask=inside)


def _levels(resolutions: list[int], sizes: list[int], like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    counts = torch.tensor([resolutions, sizes])
    first = counts[1].cumsum(0) - counts[1]
    return tuple(part.to(like.device, non_blocking=True) for part in (*counts, first))  # pyright: ignore[reportReturnType]


def encode(
    table: Tensor,
    positions: Tensor,
    tangents: Tensor | None,
    resolutions: list[int],
    sizes: list[int],
    out: Tensor,
) -> None:
    along = positions if tangents is None else tangents
    levels = _levels(resolutions, sizes, table)
    launch(
        encode_kernel,
        out.numel(),
        BLOCK,
        table,
        positions,
        along,
        *levels,
        out,
        len(sizes),
        table.shape[1],
        ALONG=tangents is not None,
    )


@triton.jit(do_not_specialize=["items", "resolution", "size"])
def corners_kernel(
    positions,
    tangents,
    resolution,
    size,
    rows,
    weights,
    items,
    ALONG: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Rows and weights (N, 8) of the corners in one level."""
    n = lanes(BLOCK)
    inside = n < items
    cells = n * 0 + resolution
    x, fx, _, vx = load_axis(positions, tangents, n, 0, cells, inside, ALONG)
    y, fy, _, vy = load_axis(positions, tangents, n, 1, cells, inside, ALONG)
    z, fz, _, vz = load_axis(positions, tangents, n, 2, cells, inside, ALONG)
    for k in tl.static_range(8):
        row = entry(x + (k >> 2), y + ((k >> 1) & 1), z + (k & 1), cells, size)
        weight = weight_of(fx, fy, fz, vx, vy, vz, k >> 2, (k >> 1) & 1, k & 1, ALONG)
        tl.store(rows + 8 * n + k, row.to(tl.int32), mask=inside)
        tl.store(weights + 8 * n + k, weight, mask=inside)


def table_gradient(
    grad: Tensor,
    positions: Tensor,
    tangents: Tensor | None,
    resolutions: list[int],
    sizes: list[int],
    out: Tensor,
) -> None:
    along = positions if tangents is None else tangents
    rows = torch.empty(len(positions), 8, dtype=torch.int32, device=grad.device)
    weights = positions.new_empty(len(positions), 8)
    parts = zip(resolutions, sizes, grad.chunk(len(sizes), 1), out.split(sizes), strict=True)
    for resolution, size, grad_level, out_level in parts:
        launch(
            corners_kernel,
            len(positions),
            BLOCK,
            positions,
            along,
            resolution,
            size,
            rows,
            weights,
            ALONG=tangents is not None,
        )
        scatter(grad_level.contiguous(), rows, weights, out_level)


@triton.jit(do_not_specialize=["items", "levels", "channels"])
def position_kernel(
    table,
    grad,
    positions,
    tangents,
    resolutions,
    sizes,
    first,
    out,
    levels,
    channels,
    items,
    ALONG: tl.constexpr,
    BLOCK: tl.constexpr,
):
    n = lanes(BLOCK)
    inside = n < items
    total_x = tl.zeros((BLOCK,), out.dtype.element_ty)
    total_y = tl.zeros((BLOCK,), out.dtype.element_ty)
    total_z = tl.zeros((BLOCK,), out.dtype.element_ty)
    for level in range(levels):
        resolution = n * 0 + tl.load(resolutions + level)
        size, base = tl.load(sizes + level), tl.load(first + level)
        x, fx, step_x, vx = load_axis(positions, tangents, n, 0, resolution, inside, ALONG)
        y, fy, step_y, vy = load_axis(positions, tangents, n, 1, resolution, inside, ALONG)
        z, fz, step_z, vz = load_axis(positions, tangents, n, 2, resolution, inside, ALONG)
        for k in tl.static_range(8):
            row = base + entry(x + (k >> 2), y + ((k >> 1) & 1), z + (k & 1), resolution, size)
            product = tl.zeros((BLOCK,), out.dtype.element_ty)
            for c in range(channels):
                g = tl.load(grad + (n * levels + level) * channels + c, mask=inside, other=0)
                product += (g * tl.load(table + row * channels + c, mask=inside, other=0)).to(product.dtype)
            wx = fx if k >> 2 else 1 - fx
            wy = fy if (k >> 1) & 1 else 1 - fy
            wz = fz if k & 1 else 1 - fz
            sx = product if k >> 2 else -product
            sy = product if (k >> 1) & 1 else -product
            sz = product if k & 1 else -product
            if ALONG:
                # Mixed second derivatives of the weight; the signs of two axes multiply.
                xy = (sx if (k >> 1) & 1 else -sx) * wz
                xz = (sx if k & 1 else -sx) * wy
                yz = (sy if k & 1 else -sy) * wx
                total_x += step_x * (vy * xy + vz * xz)
                total_y += step_y * (vx * xy + vz * yz)
                total_z += step_z * (vx * xz + vy * yz)
            else:
                total_x += step_x * sx * wy * wz
                total_y += step_y * wx * sy * wz
                total_z += step_z * wx * wy * sz
    tl.store(out + 3 * n, total_x, mask=inside)
    tl.store(out + 3 * n + 1, total_y, mask=inside)
    tl.store(out + 3 * n + 2, total_z, mask=inside)


def position_gradient(
    table: Tensor,
    grad: Tensor,
    positions: Tensor,
    tangents: Tensor | None,
    resolutions: list[int],
    sizes: list[int],
    out: Tensor,
) -> None:
    along = positions if tangents is None else tangents
    levels = _levels(resolutions, sizes, table)
    launch(
        position_kernel,
        len(positions),
        BLOCK,
        table,
        grad,
        positions,
        along,
        *levels,
        out,
        len(sizes),
        table.shape[1],
        ALONG=tangents is not None,
    )
