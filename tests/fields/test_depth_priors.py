"""Laws of where the light of rays ends."""

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


def test_nothing_costs_nothing():
    none = torch.zeros(0, requires_grad=True)
    samples = Samples(torch.zeros(1, dtype=torch.int64), torch.zeros(0), torch.zeros(0))
    loss = depth_priors.ends_at(none, samples, none, none)
    assert loss == 0
    loss.backward()


def test_gradients_are_the_differences():
    torch.manual_seed(0)
    a = torch.rand(6, dtype=DOUBLE, requires_grad=True)
    samples = even_samples(6, 1.0)
    at, spread = torch.tensor([0.4], dtype=DOUBLE), torch.tensor([0.2], dtype=DOUBLE)
    assert torch.autograd.gradcheck(lambda w: depth_priors.ends_at(w, samples, at, spread), (a,))


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
