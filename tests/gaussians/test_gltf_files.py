"""KHR_gaussian_splatting in .glb, against a file that is put together here by its specification."""

import json
import struct

import numpy as np
import pytest
import torch

from sparse3d.errors import DataError
from sparse3d.gaussians.cloud import SH0, GaussianCloud
from sparse3d.gaussians.formats import open_splats, read_splats, write_splats
from sparse3d.gaussians.formats.losses import losses
from sparse3d.gaussians.repair import repair
from tests.gaussians.splat_files import some_cloud
from tests.gaussians.test_axes import covariance

PLAIN = {
    np.dtype("f4"): 5126,
    np.dtype("u1"): 5121,
    np.dtype("i1"): 5120,
    np.dtype("u2"): 5123,
    np.dtype("i2"): 5122,
}
COLUMNS = {1: "SCALAR", 3: "VEC3", 4: "VEC4"}


def attributes(degree=1):
    """Two Gaussians; integers that stand for fractions, in some."""
    out = {
        "POSITION": np.array([[1, 2, 3], [4, 5, 6]], "f4"),
        "ROTATION": (np.array([[0, 0, 0, 127], [127, 0, 0, 0]], "i1"), True),
        "SCALE": (np.array([[255, 51, 0], [1, 2, 3]], "u1"), True),
        "OPACITY": (np.array([[13107], [65535]], "u2"), True),
        "SH_DEGREE_0_COEF_0": np.array([[0, 1, 2], [3, 4, 5]], "f4"),
    }
    for l in range(1, degree + 1):
        for n in range(2 * l + 1):
            out[f"SH_DEGREE_{l}_COEF_{n}"] = np.full((2, 3), 10 * l + n, "f4") + np.array(
                [0, 0.25, 0.5], "f4"
            )
    return out


def glb(columns=None, node=None, said=None, change=None):
    tables, views, accessors, names, data = columns or attributes(), [], [], {}, b""
    for name, table in tables.items():
        table, normalized = table if isinstance(table, tuple) else (table, False)
        names[name if name == "POSITION" else f"KHR_gaussian_splatting:{name}"] = len(views)
        views.append({"buffer": 0, "byteOffset": len(data), "byteLength": table.nbytes})
        accessors.append(
            {"bufferView": len(accessors), "count": len(table), "componentType": PLAIN[table.dtype]}
        )
        accessors[-1] |= {"type": COLUMNS[table.shape[1]], "normalized": normalized}
        data += table.tobytes() + bytes(-table.nbytes % 4)
    said = {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"} if said is None else said
    tree = {
        "asset": {"version": "2.0"},
        "extensionsUsed": ["KHR_gaussian_splatting"],
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0, **(node or {})}],
        "meshes": [{"primitives": [
            {"attributes": names, "mode": 0, "extensions": {"KHR_gaussian_splatting": said}}
        ]}],
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(data)}],
    }  # fmt: skip
    if change:
        change(tree)
    text = json.dumps(tree).encode()
    text += b" " * (-len(text) % 4)
    size = 12 + 8 + len(text) + 8 + len(data)
    head = struct.pack("<4sII", b"glTF", 2, size) + struct.pack("<I4s", len(text), b"JSON")
    return head + text + struct.pack("<I4s", len(data), b"BIN\0") + data


@pytest.mark.parametrize("degree", range(4))
def test_by_its_specification(tmp_path, degree):
    (tmp_path / "a.glb").write_bytes(glb(attributes(degree)))
    cloud = read_splats(tmp_path / "a.glb", axes="RDF")  # the numbers as they are
    assert cloud.means.tolist() == [[1, 2, 3], [4, 5, 6]] and cloud.sh_degree == degree
    torch.testing.assert_close(cloud.quats, torch.tensor([[1.0, 0, 0, 0], [0, 1, 0, 0]]))
    torch.testing.assert_close(cloud.scales[0], torch.tensor([1, 0.2, 0]).log())
    assert cloud.opacities[0].item() == pytest.approx(np.log(0.2 / 0.8), rel=1e-5)
    assert repair(cloud)[1].zero_scales == 1 and repair(cloud)[1].infinite_opacities == 1
    assert cloud.sh0[:, 0].tolist() == [[0, 1, 2], [3, 4, 5]]
    expected = [10 * l + n for l in range(1, degree + 1) for n in range(2 * l + 1)]
    assert cloud.shN[1, :, 0].tolist() == expected and cloud.shN[1, :, 2].tolist() == [
        e + 0.5 for e in expected
    ]


