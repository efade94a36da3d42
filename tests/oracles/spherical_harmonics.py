"""Spherical harmonics by their textbook definition, from associated Legendre functions and angles."""

import math

import numpy as np
import torch
from torch import Tensor


def legendre(l: int, m: int, u: np.ndarray) -> np.ndarray:
    """P_l^m(u) for m >= 0, without the Condon-Shortley phase: (1 - u^2)^(m/2) d^m/du^m P_l, with Rodrigues'
    P_l = d^l/du^l (u^2 - 1)^l / (2^l l!)."""
    power = np.polynomial.Polynomial([-1, 0, 1]) ** l
    derived = power.deriv(l + m) if l + m else power
    return (1 - u**2).clip(0) ** (m / 2) * derived(u) / (2**l * math.factorial(l))


def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """|d|^l Y_lm at [l^2 + l + m]; m > 0 goes with cos, m < 0 with sin of m times the azimuth."""
    x, y, z = directions.double().cpu().numpy().T
    radius = np.sqrt(x**2 + y**2 + z**2)
    azimuth = np.arctan2(y, x)
    u = np.divide(z, radius, out=np.ones_like(z), where=radius > 0)
    columns = []
    for l in range(degree + 1):
        for m in range(-l, l + 1):
            a = abs(m)
            norm = (2 * l + 1) / (4 * math.pi) * math.factorial(l - a) / math.factorial(l + a)
            wave = math.sqrt(2) * (np.cos(a * azimuth) if m > 0 else np.sin(a * azimuth)) if m else 1.0
            columns.append((-1) ** a * math.sqrt(norm) * legendre(l, a, u) * wave * radius**l)
    return torch.as_tensor(np.stack(columns, 1)).to(directions.dtype)


def sh_slope(weights: Tensor, directions: Tensor) -> Tensor:
    """Central differences of sixth order: exact for polynomials of degree below seven, but for rounding."""
    degree = math.isqrt(weights.shape[1]) - 1
    out = torch.zeros(directions.shape, dtype=torch.float64)
    for axis in range(3):
        for step, factor in ((1, 3 / 4), (2, -3 / 20), (3, 1 / 60)):
            for sign in (1, -1):
                moved = directions.double().cpu().clone()
                moved[:, axis] += sign * step
                out[:, axis] += sign * factor * (sh_basis(moved, degree) * weights.double().cpu()).sum(1)
    return out.to(directions.dtype)


def sh_colors(coefficients: Tensor, directions: Tensor) -> Tensor:
    basis = sh_basis(directions, math.isqrt(coefficients.shape[1]) - 1)
    return torch.einsum("nk,nkc->nc", basis, coefficients.double().cpu()).to(coefficients.dtype)


def sh_spread(grad: Tensor, directions: Tensor, degree: int) -> Tensor:
    return torch.einsum("nk,nc->nkc", sh_basis(directions, degree), grad.double().cpu()).to(grad.dtype)
