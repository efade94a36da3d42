"""Textures, materials, units and triangles without anything: what is written comes back, other programs read
it, and damage is told."""

import errno
import os

import numpy as np
import pytest

from sparse3d.errors import DataError
from sparse3d.geometry.material import Material
from sparse3d.geometry.mesh import Mesh, joined
from sparse3d.io.mesh_frames import UNITS, MeshFrame
from sparse3d.io.meshes import read_mesh, write_mesh

PAINTED = [".ply", ".obj", ".glb"]
TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])
VERTICES = np.array([[0, 0, 0], [1.25, 0, 0], [0, 1.5, 0], [0, 0, 2]], dtype=np.float32)


def painted_mesh(unlit=True):
    """Each face has a corner of the texture of its own, so that all vertices lie on seams."""
    rng = np.random.default_rng(0)
    corner = np.array([[0, 0], [0.5, 0], [0, 0.5], [0.5, 0.5]])[:, None]
    uv = (corner + np.array([[0.05, 0.05], [0.45, 0.1], [0.1, 0.4]])).astype(np.float32)
    texture = rng.integers(0, 256, (8, 6, 3)).astype(np.uint8)
    return Mesh(VERTICES, TETRAHEDRON, uv=uv, material=Material((1, 1, 1), texture, 0.25, 0.75, unlit))


