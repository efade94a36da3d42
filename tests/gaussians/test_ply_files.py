"""Gaussians in .ply: every layout that programs write, and what is wrong with others."""

import struct
import tracemalloc

import numpy as np
import pytest
import torch

from sparse3d.errors import DataError
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.formats import open_splats, read_splats, write_splats
from sparse3d.gaussians.formats.inria_ply import write_inria_ply
from sparse3d.gaussians.formats.source import Splats
from tests.gaussians.splat_files import assert_same, some_cloud


def rows_of(cloud, seed=None):
    """Property names and a table of floats, written here by the paper's layout; shuffled columns for a
    seed."""
    k = cloud.shN.shape[1]
    columns = {name: cloud.means[:, n] for n, name in enumerate("xyz")}
    columns |= {name: torch.full((len(cloud),), 7.0) for name in ("nx", "ny", "nz")}
    columns |= {f"f_dc_{c}": cloud.sh0[:, 0, c] for c in range(3)}
    columns |= {f"f_rest_{c * k + n}": cloud.shN[:, n, c] for c in range(3) for n in range(k)}
    columns["opacity"] = cloud.opacities
    columns |= {f"scale_{n}": cloud.scales[:, n] for n in range(cloud.scales.shape[1])}
    columns |= {f"rot_{n}": cloud.quats[:, n] for n in range(4)}
    names = list(columns)
    if seed is not None:
        np.random.default_rng(seed).shuffle(names)
    return names, np.stack([columns[name].numpy() for name in names], 1)


def header(order, count, properties, before=""):
    lines = "".join(f"property {kind} {name}\n" for name, kind in properties)
    head = f"ply\nformat {order} 1.0\ncomment by hand\n{before}element vertex {count}\n"
    return f"{head}{lines}end_header\n".encode()


@pytest.mark.parametrize("degree", range(5))
@pytest.mark.parametrize("surfels", [False, True])
@pytest.mark.parametrize("normals", [False, True])
def test_what_is_written_comes_back_bit_for_bit(tmp_path, degree, surfels, normals):
    cloud = some_cloud(11, degree, surfels)
    write_splats(tmp_path / "a.ply", cloud, normals=normals)
    again = read_splats(tmp_path / "a.ply")
    assert_same(cloud, again)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"], "nothing temporary is left"
    names, table = rows_of(cloud)
    if normals:
        table[:, 3:6] = 0
    else:
        names, table = names[:3] + names[6:], np.delete(table, [3, 4, 5], 1)
    expected = table.astype("<f4").tobytes()
    assert (tmp_path / "a.ply").read_bytes() == header(
        "binary_little_endian", 11, [(name, "float") for name in names]
    ).replace(b"comment by hand\n", b"") + expected


@pytest.mark.parametrize("order", ["binary_little_endian", "binary_big_endian", "ascii"])
@pytest.mark.parametrize("kind", ["float", "double"])
def test_properties_are_found_by_name_in_any_order_and_type(tmp_path, order, kind):
    cloud = some_cloud(5, 2)
    names, table = rows_of(cloud, seed=1)
    before = "element camera 2\nproperty uchar id\nproperty float focal\n"
    data = header(order, 5, [(name, kind) for name in names], before)
    if order == "ascii":
        lines = ["1 2.5", "2 2.5", *(" ".join(repr(float(v)) for v in row) for row in table)]
        data += ("\n".join(lines) + "\n").encode()
    else:
        sign = "<" if "little" in order else ">"
        data += struct.pack(f"{sign}BfBf", 1, 2.5, 2, 2.5)
        data += table.astype(sign + ("f4" if kind == "float" else "f8")).tobytes()
    (tmp_path / "a.ply").write_bytes(data)
    assert_same(cloud, read_splats(tmp_path / "a.ply"))


def test_a_cloud_in_training_is_written_as_it_is(tmp_path):
    """Doubles that want gradients, in strides."""
    parts = some_cloud(20, 1).to(torch.float64).parameters()
    cloud = GaussianCloud.of({k: torch.stack([v, v], -1)[..., 0].requires_grad_() for k, v in parts.items()})
    for name in ("a.ply", "a.spz", "a.sog", "a.glb", "a.splat", "a.compressed.ply"):
        write_splats(tmp_path / name, cloud)
        assert not read_splats(tmp_path / name).means.requires_grad
    assert_same(some_cloud(20, 1), read_splats(tmp_path / "a.ply"))


