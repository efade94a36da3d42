"""Triton bodies of products of planes and lines; `low_rank.py` says what they are.

The tables' gradients go mode by mode: rows and weights of the corners are written out, and their stable sort
takes the place of atomics, as in the scatter of `gpu/grid_sample.py`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.grid_sample import scatter
from sparse3d_ops.gpu.hash_encoding import place
from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 128


@triton.jit
def load_place(positions, n, axis, cells, inside):
    """The coordinate, its cell and how far it is in it."""
    x = tl.load(positions + 3 * n + axis, mask=inside, other=0)
    cell, f = place(x, cells)
    return x, cell, f


@triton.jit
def plane_at(planes, p, u, v, side, channels, inside):
    """A component of a plane between the four corners from `p` on, an index into the table."""
    p00 = tl.load(planes + p, mask=inside, other=0)
    p01 = tl.load(planes + p + channels, mask=inside, other=0)
    p10 = tl.load(planes + p + side * channels, mask=inside, other=0)
    p11 = tl.load(planes + p + (side + 1) * channels, mask=inside, other=0)
    return (1 - u) * (1 - v) * p00 + (1 - u) * v * p01 + u * (1 - v) * p10 + u * v * p11


@triton.jit
def line_at(lines, k, w, channels, inside):
    low = tl.load(lines + k, mask=inside, other=0)
    return low + w * (tl.load(lines + k + channels, mask=inside, other=0) - low)


@triton.jit
def factors(planes, lines, positions, n, m, c, side, channels, inside):
    """Component c of plane and line of mode m at position n."""
    a, b = tl.where(m == 0, 1, 0), tl.where(m == 2, 1, 2)
    cells = n * 0 + side - 1
    _, i, u = load_place(positions, n, a, cells, inside)
    _, j, v = load_place(positions, n, b, cells, inside)
    _, k, w = load_place(positions, n, m, cells, inside)
    p = ((m * side + i) * side + j) * channels + c
    plane = plane_at(planes, p, u, v, side, channels, inside)
    return plane, line_at(lines, (m * side + k) * channels + c, w, channels, inside)


@triton.jit(do_not_specialize=["items", "side", "channels"])
def products_kernel(planes, lines, positions, out, side, channels, items, BLOCK: tl.constexpr):
    """A lane takes one component of one mode of one position."""
    i = lanes(BLOCK)
    inside = i < items
    n, m, c = i // (3 * channels), (i // channels) % 3, i % channels
    plane, line = factors(planes, lines, positions, n, m, c, side, channels, inside)
    tl.store(out + i, (plane * line).to(out.dtype.element_ty), mask=inside)


def products(planes: Tensor, lines: Tensor, positions: Tensor, out: Tensor) -> None:
    sizes = len(lines) // 3, lines.shape[1]
    launch(products_kernel, out.numel(), BLOCK, planes, lines, positions, out, *sizes)


@triton.jit(do_not_specialize=["items", "mode", "side", "channels"])
def parts_kernel(
    grad, planes, lines, positions, to_planes, to_lines, mode, side, channels, items, BLOCK: tl.constexpr
):
    """What comes back to plane and line of a mode at each position: (N, C) each."""
    i = lanes(BLOCK)
    inside = i < items
    n, c = i // channels, i % channels
    m = n * 0 + mode
    plane, line = factors(planes, lines, positions, n, m, c, side, channels, inside)
    g = tl.load(grad + (3 * n + m) * channels + c, mask=inside, other=0)
    tl.store(to_planes + i, (g * line).to(to_planes.dtype.element_ty), mask=inside)
    tl.store(to_lines + i, (g * plane).to(to_lines.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["items", "mode", "side"])
def corners_kernel(
    positions, plane_rows, plane_weights, line_rows, line_weights, mode, side, items, BLOCK: tl.constexpr
):
    """Rows and weights (N, 8), within the mode, of the four corners of the plane and the two of the line; -1
    and 0 for the rest."""
    n = lanes(BLOCK)
    inside = n < items
    m = n * 0 + mode
    a, b = tl.where(m == 0, 1, 0), tl.where(m == 2, 1, 2)
    cells = n * 0 + side - 1
    _, i, u = load_place(positions, n, a, cells, inside)
    _, j, v = load_place(positions, n, b, cells, inside)
    _, k, w = load_place(positions, n, m, cells, inside)
    for corner in tl.static_range(8):
        row = n * 0 - 1
        weight = 0 * u
        line_row = n * 0 - 1
        line_weight = 0 * w
        if corner < 4:
            row = (i + (corner >> 1)) * side + j + (corner & 1)
            weight = (u if corner >> 1 else 1 - u) * (v if corner & 1 else 1 - v)
        if corner < 2:
            line_row = k + corner
            line_weight = w if corner else 1 - w
        tl.store(plane_rows + 8 * n + corner, row.to(tl.int32), mask=inside)
        tl.store(plane_weights + 8 * n + corner, weight, mask=inside)
        tl.store(line_rows + 8 * n + corner, line_row.to(tl.int32), mask=inside)
        tl.store(line_weights + 8 * n + corner, line_weight, mask=inside)


def table_gradients(
    grad: Tensor, planes: Tensor, lines: Tensor, positions: Tensor, to_planes: Tensor, to_lines: Tensor
) -> None:
    side, channels, count = len(lines) // 3, lines.shape[1], len(positions)
    parts = [grad.new_empty(count, channels) for _ in range(2)]
    rows = [torch.empty(count, 8, dtype=torch.int32, device=grad.device) for _ in range(2)]
    weights = [positions.new_empty(count, 8) for _ in range(2)]
    for mode, (plane, line) in enumerate(zip(to_planes.chunk(3), to_lines.chunk(3), strict=True)):
        inputs = grad, planes, lines, positions
        launch(parts_kernel, count * channels, BLOCK, *inputs, *parts, mode, side, channels)
        places = rows[0], weights[0], rows[1], weights[1]
        launch(corners_kernel, count, BLOCK, positions, *places, mode, side)
        for part, row, weight, out in zip(parts, rows, weights, (plane, line), strict=True):
            scatter(part, row, weight, out)


@triton.jit
def slopes(
    grad, planes, lines, positions, n, side, channels, inside, M: tl.constexpr, AXIS: tl.constexpr, like
):
    """Sum over the components of mode M of grad times the slope along an axis, in cells."""
    A: tl.constexpr = 1 if M == 0 else 0
    B: tl.constexpr = 1 if M == 2 else 2
    cells = n * 0 + side - 1
    _, i, u = load_place(positions, n, A, cells, inside)
    _, j, v = load_place(positions, n, B, cells, inside)
    _, k, w = load_place(positions, n, M, cells, inside)
    # Linear along each axis: the value at the upper end of a cell less that at the lower one.
    low_u, high_u, low_v, high_v = u, u, v, v
    if AXIS == A:
        low_u, high_u = 0 * u, 0 * u + 1
    if AXIS == B:
        low_v, high_v = 0 * v, 0 * v + 1
    total = like * 0
    for c in range(channels):
        g = tl.load(grad + (3 * n + M) * channels + c, mask=inside, other=0)
        p, row = ((M * side + i) * side + j) * channels + c, (M * side + k) * channels + c
        low = plane_at(planes, p, low_u, low_v, side, channels, inside)
        high = plane_at(planes, p, high_u, high_v, side, channels, inside)
        if AXIS == M:
            rise = line_at(lines, row, 0 * w + 1, channels, inside) - line_at(
                lines, row, 0 * w, channels, inside
            )
            total += (g * low * rise).to(like.dtype)
        else:
            total += (g * line_at(lines, row, w, channels, inside) * (high - low)).to(like.dtype)
    return total


@triton.jit(do_not_specialize=["items", "side", "channels"])
def position_kernel(
    grad, planes, lines, positions, out, side, channels, items, AXIS: tl.constexpr, BLOCK: tl.constexpr
):
    """The slope along one axis, of all modes."""
    n = lanes(BLOCK)
    inside = n < items
    total = tl.zeros((BLOCK,), out.dtype.element_ty)
    for m in tl.static_range(3):
        total += slopes(grad, planes, lines, positions, n, side, channels, inside, m, AXIS, total)
    at = tl.load(positions + 3 * n + AXIS, mask=inside, other=0)
    # What was moved to the border does not move along.
    step = tl.where((at >= 0) & (at <= 1), (n * 0 + side - 1).to(total.dtype), 0 * total)
    tl.store(out + 3 * n + AXIS, total * step, mask=inside)


def position_gradient(grad: Tensor, planes: Tensor, lines: Tensor, positions: Tensor, out: Tensor) -> None:
    sizes = len(lines) // 3, lines.shape[1]
    for axis in range(3):
        inputs = grad, planes, lines, positions, out
        launch(position_kernel, len(positions), BLOCK, *inputs, *sizes, AXIS=axis)
