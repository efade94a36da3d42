"""Laws of the spherical harmonics."""

import math

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from sparse3d_ops.spherical_harmonics import MOST_DEGREE, degree_of, sh_basis, sh_colors
from tests.ops import bodies


def unit(count):
    return normalize(torch.randn(count, 3, dtype=torch.float64), dim=1)


def test_orthonormal_on_the_sphere():
    # Gauss-Legendre in z times the trapezium rule in the azimuth integrates polynomials of degree 8 exactly.
    z, weight = np.polynomial.legendre.leggauss(6)
    azimuth = np.arange(12) * 2 * math.pi / 12
    r = np.sqrt(1 - z**2)
    d = np.stack([np.outer(r, np.cos(azimuth)), np.outer(r, np.sin(azimuth)), np.outer(z, np.ones(12))], -1)
    basis = sh_basis(torch.as_tensor(d.reshape(-1, 3)), MOST_DEGREE)
    area = torch.as_tensor(np.repeat(weight, 12) * 2 * math.pi / 12)
    torch.testing.assert_close((basis.T * area) @ basis, torch.eye(25, dtype=torch.float64))


def test_addition_theorem():
    # The sum over the orders of one degree depends on the angle alone: (2 l + 1) / 4 pi P_l(cos).
    a, b = unit(50), unit(50)
    product = sh_basis(a, MOST_DEGREE) * sh_basis(b, MOST_DEGREE)
    cos = (a * b).sum(1).numpy()
    for l in range(MOST_DEGREE + 1):
        want = (2 * l + 1) / (4 * math.pi) * np.polynomial.legendre.Legendre.basis(l)(cos)
        np.testing.assert_allclose(product[:, l * l : (l + 1) ** 2].sum(1), want, atol=1e-13)


def test_harmonic():
    # The Laplacian of every entry is zero, off the sphere too: second derivatives, through the slopes.
    for k in range(25):
        d = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
        first = torch.autograd.grad(sh_basis(d, 4)[:, k].sum(), d, create_graph=True)[0]
        laplacian = torch.zeros(4, dtype=torch.float64)
        for axis in range(3):
            if first.requires_grad:
                laplacian += torch.autograd.grad(first[:, axis].sum(), d, retain_graph=True)[0][:, axis]
        assert laplacian.abs().max() < 1e-11


def test_second_derivatives():
    rows, colors = (3, 2) if bodies.in_use() == "numba" else (2, 1)
    coefficients = torch.randn(rows, 25, colors, dtype=torch.float64, requires_grad=True)
    directions = unit(rows).requires_grad_()
    assert torch.autograd.gradgradcheck(sh_colors, (coefficients, directions))


def test_signs_of_the_first_degree():
    got = sh_basis(torch.eye(3), 1)[:, 1:]
    c = 0.4886025119029199
    want = torch.tensor([[0, 0, -c], [-c, 0, 0], [0, c, 0]])
    torch.testing.assert_close(got, want)


def test_half_precision_coefficients():
    coefficients, directions = torch.randn(20, 9, 3), unit(20).float()
    got = sh_colors(coefficients.bfloat16(), directions)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(
        got.float(), sh_colors(coefficients.bfloat16().float(), directions), atol=0, rtol=0.004
    )


@pytest.mark.parametrize(("entries", "degree"), [(1, 0), (4, 1), (9, 2), (16, 3), (25, 4)])
def test_degree_of(entries, degree):
    assert degree_of(entries) == degree


def test_errors():
    with pytest.raises(ValueError, match="8 coefficients make no basis: expected 1, 4, 9, 16 or 25"):
        sh_colors(torch.zeros(2, 8, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="36 coefficients"):
        sh_colors(torch.zeros(2, 36, 3), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="degree is 5, expected 0 to 4"):
        sh_basis(torch.zeros(2, 3), 5)
    with pytest.raises(
        ValueError, match=r"coefficients has shape \(3, 4, 1\), expected \(2, 4, C\)|expected"
    ):
        sh_colors(torch.zeros(3, 4, 1), torch.zeros(2, 3))
    with pytest.raises(ValueError, match="directions is float16"):
        sh_basis(torch.zeros(2, 3).half(), 1)