def test_its_axes_are_left_up_front(tmp_path):
    (tmp_path / "a.glb").write_bytes(glb())
    assert read_splats(tmp_path / "a.glb").means.tolist() == [[-1, -2, 3], [-4, -5, 6]]


@pytest.mark.parametrize("degree", range(4))
def test_what_is_written_comes_back(tmp_path, degree):
    cloud = some_cloud(100, degree)
    write_splats(tmp_path / "a.glb", cloud)
    lost = {loss.name: loss.most for loss in losses([cloud], [read_splats(tmp_path / "a.glb")])}
    assert lost["position"] == 0 and lost["colour"] == 0 and lost.get("harmonics", 0) == 0
    assert lost["scale"] < 1e-3 and lost["rotation"] < 1e-4 and lost["opacity"] < 1e-6
    assert [p.name for p in tmp_path.iterdir()] == ["a.glb"]


def test_what_is_written_keeps_to_the_specification(tmp_path):
    cloud = some_cloud(7, 4)
    write_splats(tmp_path / "a.glb", cloud, axes="RDF")
    data = (tmp_path / "a.glb").read_bytes()
    (size,) = struct.unpack_from("<I", data, 12)
    tree, binary = json.loads(data[20 : 20 + size]), data[28 + size :]
    assert tree["extensionsUsed"] == ["KHR_gaussian_splatting"] and "extensionsRequired" not in tree
    (primitive,) = tree["meshes"][0]["primitives"]
    assert primitive["mode"] == 0 and "indices" not in primitive
    assert primitive["extensions"] == {
        "KHR_gaussian_splatting": {"kernel": "ellipse", "colorSpace": "srgb_rec709_display"}
    }

    def rows(name, kind, columns):
        accessor = tree["accessors"][primitive["attributes"][name]]
        view = tree["bufferViews"][accessor["bufferView"]]
        assert accessor["componentType"] == PLAIN[np.dtype(kind)] and accessor["type"] == COLUMNS[columns]
        assert accessor["count"] == 7 and view["byteOffset"] % 4 == 0
        return np.frombuffer(binary, kind, 7 * columns, view["byteOffset"]).reshape(7, columns), accessor

    means, accessor = rows("POSITION", "f4", 3)
    assert np.array_equal(means, cloud.means) and accessor["min"] == means.min(0).tolist()
    own = "KHR_gaussian_splatting:"
    np.testing.assert_allclose(rows(own + "SCALE", "f4", 3)[0], cloud.scales.exp(), rtol=1e-6)
    np.testing.assert_allclose(rows(own + "ROTATION", "f4", 4)[0], cloud.quats[:, [1, 2, 3, 0]], atol=1e-6)
    np.testing.assert_allclose(rows(own + "OPACITY", "f4", 1)[0][:, 0], cloud.opacities.sigmoid(), rtol=1e-6)
    names = [name for name in primitive["attributes"] if "SH_DEGREE" in name]
    assert len(names) == 16 and not any("DEGREE_4" in name for name in names), "degree 4 is not in it"
    assert np.array_equal(rows(own + "SH_DEGREE_2_COEF_3", "f4", 3)[0], cloud.shN[:, 6])
    shown = rows("COLOR_0", "u2", 4)[0] / 65535
    color = np.clip(0.5 + SH0 * cloud.sh0[:, 0].numpy(), 0, 1)
    linear = np.where(color <= 0.04045, color / 12.92, ((color + 0.055) / 1.055) ** 2.4)
    np.testing.assert_allclose(shown[:, :3], linear, atol=1e-4)
    assert tree["accessors"][primitive["attributes"]["COLOR_0"]]["normalized"] is True


