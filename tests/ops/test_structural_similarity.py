"""What the law suite does not ask of structural similarity."""

import pytest
import torch

from sparse3d_ops.structural_similarity import ssim_map, ssim_slope


def test_it_is_symmetric_and_one_for_the_same_picture():
    x, y = torch.rand(20, 25, 3), torch.rand(20, 25, 3)
    assert torch.allclose(ssim_map(x, y), ssim_map(y, x), atol=1e-6)
    assert torch.equal(ssim_map(x, x), torch.ones(10, 15, 3))
    assert ssim_slope(torch.ones(10, 15, 3), x, x).abs().max() < 1e-3, "nothing to gain where both agree"


def test_only_what_was_asked_for_is_differentiated():
    x, y = torch.rand(12, 12, 1, requires_grad=True), torch.rand(12, 12, 1)
    ssim_map(x, y).sum().backward()
    assert x.grad is not None and y.grad is None


@pytest.mark.parametrize(
    ("shape", "other", "message"),
    [
        ((10, 20, 3), (10, 20, 3), "window"),
        ((20, 20, 3), (20, 19, 3), "shape"),
        ((20, 20), (20, 20), "shape"),
    ],
)
def test_pictures_that_do_not_fit_are_refused(shape, other, message):
    with pytest.raises(ValueError, match=message):
        ssim_map(torch.zeros(shape), torch.zeros(other))
    with pytest.raises(ValueError, match="float"):
        ssim_map(torch.zeros(20, 20, 1), torch.zeros(20, 20, 1, dtype=torch.float64))
