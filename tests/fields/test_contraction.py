"""Laws of the contraction and of the frequency encoding."""

import math

import pytest
import torch

from sparse3d.fields.contraction import contract, uncontract
from sparse3d.fields.frequencies import coarse_to_fine, frequency_encode


def far_points(count=4000):
    directions = torch.randn(count, 3, dtype=torch.float64)
    return directions * torch.exp(torch.linspace(-3, 8, count, dtype=torch.float64))[:, None]


def test_the_inverse_undoes_it():
    points = far_points()
    torch.testing.assert_close(uncontract(contract(points)), points, rtol=1e-9, atol=1e-12)


def test_the_inverse_is_undone():
    image = contract(far_points())
    torch.testing.assert_close(contract(uncontract(image)), image)


def test_inner_cube_stays():
    points = torch.rand(100, 3) * 2 - 1
    assert torch.equal(contract(points), points)


def test_all_space_falls_into_the_cube_and_six_slabs():
    image = contract(far_points())
    size = image.abs().sort(1).values
    assert (size[:, 2] < 2).all() and (size[:, 1] <= 1 + 1e-12).all()
    assert contract(torch.tensor([[1e30, -1.0, 2.0]])).tolist() == [[2.0, pytest.approx(0), pytest.approx(0)]]


def test_by_hand():
    got = contract(torch.tensor([[4.0, 2.0, -1.0], [0.5, -2.0, 1.0], [1.0, 0.0, 0.0]]))
    assert got.tolist() == [[1.75, 0.5, -0.25], [0.25, -1.5, 0.5], [1.0, 0.0, 0.0]]


def test_ties_go_to_the_first_axis():
    assert contract(torch.tensor([[2.0, -2.0, 0.0]])).tolist() == [[1.5, -1.0, 0.0]]


def test_straight_segments_stay_straight_in_each_region():
    """Points along a segment within one region lie on the segment between the images of its ends."""
    begin, end = far_points(), far_points()[torch.randperm(4000)]

    def region(points):
        largest = points.abs().argmax(1)
        at = points.gather(1, largest[:, None])[:, 0]
        return torch.where(at.abs() <= 1, 0, (largest + 1) * at.sign().long())

    same = region(begin) == region(end)
    assert len(region(begin)[same].unique()) == 7
    a, b = contract(begin[same]), contract(end[same])
    for part in (0.1, 0.5, 0.9):
        middle = contract(begin[same].lerp(end[same], part))
        away = torch.linalg.cross(middle - a, b - a).norm(dim=1) / (b - a).norm(dim=1)
        assert away.max() < 1e-9
        along = ((middle - a) * (b - a)).sum(1) / ((b - a) ** 2).sum(1)
        assert ((along > -1e-9) & (along < 1 + 1e-9)).all()


def test_gradients_equal_finite_differences():
    points = far_points(40)[10:].clone().requires_grad_()
    assert torch.autograd.gradcheck(contract, points)


def test_frequencies_by_hand():
    x = torch.tensor([[0.25, 0.5]], dtype=torch.float64)
    r = math.sqrt(0.5)
    want = [0.25, 0.5, r, 1.0, r, 0.0, 1.0, 0.0, 0.0, -1.0]
    assert frequency_encode(x, 2)[0].tolist() == pytest.approx(want, abs=1e-15)
    masked = frequency_encode(x, 2, torch.tensor([1.0, 0.5]))[0].tolist()
    assert masked == pytest.approx([*want[:6], *(v / 2 for v in want[6:])], abs=1e-15)


def test_levels_come_in_from_coarse_to_fine():
    assert coarse_to_fine(0.0, 4, 0.9).tolist() == [1, 0, 0, 0]
    assert coarse_to_fine(0.45, 4, 0.9).tolist() == [1, 1, 0.5, 0]
    assert coarse_to_fine(0.9, 4, 0.9).tolist() == [1, 1, 1, 1]
    assert coarse_to_fine(0.3, 4, 0.0).tolist() == [1, 1, 1, 1]
