"""The density of clouds against its formula, and the surfaces cut out of it against spheres."""

import math

import numpy as np
import pytest
import torch

from sparse3d.gaussians.cloud import SH0, GaussianCloud
from sparse3d.gaussians.density import CloudDensity, box_of
from sparse3d.gaussians.density_mesh import DensityMeshConfig, density_mesh
from sparse3d.gaussians.shapes import covariances
from tests.gaussians.clouds import DOUBLE, some_cloud


def balls(middles, sigma, opacity=0.9, colors=None):
    """Isotropic Gaussians."""
    middles = torch.tensor(middles)
    count = len(middles)
    quats = torch.zeros(count, 4)
    quats[:, 0] = 1
    shades = torch.full((count, 3), 0.5) if colors is None else torch.tensor(colors)
    return GaussianCloud(
        middles,
        torch.full((count, 3), math.log(sigma)),
        quats,
        torch.full((count,), math.log(opacity / (1 - opacity))),
        ((shades - 0.5) / SH0)[:, None],
        torch.zeros(count, 0, 3),
    )


@pytest.mark.parametrize("voxel_size", [0.1, 0.7])
def test_density_is_the_sum_over_all_gaussians(voxel_size):
    cloud = some_cloud(200, degree=0, size=0.15)
    box = torch.tensor([[-2.0] * 3, [2.0] * 3], dtype=DOUBLE)
    points = torch.rand(300, 3, dtype=DOUBLE, generator=torch.Generator().manual_seed(1)) * 4.4 - 2.2
    found = CloudDensity(cloud, box, voxel_size, 1e-6)(points)
    off = points[:, None] - cloud.means
    inverse = torch.linalg.inv(covariances(cloud.scales, cloud.quats))
    weights = torch.sigmoid(cloud.opacities) * torch.exp(
        -torch.einsum("qni,nij,qnj->qn", off, inverse, off) / 2
    )
    weights = weights * (weights >= 1 / 255) * ((points.abs() <= 2).all(1))[:, None]
    torch.testing.assert_close(found.density, weights.sum(1))
    shades = (cloud.sh0[:, 0] * SH0 + 0.5).clamp(0, 1)
    torch.testing.assert_close(
        found.colors, weights @ shades / weights.sum(1, keepdim=True).clamp(min=1 / 255)
    )
    assert found.density.gt(0).sum() > 50, "else nothing was compared"


def test_the_level_set_of_one_gaussian_is_a_sphere():
    sigma, level, opacity = 0.1, 0.2, 0.9
    cloud = balls([[0.3, -0.2, 5.0]], sigma, opacity, [[0.2, 0.6, 1.0]])
    box = torch.tensor([[-0.2, -0.7, 4.5], [0.8, 0.3, 5.5]])
    mesh = density_mesh(cloud, DensityMeshConfig(level=level, resolution=64), box)
    radius = sigma * math.sqrt(2 * math.log(opacity / level))
    found = np.linalg.norm(mesh.vertices - cloud.means.numpy(), axis=1)
    assert mesh.is_closed and mesh.euler_number == 2 and mesh.volume > 0
    assert np.abs(found - radius).max() < (1 / 64) ** 2 / sigma  # of second order in the cell
    assert mesh.colors is not None and np.abs(mesh.colors - np.array([51, 153, 255])).max() <= 1


def test_the_inside_of_a_shell_is_hidden_and_thin_gaussians_are_not_stepped_over():
    number = np.arange(3000) + 0.5
    height, turn = 1 - number / 1500, number * math.pi * (3 - math.sqrt(5))  # Fibonacci's sphere: even
    ring = np.sqrt(1 - height**2)
    places = 0.5 * np.stack([ring * np.cos(turn), ring * np.sin(turn), height], 1)
    cloud = balls(places.astype(np.float32).tolist(), 0.03)
    for shell in (cloud, GaussianCloud.of({**cloud.parameters(), "scales": cloud.scales[:, :2]})):
        mesh = density_mesh(shell, DensityMeshConfig(level=0.3, resolution=48))
        assert mesh.is_closed and mesh.components[0] == 1 and mesh.euler_number == 2
        assert 0.5 < np.cbrt(mesh.volume * 3 / 4 / math.pi) < 0.65


def test_strays_do_not_make_the_box_large():
    cloud = balls(
        [*(np.random.default_rng(0).random((500, 3)).astype(np.float32).tolist()), [900.0, 0, 0]], 0.01
    )
    box = box_of(cloud)
    assert (box[0] > -1).all() and (box[1] < 2).all()
    assert (box[0] < 0.02).all() and (box[1] > 0.98).all()


def test_what_cannot_be_is_refused():
    cloud = balls([[0.0, 0, 0], [0.1, 0, 0]], 0.1)
    with pytest.raises(ValueError, match="nowhere as dense as 5"):
        density_mesh(cloud, DensityMeshConfig(level=5.0, resolution=16))
    with pytest.raises(ValueError, match="no Gaussian at a finite place"):
        box_of(balls([[float("nan")] * 3], 0.1))
    with pytest.raises(ValueError, match="take a coarser resolution"):
        CloudDensity(cloud, torch.tensor([[-1.0] * 3, [1.0] * 3]), 1e-3, 1e-3)
    with pytest.raises(ValueError, match="level must be above 1/255"):
        DensityMeshConfig(level=0.0)
