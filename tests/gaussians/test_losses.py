"""Laws of what renderings are asked to be, of appearance, and of what few views need."""

import math

import pytest
import torch

from sparse3d.evaluation import images
from sparse3d.gaussians import few_views, losses
from sparse3d.gaussians.appearance import AppearanceConfig, AppearanceEmbedding, Exposure
from sparse3d.gaussians.few_views import FloatersConfig, OpacityDropConfig
from tests.gaussians.clouds import DOUBLE, some_cloud


def picture(height=16, width=20, seed=0):
    return torch.rand(height, width, 3, generator=torch.Generator().manual_seed(seed), dtype=DOUBLE)


# ---- pictures ----------------------------------------------------------------------------------------------


def test_photometric_is_what_evaluation_measures():
    a, b = picture(), picture(seed=1)
    found = float(losses.photometric(a, b, 0.2))
    similar = images.ssim(a.numpy(), b.numpy())
    assert math.isclose(found, 0.8 * float((a - b).abs().mean()) + 0.2 * (1 - similar), rel_tol=1e-12)
    assert losses.photometric(a, a) < 1e-12
    assert torch.isclose(losses.photometric(a, b, 0.0), (a - b).abs().mean())


def test_photometric_of_a_mask_does_not_see_what_is_hidden():
    a, b = picture(), picture(seed=1)
    mask = torch.zeros(16, 20, dtype=torch.bool)
    mask[:, :8] = True
    changed = a.clone()
    changed[:, 8:] = 0.5
    assert torch.equal(losses.photometric(a, b, mask=mask), losses.photometric(changed, b, mask=mask))
    plain = losses.photometric(a, b, 0.0, mask)
    assert torch.isclose(plain, (a - b).abs()[:, :8].mean())
    assert losses.photometric(a, b, mask=torch.zeros_like(mask)) == 0


