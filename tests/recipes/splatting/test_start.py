"""A training begins with Gaussians from depth maps, points, a mesh, a field, or another cloud."""

import numpy as np
import pytest
import torch

from sparse3d import cli
from sparse3d.data.photos import open_photos
from sparse3d.data.three_spheres import (
    DEPTH_UNIT,
    ThreeSpheresConfig,
    surface_distance,
    write_three_spheres,
)
from sparse3d.gaussians.formats.table import write_splats
from sparse3d.geometry.mesh import Mesh
from sparse3d.geometry.painted_points import PaintedPoints
from sparse3d.io.meshes import write_mesh
from sparse3d.io.painted_points import write_painted_points
from sparse3d.recipes.splatting.config import StartConfig
from sparse3d.recipes.splatting.start import first_cloud
from tests.gaussians.clouds import some_cloud

BOX = np.array([[x, y, z] for x in (-0.5, 0.5) for y in (-0.5, 0.5) for z in (-0.5, 0.5)])
SIDES = [[0, 1, 3], [0, 3, 2], [4, 6, 7], [4, 7, 5], [0, 4, 5], [0, 5, 1], [2, 3, 7], [2, 7, 6], [0, 2, 6]]
SIDES += [[0, 6, 4], [1, 5, 7], [1, 7, 3]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("starts")
    write_three_spheres(folder / "photos", ThreeSpheresConfig(views=4, held_out=1, size=32))
    write_mesh(folder / "box.ply", Mesh(BOX, np.array(SIDES), np.full((8, 3), [200, 100, 50], np.uint8)))
    return folder


def begin(folder, depths=None, **options):
    photos = open_photos(folder / "photos", split="train", depths=depths, depth_unit=DEPTH_UNIT)
    return first_cloud(StartConfig(**options), photos, 0, lambda: ((-1.0, -1.0, -1.0), 2.0))


def on_the_box(means):
    return (means.abs().amax(1) - 0.5).abs().max()


@pytest.mark.parametrize("shape", ["gaussians", "surfels"])
def test_depth_maps_put_gaussians_on_what_is_seen(folder, shape):
    cloud = begin(folder, folder / "photos/depth", kind="depth", count=300, shape=shape)
    assert 60 < len(cloud) <= 300 and cloud.surfels == (shape == "surfels")
    # Depth maps hold the depth of a pixel's middle, in millimetres.
    assert np.abs(surface_distance(cloud.means.double().numpy())).max() < 2e-3


def test_a_mesh_is_covered(folder):
    cloud = begin(folder, kind="mesh", source=str(folder / "box.ply"), count=600)
    assert len(cloud) == 600 and on_the_box(cloud.means) < 1e-5
    shade = cloud.sh0[:, 0] * 0.28209479177387814 + 0.5
    torch.testing.assert_close(shade, torch.tensor([200, 100, 50]).expand(600, 3) / 255)


def test_a_field_is_covered_where_it_can_be_seen(folder, capsys):
    assert cli.main(["convert", str(folder / "box.ply"), str(folder / "field"), "--to", "voxels"]) == 0
    cloud = begin(folder, kind="field", source=str(folder / "field"), count=500)
    # Voxels of the field, and cells of a 64th of its cube.
    assert len(cloud) == 500 and on_the_box(cloud.means) < 0.08
    shade = (cloud.sh0[:, 0] * 0.28209479177387814 + 0.5).mean(0)
    torch.testing.assert_close(shade, torch.tensor([200.0, 100, 50]) / 255, atol=0.08, rtol=0)


def test_points_and_clouds_of_files_stay_where_they_are(folder):
    places = np.random.default_rng(0).random((50, 3)).astype(np.float32)
    write_painted_points(folder / "points.ply", PaintedPoints(places, np.full((50, 3), 255, np.uint8)))
    cloud = begin(folder, kind="points", source=str(folder / "points.ply"), count=20)
    assert len(cloud) == 20 and all((row == torch.from_numpy(places)).all(1).any() for row in cloud.means)
    write_splats(folder / "cloud.ply", some_cloud(30, degree=2, dtype=torch.float32))
    cloud = begin(folder, kind="cloud", source=str(folder / "cloud.ply"), sh_degree=1)
    assert len(cloud) == 30 and cloud.sh_degree == 1
    assert torch.equal(cloud.means, some_cloud(30, degree=2, dtype=torch.float32).means)
    with pytest.raises(ValueError, match="holds Gaussians, but start.shape is surfels"):
        begin(folder, kind="cloud", source=str(folder / "cloud.ply"), shape="surfels")


def test_what_is_missing_is_told(folder):
    with pytest.raises(ValueError, match="no photo has a depth map; name a folder"):
        begin(folder, kind="depth")
    with pytest.raises(ValueError, match="the photos come without any"):
        begin(folder, kind="points")
    with pytest.raises(ValueError, match="start.kind=mesh needs a source"):
        StartConfig(kind="mesh")
    with pytest.raises(ValueError, match="start.kind=random takes none"):
        StartConfig(kind="random", source="a.ply")
