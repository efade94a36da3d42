"""Real spherical harmonics of degree 0 to 4: the basis, and colours as sums of it.

Entry k = l^2 + l + m of the basis is the harmonic of degree l and order m, orthonormal on the sphere and with
the Condon-Shortley phase: Y_1 = (-0.4886 y, 0.4886 z, -0.4886 x), the signs of Gaussian splatting's files and
of glTF. A basis up to degree D has K = (D + 1)^2 entries.

Directions should have unit length; it is not checked. In between, |d|^l Y_l(d / |d|) is evaluated, a
homogeneous polynomial, so gradients in the directions are those of these polynomials, radial part included.
The derivative of a harmonic polynomial is a sum of harmonics one degree lower, which is how gradients of any
order are taken. Repeatable bit for bit for any number of threads.
"""

from functools import cache
from math import isqrt, pi, sqrt

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops.checks import FLOATS, check_same_device, check_tensor, working

EXACT = (torch.float32, torch.float64)
MOST_DEGREE = 4

# Norms: the integral of Y^2 over the sphere is one.
C0 = sqrt(1 / (4 * pi))
C1 = sqrt(3 / (4 * pi))
C2_0, C2_1, C2_2 = sqrt(5 / (16 * pi)), sqrt(15 / (4 * pi)), sqrt(15 / (16 * pi))
C3_0, C3_1 = sqrt(7 / (16 * pi)), sqrt(21 / (32 * pi))
C3_2, C3_3 = sqrt(105 / (16 * pi)), sqrt(35 / (32 * pi))
C4_0, C4_1, C4_2 = sqrt(9 / (256 * pi)), sqrt(45 / (32 * pi)), sqrt(45 / (64 * pi))
C4_3, C4_4 = sqrt(315 / (32 * pi)), sqrt(315 / (256 * pi))


def degree_of(entries: int) -> int:
    """Degree of a basis of so many entries: 1, 4, 9, 16, 25 -> 0 .. 4. Raises ValueError for others."""
    degree = isqrt(max(entries, 1)) - 1
    if (degree + 1) ** 2 != entries or degree > MOST_DEGREE:
        raise ValueError(f"{entries} coefficients make no basis: expected 1, 4, 9, 16 or 25 (degree 0 to 4)")
    return degree


