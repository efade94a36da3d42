"""Laws of first clouds: where they are, how wide, of which colour; the same for a seed."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree

from sparse3d.gaussians import initial
from sparse3d.gaussians.cloud import SH0
from sparse3d.gaussians.shapes import facing, rotation_matrices
from sparse3d.geometry import rigid
from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.mesh import Mesh
from tests.gaussians.clouds import same, some_cloud


def points(count=300, seed=0):
    cloud = some_cloud(count, seed=seed, dtype=torch.float32)
    return cloud.means, torch.rand(count, 3, generator=torch.Generator().manual_seed(seed))


def colors_of(cloud):
    return 0.5 + SH0 * cloud.sh0[:, 0]


def test_points_are_as_wide_as_their_three_nearest_are_far():
    positions, colors = points()
    cloud = initial.from_points(positions, colors, sh_degree=2, opacity=0.2, scale=1.5)
    expected = KDTree(positions.numpy()).query(positions.numpy(), 4)[0][:, 1:].mean(1) * 1.5
    assert np.allclose(cloud.scales.exp(), expected[:, None].repeat(3, 1), rtol=1e-5)
    assert torch.equal(cloud.means, positions) and torch.allclose(colors_of(cloud), colors, atol=1e-6)
    assert torch.allclose(cloud.opacities.sigmoid(), torch.tensor(0.2)) and cloud.shN.shape == (300, 8, 3)


def test_duplicates_become_one_and_what_is_not_finite_is_left_out():
    positions, colors = points(40)
    twice = torch.cat([positions, positions[:7], torch.full((2, 3), float("nan"))])
    shades = torch.cat([colors, colors[:7] * 0.5, torch.zeros(2, 3)])
    cloud = initial.from_points(twice, shades)
    assert torch.equal(cloud.means, positions) and torch.isfinite(cloud.scales).all()
    assert torch.allclose(colors_of(cloud)[:7], colors[:7] * 0.75, atol=1e-6)
    assert torch.allclose(cloud.scales, initial.from_points(positions, colors).scales)


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_few_points_are_enough(count):
    positions, colors = points(count)
    for flat, surfels in ((False, False), (True, False), (True, True)):
        cloud = initial.from_points(positions, colors, flat=flat, surfels=surfels)
        assert (
            len(cloud) == count and torch.isfinite(cloud.scales).all() and torch.isfinite(cloud.quats).all()
        )
        if count == 1:
            assert math.isclose(float(cloud.scales[0, 0]), math.log(0.01), rel_tol=1e-5)
        if count == 2:
            apart = float((positions[0] - positions[1]).norm())
            assert math.isclose(float(cloud.scales[0, 0].exp()), apart, rel_tol=1e-5)


def test_points_of_a_plane_lie_flat_in_it():
    x, y = torch.rand(2, 200, generator=torch.Generator().manual_seed(0))
    turn = torch.from_numpy(rigid.rotation_from_euler(0.4, 1.0, -0.3)).float()
    positions = torch.stack([x, y, torch.zeros(200)], 1) @ turn.T + 5
    for surfels in (False, True):
        cloud = initial.from_points(positions, torch.rand(200, 3), flat=True, surfels=surfels)
        normal = rotation_matrices(cloud.quats)[:, :, 2]
        assert torch.allclose((normal @ turn[:, 2]).abs(), torch.ones(200), atol=1e-3)
        assert cloud.surfels == surfels
        if not surfels:
            assert torch.allclose(cloud.scales[:, 2], cloud.scales[:, 0] + math.log(0.1), atol=1e-5)


def test_turns_face_their_normals():
    normals = torch.cat([some_cloud(50).means, torch.eye(3), -torch.eye(3), torch.zeros(1, 3)]).double()
    axes = rotation_matrices(facing(normals))[:, :, 2]
    unit = normals / normals.norm(dim=1, keepdim=True).clamp(min=1e-9)
    assert torch.allclose(axes[:-1], unit[:-1], atol=1e-7) and axes[-1].tolist() == [0, 0, 1]


def test_depth_maps_stand_where_they_were_seen():
    pose = rigid.rigid(rigid.rotation_from_euler(0.3, 0.2, 2.0), [1.0, 2, 3])
    camera = Camera(50.0, 60.0, 15.0, 10.0, 32, 20, pose)
    depth = np.random.default_rng(0).uniform(1, 5, (20, 32))
    depth[3, 4], depth[5, 6], depth[7] = np.nan, -1, 0
    rgb = np.random.default_rng(1).random((20, 32, 3))
    cloud = initial.from_depth(camera, depth, rgb)
    assert len(cloud) == 20 * 32 - 34
    pixels, z = camera.project(cloud.means.double().numpy())
    rows = pixels.round(4) // 1
    at = rows.astype(int)
    assert np.allclose(pixels - at, 0.5, atol=1e-4) and np.allclose(z, depth[at[:, 1], at[:, 0]], atol=1e-5)
    assert np.allclose(colors_of(cloud), rgb[at[:, 1], at[:, 0]], atol=1e-6)
    assert np.allclose(cloud.scales[:, 0].exp(), z / math.sqrt(3000), rtol=1e-5)
    few = initial.from_depth(camera, depth, rgb, stride=4, surfels=True)
    assert len(few) < len(cloud) / 14
    toward = torch.from_numpy(pose[:3, 3]).float() - few.means
    along = (rotation_matrices(few.quats)[:, :, 2] * torch.nn.functional.normalize(toward, dim=1)).sum(1)
    assert torch.allclose(along, torch.ones(len(few)), atol=1e-5)
    with pytest.raises(ValueError, match="expected"):
        initial.from_depth(camera, depth.T, rgb)


def test_meshes_are_covered_evenly_and_flat():
    corners = np.array([[0, 0, 1], [2, 0, 1], [0, 2, 1], [0, 0, 5.0]])
    faces = np.array([[0, 1, 2], [0, 1, 1]])
    colors = np.array([[255, 0, 0], [0, 255, 0], [0, 0, 255], [9, 9, 9]], np.uint8)
    cloud = initial.from_mesh(Mesh(corners, faces, colors), 4000)
    x, y, z = cloud.means.unbind(1)
    assert (
        torch.allclose(z, torch.ones(4000)) and (x >= 0).all() and (y >= 0).all() and (x + y <= 2.001).all()
    )
    assert abs(float(x.mean()) - 2 / 3) < 0.02
    expected = torch.stack([1 - (x + y) / 2, x / 2, y / 2], 1)
    assert torch.allclose(colors_of(cloud), expected, atol=1e-5)
    assert torch.allclose(rotation_matrices(cloud.quats)[:, :, 2], torch.tensor([0.0, 0, 1]), atol=1e-6)
    assert math.isclose(float(cloud.scales[0, 0].exp()), math.sqrt(2 / 4000), rel_tol=1e-4)
    assert same(cloud, initial.from_mesh(Mesh(corners, faces, colors), 4000))
    assert not same(cloud, initial.from_mesh(Mesh(corners, faces, colors), 4000, seed=1))
    assert (colors_of(initial.from_mesh(Mesh(corners, faces), 5)) == 0.5).all()


def test_fields_get_gaussians_on_what_can_be_seen_of_them():
    def ball(at):
        return 400.0 * (at.norm(dim=1) < 0.5)

    def paint(at):
        return (at + 1) / 2

    make = {"low": (-1, -1, -1), "high": (1, 1, 0.9), "count": 800, "resolution": 40}
    cloud = initial.from_field(ball, **make, color=paint)
    away = cloud.means.norm(dim=1)
    assert ((away > 0.5 - 0.12) & (away < 0.5 + 0.09)).all(), "within a cell or two of the surface"
    assert torch.allclose(colors_of(cloud), paint(cloud.means), atol=1e-5)
    assert cloud.means.mean(0).abs().max() < 0.06
    assert same(cloud, initial.from_field(ball, **make, color=paint))
    with pytest.raises(ValueError, match="empty"):
        initial.from_field(lambda at: torch.zeros(len(at)), **make)


def test_random_ones_fill_the_box():
    box = torch.tensor([[0.0, 0, 0], [2, 1, 4]])
    cloud = initial.random_in_box(box, 4000, seed=3)
    assert (cloud.means >= 0).all() and (cloud.means < box[1]).all()
    nearest = initial.spacing(cloud.means, 1)[0]
    # At the box's sides neighbours lack.
    assert math.isclose(float(nearest.mean()), float(cloud.scales[0, 0].exp()), rel_tol=0.1)
    assert same(cloud, initial.random_in_box(box, 4000, seed=3))
    assert not torch.equal(cloud.means, initial.random_in_box(box, 4000, seed=4).means)


def test_the_same_bits_for_any_number_of_threads():
    positions, colors = points(4000)
    clouds = []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        clouds.append(initial.from_points(positions, colors, flat=True))
        torch.set_num_threads(1)
    assert same(*clouds)
