"""Laws of VolSDF's density and sampler: its bounds hold against dense quadrature."""

import math

import pytest
import torch
from torch.nn.functional import normalize

from sparse3d.fields.error_bound import (
    ErrorBoundConfig,
    bound_error,
    enough_scale,
    laplace_density,
    least_distance,
    opacity_error,
    place_samples,
    seen_samples,
)

CENTRES = torch.tensor([[0.0, 0, 0], [0.4, 0.3, -0.2], [-0.3, -0.5, 0.4]], dtype=torch.float64)
RADII = torch.tensor([0.3, 0.2, 0.25], dtype=torch.float64)


def distance_on(origins, directions):
    """Signed distance from three spheres along rays, t (K, m) of these rays -> (K, m); exact outside, and
    changes no faster than t everywhere."""

    def distance(t, rays=slice(None)):
        points = origins[rays, None] + t[..., None] * directions[rays, None]
        return ((points[:, :, None] - CENTRES).norm(dim=3) - RADII).amin(2)

    return distance


@pytest.fixture
def rays():
    torch.manual_seed(1)
    origins = 2 * normalize(torch.randn(60, 3, dtype=torch.float64), dim=1)
    directions = normalize(0.5 * torch.randn(60, 3, dtype=torch.float64) - origins, dim=1)
    near = torch.full((60,), 0.5, dtype=torch.float64)
    return distance_on(origins, directions), near, near + 3


def opacity_at(distance, t, beta, per_interval=400):
    """Opacity (R, n) of the ray from t[:, 0] on, by the trapezium rule between the samples."""
    part = torch.linspace(0, 1, per_interval + 1, dtype=t.dtype)
    fine = t[:, :-1, None] + t.diff(dim=1)[..., None] * part
    sigma = laplace_density(distance(fine.flatten(1)), beta).view(fine.shape)
    depth = torch.trapezoid(sigma, fine, dim=2).cumsum(1)
    return -torch.expm1(-torch.cat([torch.zeros_like(depth[:, :1]), depth], 1))


def rectangle(t, d, beta):
    """Opacity (R, n) by the left rectangle rule."""
    depth = (laplace_density(d[:, :-1], beta) * t.diff(dim=1)).cumsum(1)
    return -torch.expm1(-torch.cat([torch.zeros_like(depth[:, :1]), depth], 1))


def test_density_by_hand():
    d = torch.tensor([-100.0, -0.2, 0.0, 0.2, 100.0], dtype=torch.float64)
    want = [10, 10 - 5 * math.exp(-2), 5, 5 * math.exp(-2), 0]
    assert laplace_density(d, 0.1).tolist() == pytest.approx(want)


def test_density_is_differentiable():
    d = torch.tensor([-0.3, -0.01, 0.02, 0.5], dtype=torch.float64, requires_grad=True)
    beta = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(laplace_density, (d, beta))


def test_least_distance_is_reached_and_never_undercut(rays):
    distance, near, far = rays
    t = (near[:, None] + (far - near)[:, None] * torch.rand(60, 30, dtype=torch.float64)).sort(1).values
    least = least_distance(distance(t), t.diff(dim=1))
    part = torch.linspace(0, 1, 200, dtype=torch.float64)
    fine = t[:, :-1, None] + t.diff(dim=1)[..., None] * part
    found = distance(fine.flatten(1)).view(fine.shape).abs().amin(2)
    assert (least <= found + 1e-12).all()
    assert (least > 0).float().mean() > 0.5
    # A plane's distances along a line that runs towards it end at the nearer end.
    line = torch.tensor([[0.9, 0.5, 0.1]], dtype=torch.float64)
    assert least_distance(line, torch.tensor([[0.4, 0.4]])).tolist() == [[0.5, pytest.approx(0.1)]]


