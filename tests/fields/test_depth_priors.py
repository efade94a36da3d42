"""Laws of the priors on depth: when they are zero, what they do not change with, and their gradients."""

import pytest
import torch

from sparse3d.fields import depth_priors
from sparse3d_ops.raymarch import Samples

DOUBLE = torch.float64


def normal_light(distance, spread, samples):
    return torch.distributions.Normal(distance, spread).log_prob(samples.t).exp() * samples.dt


def even_samples(count=200, length=2.0):
    dt = torch.full((count,), length / count, dtype=DOUBLE)
    return Samples(torch.tensor([0, count]), (torch.arange(count, dtype=DOUBLE) + 0.5) * length / count, dt)


def test_ranking_is_zero_for_the_right_order_and_grows_with_the_wrong_one():
    nearer, farther = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([1.5, 2.1, 3.0])
    assert depth_priors.ranking(nearer, farther, 1e-4) == 0
    assert torch.isclose(depth_priors.ranking(farther, nearer, 0.0), torch.tensor((0.5 + 0.1 + 2.5) / 3))
    # Depths of any scale and offset have the same order; with no margin the loss scales along.
    wrong = depth_priors.ranking(farther, nearer, 0.0)
    assert torch.isclose(depth_priors.ranking(3 * farther + 7, 3 * nearer + 7, 0.0), 3 * wrong)
    assert depth_priors.ranking(3 * nearer + 7, 3 * farther + 7, 1e-4) == 0


def test_ranking_pulls_the_nearer_one_closer_and_leaves_right_pairs_alone():
    nearer = torch.tensor([2.0, 1.0], requires_grad=True)
    farther = torch.tensor([1.0, 2.0], requires_grad=True)
    depth_priors.ranking(nearer, farther, 1e-4).backward()
    assert nearer.grad is not None and farther.grad is not None
    assert nearer.grad.tolist() == [0.5, 0.0] and farther.grad.tolist() == [-0.5, 0.0]


def test_continuity_allows_the_margin():
    depth = torch.tensor([1.0, 1.0, 1.0])
    assert depth_priors.continuity(depth, depth + 0.01, 0.0101) == 0
    assert torch.isclose(depth_priors.continuity(depth, depth - 0.5, 0.1), torch.tensor(0.4))


def test_metric_depth_leaves_unknown_pixels_out_and_is_linear_far_away():
    depth = torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE, requires_grad=True)
    measured = torch.tensor([1.01, float("nan"), 5.0], dtype=DOUBLE)
    loss = depth_priors.metric_depth(depth, measured, 0.1)
    assert torch.isclose(loss, torch.tensor((0.01**2 / 2 + 0.1 * (2 - 0.05)) / 2, dtype=DOUBLE))
    loss.backward()
    assert depth.grad is not None
    assert torch.allclose(depth.grad, torch.tensor([-0.005, 0.0, -0.05], dtype=DOUBLE))
    assert depth_priors.metric_depth(depth, torch.full_like(measured, float("nan")), 0.1) == 0


def test_light_that_ends_at_the_point_costs_least():
    samples = even_samples()
    at, spread = torch.tensor([1.2], dtype=DOUBLE), torch.tensor([0.1], dtype=DOUBLE)
    own = depth_priors.ends_at(normal_light(1.2, 0.1, samples), samples, at, spread)
    for other in (normal_light(1.25, 0.1, samples), normal_light(1.2, 0.15, samples), samples.dt / 2):
        assert depth_priors.ends_at(other, samples, at, spread) > own + 0.05
    # Gibbs: what is least is the entropy of the normal distribution.
    entropy = torch.distributions.Normal(0.0, 0.1).entropy()
    assert abs(float(own - entropy)) < 0.02  # of the 1e-5 within the logarithm


def test_light_is_asked_for_at_the_point_and_not_elsewhere():
    samples = even_samples(20)
    weights = torch.full((20,), 0.02, dtype=DOUBLE, requires_grad=True)
    at, spread = torch.tensor([1.05], dtype=DOUBLE), torch.tensor([0.05], dtype=DOUBLE)
    depth_priors.ends_at(weights, samples, at, spread).backward()
    assert weights.grad is not None
    assert weights.grad.argmin() == 10 and weights.grad[10] < -1 and abs(float(weights.grad[0])) < 1e-9


def planes(slope_x, slope_y, offset=2.0, side=6):
    y, x = torch.meshgrid(torch.arange(side, dtype=DOUBLE), torch.arange(side, dtype=DOUBLE), indexing="ij")
    return (offset + slope_x * x + slope_y * y)[None]


def test_roughness_is_zero_for_planes_that_face_the_camera_and_grows_with_their_slant():
    opaque = torch.ones(1, 6, 6, dtype=DOUBLE)
    assert depth_priors.roughness(planes(0, 0), opaque) == 0
    assert torch.isclose(
        depth_priors.roughness(planes(0.1, 0.2), opaque), torch.tensor(0.01 + 0.04, dtype=DOUBLE)
    )


def test_roughness_does_not_cross_what_is_transparent_and_cannot_be_dodged_by_it():
    depth, opacity = planes(0, 0).clone(), torch.ones(1, 6, 6, dtype=DOUBLE)
    depth[..., 3:] = 9
    opacity[..., 3:] = 0
    opacity.requires_grad_()
    depth.requires_grad_()
    loss = depth_priors.roughness(depth, opacity)
    assert loss == 0
    loss.backward()
    assert opacity.grad is None


def test_nothing_costs_nothing():
    none = torch.zeros(0, requires_grad=True)
    samples = Samples(torch.zeros(1, dtype=torch.int64), torch.zeros(0), torch.zeros(0))
    losses = [
        depth_priors.ranking(none, none, 1e-4),
        depth_priors.continuity(none, none, 1e-4),
        depth_priors.metric_depth(none, none, 0.1),
        depth_priors.ends_at(none, samples, none, none),
        depth_priors.roughness(none.view(0, 4, 4), none.view(0, 4, 4)),
    ]
    assert [float(loss.detach()) for loss in losses] == [0.0] * 5
    sum(losses).backward()  # pyright: ignore[reportAttributeAccessIssue]


def test_gradients_are_the_differences():
    torch.manual_seed(0)
    a, b = (torch.rand(6, dtype=DOUBLE, requires_grad=True) for _ in range(2))
    samples = even_samples(6, 1.0)
    at, spread = torch.tensor([0.4], dtype=DOUBLE), torch.tensor([0.2], dtype=DOUBLE)
    opaque = torch.rand(2, 3, 3, dtype=DOUBLE)
    patches = torch.rand(2, 3, 3, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y: depth_priors.ranking(x, y, 0.01), (a, b))
    assert torch.autograd.gradcheck(lambda x, y: depth_priors.continuity(x, y, 0.01), (a, b))
    assert torch.autograd.gradcheck(lambda x: depth_priors.metric_depth(x, b.detach(), 0.2), (a,))
    assert torch.autograd.gradcheck(lambda w: depth_priors.ends_at(w, samples, at, spread), (a,))
    assert torch.autograd.gradcheck(lambda d: depth_priors.roughness(d, opaque), (patches,))


@pytest.mark.parametrize(
    "make",
    [
        lambda: depth_priors.DepthRankingConfig(groups=0),
        lambda: depth_priors.UnseenViewsConfig(side=1),
        lambda: depth_priors.ScenePointsConfig(spread=0.0),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make):
    with pytest.raises(ValueError):
        make()
