"""Variation of sparse features equals that of dense volumes, and costs nothing at the border."""

import pytest
import torch

from sparse3d.nn.sums import repeatable_sum
from sparse3d.nn.total_variation import squared_variation, total_variation
from sparse3d.tensor import SparseTensor


def full_grid(side=4, channels=2, frames=2):
    axes = [torch.arange(frames), *[torch.arange(side) - 1] * 3]
    coordinates = torch.cartesian_prod(*axes).int()
    features = torch.randn(len(coordinates), channels, dtype=torch.float64)
    return coordinates, features, features.view(frames, side, side, side, channels)


def test_squared_variation_of_a_full_grid():
    coordinates, features, volume = full_grid()
    want = sum(volume.diff(dim=axis).square().sum() for axis in (1, 2, 3)) / 2
    torch.testing.assert_close(squared_variation(SparseTensor(features, coordinates)), want)
    shuffled = torch.randperm(len(features))
    again = squared_variation(SparseTensor(features[shuffled], coordinates[shuffled]))
    torch.testing.assert_close(again, want)


def test_total_variation_of_a_full_grid():
    coordinates, features, volume = full_grid()
    squares = torch.zeros_like(volume)
    for axis in (1, 2, 3):
        squares.narrow(axis, 0, 3).add_(volume.diff(dim=axis).square())
    want = ((squares + 1e-8).sqrt() - 1e-4).mean()
    torch.testing.assert_close(total_variation(SparseTensor(features, coordinates)), want)


def test_missing_neighbours_cost_nothing():
    # Three voxels, the last two apart along a diagonal: only the first pair shares a face.
    coordinates = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [0, 2, 1, 0]], dtype=torch.int32)
    features = torch.tensor([[1.0], [4.0], [100.0]])
    x = SparseTensor(features, coordinates)
    assert squared_variation(x).item() == 4.5
    assert total_variation(x, softening=0).item() == pytest.approx(1.0)


def test_constant_features_have_none():
    coordinates, features, _ = full_grid()
    x = SparseTensor(torch.ones_like(features).requires_grad_(), coordinates)
    value = total_variation(x)
    value.backward()
    assert value == 0 and not x.features.grad.any()


@pytest.mark.parametrize("variation", [total_variation, squared_variation])
def test_gradients_equal_finite_differences(variation):
    coordinates, features, _ = full_grid(3, 1)
    some = torch.randperm(len(features))[:30]
    coordinates, features = coordinates[some], features[some].requires_grad_()
    assert torch.autograd.gradcheck(lambda f: variation(SparseTensor(f, coordinates)), features)


def test_no_voxels():
    x = SparseTensor(torch.zeros(0, 2), torch.zeros(0, 4, dtype=torch.int32))
    assert total_variation(x) == 0 and squared_variation(x) == 0


def test_sums_do_not_depend_on_the_number_of_threads():
    values, found = torch.randn(300_001), []
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(repeatable_sum(values))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
    assert float(found[0]) == pytest.approx(float(values.double().sum()), abs=1e-2)