def places(mesh, seed=0):
    """The same places of a mesh and of another that has its faces, in their order."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, len(mesh.faces), 200), rng.dirichlet(np.ones(3), 200)


@pytest.mark.parametrize("ending", PAINTED)
@pytest.mark.parametrize("unlit", [True, False])
def test_a_texture_comes_back_where_it_was_on_a_mesh_that_is_still_closed(tmp_path, ending, unlit):
    mesh = painted_mesh(unlit)
    write_mesh(tmp_path / f"m{ending}", mesh)
    again = read_mesh(tmp_path / f"m{ending}")
    assert again.is_closed and np.array_equal(again.vertices[again.faces], VERTICES[TETRAHEDRON])
    assert np.array_equal(again.material.texture, mesh.material.texture)
    np.testing.assert_allclose(again.colors_at(*places(mesh)), mesh.colors_at(*places(mesh)), atol=1e-5)
    if ending != ".ply":  # which has no materials
        assert (again.material.metallic, again.material.roughness) == (0.25, 0.75)
        assert again.material.unlit == unlit


@pytest.mark.parametrize("ending", PAINTED)
def test_another_program_sees_the_same_texture_at_the_same_places(tmp_path, ending):
    trimesh = pytest.importorskip("trimesh")
    mesh = painted_mesh()
    write_mesh(tmp_path / f"m{ending}", mesh)
    (theirs,) = trimesh.load_scene(tmp_path / f"m{ending}", process=False).geometry.values()
    if ending == ".ply":  # trimesh knows texture coordinates of vertices alone in these
        assert np.array_equal(theirs.triangles, VERTICES[TETRAHEDRON])
        return
    uv = np.asarray(theirs.visual.uv)[theirs.faces]  # v upward in trimesh
    order = [
        np.flatnonzero((theirs.triangles == triangle).all((1, 2))).item()
        for triangle in mesh.vertices[mesh.faces]
    ]
    np.testing.assert_allclose(uv[order] * [1, -1] + [0, 1], mesh.uv, atol=1e-6)
    material = theirs.visual.material
    picture = material.baseColorTexture if ending == ".glb" else material.image
    assert np.array_equal(np.asarray(picture.convert("RGB")), mesh.material.texture)


def test_trimesh_and_open3d_and_back():
    pytest.importorskip("trimesh")
    pytest.importorskip("open3d")
    from sparse3d.geometry.mesh_exchange import from_open3d, from_trimesh

    mesh, rng = painted_mesh(), np.random.default_rng(0)
    plain = Mesh(VERTICES, TETRAHEDRON, rng.integers(0, 256, (4, 3)).astype(np.uint8))
    for back, there in ((from_trimesh, "to_trimesh"), (from_open3d, "to_open3d")):
        again = back(getattr(mesh, there)())
        assert again.is_closed and np.array_equal(again.vertices[again.faces], VERTICES[TETRAHEDRON])
        np.testing.assert_allclose(again.colors_at(*places(mesh)), mesh.colors_at(*places(mesh)), atol=1e-5)
        again = back(getattr(plain, there)())
        assert np.array_equal(again.vertices, VERTICES) and np.array_equal(again.faces, TETRAHEDRON)
        assert np.array_equal(again.colors, plain.colors)
    assert np.asarray(plain.to_open3d().vertex_normals).shape == (4, 3)


def test_a_texture_is_read_between_its_texels():
    texture = np.zeros((2, 4, 3), dtype=np.uint8)
    texture[0, 1], texture[1, 3] = (255, 0, 0), (0, 255, 0)
    material = Material(texture=texture)
    uv = np.array([[1.5 / 4, 0.25], [2 / 4, 0.25], [3.5 / 4, 0.75], [1.0, 0.75], [1.5 / 4, -0.75]])
    expected = np.array([[1, 0, 0], [0.5, 0, 0], [0, 1, 0], [0, 0.5, 0], [1, 0, 0]])
    np.testing.assert_allclose(material.at(uv), expected, atol=1e-12)
    with pytest.raises(ValueError, match="uint8"):
        Material(texture=np.zeros((2, 2, 3)))
    with pytest.raises(ValueError, match="roughness"):
        Material(roughness=1.5)
    with pytest.raises(ValueError, match="uv"):
        Mesh(VERTICES, TETRAHEDRON, uv=np.zeros((4, 2)))


def test_a_texture_becomes_colours_of_vertices_when_parts_differ():
    red, green = (Material(texture=np.full((2, 2, 3), c, np.uint8)) for c in ((255, 0, 0), (0, 255, 0)))
    uv = np.zeros((4, 3, 2))
    one, two = (Mesh(VERTICES, TETRAHEDRON, uv=uv, material=material) for material in (red, green))
    same = joined([one, one])
    assert same.has_texture and same.material is red and len(same.faces) == 8 and same.is_closed
    both = joined([one, two])
    assert not both.has_texture and both.colors[0].tolist() == [255, 0, 0]
    assert both.colors[4].tolist() == [0, 255, 0]
    plain = joined([one, Mesh(VERTICES, TETRAHEDRON)])
    assert plain.colors is None and len(plain.vertices) == 8


def test_an_obj_of_others_with_a_quad_and_two_materials(tmp_path):
    (tmp_path / "x.mtl").write_text("newmtl a b\nKd 1 0 0\nillum 2\n\nnewmtl c\nKd 0 0.5 1\nPr 0.5\n")
    (tmp_path / "m.obj").write_text(
        "mtllib x.mtl\nv 0 0 0\nv 1 0 0\nv 1 1 0\nv 0 1 0\nv 5 5 5\nv 6 5 5\nv 5 6 5\nusemtl a b\nf 1 2 3 4\n"
        "usemtl c\nf 5 6 7\n"
    )
    mesh = read_mesh(tmp_path / "m.obj")
    assert mesh.colors[0].tolist() == [255, 0, 0] and mesh.colors[6].tolist() == [0, 128, 255]
    (tmp_path / "x.mtl").write_text("newmtl a b\nKd 1 zero 0\n")
    with pytest.raises(DataError, match=r"x\.mtl:2"):
        read_mesh(tmp_path / "m.obj")
    (tmp_path / "x.mtl").unlink()
    assert read_mesh(tmp_path / "m.obj").colors is None, "a shape without its paint is still one"


@pytest.mark.parametrize("ending", [".ply", ".obj"])
def test_pictures_are_looked_for_beside_the_file_alone(tmp_path, ending, caplog):
    (tmp_path / "in").mkdir()
    write_mesh(tmp_path / f"in/m{ending}", painted_mesh())
    (tmp_path / "in/m.png").rename(tmp_path / "secret.png")
    assert not read_mesh(tmp_path / f"in/m{ending}").has_texture
    for file in (tmp_path / "in").iterdir():
        file.write_bytes(file.read_bytes().replace(b" m.png", b" ../secret.png"))
    assert not read_mesh(tmp_path / f"in/m{ending}").has_texture and "not beside it" in caplog.text
    (tmp_path / "in/m.png").write_bytes(b"no picture")
    for file in (tmp_path / "in").iterdir():
        file.write_bytes(file.read_bytes().replace(b" ../secret.png", b" m.png"))
    with pytest.raises(DataError, match=r"m\.png"):
        read_mesh(tmp_path / f"in/m{ending}")


@pytest.mark.parametrize("ending", PAINTED)
def test_damaged_files_with_textures_are_told(tmp_path, ending):
    path = tmp_path / f"m{ending}"
    write_mesh(path, painted_mesh())
    data, rng = path.read_bytes(), np.random.default_rng(0)
    for number in range(200):
        damaged = bytearray(data[: rng.integers(len(data))] if number % 4 == 0 else data)
        for place in rng.integers(max(len(damaged), 1), size=3 if len(damaged) else 0):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_mesh(path)
        except DataError as error:
            assert str(tmp_path) in str(error)


def test_stl_of_bytes_and_of_text(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    mesh = Mesh(VERTICES, TETRAHEDRON)
    write_mesh(tmp_path / "m.stl", mesh)
    theirs = trimesh.load_mesh(tmp_path / "m.stl")
    assert theirs.is_watertight and theirs.volume == pytest.approx(mesh.volume)
    text = trimesh.exchange.stl.export_stl_ascii(mesh.to_trimesh())
    (tmp_path / "t.stl").write_text(text)
    for name in ("m.stl", "t.stl"):
        again = read_mesh(tmp_path / name)
        assert again.is_closed and len(again.vertices) == 4
        np.testing.assert_allclose(again.vertices[again.faces], VERTICES[TETRAHEDRON], atol=1e-7)
    for broken in (text[: len(text) // 2], text.replace("vertex", "vert", 1), text.replace("1.25", "x.25")):
        (tmp_path / "t.stl").write_text(broken)
        with pytest.raises(DataError):
            read_mesh(tmp_path / "t.stl")
    data = (tmp_path / "m.stl").read_bytes()
    (tmp_path / "m.stl").write_bytes(b"solid" + data[5:])
    assert read_mesh(tmp_path / "m.stl").is_closed, "some programs begin files of bytes so"


@pytest.mark.parametrize("ending", [".ply", ".obj", ".glb", ".stl"])
@pytest.mark.parametrize(("units", "up"), [("mm", "z"), ("in", "y"), ("cm", "y")])
def test_units_and_orientation_of_files(tmp_path, ending, units, up):
    mesh, frame = Mesh(VERTICES, TETRAHEDRON), MeshFrame(units, up)
    write_mesh(tmp_path / f"m{ending}", mesh, frame)
    there = read_mesh(tmp_path / f"m{ending}")
    top = there.vertices[:, 1 if up == "y" else 2].max() * UNITS[units]
    assert top == pytest.approx(2, rel=1e-6) and there.volume > 0 and there.is_closed
    again = read_mesh(tmp_path / f"m{ending}", frame)
    np.testing.assert_allclose(again.vertices[again.faces], VERTICES[TETRAHEDRON], rtol=1e-6, atol=1e-6)
    with pytest.raises(ValueError, match="units"):
        MeshFrame("yards")
    huge = Mesh(VERTICES * np.float32(1e37), TETRAHEDRON)
    with pytest.raises(ValueError, match="finite"):
        write_mesh(tmp_path / "huge.ply", huge, MeshFrame("mm"))


@pytest.mark.parametrize("ending", [".ply", ".obj", ".glb", ".stl"])
def test_a_full_disk_leaves_what_was_there(tmp_path, ending, monkeypatch):
    path = tmp_path / f"m{ending}"
    write_mesh(path, painted_mesh())
    before = {file.name: file.read_bytes() for file in tmp_path.iterdir()}

    def full(handle):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        write_mesh(path, Mesh(2 * VERTICES, TETRAHEDRON))
    assert {file.name: file.read_bytes() for file in tmp_path.iterdir()} == before


def test_a_real_cow_with_its_texture(real_data, tmp_path):
    found = sorted((real_data / "meshes/pytorch3d_cow").rglob("*.obj"))
    if not found:
        pytest.skip("no textured cow there")
    mesh = read_mesh(found[0])
    assert mesh.has_texture and mesh.colors_at(*places(mesh)).std() > 0.05
    write_mesh(tmp_path / "cow.glb", mesh)
    again = read_mesh(tmp_path / "cow.glb")
    np.testing.assert_allclose(again.colors_at(*places(mesh)), mesh.colors_at(*places(mesh)), atol=1e-4)
