"""Which voxels photos show."""

import numpy as np
import torch

from sparse3d.fields.space import SpaceConfig
from sparse3d.fields.voxel_field import VoxelField, VoxelFieldConfig
from sparse3d.geometry.cameras import Camera, Cameras
from sparse3d.geometry.rays import rays_of_image
from sparse3d.recipes.radiance.bounds import seen_voxels


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
