"""Laws of rotations and covariances."""

import numpy as np
import pytest
import torch

from sparse3d.gaussians import shapes
from sparse3d.geometry import rigid
from tests.gaussians.clouds import DOUBLE, some_cloud


def test_rotations_are_those_of_rigid_motions_and_go_back():
    quats = some_cloud(200).quats
    found = shapes.rotation_matrices(quats)
    assert torch.allclose(found, torch.from_numpy(rigid.rotation_from_quaternion(quats.numpy())), atol=1e-14)
    back = shapes.quaternions(found)
    assert (back[:, 0] >= 0).all()
    assert torch.allclose(shapes.rotation_matrices(back), found, atol=1e-14)
    assert torch.equal(shapes.rotation_matrices(-quats), found), "both covers are one rotation"


def test_half_turns_keep_their_axis():
    turns = torch.diag_embed(torch.tensor([[1.0, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=DOUBLE))
    assert torch.equal(shapes.quaternions(turns), torch.eye(4, dtype=DOUBLE)[1:])


def test_products_are_one_rotation_after_the_other():
    left, right = some_cloud(50, seed=1).quats, some_cloud(50, seed=2).quats
    both = shapes.rotation_matrices(shapes.multiply(left, right))
    each = shapes.rotation_matrices(left) @ shapes.rotation_matrices(right)
    assert torch.allclose(both, each, atol=1e-13)


@pytest.mark.parametrize("surfels", [False, True])
def test_draws_have_the_covariance_and_covariances_go_back(surfels):
    cloud = some_cloud(3, surfels=surfels)
    sigma = shapes.covariances(cloud.scales, cloud.quats)
    normal = torch.randn(3, 40_000, 3, generator=torch.Generator().manual_seed(0), dtype=DOUBLE)
    drawn = torch.stack(
        [
            shapes.spread(cloud.scales[k : k + 1].expand(40_000, -1), cloud.quats[k : k + 1], normal[k])
            for k in range(3)
        ]
    )
    # 40,000 draws: a variance is known to 0.7 %.
    assert torch.allclose(drawn.mT @ drawn / 40_000, sigma, atol=0.04 * float(sigma.abs().max()))
    scales, quats = shapes.from_covariances(sigma, cloud.scales.shape[1])
    assert torch.allclose(shapes.covariances(scales, quats), sigma, atol=1e-15)
    assert torch.allclose(scales, cloud.scales.sort(1, descending=True).values, atol=1e-9)
    turned = shapes.rotation_matrices(quats)
    assert np.allclose(torch.linalg.det(turned), 1), "right-handed"
