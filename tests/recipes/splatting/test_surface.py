"""Clouds of Gaussians and surfels become triangles: a sphere stays one, whichever way is taken."""

import math

import numpy as np
import pytest
import torch

from sparse3d import cli
from sparse3d.data.three_spheres import ThreeSpheresConfig, surface_distance, write_three_spheres
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.initial import from_mesh
from sparse3d.gaussians.render import SplatView, render
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.meshes import read_mesh
from sparse3d.recipes.splatting.surface import SplatMeshConfig, cameras_around, splats_to_mesh

RADIUS, MIDDLE = 0.5, np.array([1.0, -2.0, 0.3])


def sphere(count=8000, surfels=False):
    """Opaque, flat along a sphere, red above its middle and blue below."""
    turns = np.linspace(0, 2 * math.pi, 97)
    heights = np.linspace(-1, 1, 65)
    ring = np.sqrt(1 - heights**2)[:, None]
    places = np.stack([ring * np.cos(turns), ring * np.sin(turns), np.repeat(heights[:, None], 97, 1)], -1)
    rows = np.arange(65 * 97).reshape(65, 97)
    a, b, c, d = rows[:-1, :-1], rows[:-1, 1:], rows[1:, 1:], rows[1:, :-1]
    faces = np.concatenate([np.stack([a, b, c], -1), np.stack([a, c, d], -1)]).reshape(-1, 3)
    points = places.reshape(-1, 3)
    colors = np.where(points[:, 2:] > 0, [255, 0, 0], [0, 0, 255]).astype(np.uint8)
    mesh = Mesh(RADIUS * points + MIDDLE, faces, colors)
    return from_mesh(mesh, count, sh_degree=0, opacity=0.99, surfels=surfels)


# Metres, of voxels of 0.016. A Gaussian has one depth wherever a ray passes it, a surfel its own; the skin of
# the density lies some of the thickness outside, which is half a voxel at least.
WITHIN = [
    ("fusion", True, 0.006),
    ("fusion", False, 0.012),
    ("density", True, 0.03),
    ("density", False, 0.03),
]


@pytest.mark.parametrize(("method", "surfels", "within"), WITHIN)
def test_an_opaque_sphere_stays_one(method, surfels, within):
    config = SplatMeshConfig(method=method, resolution=96)
    mesh = splats_to_mesh(sphere(surfels=surfels), config)
    off = np.linalg.norm(mesh.vertices - MIDDLE, axis=1) - RADIUS
    assert np.abs(off).mean() < within and np.quantile(np.abs(off), 0.99) < 0.035
    assert mesh.components[0] == 1 and mesh.volume == pytest.approx(4 / 3 * math.pi * RADIUS**3, rel=0.2)
    above = mesh.vertices[:, 2] - MIDDLE[2]
    assert mesh.colors is not None
    assert (mesh.colors[above > 0.1, 0] > 200).all() and (mesh.colors[above < -0.1, 2] > 200).all()


def test_cameras_stand_around_the_whole_cloud():
    cloud = sphere(500)
    seen = []
    for camera in cameras_around(cloud, count=12, size=32):
        drawn = render(cloud, SplatView.of(camera, cloud.means), torch.zeros(3))
        border = torch.cat([drawn.alpha[0], drawn.alpha[-1], drawn.alpha[:, 0], drawn.alpha[:, -1]])
        assert drawn.alpha.max() > 0.9 and border.max() < 0.01
        seen.append(camera.camera_to_world[:3, 3] - MIDDLE)
    directions = np.stack(seen) / np.linalg.norm(seen, axis=1, keepdims=True)
    assert np.abs(directions.mean(0)).max() < 0.1, "evenly, on all sides"


@pytest.mark.slow
def test_strays_cost_no_resolution_and_nothing_is_no_surface():
    cloud = sphere(4000)
    far = {name: torch.cat([value, value[:1]]) for name, value in cloud.parameters().items()}
    far["means"][-1] = torch.tensor([500.0, 0, 0])
    for method in ("fusion", "density"):
        mesh = splats_to_mesh(GaussianCloud.of(far), SplatMeshConfig(method=method, resolution=64))
        assert len(mesh.faces) > 2000 and np.abs(mesh.vertices - MIDDLE).max() < 1
    faint = GaussianCloud.of({**cloud.parameters(), "opacities": cloud.opacities - 12})
    with pytest.raises(ValueError, match="no camera sees a surface"):
        splats_to_mesh(faint, SplatMeshConfig(method="fusion", resolution=32))
    with pytest.raises(ValueError, match="nowhere as dense"):
        splats_to_mesh(faint, SplatMeshConfig(resolution=32))
    with pytest.raises(ValueError, match="truncation not below 2"):
        SplatMeshConfig(truncation=1.0)


@pytest.mark.slow
def test_a_run_becomes_a_mesh(tmp_path, capsys):
    write_three_spheres(tmp_path / "photos", ThreeSpheresConfig(views=12, held_out=2, size=32))
    few = ["train.steps=150", "start.count=500", "start.sh_degree=0", "strategy.stop_step=100"]
    command = ["reconstruct", str(tmp_path / "photos"), "--method", "splats", *few, "--no-turntable"]
    assert cli.main([*command, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    for method, name in (("density", "a.glb"), ("fusion", "b.ply")):
        out = tmp_path / name
        options = ["--method", method, "--resolution", "64", "--out", str(out)]
        assert cli.main(["mesh", str(tmp_path / "run"), *options]) == 0
        assert f"triangles in {read_mesh(out).components[0]} pieces" in capsys.readouterr().err
        # Pixels of 5 cm and 150 steps; a mesh of the box, or of nothing, is off by more than 0.2.
        assert np.abs(surface_distance(read_mesh(out).vertices.astype(float))).mean() < 0.08
    assert cli.main(["mesh", str(tmp_path / "run"), "--level", "50"]) == 2
    assert "nowhere as dense as 50" in capsys.readouterr().err
