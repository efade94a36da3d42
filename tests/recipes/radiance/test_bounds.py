"""Which voxels photos show."""

from pathlib import Path

import numpy as np
import pytest
import torch

from sparse3d.data.photos import PosedPhotos
from sparse3d.fields.space import SpaceConfig
from sparse3d.fields.voxel_field import VoxelField, VoxelFieldConfig
from sparse3d.geometry.cameras import Camera, Cameras
from sparse3d.geometry.rays import rays_of_image
from sparse3d.io.captures import Capture, View
from sparse3d.recipes.radiance.bounds import frustum_in_view, seen_voxels


def looking(origin, at, focal=90.0, size=20):
    forward = (np.array(at) - origin) / np.linalg.norm(np.array(at) - origin)
    right = np.cross(forward, [0.0, 0, 1])
    right /= np.linalg.norm(right)
    pose = np.eye(4)
    pose[:3] = np.stack([right, np.cross(forward, right), forward, origin], 1)
    return Camera(focal, focal, size / 2, size / 2, size, size, pose)


def touched(field, camera):
    """Which voxels samples of all pixels' rays lie in, behind everything."""
    origins, directions = rays_of_image(camera)
    t = torch.linspace(0, 6, 400)
    points = (origins[:, None] + t[:, None] * directions[:, None]).view(-1, 3)
    rows = field.lattice.find((points - torch.tensor(field.config.space.low)) / field.voxel_size)
    found = torch.zeros(len(field.coordinates), dtype=torch.bool)
    found[rows[rows >= 0]] = True
    return found


def test_what_no_ray_reaches_is_not_seen_and_all_that_rays_reach_is():
    field = VoxelField(VoxelFieldConfig(space=SpaceConfig((-1, -1, -1), 2.0), resolution=12))
    outside, inside = looking((3.0, 0.5, 0.4), (0, 0, 0)), looking((0.4, -0.3, 0.1), (-1, -1, 0.5))
    for cameras in ([outside], [inside], [outside, inside]):
        seen = seen_voxels(field, Cameras.stack(cameras))
        reached = torch.stack([touched(field, camera) for camera in cameras]).any(0)
        assert (seen | ~reached).all()
        # Beside the one more all around, and what lies between samples, no more than that.
        assert (field.lattice.dilate(field.lattice.dilate(reached)) | ~seen).all()
        assert not seen.all()


def test_two_photos_show_what_both_show():
    field = VoxelField(VoxelFieldConfig(space=SpaceConfig((-1, -1, -1), 2.0), resolution=12))
    one, two = looking((3.0, 0.5, 0.4), (0, 0, 0)), looking((0.2, -3.0, 0.4), (0, 0, 0))
    both = seen_voxels(field, Cameras.stack([one, two]), least=2)
    assert (both | ~(touched(field, one) & touched(field, two))).all()
    alone = [seen_voxels(field, Cameras.stack([camera])) for camera in (one, two)]
    assert (~both | (alone[0] & alone[1])).all() and both.any()
    assert not (alone[0] & alone[1])[~both].all()


def test_unseen_voxels_are_dropped_and_the_others_stay_as_they_were():
    field = VoxelField(VoxelFieldConfig(space=SpaceConfig((-1, -1, -1), 2.0), resolution=6))
    with torch.no_grad():
        field.raw_density.normal_(generator=torch.Generator().manual_seed(0))
    points = torch.rand(500, 3, generator=torch.Generator().manual_seed(1)) * 2 - 1
    before = field.density(points)
    seen = seen_voxels(field, Cameras.stack([looking((3.0, 0.5, 0.4), (0, 0, 0))]))
    rows = field.lattice.find((points + 1) / field.voxel_size)
    assert field.keep(seen) == int((~seen).sum()) > 0
    assert torch.equal(field.density(points), before.where(seen[rows], 0.0))


def forward_photos(count=5, turned=0.0):
    cameras = []
    for number in range(count):
        origin = np.array([0.3 * number, 0.1 * number**2, -0.05 * number])
        cameras.append(looking(origin, origin + [turned * number, 5.0, 0.1 * number]))
    return cameras


def posed(cameras, near_far):
    views = tuple(View(str(row), Path(str(row)), c, row, near_far=near_far) for row, c in enumerate(cameras))
    capture = Capture("llff", views)
    return PosedPhotos(Path(), 1.0, "train", views, Cameras.stack(cameras), (), capture)


def test_a_frustum_holds_all_that_forward_photos_show():
    photos = posed(forward_photos(), (2.0, 30.0))
    frustum = frustum_in_view(photos)
    space = SpaceConfig(contraction="frustum", frustum=frustum)
    for camera in photos.cameras:
        origins, directions = rays_of_image(camera, torch.float64)
        along = torch.tensor(camera.camera_to_world[:3, 2])
        for depth in (2.05, 7.0, 29.0):
            points = origins + directions * (depth / (directions @ along))[:, None]
            assert space.to_own(points)[1].all()
    # And little more where all is far away.
    photos = posed(forward_photos(), (200.0, 3000.0))
    assert frustum_in_view(photos).slopes[0] < 1.2 * photos.cameras[0].width / photos.cameras[0].fx / 2


def test_photos_that_do_not_face_forward_have_no_frustum():
    with pytest.raises(ValueError, match="different directions"):
        frustum_in_view(posed(forward_photos(turned=20.0), (2.0, 30.0)))
    with pytest.raises(ValueError, match="how far away"):
        frustum_in_view(posed(forward_photos(), None))
    with pytest.raises(ValueError, match="beyond the nearest"):
        frustum_in_view(posed(forward_photos(), (0.01, 30.0)))


@pytest.mark.parametrize("contraction", ["merf", "frustum"])
def test_voxels_of_bent_spaces_are_seen_where_rays_come_through(contraction):
    photos = posed(forward_photos(3), (2.0, 30.0))
    space = SpaceConfig((-1, -1, -1), 2.0, contraction, frustum=frustum_in_view(photos))
    field = VoxelField(VoxelFieldConfig(space=space, resolution=12))
    seen = seen_voxels(field, photos.cameras)
    reached = torch.zeros_like(seen)
    for camera in photos.cameras:
        origins, directions = rays_of_image(camera)
        t = 0.05 * 1.02 ** torch.arange(450)
        points = (origins[:, None] + t[:, None] * directions[:, None]).view(-1, 3)
        positions, inside = field.in_voxels(points)
        rows = field.lattice.find(positions)
        reached[rows[inside & (rows >= 0)]] = True
    assert (seen | ~reached).all() and reached.any()
    assert (field.lattice.dilate(field.lattice.dilate(reached)) | ~seen).all()
