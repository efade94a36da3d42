"""Laws of the priors on rays: where they are zero, what they pull, and their gradients."""

import math

import pytest
import torch

from sparse3d.fields import priors
from sparse3d.fields.space import SpaceConfig
from sparse3d_ops.composite import composite
from sparse3d_ops.raymarch import Samples


def wall(position, count=64, thickness=1, sigma=40.0, length=2.0):
    """One ray of even samples over `length` metres whose density stands in some cells: sigma, samples."""
    dt = torch.full((count,), length / count, dtype=torch.float64)
    t = (torch.arange(count, dtype=torch.float64) + 0.5) * length / count
    density = torch.zeros(count, dtype=torch.float64)
    density[position : position + thickness] = sigma
    return density, Samples(torch.tensor([0, count]), t, dt)


def weights_of(sigma, samples):
    return composite(
        sigma, torch.zeros(len(sigma), 0, dtype=sigma.dtype), samples.dt, samples.ray_starts
    ).weights


def reach(samples, share, near=0.0, far=2.0):
    rays = len(samples.ray_starts) - 1
    return torch.full((rays,), near + share * (far - near), dtype=torch.float64)


def test_occlusion_sees_the_near_share_alone():
    sigma = torch.rand(64, dtype=torch.float64)
    _, samples = wall(0)
    whole = priors.occlusion(sigma, samples, reach(samples, 0.25))
    assert torch.isclose(whole, (sigma * samples.dt)[:16].sum())
    sigma[16:] *= 100
    assert torch.equal(priors.occlusion(sigma, samples, reach(samples, 0.25)), whole)
    # The same share of a field that begins later is another part of the ray.
    later = priors.occlusion(sigma, samples, reach(samples, 0.25, near=1.0))
    assert torch.isclose(later, (sigma * samples.dt)[:40].sum())


def test_occlusion_counts_rays_that_met_nothing():
    sigma, samples = wall(2)
    once = priors.occlusion(sigma, samples, reach(samples, 0.5))
    with_empty = samples._replace(ray_starts=torch.tensor([0, 64, 64]))
    assert torch.isclose(priors.occlusion(sigma, with_empty, reach(with_empty, 0.5)), once / 2)


def test_distortion_is_less_for_one_wall_than_for_two_or_haze_and_has_no_unit():
    one, samples = wall(20, sigma=1e4)
    two = one.clone()
    two[20], two[50] = math.log(2) / samples.dt[0], 1e4
    haze = torch.full_like(one, 3.0)
    of = [
        float(priors.spread(weights_of(s, samples), samples, SpaceConfig(side=1.0))) for s in (one, two, haze)
    ]
    assert of[0] < 0.1 * min(of[1:])
    larger = Samples(samples.ray_starts, samples.t * 5, samples.dt * 5)
    assert math.isclose(
        float(priors.spread(weights_of(two / 5, larger), larger, SpaceConfig(side=5.0))), of[1], rel_tol=1e-12
    )


def test_sparsity_takes_haze_before_walls():
    # The same optical depth, as a wall of one cell and as haze over all: the haze costs more, and its
    # densities are pulled down harder.
    wall_sigma, samples = wall(20, sigma=64.0)
    haze = torch.full_like(wall_sigma, 1.0)
    assert priors.cauchy(wall_sigma, samples, 1.0) < 0.5 * priors.cauchy(haze, samples, 1.0)
    assert priors.cauchy(torch.zeros_like(haze), samples, 1.0) == 0
    pulls = []
    for density in (haze[0], wall_sigma[20]):
        sigma = torch.zeros_like(haze)
        sigma[20] = density
        sigma.requires_grad_()
        priors.cauchy(sigma, samples, 1.0).backward()
        assert sigma.grad is not None
        pulls.append(float(sigma.grad[20]))
    assert pulls[0] > 10 * pulls[1] > 0


def test_entropy_is_zero_for_what_is_certain_and_most_for_a_half():
    certain = torch.tensor([0.0, 1.0], dtype=torch.float64)
    assert float(priors.opacity_entropy(certain)) < 1.1e-3  # what the clamp leaves
    assert math.isclose(float(priors.opacity_entropy(torch.full((5,), 0.5))), math.log(2), rel_tol=1e-6)
    opacity = torch.tensor([0.3, 0.7], dtype=torch.float64, requires_grad=True)
    priors.opacity_entropy(opacity).backward()
    assert opacity.grad is not None
    assert opacity.grad[0] > 0 > opacity.grad[1], "towards the nearer end"


def test_silhouette_is_zero_where_opacities_agree():
    alpha = torch.rand(7)
    assert priors.silhouette(alpha, alpha) == 0
    assert torch.isclose(priors.silhouette(alpha + 0.1, alpha), torch.tensor(0.01))


def test_gradients_are_the_differences():
    torch.manual_seed(0)
    sigma = torch.rand(12, dtype=torch.float64) * 3
    starts = torch.tensor([0, 5, 5, 12])
    t = torch.cat([torch.rand(5).cumsum(0), torch.rand(7).cumsum(0)]).double()
    samples = Samples(starts, t, torch.rand(12).double() * 0.3)
    near = torch.zeros(3, dtype=torch.float64)
    laws = [
        lambda s: priors.occlusion(s, samples, near + 1.2),
        lambda s: priors.spread(weights_of(s, samples), samples, SpaceConfig(side=2.0)),
        lambda s: priors.cauchy(s, samples, 0.7, 1.5),
        lambda s: priors.opacity_entropy(
            composite(s, torch.zeros(12, 0).double(), samples.dt, starts).opacity[[0, 2]]
        ),
    ]
    for law in laws:
        assert torch.autograd.gradcheck(law, (sigma.clone().requires_grad_(),))


@pytest.mark.parametrize(
    "make",
    [
        lambda: priors.OcclusionConfig(weight=0.0),
        lambda: priors.OcclusionConfig(share=1.0),
        lambda: priors.SparsityConfig(scale=-1.0),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make):
    with pytest.raises(ValueError):
        make()
