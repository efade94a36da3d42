"""Mesh files: what is written comes back, other programs read it, and damage is told."""

import json
import struct

import numpy as np
import pytest

from sparse3d.errors import DataError
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.glb import linear_to_srgb, srgb_to_linear
from sparse3d.io.meshes import read_mesh, write_mesh
from sparse3d.io.points import read_points

ENDINGS = [".ply", ".obj", ".glb"]
TETRAHEDRON = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]])


def some_mesh(colors=True):
    rng = np.random.default_rng(0)
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]]) * 1.7 + rng.uniform(-0.2, 0.2, (4, 3))
    chosen = np.array([[0, 1, 2], [255, 128, 3], [90, 91, 254], [17, 200, 4]], dtype=np.uint8)
    return Mesh(vertices, TETRAHEDRON, chosen if colors else None)


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("colors", [True, False])
def test_what_is_written_comes_back_bit_for_bit(tmp_path, ending, colors):
    mesh = some_mesh(colors)
    write_mesh(tmp_path / f"m{ending}", mesh)
    again = read_mesh(tmp_path / f"m{ending}")
    assert np.array_equal(again.vertices, mesh.vertices) and np.array_equal(again.faces, mesh.faces)
    assert np.array_equal(again.colors, mesh.colors) if colors else again.colors is None
    assert [p.name for p in tmp_path.iterdir()] == [f"m{ending}"], "nothing temporary is left"


@pytest.mark.parametrize("ending", ENDINGS)
def test_another_program_reads_it(tmp_path, ending):
    trimesh = pytest.importorskip("trimesh")
    mesh = some_mesh()
    write_mesh(tmp_path / f"m{ending}", mesh)
    scene = trimesh.load_scene(tmp_path / f"m{ending}", process=False)
    (theirs,) = scene.geometry.values()
    np.testing.assert_allclose(theirs.vertices, mesh.vertices, atol=1e-7)
    assert np.array_equal(theirs.faces, mesh.faces) and theirs.is_watertight and theirs.volume > 0
    if ending == ".glb":  # trimesh gives colours beside a material as they are in the file: linear
        colors = np.asarray(theirs.visual.vertex_attributes["color"])[:, :3] / 65535
        np.testing.assert_allclose(colors, srgb_to_linear(mesh.colors / 255), atol=1e-5)
    else:
        assert np.array_equal(np.asarray(theirs.visual.vertex_colors)[:, :3], mesh.colors)


def test_all_colours_survive_linear_light():
    every = np.arange(256)
    stored = np.rint(srgb_to_linear(every / 255) * 65535)
    assert np.array_equal(np.rint(linear_to_srgb(stored / 65535) * 255), every)


def test_a_glb_keeps_to_its_specification(tmp_path):
    mesh = some_mesh()
    write_mesh(tmp_path / "m.glb", mesh)
    data = (tmp_path / "m.glb").read_bytes()
    assert struct.unpack_from("<4sII", data) == (b"glTF", 2, len(data))
    size, kind = struct.unpack_from("<I4s", data, 12)
    assert kind == b"JSON" and size % 4 == 0
    tree = json.loads(data[20 : 20 + size])
    binary_size, binary_kind = struct.unpack_from("<I4s", data, 20 + size)
    assert binary_kind == b"BIN\0" and binary_size % 4 == 0 and 28 + size + binary_size == len(data)
    assert tree["buffers"][0]["byteLength"] == binary_size and tree["asset"]["version"] == "2.0"
    width = {"SCALAR": 1, "VEC3": 3, "VEC4": 4}
    item = {5126: 4, 5123: 2, 5125: 4}
    primitive = tree["meshes"][0]["primitives"][0]
    for accessor in tree["accessors"]:
        view = tree["bufferViews"][accessor["bufferView"]]
        row = width[accessor["type"]] * item[accessor["componentType"]]
        assert view["byteOffset"] % 4 == 0 and row % 4 == 0, "vertex attributes are aligned to four bytes"
        assert view["byteLength"] == accessor["count"] * row
        assert view["byteOffset"] + view["byteLength"] <= binary_size
    position = tree["accessors"][primitive["attributes"]["POSITION"]]
    assert position["min"] == mesh.vertices.min(0).tolist()
    assert position["max"] == mesh.vertices.max(0).tolist()
    assert tree["accessors"][primitive["indices"]]["count"] == 12


@pytest.mark.parametrize("order", ["ascii", "binary_little_endian", "binary_big_endian"])
def test_ply_of_others(tmp_path, order):
    """Quads, doubles, colours as floats, properties that nobody needs, and an element before the vertices."""
    header = (
        f"ply\nformat {order} 1.0\ncomment made by hand\nelement camera 1\nproperty float f\n"
        "property list uchar short ids\nelement vertex 5\nproperty double x\nproperty double y\n"
        "property float quality\nproperty double z\nproperty float red\nproperty float green\n"
        "property float blue\nelement face 3\nproperty uchar flag\nproperty list uchar uint vertex_index\n"
        "end_header\n"
    )
    vertices = [(0, 0, 7, 0), (1, 0, 7, 0), (1, 1, 7, 0), (0, 1, 7, 0), (0.5, 0.5, 7, 1)]
    polygons = [(3, 2, 1, 0), (0, 1, 4), (1, 2)]  # the last one has no area and no triangle
    if order == "ascii":
        lines = ["1.5 3 7 8 9", *(f"{x} {y} {q} {z} 1 0.5 0" for x, y, q, z in vertices)]
        lines += [" ".join(map(str, (0, len(p), *p))) for p in polygons]
        body = ("\n".join(lines) + "\n").encode()
    else:
        sign = "<" if "little" in order else ">"
        body = struct.pack(f"{sign}fBhhh", 1.5, 3, 7, 8, 9)
        body += b"".join(struct.pack(f"{sign}ddfdfff", *v, 1, 0.5, 0) for v in vertices)
        body += b"".join(struct.pack(f"{sign}BB{len(p)}I", 0, len(p), *p) for p in polygons)
    (tmp_path / "m.ply").write_bytes(header.encode() + body)
    mesh = read_mesh(tmp_path / "m.ply")
    assert mesh.faces.tolist() == [[3, 2, 1], [3, 1, 0], [0, 1, 4]]
    assert mesh.vertices[4].tolist() == [0.5, 0.5, 1] and mesh.colors[0].tolist() == [255, 128, 0]


