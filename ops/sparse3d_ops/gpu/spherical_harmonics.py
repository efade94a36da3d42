"""Triton bodies of the spherical harmonics: the basis is written once, then sums go a lane to a number."""

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops import spherical_harmonics as norms
from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 128


@triton.jit(do_not_specialize=["items"])
def basis_kernel(directions, norm, out, items, DEGREE: tl.constexpr, BLOCK: tl.constexpr):
    """`norm` holds C0, C1, C2_0 .. C2_2, C3_0 .. C3_3, C4_0 .. C4_4 in the type of the directions: literals
    would be float32."""
    n = lanes(BLOCK)
    inside = n < items
    x = tl.load(directions + 3 * n, mask=inside, other=0)
    y = tl.load(directions + 3 * n + 1, mask=inside, other=0)
    z = tl.load(directions + 3 * n + 2, mask=inside, other=0)
    b = out + n * ((DEGREE + 1) * (DEGREE + 1))
    tl.store(b, tl.load(norm) + 0 * x, mask=inside)
    if DEGREE >= 1:
        c1 = tl.load(norm + 1)
        tl.store(b + 1, -c1 * y, mask=inside)
        tl.store(b + 2, c1 * z, mask=inside)
        tl.store(b + 3, -c1 * x, mask=inside)
    xx, yy, zz = x * x, y * y, z * z
    if DEGREE >= 2:
        c20, c21, c22 = tl.load(norm + 2), tl.load(norm + 3), tl.load(norm + 4)
        tl.store(b + 4, c21 * x * y, mask=inside)
        tl.store(b + 5, -c21 * y * z, mask=inside)
        tl.store(b + 6, c20 * (2 * zz - xx - yy), mask=inside)
        tl.store(b + 7, -c21 * x * z, mask=inside)
        tl.store(b + 8, c22 * (xx - yy), mask=inside)
    if DEGREE >= 3:
        c30, c31, c32, c33 = tl.load(norm + 5), tl.load(norm + 6), tl.load(norm + 7), tl.load(norm + 8)
        tl.store(b + 9, -c33 * y * (3 * xx - yy), mask=inside)
        tl.store(b + 10, 2 * c32 * x * y * z, mask=inside)
        tl.store(b + 11, -c31 * y * (4 * zz - xx - yy), mask=inside)
        tl.store(b + 12, c30 * z * (2 * zz - 3 * xx - 3 * yy), mask=inside)
        tl.store(b + 13, -c31 * x * (4 * zz - xx - yy), mask=inside)
        tl.store(b + 14, c32 * z * (xx - yy), mask=inside)
        tl.store(b + 15, -c33 * x * (xx - 3 * yy), mask=inside)
    if DEGREE >= 4:
        c40, c41, c42 = tl.load(norm + 9), tl.load(norm + 10), tl.load(norm + 11)
        c43, c44 = tl.load(norm + 12), tl.load(norm + 13)
        rr = xx + yy + zz
        tl.store(b + 16, 4 * c44 * x * y * (xx - yy), mask=inside)
        tl.store(b + 17, -c43 * y * z * (3 * xx - yy), mask=inside)
        tl.store(b + 18, 2 * c42 * x * y * (7 * zz - rr), mask=inside)
        tl.store(b + 19, -c41 * y * z * (7 * zz - 3 * rr), mask=inside)
        tl.store(b + 20, c40 * (35 * zz * zz - 30 * zz * rr + 3 * rr * rr), mask=inside)
        tl.store(b + 21, -c41 * x * z * (7 * zz - 3 * rr), mask=inside)
        tl.store(b + 22, c42 * (xx - yy) * (7 * zz - rr), mask=inside)
        tl.store(b + 23, -c43 * x * z * (xx - 3 * yy), mask=inside)
        tl.store(b + 24, c44 * (xx * (xx - 3 * yy) - yy * (3 * xx - yy)), mask=inside)


def basis(directions: Tensor, degree: int) -> Tensor:
    names = ("C0", "C1", "C2_0", "C2_1", "C2_2", "C3_0", "C3_1", "C3_2", "C3_3")
    names += ("C4_0", "C4_1", "C4_2", "C4_3", "C4_4")
    norm = torch.tensor([getattr(norms, name) for name in names], dtype=directions.dtype)
    norm = norm.to(directions.device, non_blocking=True)
    out = directions.new_empty(len(directions), (degree + 1) ** 2)
    launch(basis_kernel, len(directions), BLOCK, directions, norm, out, DEGREE=degree)
    return out


@triton.jit(do_not_specialize=["items", "entries", "terms"])
def slope_kernel(weights, basis, of, to, factor, out, entries, terms, items, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < items
    n, axis = i // 3, i % 3
    total = tl.zeros((BLOCK,), out.dtype.element_ty)
    for m in range(terms):
        term = axis * terms + m
        weight = tl.load(weights + n * entries + tl.load(of + term), mask=inside, other=0)
        value = tl.load(basis + n * entries + tl.load(to + term), mask=inside, other=0)
        total += (tl.load(factor + term) * weight * value).to(total.dtype)
    tl.store(out + i, total, mask=inside)


def slope(
    weights: Tensor, basis: Tensor, tables: tuple[np.ndarray, np.ndarray, np.ndarray], out: Tensor
) -> None:
    of, to, factor = (torch.as_tensor(table).to(out.device, non_blocking=True) for table in tables)
    entries, terms = weights.shape[1], of.shape[1]
    launch(
        slope_kernel, out.numel(), BLOCK, weights, basis, of, to, factor.to(out.dtype), out, entries, terms
    )


@triton.jit(do_not_specialize=["items", "entries", "channels"])
def colors_kernel(coefficients, basis, out, entries, channels, items, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < items
    n, channel = i // channels, i % channels
    total = tl.zeros((BLOCK,), out.dtype.element_ty)
    for k in range(entries):
        value = tl.load(coefficients + (n * entries + k) * channels + channel, mask=inside, other=0)
        total += (tl.load(basis + n * entries + k, mask=inside, other=0) * value).to(total.dtype)
    tl.store(out + i, total, mask=inside)


def colors(coefficients: Tensor, basis: Tensor, out: Tensor) -> None:
    launch(colors_kernel, out.numel(), BLOCK, coefficients, basis, out, *coefficients.shape[1:])


@triton.jit(do_not_specialize=["items", "entries", "channels"])
def spread_kernel(grad, basis, out, entries, channels, items, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < items
    pair, channel = i // channels, i % channels
    value = tl.load(grad + (pair // entries) * channels + channel, mask=inside, other=0)
    tl.store(out + i, tl.load(basis + pair, mask=inside, other=0) * value, mask=inside)


def spread(grad: Tensor, basis: Tensor, out: Tensor) -> None:
    launch(spread_kernel, out.numel(), BLOCK, grad, basis, out, *out.shape[1:])
