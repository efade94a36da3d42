"""A reconstruction ends with a mesh and a turntable, and both can be had again."""

import numpy as np
import pytest
from PIL import Image

from sparse3d import cli
from sparse3d.data.three_spheres import ThreeSpheresConfig, surface_distance, write_three_spheres
from sparse3d.io.images import read_depth
from sparse3d.io.mesh_frames import MeshFrame
from sparse3d.io.meshes import read_mesh

CHANGES = ["train.steps=120", "model.resolution=12", "model.unit=0.033", "refine.prune_every=15"]
LEVELS = "refine.levels=[{pixels: 512, rays_per_side: 1}, {pixels: 256, rays_per_side: 2}]"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mesh_and_render")
    write_three_spheres(folder / "photos", ThreeSpheresConfig(views=12, held_out=2, size=24))
    command = ["reconstruct", str(folder / "photos"), "--config", "voxels_three_spheres", LEVELS, *CHANGES]
    assert cli.main([*command, "--out", str(folder / "run")]) == 0
    return folder / "run"


def test_a_reconstruction_leaves_a_mesh_and_a_turntable(run):
    mesh = read_mesh(run / "mesh.ply")
    assert mesh.is_closed and mesh.volume > 0 and mesh.colors is not None
    # Voxels of 6 cm after 80 steps; a mesh of nothing, or of the cube, is off by more than 0.2.
    assert np.abs(surface_distance(mesh.vertices.astype(float))).mean() < 0.03
    with Image.open(run / "pictures/turntable/turntable.webp") as animation:
        assert animation.n_frames == 30 and animation.size == (24, 24)
    assert len(list((run / "pictures/turntable/depth").glob("*.png"))) == 30


def test_the_mesh_command_writes_what_is_asked_for(run, tmp_path, capsys):
    assert cli.main(["mesh", str(run), "--out", str(tmp_path / "m.glb"), "--level", "5"]) == 0
    assert cli.main(["mesh", str(run), "--out", str(tmp_path / "fine.obj"), "--resolution", "96"]) == 0
    coarse, fine = read_mesh(tmp_path / "m.glb"), read_mesh(tmp_path / "fine.obj")
    assert len(fine.faces) > 3 * len(coarse.faces) and fine.is_closed
    assert "triangles" in capsys.readouterr().err
    assert cli.main(["mesh", str(run), "--out", str(tmp_path / "m.fbx")]) == 2
    assert ".glb" in capsys.readouterr().err
    assert cli.main(["mesh", str(run), "--level", "1e9"]) == 2
    assert "nowhere" in capsys.readouterr().err
    assert cli.main(["mesh", str(tmp_path / "none")]) == 2


def test_the_mesh_command_simplifies_paints_and_turns(run, tmp_path, capsys):
    pytest.importorskip("xatlas")
    out, plain = tmp_path / "m.glb", tmp_path / "plain.glb"
    options = [
        "--simplify",
        "600",
        "--texture",
        "256",
        "--units",
        "mm",
        "--up",
        "y",
        "--lit",
        "--roughness",
        "0.6",
    ]
    assert cli.main(["mesh", str(run), "--out", str(plain)]) == 0
    assert cli.main(["mesh", str(run), "--out", str(out), *options]) == 0
    mesh = read_mesh(out, MeshFrame("mm", "y"))
    assert mesh.has_texture and mesh.material.texture.shape == (256, 256, 3) and len(mesh.faces) <= 600
    assert not mesh.material.unlit and mesh.material.roughness == pytest.approx(0.6)
    whole = read_mesh(plain)
    assert np.abs(read_mesh(out).vertices).max() > 100, "millimetres"
    assert mesh.volume == pytest.approx(whole.volume, rel=0.05)
    np.testing.assert_allclose(mesh.vertices.mean(0), whole.vertices.mean(0), atol=0.05)
    # The same paint: what both show on their surfaces has the same mean and spread.
    shades = [m.colors_at(*m.spread_points(4000)) for m in (mesh, whole)]
    np.testing.assert_allclose(shades[0].mean(0), shades[1].mean(0), atol=0.02)
    np.testing.assert_allclose(shades[0].std(0), shades[1].std(0), atol=0.03)
    assert cli.main(["mesh", str(run), "--texture", "3"]) == 2
    assert "texels" in capsys.readouterr().err


def test_pictures_have_the_depth_of_the_scene(run, tmp_path, capsys):
    assert cli.main(["render", str(run), "--out", str(tmp_path), "--size", "36"]) == 0
    depth = read_depth(tmp_path / "depth/r_000.png", 1e-3)
    with Image.open(tmp_path / "color/r_000.png") as color:
        assert color.size == (36, 36) == depth.shape
    seen = np.isfinite(depth)
    assert 0.05 < seen.mean() < 0.5, "what is white has no depth"
    assert 1.6 < np.nanmin(depth) < np.nanmax(depth) < 3.0, "cameras are 2.4 m from the middle"
    assert cli.main(["render", str(run), "--turntable", "0"]) == 2
    assert "at least one frame" in capsys.readouterr().err
    assert cli.main(["render", str(run), "--size", "0"]) == 2


def test_a_turntable_as_gif(run, tmp_path):
    command = ["render", str(run), "--turntable", "5", "--animation", "gif", "--out", str(tmp_path)]
    assert cli.main([*command, "--size", "20"]) == 0
    with Image.open(tmp_path / "turntable.gif") as animation:
        assert animation.n_frames == 5 and animation.size == (20, 20) and animation.info["loop"] == 0
