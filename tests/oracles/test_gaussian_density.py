"""The oracle of the density against numbers by hand."""

import math

import pytest
import torch

from tests.oracles.gaussian_density import gaussian_density


def test_two_gaussians_add_up_where_both_are_listed():
    means = torch.tensor([[0.0, 0, 0], [2.0, 0, 0]], dtype=torch.float64)
    roots = torch.eye(3, dtype=torch.float64) * torch.tensor([1.0, 0.5], dtype=torch.float64).reshape(2, 1, 1)
    opacities, features = torch.tensor([0.5, 0.8], dtype=torch.float64), torch.eye(2, dtype=torch.float64)
    starts, order = torch.tensor([0, 2, 3]), torch.tensor([0, 1, 1])
    points = torch.tensor([[1.0, 0, 0]] * 3 + [[9.0, 0, 0]], dtype=torch.float64)
    lists = torch.tensor([0, 1, -1, 0]), starts, order
    density, sums = gaussian_density(points, *lists, means, roots, opacities, features)
    first, second = 0.5 * math.exp(-0.5), 0.8 * math.exp(-0.125)
    assert density.tolist() == pytest.approx([first + second, second, 0, 0])
    assert sums[0].tolist() == pytest.approx([first, second])