@cache
def slopes(degree: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The derivatives as sums: d basis[of] / d axis = sum of factor * basis[to].

    Three tables (3, M), one row an axis: of and to int64, factor float64; shorter rows end in factors of 0.
    From the ladder of complex solid harmonics R_lm, f = (2 l + 1) / (2 l - 1):
    d/dz R_lm = sqrt(f (l + m) (l - m)) R_l-1,m,
    (d/dx + i d/dy) R_lm = sqrt(f (l - m) (l - m - 1)) R_l-1,m+1,
    (d/dx - i d/dy) R_lm = -sqrt(f (l + m) (l + m - 1)) R_l-1,m-1; real ones are sqrt(2) Re or Im for m > 0.
    """
    terms: list[list[tuple[int, int, float]]] = [[], [], []]

    def add(axis: int, l: int, m: int, to: int, factor: float) -> None:
        # `to` counts orders of degree l - 1; orders that it does not have come with a factor of 0.
        if abs(to) < l and factor != 0:
            terms[axis].append((l * l + l + m, l * l - l + to, factor))

    for l in range(1, degree + 1):
        f = (2 * l + 1) / (2 * l - 1)
        for m in range(-l, l + 1):
            add(2, l, m, m, sqrt(f * (l + m) * (l - m)))
        add(0, l, 0, 1, sqrt(f * l * (l - 1) / 2))
        add(1, l, 0, -1, sqrt(f * l * (l - 1) / 2))
        for m in range(1, l + 1):
            up, down = sqrt(f * (l - m) * (l - m - 1)) / 2, sqrt(f * (l + m) * (l + m - 1)) / 2
            down_re, down_im = (down * sqrt(2), 0.0) if m == 1 else (down, down)
            add(0, l, m, m + 1, up)
            add(0, l, m, m - 1, -down_re)
            add(0, l, -m, -m - 1, up)
            add(0, l, -m, 1 - m, -down_im)
            add(1, l, m, -m - 1, up)
            add(1, l, m, 1 - m, down_im)
            add(1, l, -m, m + 1, -up)
            add(1, l, -m, m - 1, -down_re)
    most = max(len(row) for row in terms)
    table = np.array([row + [(0, 0, 0.0)] * (most - len(row)) for row in terms]).reshape(3, most, 3)
    of, to, factor = np.moveaxis(table, 2, 0)
    return of.astype(np.int64), to.astype(np.int64), np.ascontiguousarray(factor)


def _dense_slopes(degree: int, like: Tensor) -> Tensor:
    """The tables of `slopes` as one (K, 3, K): of, axis, to."""
    size = (degree + 1) ** 2
    dense = np.zeros((size, 3, size))
    for axis, (of, to, factor) in enumerate(zip(*slopes(degree), strict=True)):
        np.add.at(dense, (of, axis, to), factor)
    return torch.as_tensor(dense, dtype=like.dtype, device=like.device)


def _check_directions(directions: Tensor, degree: int) -> None:
    check_tensor("directions", directions, ("N", 3), EXACT)
    if not 0 <= degree <= MOST_DEGREE:
        raise ValueError(f"degree is {degree}, expected 0 to {MOST_DEGREE}")


def _check_rows(name: str, values: Tensor, shape: tuple[int | str, ...], directions: Tensor) -> None:
    check_tensor(name, values, (directions.shape[0], *shape), FLOATS)
    check_same_device((name, values), ("directions", directions))


@torch.library.custom_op("sparse3d::sh_basis", mutates_args=(), device_types="cpu")
def sh_basis(directions: Tensor, degree: int) -> Tensor:
    """Harmonics of each direction: (N, 3) float32 or float64 -> (N, (degree + 1)^2). Raises ValueError for
    degrees beyond 4."""
    from sparse3d_ops.cpu import spherical_harmonics as body

    _check_directions(directions, degree)
    work = working(directions)
    out = work.new_empty(len(work), (degree + 1) ** 2)
    body.basis(work.numpy(), degree, out.numpy())
    return out


@torch.library.custom_op("sparse3d::sh_slope", mutates_args=(), device_types="cpu")
def sh_slope(weights: Tensor, directions: Tensor) -> Tensor:
    """Gradient of sum_k weights[k] basis_k in the direction: (N, K) float, (N, 3) -> (N, 3)."""
    from sparse3d_ops.cpu import spherical_harmonics as body

    degree = _check_slope(weights, directions)
    work = working(directions)
    out = torch.empty_like(work)
    body.slope(working(weights).numpy(), work.numpy(), degree, *slopes(degree), out.numpy())
    return out


@torch.library.custom_op("sparse3d::sh_colors", mutates_args=(), device_types="cpu")
def sh_colors(coefficients: Tensor, directions: Tensor) -> Tensor:
    """Sums of the basis: (N, K, C) float, (N, 3) float32 or float64 -> (N, C), out[n, c] = sum_k
    basis_k(directions[n]) coefficients[n, k, c]. K is 1, 4, 9, 16 or 25; nothing is added and nothing is
    clamped (splatting adds 0.5)."""
    from sparse3d_ops.cpu import spherical_harmonics as body

    degree = _check_colors(coefficients, directions)
    work = working(coefficients)
    out = work.new_empty(len(work), work.shape[2])
    body.colors(work.numpy(), working(directions).numpy(), degree, out.numpy())
    return out.to(coefficients.dtype)


@torch.library.custom_op("sparse3d::sh_spread", mutates_args=(), device_types="cpu")
def sh_spread(grad: Tensor, directions: Tensor, degree: int) -> Tensor:
    """Transpose of `sh_colors` in the coefficients: (N, C) float, (N, 3) -> (N, K, C), basis times grad."""
    from sparse3d_ops.cpu import spherical_harmonics as body

    _check_spread(grad, directions, degree)
    work = working(grad)
    out = work.new_empty(len(work), (degree + 1) ** 2, work.shape[1])
    body.spread(work.numpy(), working(directions).numpy(), degree, out.numpy())
    return out.to(grad.dtype)


def _check_slope(weights: Tensor, directions: Tensor) -> int:
    _check_directions(directions, 0)
    _check_rows("weights", weights, ("K",), directions)
    return degree_of(weights.shape[1])


def _check_colors(coefficients: Tensor, directions: Tensor) -> int:
    _check_directions(directions, 0)
    _check_rows("coefficients", coefficients, ("K", "C"), directions)
    return degree_of(coefficients.shape[1])


def _check_spread(grad: Tensor, directions: Tensor, degree: int) -> None:
    _check_directions(directions, degree)
    _check_rows("grad", grad, ("C",), directions)


@sh_basis.register_kernel("cuda")
def _(directions: Tensor, degree: int) -> Tensor:
    from sparse3d_ops.gpu import spherical_harmonics as body

    _check_directions(directions, degree)
    return body.basis(working(directions), degree)


@sh_slope.register_kernel("cuda")
def _(weights: Tensor, directions: Tensor) -> Tensor:
    from sparse3d_ops.gpu import spherical_harmonics as body

    degree = _check_slope(weights, directions)
    work = working(directions)
    out = torch.empty_like(work)
    body.slope(working(weights), body.basis(work, degree), slopes(degree), out)
    return out


@sh_colors.register_kernel("cuda")
def _(coefficients: Tensor, directions: Tensor) -> Tensor:
    from sparse3d_ops.gpu import spherical_harmonics as body

    degree = _check_colors(coefficients, directions)
    work = working(coefficients)
    out = work.new_empty(len(work), work.shape[2])
    body.colors(work, body.basis(working(directions), degree), out)
    return out.to(coefficients.dtype)


@sh_spread.register_kernel("cuda")
def _(grad: Tensor, directions: Tensor, degree: int) -> Tensor:
    from sparse3d_ops.gpu import spherical_harmonics as body

    _check_spread(grad, directions, degree)
    work = working(grad)
    out = work.new_empty(len(work), (degree + 1) ** 2, work.shape[1])
    body.spread(work, body.basis(working(directions), degree), out)
    return out.to(grad.dtype)


@sh_basis.register_fake
def _(directions, degree):
    return directions.new_empty(directions.shape[0], (degree + 1) ** 2)


@sh_slope.register_fake
def _(weights, directions):
    return directions.new_empty(directions.shape)


@sh_colors.register_fake
def _(coefficients, directions):
    return coefficients.new_empty(coefficients.shape[0], coefficients.shape[2])


@sh_spread.register_fake
def _(grad, directions, degree):
    return grad.new_empty(grad.shape[0], (degree + 1) ** 2, grad.shape[1])


def _basis_setup(ctx, inputs, output):
    ctx.save_for_backward(inputs[0])


def _basis_backward(ctx, grad):
    return sh_slope(grad, ctx.saved_tensors[0]), None


def _save_inputs(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:2])


def _slope_backward(ctx, grad):
    """Second derivatives are rare (they are asked for by losses on gradients), so torch takes them."""
    weights, directions = ctx.saved_tensors
    degree = degree_of(weights.shape[1])
    along = torch.einsum("na,kaj->nkj", grad, _dense_slopes(degree, directions))
    wants_weights, wants_directions = ctx.needs_input_grad
    steps = torch.einsum("nkj,nj->nk", along, sh_basis(directions, degree)) if wants_weights else None
    curved = torch.einsum("nkj,nk->nj", along, weights.to(along.dtype)) if wants_directions else None
    return (
        None if steps is None else steps.to(weights.dtype),
        None if curved is None else sh_slope(curved, directions),
    )


def _colors_backward(ctx, grad):
    coefficients, directions = ctx.saved_tensors
    wants_coefficients, wants_directions = ctx.needs_input_grad
    degree = degree_of(coefficients.shape[1])
    return (
        sh_spread(grad, directions, degree) if wants_coefficients else None,
        sh_slope((coefficients * grad[:, None]).sum(2), directions) if wants_directions else None,
    )


def _spread_backward(ctx, grad_out):
    grad, directions = ctx.saved_tensors
    wants_grad, wants_directions, _ = ctx.needs_input_grad
    return (
        sh_colors(grad_out, directions) if wants_grad else None,
        sh_slope((grad_out * grad[:, None]).sum(2), directions) if wants_directions else None,
        None,
    )


sh_basis.register_autograd(_basis_backward, setup_context=_basis_setup)
sh_slope.register_autograd(_slope_backward, setup_context=_save_inputs)
sh_colors.register_autograd(_colors_backward, setup_context=_save_inputs)
sh_spread.register_autograd(_spread_backward, setup_context=_save_inputs)
