"""Sampling a map: by hand, against torch, and laws."""

import torch

from sparse3d.models.bev_sampling import sample_bev
from sparse3d.models.center_code import BevGrid

GRID = BevGrid((10.0, -6.0, 0.0, 14.0, 6.0, 1.0), (0.5, 2.0), (8, 6))


def points(count: int, spread: float = 1.0) -> torch.Tensor:
    """Over the bounds, or around them where `spread` is above 1."""
    generator = torch.Generator().manual_seed(0)
    at = torch.rand(count, 2, generator=generator, dtype=torch.float64) - 0.5
    return at * spread * torch.tensor([4.0, 12.0]) + torch.tensor([12.0, 0.0])


def test_by_hand():
    bev = torch.zeros(2, 1, 8, 6)
    bev[1, 0, 2, 3], bev[1, 0, 3, 3] = 4.0, 8.0
    # Cell (2, 3) has its centre at x = 11.25, y = 1; a quarter on along x, half a cell on along y.
    at = torch.tensor([[11.25, 1.0], [11.375, 1.0], [11.375, 2.0], [11.375, 2.0]])
    sampled = sample_bev(bev, GRID, at, torch.tensor([1, 1, 1, 0]))
    assert sampled[:, 0].tolist() == [4.0, 5.0, 2.5, 0.0]


def test_equals_torch_with_its_gradient():
    bev = torch.randn(2, 5, 8, 6, dtype=torch.float64, requires_grad=True)
    at = points(60, spread=1.5)
    got = sample_bev(bev, GRID, at, torch.arange(60) % 2)
    place = (at - torch.tensor([10.0, -6.0])) / torch.tensor([4.0, 12.0]) * 2 - 1
    grid = torch.stack([place[0::2], place[1::2]]).flip(-1)[:, None]  # the last axis of a map comes first
    torch_says = torch.nn.functional.grid_sample(bev, grid, padding_mode="border", align_corners=False)
    want = torch_says[:, :, 0].permute(2, 0, 1).reshape(60, 5)
    torch.testing.assert_close(got, want)
    weights = torch.randn_like(got)
    (grad,) = torch.autograd.grad((got * weights).sum(), bev)
    (want_grad,) = torch.autograd.grad((want * weights).sum(), bev)
    torch.testing.assert_close(grad, want_grad)


def test_a_map_that_rises_evenly_is_read_off_between_the_outermost_centres():
    x, y = torch.meshgrid(10.25 + 0.5 * torch.arange(8), -5 + 2.0 * torch.arange(6), indexing="ij")
    bev = (2 * x - 0.3 * y)[None, None].double()
    at = points(50, spread=0.8)
    got = sample_bev(bev, GRID, at, torch.zeros(50, dtype=torch.int64))[:, 0]
    torch.testing.assert_close(got, 2 * at[:, 0] - 0.3 * at[:, 1])


def test_no_points_and_half_precision():
    bev = torch.randn(1, 3, 8, 6).bfloat16()
    assert sample_bev(bev, GRID, torch.zeros(0, 2), torch.zeros(0, dtype=torch.int64)).shape == (0, 3)
    sampled = sample_bev(bev, GRID, points(4).float(), torch.zeros(4, dtype=torch.int64))
    assert sampled.dtype == torch.bfloat16
