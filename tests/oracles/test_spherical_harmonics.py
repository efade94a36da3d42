"""The oracle of the spherical harmonics on values worked out by hand."""

import math

import pytest
import torch

from tests.oracles import spherical_harmonics as oracle


def test_first_degrees_by_hand():
    x, y, z = 0.6, 0.0, 0.8
    got = oracle.sh_basis(torch.tensor([[x, y, z]], dtype=torch.float64), 2)[0].tolist()
    a, b = math.sqrt(3 / (4 * math.pi)), math.sqrt(15 / (4 * math.pi))
    first = [1 / math.sqrt(4 * math.pi), -a * y, a * z, -a * x]
    second = [b * x * y, -b * y * z, b / math.sqrt(12) * (3 * z * z - 1), -b * x * z, b / 2 * (x * x - y * y)]
    assert got == pytest.approx(first + second, abs=1e-15)


def test_poles_by_hand():
    # At the pole only m = 0 is left, with sqrt((2 l + 1) / 4 pi); at the other one odd degrees change sign.
    got = oracle.sh_basis(torch.tensor([[0.0, 0, 1], [0, 0, -1]]).double(), 4)
    for l in range(5):
        row = [0.0] * (2 * l + 1)
        row[l] = math.sqrt((2 * l + 1) / (4 * math.pi))
        assert got[0, l * l : (l + 1) ** 2].tolist() == pytest.approx(row, abs=1e-15)
        row[l] *= (-1) ** l
        assert got[1, l * l : (l + 1) ** 2].tolist() == pytest.approx(row, abs=1e-15)


def test_slope_by_hand():
    # The gradient of a z - 2 a x.
    a = math.sqrt(3 / (4 * math.pi))
    got = oracle.sh_slope(
        torch.tensor([[0.0, 0, 1, 2]]).double(), torch.tensor([[0.6, 0, 0.8]], dtype=torch.float64)
    )
    assert got[0].tolist() == pytest.approx([-2 * a, 0, a], abs=1e-12)
