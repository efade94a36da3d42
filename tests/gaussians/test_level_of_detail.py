"""Laws of levels of detail: what stays when many Gaussians become one."""

import pytest
import torch

from sparse3d.gaussians.level_of_detail import MOST_OPACITY, coarser, levels, mass, match_moments, shadow_area
from sparse3d.gaussians.shapes import covariances
from tests.gaussians.clouds import DOUBLE, some_cloud


def moments(cloud):
    m = mass(cloud)[:, None]
    mean = (m * cloud.means).sum(0) / m.sum()
    off = cloud.means - mean
    second = covariances(cloud.scales, cloud.quats) + off[:, :, None] * off[:, None]
    return m.sum(), mean, (m[:, :, None] * second).sum(0) / m.sum()


@pytest.mark.parametrize("surfels", [False, True])
def test_mass_mean_and_covariance_of_the_whole_stay(surfels):
    # Small and faint, so that no voxel becomes opaque.
    cloud = some_cloud(800, surfels=surfels, size=0.01)
    found = levels(cloud, 0.1, 4)
    assert 800 > len(found[0]) > len(found[1]) > len(found[2]) > len(found[3]) >= 8
    before = moments(cloud)
    for level in found:
        after = moments(level)
        assert torch.allclose(after[0], before[0], rtol=1e-12)
        assert torch.allclose(after[1], before[1], atol=1e-13)
        if not surfels:  # a surfel has no thickness to keep
            assert torch.allclose(after[2], before[2], atol=1e-13)
        colors = [(mass(c)[:, None, None] * c.shN).sum(0) for c in (cloud, level)]
        assert torch.allclose(*colors, atol=1e-13)


def test_one_alone_stays_itself():
    cloud = some_cloud(20)
    merged = match_moments(cloud, torch.arange(20), 20)
    assert torch.allclose(merged.means, cloud.means) and torch.allclose(merged.shN, cloud.shN)
    assert torch.allclose(merged.opacities, cloud.opacities, atol=1e-9)
    was, now = (covariances(c.scales, c.quats) for c in (cloud, merged))
    assert torch.allclose(now, was, atol=1e-15)


def test_what_would_be_more_than_opaque_is_opaque():
    cloud = some_cloud(1)
    many = match_moments(cloud[torch.zeros(50, dtype=torch.long)], torch.zeros(50, dtype=torch.long), 1)
    assert torch.isclose(torch.sigmoid(many.opacities[0]), torch.tensor(MOST_OPACITY, dtype=DOUBLE))
    assert torch.allclose(many.means, cloud.means)


def test_shadows_of_known_bodies():
    ball = torch.full((1, 3), 0.5, dtype=DOUBLE).log()
    assert torch.isclose(shadow_area(ball)[0], torch.tensor(torch.pi / 4, dtype=DOUBLE))
    disc = torch.full((1, 2), 0.5, dtype=DOUBLE).log()  # half of its two sides, on the mean of |cos|
    assert torch.isclose(shadow_area(disc)[0], torch.tensor(torch.pi / 8, dtype=DOUBLE), rtol=0.012)


def test_gaussians_without_a_voxel_are_left_out():
    cloud = some_cloud(10, size=0.01)
    cloud.means[3] = float("nan")
    cloud.opacities[5] = -float("inf")
    merged = coarser(cloud, 100.0)
    # Eight octants around the origin.
    assert torch.isfinite(merged.means).all() and len(merged) <= 8
    kept = [row for row in range(10) if row not in (3, 5)]
    assert torch.isclose(mass(merged).sum(), mass(cloud[kept]).sum())
    with pytest.raises(ValueError, match="no mass"):
        match_moments(some_cloud(2), torch.zeros(2, dtype=torch.long), 2)