def test_nodes_move_what_they_hold(tmp_path):
    half = 0.5**0.5
    node = {
        "rotation": [0, 0, half, half],
        "translation": [10, 0, 0],
        "scale": [2, 2, 2],
    }  # 90 degrees about z
    columns = {**attributes(1), "SCALE": np.array([[0.1, 0.2, 0.3]] * 2, "f4")}
    (tmp_path / "a.glb").write_bytes(glb(columns))
    (tmp_path / "b.glb").write_bytes(glb(columns, node))
    before, after = (read_splats(tmp_path / n, axes="RDF").to(torch.float64) for n in ("a.glb", "b.glb"))
    turn = torch.tensor([[0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(after.means, 2 * before.means @ turn.T + torch.tensor([10.0, 0, 0]))
    torch.testing.assert_close(covariance(after), 4 * turn @ covariance(before) @ turn.T)
    # Of degree 1 the coefficients are a vector (-x, z, -y) of indices 2, 1, 0.
    vector, turned = (torch.stack([-c.shN[:, 2], -c.shN[:, 0], c.shN[:, 1]], 1) for c in (before, after))
    torch.testing.assert_close(turned, torch.einsum("ij,njc->nic", turn, vector), atol=1e-4, rtol=1e-5)


def test_several_primitives_are_one_cloud(tmp_path):
    def twice(tree):
        tree["nodes"] += [{"mesh": 0, "translation": [0, 0, 1]}]
        tree["scenes"][0]["nodes"].append(1)

    (tmp_path / "a.glb").write_bytes(glb(change=twice))
    cloud = read_splats(tmp_path / "a.glb", axes="RDF")
    assert sorted(cloud.means[:, 2].tolist()) == [3, 4, 6, 7]


def put(*keys, to):
    def change(tree):
        found = tree
        for key in keys[:-1]:
            found = found[key]
        found[keys[-1]] = to

    return change


ATTRIBUTES = ("meshes", 0, "primitives", 0, "attributes")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"change": put("accessors", 2, "count", to=10**12)}, "accessor 2 needs bytes"),
        ({"change": put("accessors", 0, "count", to=10**12)}, "accessor 0 needs bytes"),
        ({"change": lambda tree: [a.update(count=0) for a in tree["accessors"]]}, "holds 0 Gaussians"),
        ({"change": put("accessors", 0, "count", to=-1)}, "negative count"),
        ({"change": put("accessors", 2, "count", to=-1)}, "negative count"),
        ({"change": put("bufferViews", 1, "byteOffset", to=1 << 40)}, "accessor 1 needs bytes"),
        ({"change": put("accessors", 3, "count", to=1)}, "attributes of one primitive have"),
        ({"change": put("accessors", 1, "bufferView", to=99)}, "no glTF 2.0: IndexError"),
        (
            {"change": put("extensionsRequired", to=["KHR_draco"])},
            "needs extensions that are not supported: KHR_draco",
        ),
        ({"change": put("meshes", 0, "primitives", 0, "mode", to=4)}, "Gaussians of mode 4"),
        ({"change": put("meshes", 0, "primitives", 0, "extensions", to={})}, "holds nothing of KHR_gaussian"),
        ({"change": put("nodes", 0, "children", to=[0])}, "nodes that hold themselves"),
        ({"change": put(*ATTRIBUTES, to={"POSITION": 0})}, "no attribute 'KHR_gaussian_splatting:ROTATION'"),
        ({"node": {"scale": [1, 2, 1]}}, "scales its axes differently"),
        ({"node": {"scale": [-1, -1, -1]}}, "or mirrors them"),
        ({"said": {"kernel": "box", "colorSpace": "srgb_rec709_display"}}, "kernel 'box'"),
        (
            {"said": {"kernel": "ellipse", "colorSpace": "lin_rec709_display"}},
            "colours in 'lin_rec709_display'",
        ),
        (
            {"said": {"kernel": "ellipse", "colorSpace": "srgb_rec709_display", "extensions": {"spz": {}}}},
            "changed by spz: not supported",
        ),
        ({"columns": {**attributes(), "SCALE": np.full((2, 3), -5, "f4")}}, "a scale is -5: a logarithm"),
    ],
)
def test_what_is_wrong_is_told(tmp_path, options, message):
    (tmp_path / "bad.glb").write_bytes(glb(**options))
    with pytest.raises(DataError, match=message):
        open_splats(tmp_path / "bad.glb").cloud()


def test_a_degree_is_whole_or_not_there(tmp_path):
    columns = attributes(2)
    del columns["SH_DEGREE_2_COEF_3"]
    (tmp_path / "bad.glb").write_bytes(glb(columns))
    with pytest.raises(DataError, match="no attribute 'KHR_gaussian_splatting:SH_DEGREE_2_COEF_3'"):
        open_splats(tmp_path / "bad.glb")


def test_nothing_of_surfels_is_lost_but_that_they_are_flat(tmp_path):
    flat = some_cloud(9, 1, surfels=True)
    for name in ("a.glb", "a.splat", "a.spz", "a.sog", "a.compressed.ply"):
        write_splats(tmp_path / name, flat)
        again = read_splats(tmp_path / name)
        assert again.scales.shape == (9, 3) and (again.scales[:, 2] < again.scales[:, :2].amin(1)).all(), name
    assert isinstance(again, GaussianCloud)