@pytest.mark.parametrize("beta", [0.02, 0.08, 0.3])
def test_bound_holds_against_dense_quadrature(rays, beta):
    distance, near, far = rays
    for count in (16, 64, 256):
        unit = torch.rand(60, count, dtype=torch.float64).sort(1).values
        t = near[:, None] + (far - near)[:, None] * unit
        d = distance(t)
        error = (opacity_at(distance, t, beta) - rectangle(t, d, beta)).abs()[:, 1:]
        bound = opacity_error(t, d, beta)
        assert (error <= bound + 1e-6).all()
    # The last partition is fine enough for the bound to say something.
    assert beta < 0.05 or bound.amax() < 1


def test_enough_scale_is_enough(rays):
    distance, near, far = rays
    for count in (8, 64):
        t = near[:, None] + (far - near)[:, None] * torch.linspace(0, 1, count, dtype=torch.float64)
        scale = enough_scale(far - near, count, 0.1)
        assert (opacity_error(t, distance(t), scale[:, None]) <= 0.1 + 1e-9).all()
        # Also for what is nothing but surface.
        assert (opacity_error(t, torch.zeros_like(t), scale[:, None]) <= 0.1 + 1e-9).all()


@pytest.mark.parametrize("beta", [0.02, 0.1])
def test_samples_keep_the_error_below_epsilon(rays, beta):
    distance, near, far = rays
    config = ErrorBoundConfig(epsilon=0.1, initial=128)
    t, d, scale = bound_error(distance, near, far, beta, config)
    assert torch.equal(d, distance(t)) and (t.diff(dim=1) >= 0).all()
    assert (scale == beta).all(), "five rounds are enough for this scene"
    error = (opacity_at(distance, t, beta) - rectangle(t, d, beta)).abs()
    assert error.max() <= config.epsilon
    assert beta > 0.05 or t.shape[1] > 128, "and even samples alone are not"


def test_a_scale_that_is_too_small_is_widened_not_missed(rays):
    distance, near, far = rays
    config = ErrorBoundConfig(epsilon=0.05, initial=16, rounds=1)
    t, d, scale = bound_error(distance, near, far, 0.002, config)
    assert (scale > 0.002).any() and t.shape[1] == 32
    assert (opacity_error(t, d, scale[:, None]) <= config.epsilon + 1e-9).all()


def test_samples_gather_where_light_is_lost(rays):
    distance, near, far = rays
    config = ErrorBoundConfig(samples=64, even=8)
    bounded = bound_error(distance, near, far, 0.01, config)
    t = place_samples(bounded, config, torch.full_like(near, 0.5))
    assert t.shape == (60, 72) and (t.diff(dim=1) >= 0).all() and torch.equal(t[:, 0], near)
    hits = bounded.d.amin(1) < -0.05
    assert hits.sum() > 10
    assert (distance(t)[hits].abs() < 0.06).float().mean() > 0.7


def test_rays_without_length():
    near = torch.zeros(2)
    bounded = bound_error(lambda t, rays: torch.ones_like(t), near, near, 0.01, ErrorBoundConfig())
    assert torch.isfinite(place_samples(bounded, ErrorBoundConfig(), near)).all()


def test_what_is_left_out_cannot_be_seen(rays):
    """Distances off by up to the slack; each sample that is left out may cost its alpha, or the light that is
    left behind it."""
    distance, near, far = rays
    torch.manual_seed(3)
    t = near[:, None] + (far - near)[:, None] * torch.rand(60, 200, dtype=torch.float64).sort(1).values
    dt = torch.cat([t, far[:, None]], 1).diff(dim=1)
    d, beta, slack = distance(t), 0.01, 0.004
    kept = seen_samples(d + slack * (2 * torch.rand_like(d) - 1), dt, slack, beta)
    depth = laplace_density(d, beta) * dt
    seen = [-torch.expm1(-(depth * k).cumsum(1)) for k in (torch.ones_like(kept), kept)]
    assert kept.float().mean() < 0.2
    assert (seen[0][:, -1] - seen[1][:, -1]).abs().max() < 1e-3 + 200 * 1e-4
    assert kept[depth > 1].any() and not kept.all()
