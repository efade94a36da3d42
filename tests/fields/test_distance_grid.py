"""A grid of distances says what the distances are, and by how much it is wrong."""

import pytest
import torch

from sparse3d.fields.distance_grid import DistanceGrid


def to_sphere(points):
    return (points - torch.tensor([0.1, -0.2, 0.3])).norm(dim=1) - 0.5


def near_the_surface(count):
    torch.manual_seed(0)
    points = torch.rand(count, 3) * 2 - 1
    return points[to_sphere(points).abs() < 0.03]


def test_what_is_linear_is_exact():
    grid, slope = DistanceGrid(7), torch.tensor([0.3, -1.2, 2.0])
    grid.fill(lambda points: points @ slope)
    points = torch.rand(100, 3) * 2 - 1
    torch.testing.assert_close(grid(points), points @ slope, atol=1e-5, rtol=0)
    assert grid.slack < 1e-5


@pytest.mark.parametrize("size", [16, 32])
def test_slack_is_what_it_is_wrong_by(size):
    grid = DistanceGrid(size)
    grid.fill(to_sphere)
    points = near_the_surface(20000)
    wrong = (grid(points) - to_sphere(points)).abs()
    assert 0.8 < (wrong <= grid.slack).float().mean() <= 1
    # Half of the squared step, times the curvature 1 / R, over eight and in two directions.
    assert float(grid.slack) == pytest.approx((2 / (size - 1)) ** 2 / 0.5 / 8 * 2, rel=0.3)


def test_no_surface_leaves_a_cell_of_doubt():
    grid = DistanceGrid(5)
    grid.fill(lambda points: torch.ones_like(points[:, 0]))
    assert grid.slack == 0.5
    assert (grid(torch.tensor([[3.0, 0, 0]])) == 1).all(), "outside counts as the border"
