"""A field parted into a mesh and the voxels that add to it looks like the field."""

import copy

import numpy as np
import pytest
import torch

from sparse3d import cli
from sparse3d.errors import DataError
from sparse3d.fields.mesh import MeshConfig
from sparse3d.fields.space import SpaceConfig
from sparse3d.fields.voxel_field import VoxelField, VoxelFieldConfig
from sparse3d.mesh.distance import MeshDistance
from sparse3d.recipes.conversion.finishing import FinishConfig
from sparse3d.recipes.conversion.mesh_and_volume import (
    draw_both,
    likeness,
    mesh_and_volume,
    read_mesh_and_volume,
    write_mesh_and_volume,
)
from sparse3d.recipes.conversion.views import ring
from sparse3d.recipes.conversion.voxel_files import write_voxel_run

pytest.importorskip("xatlas")
SMALL = MeshConfig(resolution=48, min_faces=10), FinishConfig(texture=256)


def lattice_places(field):
    """Of the lattice's points, world."""
    return (field.lattice.points[:, 1:].double() * field.voxel_size - 1).numpy()


def ball_in_haze(haze, resolution=24, middle=0.55, radius=0.3):
    """A solid orange ball of radius 0.35, and blue haze of a density (1 / m) on its one side."""
    config = VoxelFieldConfig(space=SpaceConfig((-1.0, -1.0, -1.0), 2.0), resolution=resolution, sh_degree=0)
    field = VoxelField(config)
    places = torch.from_numpy(lattice_places(field)).float()
    solid = ((0.35 - places.norm(dim=1)) / field.voxel_size + 0.5).clamp(0, 1) * 60
    mist = haze * ((places - torch.tensor([middle, 0, 0])).norm(dim=1) < radius)
    density = torch.maximum(solid, mist).clamp(min=1e-4) * field.unit
    color = torch.where(
        (mist > solid)[:, None], torch.tensor([-2.0, -1.0, 2.0]), torch.tensor([2.0, 0.0, -2.0])
    )
    with torch.no_grad():
        field.raw_density[:, 0] = torch.log(torch.expm1(density))  # the inverse of softplus
        field.harmonics.copy_(color / 0.28209479177387814)
    field.prune()
    return field


def test_the_mesh_is_what_is_solid_and_the_voxels_are_what_it_lacks():
    field = ball_in_haze(haze=2.0)
    parts = mesh_and_volume(field, *SMALL)
    assert np.abs(np.linalg.norm(parts.mesh.vertices, axis=1) - 0.35).max() < field.voxel_size
    assert parts.mesh.has_texture and parts.volume is not None
    assert len(parts.volume.coordinates) < len(field.coordinates), "what lies within is dropped"
    found = likeness(parts, field, 3, 64)
    assert found.both > found.mesh + 8 and found.both > 28


def test_of_what_is_solid_no_voxel_stays():
    field = ball_in_haze(haze=0.0)
    parts = mesh_and_volume(field, *SMALL)
    assert parts.volume is None
    skin = copy.deepcopy(field)
    signed = torch.from_numpy(MeshDistance(parts.mesh).signed(lattice_places(field)))
    skin.keep((signed > 0)[field.lattice.corner_rows.long()].any(1))
    found = likeness(parts._replace(volume=skin), field, 3, 64)
    assert found.mesh > 22 and found.mesh > found.both - 0.3, "they would have brought next to nothing"


def test_haze_far_from_a_solid_stays_without_its_skin():
    field = ball_in_haze(haze=4.0, middle=0.75, radius=0.2)
    volume = mesh_and_volume(field, *SMALL).volume
    assert volume is not None
    places = (volume.coordinates[:, 1:] + 0.5) * field.voxel_size - 1
    assert (places.norm(dim=1) > 0.35 + 0.5 * field.voxel_size).all()
    assert (places[:, 0] > 0.5).sum() > 50


def test_haze_behind_the_mesh_is_hidden_by_it():
    parts = mesh_and_volume(ball_in_haze(haze=30.0), MeshConfig(level=40.0, resolution=48), SMALL[1])
    behind = [c for c in ring(np.full(3, -0.9), np.full(3, 0.9), 12, 48) if c.camera_to_world[0, 3] < -1]
    camera = min(behind, key=lambda c: np.abs(c.camera_to_world[1:3, 3]).sum())
    picture = draw_both(parts, camera)
    x, y = camera.project(np.zeros((1, 3)))[0][0].astype(int)
    assert picture[y, x, 0] > 0.6 and picture[y, x, 2] < 0.35, "orange, no blue through it"


def test_files_bring_both_back(tmp_path):
    parts = mesh_and_volume(ball_in_haze(haze=2.0), *SMALL)
    write_mesh_and_volume(tmp_path / "both", parts)
    back = read_mesh_and_volume(tmp_path / "both")
    camera = ring(np.full(3, -0.9), np.full(3, 0.9), 5, 40)[2]
    np.testing.assert_allclose(draw_both(back, camera), draw_both(parts, camera), atol=2e-3)
    write_mesh_and_volume(tmp_path / "one", parts._replace(volume=None))
    assert read_mesh_and_volume(tmp_path / "one").volume is None
    (tmp_path / "both/scene.json").write_text('{"sparse3d": 1, "mesh": "../../etc/passwd"}')
    with pytest.raises(DataError, match="names no mesh with its voxels"):
        read_mesh_and_volume(tmp_path / "both")


@pytest.mark.slow
def test_the_command_parts_a_run(tmp_path, capsys):
    write_voxel_run(tmp_path / "run", ball_in_haze(haze=2.0))
    command = ["mesh", str(tmp_path / "run"), "--volume", str(tmp_path / "out"), "--resolution", "48"]
    assert cli.main([*command, "--min-faces", "10", "--texture", "256"]) == 0
    said = capsys.readouterr().err
    assert "triangles" in said and "against the field the mesh alone" in said
    assert read_mesh_and_volume(tmp_path / "out").mesh.has_texture
    assert cli.main([*command, "--out", "x.glb"]) == 2
    assert "leave out --out" in capsys.readouterr().err