def test_blocks_are_the_whole(tmp_path):
    cloud = some_cloud(1000, 1)
    write_splats(tmp_path / "a.ply", cloud)
    opened = open_splats(tmp_path / "a.ply")
    assert (opened.count, opened.sh_degree, opened.surfels) == (1000, 1, False)
    blocks = list(opened.blocks(300))
    assert [len(b) for b in blocks] == [300, 300, 300, 100]
    assert torch.equal(torch.cat([b.shN for b in blocks]), cloud.shN)
    assert list(map(len, opened.blocks(300))) == [300, 300, 300, 100], "they may be asked for again"


def good(tmp_path):
    write_splats(tmp_path / "good.ply", some_cloud(4, 1))
    return (tmp_path / "good.ply").read_bytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[:-1], r"4 Gaussians need 416 bytes from offset \d+ on, 415 are there"),
        (
            lambda d: d.replace(b"vertex 4", b"vertex 1000000000000"),
            "1000000000000 Gaussians need 104000000000000",
        ),
        (lambda d: d.replace(b"vertex 4", b"vertex 0"), "holds 0 Gaussians"),
        (lambda d: d.replace(b"float opacity", b"float opacitx"), "has no property 'opacity'"),
        (lambda d: d.replace(b"float f_rest_8", b"float f_rost_8"), "8 values of spherical harmonics"),
        (lambda d: d.replace(b"element vertex", b"element vortex"), "no element 'vertex'"),
        (lambda d: d.replace(b"property float x", b"property list uchar float x"), "has a list property"),
        (lambda d: b"PLY" + d[3:], "does not begin with 'ply'"),
        (lambda d: d[:100], "header ends before its end_header"),
        (
            lambda d: d.replace(b"binary_little_endian", b"ascii"),
            r":\d+: \d+ values, expected 26|not a number|promises",
        ),
        (lambda d: b"", "does not begin with 'ply'"),
    ],
)
def test_what_is_wrong_is_said_with_its_path(tmp_path, change, message):
    (tmp_path / "bad.ply").write_bytes(change(good(tmp_path)))
    with pytest.raises(DataError, match=message) as error:
        read_splats(tmp_path / "bad.ply")
    assert str(tmp_path / "bad.ply") in str(error.value)


@pytest.mark.parametrize("order", ["binary_little_endian", "ascii"])
def test_a_promise_takes_no_memory(tmp_path, order):
    data = good(tmp_path).replace(b"binary_little_endian", order.encode())
    (tmp_path / "bad.ply").write_bytes(data.replace(b"vertex 4", b"vertex 1000000000"))
    tracemalloc.start()
    with pytest.raises(DataError):
        read_splats(tmp_path / "bad.ply")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_folder_and_nothing_are_no_files(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_splats(tmp_path / "none.ply")
    (tmp_path / "d.ply").mkdir()
    with pytest.raises(DataError, match="meta.json: no such file"):  # a folder is one of .sog's files
        read_splats(tmp_path / "d.ply")
    with pytest.raises(ValueError, match="end in .ply"):
        read_splats(tmp_path / "x.txt")


def test_what_fails_while_it_is_written_leaves_what_was_there(tmp_path):
    cloud = some_cloud(10)
    write_splats(tmp_path / "a.ply", cloud)

    def blocks(rows):
        yield cloud
        raise RuntimeError("the source broke")

    with pytest.raises(RuntimeError, match="broke"):
        write_inria_ply(tmp_path / "a.ply", Splats(20, 3, False, "RDF", blocks))
    assert_same(read_splats(tmp_path / "a.ply"), cloud)
    assert [p.name for p in tmp_path.iterdir()] == ["a.ply"]


def test_a_trained_file_of_others(real_data):
    cloud = read_splats(real_data / "splats" / "playbot_lod3_sh2.ply")
    assert len(cloud) == 31000 and cloud.sh_degree == 3
    # The coefficients of degree 3 were filled up with zeros, channel by channel; those of degree 2 were
    # trained.
    assert (cloud.shN[:, 8:] == 0).all() and (cloud.shN[:, :8].abs().amax((0, 2)) > 0.05).all()
    assert ((cloud.quats.norm(dim=1) - 1).abs() < 1e-3).all()
    colors = 0.5 + 0.2820948 * cloud.sh0
    assert ((colors > -0.2) & (colors < 1.2)).float().mean() > 0.95