def test_gradients_are_the_differences():
    a, b = picture(11, 12).requires_grad_(), picture(11, 12, seed=1)
    mask = picture(11, 12, seed=2)[..., 0] > 0.3
    assert torch.autograd.gradcheck(lambda x: losses.photometric(x, b, 0.2, mask), (a,))
    depth = (picture(11, 12, seed=3)[..., 0] + 1).requires_grad_()
    alpha, color = torch.ones(11, 12, dtype=DOUBLE), b
    prior = picture(11, 12, seed=4)[..., 1]
    config = losses.RelativeDepthConfig(side=5)
    assert torch.autograd.gradcheck(lambda d: losses.relative_depth_error(d, alpha, prior, config), (depth,))
    assert torch.autograd.gradcheck(lambda d: few_views.unseen_roughness(d, alpha, color), (depth,))
    assert torch.autograd.gradcheck(lambda d: few_views.floaters(d, prior + 1, alpha), (depth,))
    opacities = torch.randn(6, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(losses.opacity_mean, (opacities,))
    assert torch.autograd.gradcheck(lambda s: losses.scale_mean(s, 3.0), (opacities,))


def test_regularisers_are_means_of_what_is_drawn():
    cloud = some_cloud(9)
    assert torch.isclose(losses.opacity_mean(cloud.opacities), cloud.opacities.sigmoid().mean())
    assert torch.isclose(losses.scale_mean(cloud.scales, 2.0), cloud.scales.exp().mean() / 2)
    none = some_cloud(0)
    assert losses.opacity_mean(none.opacities) == 0 and losses.scale_mean(none.scales) == 0
    alpha = picture()[..., 0]
    assert losses.alpha_error(alpha, alpha) == 0
    assert torch.isclose(losses.alpha_error(alpha, alpha + 0.1), torch.tensor(0.1, dtype=DOUBLE))


# ---- depth -------------------------------------------------------------------------------------------------


def test_measured_depth_counts_where_it_is_known_and_something_is_seen():
    depth = torch.tensor([[2.0, 2.0, 2.0, 2.0]])
    measured = torch.tensor([[2.1, float("nan"), 0.0, 5.0]])
    alpha = torch.tensor([[1.0, 1.0, 1.0, 0.1]])
    config = losses.DepthConfig(within=1.0)
    found = losses.depth_error(depth, alpha, measured, 2.0, config)
    assert torch.isclose(found, torch.tensor(0.05**2 / 2))
    assert losses.depth_error(depth, alpha * 0, measured, 2.0, config) == 0


def test_relative_depth_knows_no_scale_but_each_square_its_own():
    depth = picture(12, 12)[..., 0] + 1
    alpha = torch.ones(12, 12, dtype=DOUBLE)
    prior = 3 / depth + 5
    config = losses.RelativeDepthConfig(side=6)
    assert losses.relative_depth_error(depth, alpha, prior, config) < 1e-12
    shifted = prior.clone()
    shifted[:6] += 40  # one half of the map at another scale: the squares still agree
    assert losses.relative_depth_error(depth, alpha, shifted, config) > 0.01
    local = losses.RelativeDepthConfig(weight=0.0, side=6)
    assert losses.relative_depth_error(depth, alpha, shifted, local) < 1e-10
    metric = losses.RelativeDepthConfig(disparity=False)
    assert losses.relative_depth_error(depth, alpha, 2 * depth, metric) < 1e-12


# ---- few views ---------------------------------------------------------------------------------------------


def test_dropped_ones_are_gone_and_the_others_stand_in_for_them():
    cloud = some_cloud(20_000)
    opacity = cloud.opacities.sigmoid()
    config = OpacityDropConfig(rate=0.4)
    for progress, rate in ((1.0, 0.4), (0.5, 0.2), (0.0, 0.0)):
        random = torch.Generator().manual_seed(2)
        now = few_views.with_dropped(cloud, config, progress, random).opacities.sigmoid()
        gone = now == 0
        assert abs(float(gone.double().mean()) - rate) < 0.015
        assert torch.allclose(now[~gone], (opacity[~gone] / (1 - rate)).clamp(max=0.9999), rtol=1e-9)
    steady = OpacityDropConfig(rate=0.4, grows=False)
    assert not few_views.with_dropped(cloud, steady, 0.0, random).opacities.isfinite().all()
    logits = cloud.opacities[:50].clone().requires_grad_()
    part = type(cloud).of(cloud[:50].parameters() | {"opacities": logits})
    dropped = few_views.with_dropped(part, steady, 1.0, random)
    dropped.opacities.sigmoid().sum().backward()
    assert torch.isfinite(logits.grad).all()
    assert torch.equal(logits.grad == 0, (dropped.opacities.sigmoid() == 0) | (logits.sigmoid() > 0.59994))


def test_a_ray_that_ends_at_one_depth_has_no_floaters():
    depth = torch.full((4, 5), 2.0)
    alpha = torch.ones(4, 5)
    assert few_views.floaters(depth, depth, alpha) == 0
    assert torch.isclose(few_views.floaters(0.9 * depth, depth, alpha), torch.tensor(0.1))
    assert few_views.floaters(0.9 * depth, depth, alpha * 0.3) == 0
    assert few_views.floaters(0.9 * depth, depth * 0, alpha) == 0


def test_near_the_lens_opacity_costs():
    cloud = some_cloud(100)
    centre = torch.tensor([0.0, 0.0, -3.0], dtype=DOUBLE)
    depth, alpha = torch.full((4, 4), 3.0, dtype=DOUBLE), torch.ones(4, 4, dtype=DOUBLE)
    near = (cloud.means - centre).norm(dim=1) < 0.9 * 3
    expected = (cloud.opacities.sigmoid() * near).sum() / 100
    assert 0 < int(near.sum()) < 100
    assert torch.isclose(few_views.near_lens(cloud, centre, depth, alpha, 0.9), expected)
    assert few_views.near_lens(cloud, centre, depth, alpha * 0, 0.9) == 0


def test_counterparts_are_found_by_measuring():
    one, other = some_cloud(300).means, some_cloud(200, seed=1).means
    for within in (0.02, 0.15, 1.0):
        expected = torch.cdist(one, other).amin(1) <= within
        assert torch.equal(few_views.has_counterpart(one, other, within), expected)
    assert not few_views.has_counterpart(one, other[:0], 1.0).any()
    lost = one.clone()
    lost[0, 0] = float("nan")
    assert not few_views.has_counterpart(lost, other, 9.0)[0]


def test_disagreement_pulls_both():
    one, other = picture().requires_grad_(), picture(seed=1).requires_grad_()
    few_views.disagreement(one, other).backward()
    assert one.grad is not None and other.grad is not None
    assert few_views.disagreement(one.detach(), one.detach()) < 1e-12


def test_planes_are_smooth_however_they_are_turned():
    v, u = torch.meshgrid(torch.arange(12, dtype=DOUBLE), torch.arange(14, dtype=DOUBLE), indexing="ij")
    alpha, grey = torch.ones(12, 14, dtype=DOUBLE), torch.full((12, 14, 3), 0.5, dtype=DOUBLE)
    plane = 1 / (0.2 + 0.01 * u - 0.005 * v)
    assert few_views.unseen_roughness(plane, alpha, grey) < 1e-14
    bent = 1 / (1 / plane + 0.1 * (u >= 7))  # two planes with a step between them
    rough = few_views.unseen_roughness(bent, alpha, grey)
    assert rough > 0.01 and torch.isclose(few_views.unseen_roughness(5 * bent, alpha, grey), rough)
    painted = grey.clone()
    painted[:, 7:] = 1.0
    assert few_views.unseen_roughness(bent, alpha, painted) < 0.1 * rough, "a step that is seen"
    clear = alpha.clone()
    clear[:, 6:8] = 0
    assert few_views.unseen_roughness(bent, clear, grey) < 1e-14
    assert few_views.unseen_roughness(plane[:2, :2], alpha[:2, :2], grey[:2, :2]) == 0


# ---- appearance --------------------------------------------------------------------------------------------


def test_exposure_starts_as_no_change_and_learns_that_of_each_photo():
    scene = picture(8, 8).float()
    exposure = Exposure(3)
    assert torch.allclose(exposure(scene, 1), scene) and exposure.drift() == 0
    truth = torch.tensor([[0.8, 0.1, 0, 0.05], [0, 1.1, 0, -0.02], [0.05, 0, 0.7, 0.1]])
    photos = [scene, scene @ truth[:, :3].T + truth[:, 3], scene * 1.3]
    optimizer = torch.optim.Adam(exposure.parameters(), lr=0.02)
    for _ in range(400):
        optimizer.zero_grad()
        sum(((exposure(scene, k) - photos[k]) ** 2).mean() for k in range(3)).backward()
        optimizer.step()
    assert torch.allclose(exposure.matrices[1], truth, atol=0.02)
    assert torch.allclose(exposure(scene, 2), photos[2], atol=0.02) and exposure.drift() > 0


def test_codes_start_as_no_change_and_tell_photos_apart():
    torch.manual_seed(0)
    embedding = AppearanceEmbedding(2, AppearanceConfig(size=4, width=16))
    colors = torch.rand(50, 3)
    assert torch.equal(embedding(colors, colors, 0), colors)
    optimizer = torch.optim.Adam(embedding.parameters(), lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        wanted = (colors * 0.5, colors + 0.1)
        sum(((embedding(colors, colors, k) - wanted[k]) ** 2).mean() for k in range(2)).backward()
        optimizer.step()
    assert torch.allclose(embedding(colors, colors, 0), wanted[0], atol=0.08)
    assert torch.allclose(embedding(colors, colors, 1), wanted[1], atol=0.08)


@pytest.mark.parametrize(
    "make",
    [
        lambda: losses.OpacityConfig(weight=0.0),
        lambda: losses.RelativeDepthConfig(weight=0.0, local=0.0),
        lambda: OpacityDropConfig(rate=1.0),
        lambda: FloatersConfig(weight=-1.0),
        lambda: few_views.CoRegularizationConfig(apart=0.0),
        lambda: few_views.NearLensConfig(share=1.0),
        lambda: few_views.SmoothUnseenConfig(edge=-1.0),
        lambda: AppearanceConfig(size=0),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make):
    with pytest.raises(ValueError):
        make()
