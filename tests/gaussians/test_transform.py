"""Laws of clouds in other frames, merged and cropped."""

import numpy as np
import pytest
import torch

from sparse3d.gaussians import transform as moves
from sparse3d.gaussians.shapes import covariances, rotation_matrices
from sparse3d.geometry import rigid
from sparse3d_ops.spherical_harmonics import sh_colors
from tests.gaussians.clouds import DOUBLE, same, some_cloud

MOTION = rigid.rigid(rigid.rotation_from_euler(0.7, -1.2, 2.5), [3.0, -2.0, 0.5])
TURN = torch.from_numpy(MOTION[:3, :3])


def colors(cloud, directions):
    return 0.5 + sh_colors(torch.cat([cloud.sh0, cloud.shN], 1), directions)


@pytest.mark.parametrize("degree", range(5))
def test_the_colour_in_the_turned_direction_is_the_same(degree):
    cloud = some_cloud(64, degree)
    directions = torch.nn.functional.normalize(some_cloud(64, seed=5).means, dim=1)
    moved = moves.transform(cloud, MOTION, 2.5)
    assert torch.allclose(colors(moved, directions @ TURN.T), colors(cloud, directions), atol=1e-12)
    if degree:
        assert not torch.allclose(colors(cloud, directions @ TURN.T), colors(cloud, directions), atol=1e-2)


def test_matrices_of_harmonics_are_rotations_and_follow_one_after_the_other():
    other = torch.from_numpy(rigid.rotation_from_euler(-2.0, 0.3, 0.9))
    d = moves.sh_rotation(TURN, 4)
    assert torch.allclose(d @ d.T, torch.eye(25, dtype=DOUBLE), atol=1e-13)
    assert torch.allclose(moves.sh_rotation(other @ TURN, 4), moves.sh_rotation(other, 4) @ d, atol=1e-13)
    assert torch.allclose(moves.sh_rotation(torch.eye(3), 4), torch.eye(25, dtype=DOUBLE), atol=1e-14)


@pytest.mark.parametrize("surfels", [False, True])
def test_means_and_covariances_move_along(surfels):
    cloud = some_cloud(40, surfels=surfels)
    moved = moves.transform(cloud, MOTION, 0.5)
    expected = rigid.transform_points(0.5 * cloud.means.numpy(), MOTION)
    assert np.allclose(moved.means, expected, atol=1e-14)
    was = covariances(cloud.scales, cloud.quats)
    assert torch.allclose(covariances(moved.scales, moved.quats), 0.25 * TURN @ was @ TURN.T, atol=1e-15)
    normal = rotation_matrices(moved.quats)[:, :, 2]
    assert torch.allclose(normal, rotation_matrices(cloud.quats)[:, :, 2] @ TURN.T, atol=1e-13)
    back = moves.transform(moved, rigid.inverse(MOTION) @ np.eye(4))
    assert torch.allclose(back.means, 0.5 * cloud.means, atol=1e-14)


def test_positions_in_a_city_keep_their_millimetres():
    cloud = some_cloud(20, dtype=torch.float32)
    city = rigid.rigid(np.eye(3), [4e5, 5.8e6, 100.0])
    there = moves.transform(cloud.to(DOUBLE), city)
    back = moves.transform(there, rigid.inverse(city)).to(torch.float32)
    assert torch.allclose(back.means, cloud.means, atol=1e-6)


@pytest.mark.parametrize("wrong", [np.diag([1.0, 1, -1, 1]), np.diag([2.0, 2, 2, 1]), np.eye(3)])
def test_what_is_no_rigid_motion_is_refused(wrong):
    with pytest.raises(ValueError, match="rigid"):
        moves.transform(some_cloud(2), wrong)
    with pytest.raises(ValueError, match="scale"):
        moves.transform(some_cloud(2), MOTION, -1.0)


def test_merged_clouds_are_their_parts():
    parts = [some_cloud(5, 1), some_cloud(0, 0), some_cloud(7, 3, seed=1)]
    whole = moves.merge(parts)
    assert len(whole) == 12 and whole.sh_degree == 3
    assert same(whole[5:], parts[2])
    assert same(moves.with_sh_degree(whole[:5], 1), parts[0])
    assert not whole.shN[:5, 3:].any()
    with pytest.raises(ValueError, match="surfels"):
        moves.merge([some_cloud(1), some_cloud(1, surfels=True)])


def test_a_crop_holds_what_lies_in_the_box():
    cloud = some_cloud(300)
    inside = moves.crop(cloud, (-0.5, -1, 0), (0.25, 1, 0.5))
    assert 0 < len(inside) < 300
    low, high = torch.tensor([-0.5, -1, 0]), torch.tensor([0.25, 1, 0.5])
    assert len(inside) == int(((cloud.means >= low) & (cloud.means < high)).all(1).sum())
    # The box moved with the cloud holds the same ones.
    moved = moves.transform(cloud, MOTION)
    kept = moves.inside_box(moved.means, low.tolist(), high.tolist(), MOTION)
    assert torch.equal(kept, moves.inside_box(cloud.means, low.tolist(), high.tolist()))
