"""A background that is learned with a field."""

import pytest
import torch

from sparse3d.fields.background import LearnedBackground, LearnedBackgroundConfig, behind
from sparse3d_ops.spherical_harmonics import C0, sh_basis

DIRECTIONS = torch.nn.functional.normalize(torch.tensor([[1.0, 2, 3], [-1, 0, 0.5], [0, 0, -1]]), dim=1)


def test_starts_grey_and_one_colour_is_the_same_everywhere():
    background = LearnedBackground()
    assert torch.equal(background(DIRECTIONS), torch.full((3, 3), 0.5))
    background.coefficients.data = torch.tensor([[0.3, -2.0, 0.0]])
    seen = background(DIRECTIONS)
    torch.testing.assert_close(seen, torch.sigmoid(background.coefficients.data).expand(3, 3))


def test_harmonics_are_below_a_sigmoid():
    background = LearnedBackground(LearnedBackgroundConfig(sh_degree=2), unit=0.5)
    background.coefficients.data.normal_()
    want = torch.sigmoid(0.5 * sh_basis(DIRECTIONS, 2) / C0 @ background.coefficients)
    torch.testing.assert_close(behind(background, DIRECTIONS), want)


def test_a_colour_is_itself():
    assert torch.equal(behind((0.25, 0.5, 1.0), DIRECTIONS.double()), torch.tensor([0.25, 0.5, 1.0]).double())


def test_sizes_are_checked():
    with pytest.raises(ValueError, match="sh_degree must be 0 to 4, got 5"):
        LearnedBackgroundConfig(sh_degree=5)
    with pytest.raises(ValueError, match="weight must be at least 0"):
        LearnedBackgroundConfig(weight=-1)