def test_obj_of_others(tmp_path):
    (tmp_path / "m.obj").write_text(
        "# by hand\nmtllib x.mtl\nv 0 0 0\nv 1 0 0 1.0\nv 1 1 0\nvt 0 0\nvn 0 0 1\nf 1/1/1 2//1 3\n"
        "v 0 1 0\nf -4 -2 -1\nf 1 2 3 4\nl 1 2\n"
    )
    mesh = read_mesh(tmp_path / "m.obj")
    assert mesh.faces.tolist() == [[0, 1, 2], [0, 2, 3], [0, 1, 2], [0, 2, 3]] and mesh.colors is None


def with_tree(path, change):
    """A .glb with another JSON chunk."""
    data = path.read_bytes()
    (size,) = struct.unpack_from("<I", data, 12)
    tree = json.loads(data[20 : 20 + size])
    change(tree)
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    rest = data[20 + size :]
    total = 20 + len(text) + len(rest)
    path.write_bytes(struct.pack("<4sIII4s", b"glTF", 2, total, len(text), b"JSON") + text + rest)


def test_nodes_of_a_glb_move_its_parts(tmp_path):
    mesh = some_mesh()
    write_mesh(tmp_path / "m.glb", mesh)

    def change(tree):
        half = 0.5**0.5
        tree["nodes"] = [
            {"children": [1, 2], "translation": [10, 0, 0]},
            {"mesh": 0, "rotation": [0, 0, half, half], "scale": [2, 2, 2]},  # x becomes y, y becomes -x
            {"mesh": 0, "matrix": [-1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]},
        ]

    with_tree(tmp_path / "m.glb", change)
    both = read_mesh(tmp_path / "m.glb")
    turned = mesh.vertices[:, [1, 0, 2]] * [-2, 2, 2] + [10, 0, 0]
    mirrored = mesh.vertices * [-1, 1, 1] + [10, 0, 0]
    expected = np.concatenate([mirrored, turned])
    order, ours = (np.lexsort(np.round(rows, 3).T) for rows in (expected, both.vertices))
    np.testing.assert_allclose(both.vertices[ours], expected[order], atol=1e-5)
    assert both.is_closed and both.volume == pytest.approx(9 * mesh.volume, rel=1e-4), "neither is inside out"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: tree["accessors"][0].update(count=10**6), "needs bytes"),
        (lambda tree: tree["accessors"][0].update(componentType=7), "no glTF"),
        (lambda tree: tree["bufferViews"][0].update(byteOffset=-8), "negative"),
        (lambda tree: tree["buffers"][0].update(uri="other.bin"), "another file"),
        (lambda tree: tree.update(extensionsRequired=["KHR_draco_mesh_compression"]), "draco"),
        (lambda tree: tree.update(nodes=[{"children": [0]}]), "nodes"),
        (lambda tree: tree.update(meshes=3), "no glTF"),
        (lambda tree: tree["meshes"][0]["primitives"][0].update(mode=0), "no triangles"),
    ],
)
def test_a_glb_that_lies_is_refused(tmp_path, change, words):
    write_mesh(tmp_path / "m.glb", some_mesh())
    with_tree(tmp_path / "m.glb", change)
    with pytest.raises(DataError, match=words):
        read_mesh(tmp_path / "m.glb")


@pytest.mark.parametrize("ending", [*ENDINGS, ".stl"])
def test_files_that_are_cut_off_or_damaged_are_told(tmp_path, ending):
    path = tmp_path / f"m{ending}"
    write_mesh(path, some_mesh())
    data = path.read_bytes()
    refused, lengths = 0, range(0, len(data) - 1, 5)
    for length in lengths:
        path.write_bytes(data[:length])
        try:
            read_mesh(path)
        except DataError as error:
            assert str(path) in str(error)
            refused += 1
    # Only text can end early unnoticed: between faces, or in a number.
    assert refused == len(lengths) if ending != ".obj" else refused > 0.6 * len(lengths)
    rng = np.random.default_rng(0)
    for _ in range(150):  # whatever stands there, it is a mesh or told as a DataError
        damaged = bytearray(data)
        for place in rng.integers(len(data), size=3):
            damaged[place] = rng.integers(256)
        path.write_bytes(damaged)
        try:
            read_mesh(path)
        except DataError:
            pass


def test_names_and_meshes_that_cannot_be_written(tmp_path):
    with pytest.raises(ValueError, match=r"\.ply, \.obj, \.glb, \.stl"):
        write_mesh(tmp_path / "m.fbx", some_mesh())
    with pytest.raises(DataError, match="by its ending"):
        read_mesh(tmp_path / "m.fbx")
    with pytest.raises(ValueError, match="without triangles"):
        write_mesh(tmp_path / "m.glb", some_mesh().select(np.zeros(4, bool)))
    with pytest.raises(DataError, match="no such file"):
        read_mesh(tmp_path / "m.ply")


def test_the_vertices_of_a_mesh_are_points(tmp_path):
    write_mesh(tmp_path / "m.ply", some_mesh())
    np.testing.assert_array_equal(read_points(tmp_path / "m.ply")[:, :3], some_mesh().vertices)
