"""Formats of few bits, against bytes that are written here by their specifications, and what they lose."""

import gzip
import struct

import numpy as np
import pytest
import torch
import zstandard

from sparse3d.errors import DataError
from sparse3d.gaussians.cloud import SH0, GaussianCloud
from sparse3d.gaussians.formats import open_splats, read_splats, write_splats
from sparse3d.gaussians.formats.frames import change_axes
from sparse3d.gaussians.formats.losses import losses
from sparse3d.gaussians.formats.order import in_order, morton
from sparse3d.gaussians.repair import repair
from tests.gaussians.splat_files import some_cloud

HALF = 0.5**0.5


def logit(value):
    return float(np.log(value / (1 - value)))


def most(before, after):
    return {loss.name: loss.most for loss in losses([before], [after])}


def small(cloud):
    """With colours that every format holds."""
    return GaussianCloud.of({**cloud.parameters(), "sh0": cloud.sh0.clamp(-1.5, 1.5)})


# .splat


def test_splat_by_its_specification(tmp_path):
    row = struct.pack("<6f8B", 1, -2, 3, 0.5, 0.25, 0.125, 255, 128, 0, 51, 192, 64, 128, 128)
    (tmp_path / "a.splat").write_bytes(row + row)
    cloud = read_splats(tmp_path / "a.splat")
    assert len(cloud) == 2 and cloud.sh_degree == 0
    assert cloud.means[1].tolist() == [1, -2, 3]
    torch.testing.assert_close(cloud.scales[0], torch.tensor([0.5, 0.25, 0.125]).log())
    torch.testing.assert_close(cloud.sh0[0, 0] * SH0 + 0.5, torch.tensor([255.0, 128, 0]) / 255)
    assert cloud.opacities[0].item() == pytest.approx(logit(0.2))
    torch.testing.assert_close(cloud.quats[0], torch.tensor([HALF, -HALF, 0, 0]))
    write_splats(tmp_path / "b.splat", cloud)
    assert (tmp_path / "b.splat").read_bytes()[:28] == row[:28]


def test_splat_loses_no_more_than_its_steps(tmp_path):
    cloud = small(some_cloud(500, 0))
    write_splats(tmp_path / "a.splat", cloud)
    lost = most(cloud, read_splats(tmp_path / "a.splat"))
    assert lost["position"] == 0 and lost["scale"] < 1e-3
    assert lost["opacity"] <= 0.5 / 255 + 1e-6 and lost["colour"] <= 0.5 / 255 + 1e-6
    assert lost["rotation"] < np.rad2deg(2 * 2 / 128 / 2 * 1.05), "half a step in each of four entries"


def test_splat_of_another_size_is_none(tmp_path):
    (tmp_path / "a.splat").write_bytes(bytes(33))
    with pytest.raises(DataError, match="33 bytes are no multiple of 32"):
        open_splats(tmp_path / "a.splat")
    (tmp_path / "a.splat").write_bytes(b"")
    with pytest.raises(DataError, match="holds 0 Gaussians"):
        open_splats(tmp_path / "a.splat")


def test_sizes_and_opacities_of_zero_are_mended(tmp_path):
    row = struct.pack("<6f8B", 1, 2, 3, 0, 1, 1, 9, 9, 9, 0, 128, 128, 128, 128)
    (tmp_path / "a.splat").write_bytes(row + row[:12] + struct.pack("<f", -1) + row[16:])
    mended, found = repair(read_splats(tmp_path / "a.splat"))
    assert (
        found.zero_scales == 1 and found.infinite_opacities == 1 and found.left_out == 1 and len(mended) == 1
    )
    assert mended.quats.tolist() == [[1, 0, 0, 0]]


# PlayCanvas' compressed .ply


def compressed(count=3, colors=True, degree=0):
    bounds = [
        *(-1.0, -2, -3, 1, 2, 3),
        *(-5.0, -5, -5, -1, -1, -1),
        *((0.25, 0.5, 0, 0.5, 1, 1) if colors else ()),
    ]
    of = (
        "min_x min_y min_z max_x max_y max_z min_scale_x min_scale_y min_scale_z max_scale_x max_scale_y "
        "max_scale_z min_r min_g min_b max_r max_g max_b"
    ).split()[: len(bounds)]
    width = 3 * (degree + 1) ** 2 - 3
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        "element chunk 1",
        *(f"property float {n}" for n in of),
    ]
    lines += [f"element vertex {count}"]
    lines += [f"property uint packed_{n}" for n in ("position", "rotation", "scale", "color")]
    if degree:
        lines += [f"element sh {count}", *(f"property uchar f_rest_{n}" for n in range(width))]
    position = 2047 << 21 | 0 << 11 | 1023  # x at its end, y at its begin, z in the middle
    rotation = 1 << 30 | 512 << 20 | 1023 << 10 | 0  # x is largest and left out; w, y, z follow
    scale = 0 << 21 | 1023 << 11 | 2047
    color = 255 << 24 | 0 << 16 | 51 << 8 | 204
    body = (
        struct.pack(f"<{len(bounds)}f", *bounds)
        + struct.pack("<4I", position, rotation, scale, color) * count
    )
    body += bytes(range(100, 100 + width)) * count
    return ("\n".join(lines) + "\nend_header\n").encode() + body


def test_compressed_by_its_specification(tmp_path):
    for colors in (True, False):
        (tmp_path / "a.compressed.ply").write_bytes(compressed(colors=colors, degree=1))
        cloud = read_splats(tmp_path / "a.compressed.ply")
        torch.testing.assert_close(cloud.means[2], torch.tensor([1.0, -2, 6 * 1023 / 2047 - 3]))
        torch.testing.assert_close(cloud.scales[0], torch.tensor([-5.0, -1, -1]))
        fractions = torch.tensor([1, 0, 0.2])
        low, high = torch.tensor([[0.25, 0.5, 0], [0.5, 1, 1]])
        expected = low + fractions * (high - low) if colors else fractions
        torch.testing.assert_close(0.5 + SH0 * cloud.sh0[1, 0], expected)
        assert cloud.opacities[0].item() == pytest.approx(logit(0.8), rel=1e-5)
        w, y, z = (np.array([512, 1023, 0]) / 1023 - 0.5) * 2**0.5
        x = np.sqrt(max(1 - w * w - y * y - z * z, 0))
        expected = torch.nn.functional.normalize(torch.tensor([w, x, y, z]).float(), dim=0)
        torch.testing.assert_close(cloud.quats[0], expected)
        # Channel-major: red's three come first.
        steps = (torch.arange(100, 109).float().view(3, 3).T + 0.5) / 256
        torch.testing.assert_close(cloud.shN[0], (steps - 0.5) * 8)


def test_compressed_by_name_too(tmp_path):
    (tmp_path / "a.ply").write_bytes(compressed())
    assert len(read_splats(tmp_path / "a.ply")) == 3


@pytest.mark.parametrize("count", [1, 256, 700])
def test_compressed_loses_no_more_than_its_steps(tmp_path, count):
    cloud = some_cloud(count, 2)
    write_splats(tmp_path / "a.compressed.ply", cloud)
    cloud = in_order(cloud)
    again = read_splats(tmp_path / "a.compressed.ply")
    lost = most(cloud, again)
    extent = (cloud.means.amax(0) - cloud.means.amin(0)).max().item()
    assert lost["position"] <= extent / 1023 / 2 + 1e-5
    ratio = (cloud.scales.amax() - cloud.scales.amin()).item() / 1023 / 2
    assert lost["scale"] <= 100 * np.expm1(ratio) + 1e-2
    assert lost["opacity"] <= 0.5 / 255 + 1e-6 and lost["harmonics"] <= 4 / 256 + 1e-6
    assert lost["rotation"] < np.rad2deg(4 * 2**0.5 / 1023), (
        "half a step in three entries, and what they leave"
    )


def test_runs_are_of_neighbours(tmp_path):
    """Along the curve a run of 256 lies close together; its steps are finer than the whole cloud's."""
    cloud = some_cloud(20000, 0)
    write_splats(tmp_path / "a.compressed.ply", cloud)
    rms = losses([in_order(cloud)], [read_splats(tmp_path / "a.compressed.ply")])[0].rms
    whole = (cloud.means.amax(0) - cloud.means.amin(0)).max().item() / 1023
    assert rms < whole / 12**0.5 / 3


def test_morton_takes_the_bits_in_turn():
    points = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1.0]])
    assert torch.argsort(morton(points)).tolist() == [0, 1, 2, 3, 4]
    assert morton(points)[[0, 4]].tolist() == [0, (1 << 63) - 1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d[:-1], "3 rows of 'vertex' need 48 bytes from offset"),
        (lambda d: d.replace(b"chunk 1", b"chunk 2"), "need"),
        (lambda d: d.replace(b"vertex 3", b"vertex 1000000000000"), "need 16000000000000 bytes"),
        (lambda d: d.replace(b"vertex 3", b"vertex 0"), "holds 0"),
        (lambda d: d.replace(b"float min_y", b"float mix_y"), "needs a property 'min_y'"),
        (lambda d: d.replace(b"uint packed_color", b"float packed_color"), "'packed_color' of type u4"),
        (lambda d: d.replace(b"element chunk", b"element chunks"), "no element 'chunk'"),
        (lambda d: d.replace(b"binary_little_endian", b"ascii"), "this is ascii"),
    ],
)
def test_compressed_that_is_wrong(tmp_path, change, message):
    (tmp_path / "bad.compressed.ply").write_bytes(change(compressed()))
    with pytest.raises(DataError, match=message):
        open_splats(tmp_path / "bad.compressed.ply")


# .spz


def spz_arrays(version):
    """Two Gaussians of degree 1, the second all zeros."""
    rotation = (
        bytes([255, 128, 0, *(128,) * 3])
        if version == 2
        else struct.pack("<II", 0 << 30 | 511 << 20 | (512 | 100) << 10 | 0, 3 << 30)
    )  # x is largest; y = +sqrt(1/2), z = -100 / 511 of it, w = 0
    positions = (4096).to_bytes(3, "little") + (-4096 * 5 & 0xFFFFFF).to_bytes(3, "little") + b"\xff\xff\x7f"
    harmonics = bytes([128, 136, 120, 0, 255, 128, 128, 128, 200]) + bytes([128] * 9)
    return [
        positions + bytes(9),
        bytes([51, 128]),
        bytes([0, 128, 255]) * 2,
        bytes([0, 160, 255]) * 2,
        rotation,
        harmonics,
    ]


def spz(version, count=2, degree=1, flags=0, extensions=b"", arrays=None, streams=None):
    arrays = spz_arrays(version) if arrays is None else arrays
    if version < 4:
        head = struct.pack("<4sIIBBBB", b"NGSP", version, count, degree, 12, flags, 0)
        return gzip.compress(head + b"".join(arrays) + extensions, mtime=0)  # a test is named by its bytes
    packed = [zstandard.compress(array) for array in arrays]
    head = struct.pack("<4sIIBBBB", b"NGSP", 4, count, degree, 12, flags, streams or len(arrays))
    table = b"".join(struct.pack("<QQ", len(p), len(a)) for p, a in zip(packed, arrays, strict=True))
    return head + struct.pack("<I12x", 32 + len(extensions)) + extensions + table + b"".join(packed)


@pytest.mark.parametrize("version", [2, 3, 4])
def test_spz_by_its_specification(tmp_path, version):
    (tmp_path / "a.spz").write_bytes(spz(version, flags=1))
    opened = open_splats(tmp_path / "a.spz", axes="RDF")  # the numbers as they are
    assert opened.antialiased and (opened.count, opened.sh_degree) == (2, 1)
    cloud = opened.cloud()
    assert cloud.means.tolist() == [[1, -5, (2**23 - 1) / 4096], [0, 0, 0]]
    assert cloud.opacities[0].item() == pytest.approx(logit(0.2))
    torch.testing.assert_close(cloud.sh0[0, 0], (torch.tensor([0, 128, 255]) / 255 - 0.5) / 0.15)
    assert cloud.scales[0].tolist() == [-10, 0, 255 / 16 - 10]
    expected = torch.tensor([[0, 8, -8], [-128, 127, 0], [0, 0, 72]]) / 128
    assert cloud.shN[0].equal(expected), "coefficient by coefficient, red, green and blue inside"
    if version == 2:
        expected = torch.tensor([0, 1, 1 / 255, -1])
    else:
        y, z = HALF, -HALF * 100 / 511
        expected = torch.tensor([0, (1 - y * y - z * z) ** 0.5, y, z])
    torch.testing.assert_close(cloud.quats[0], torch.nn.functional.normalize(expected, dim=0))
    assert cloud.quats[1, 0] > 0.999


def test_spz_is_right_up_back_unless_it_says_others(tmp_path):
    (tmp_path / "a.spz").write_bytes(spz(4))
    raw = read_splats(tmp_path / "a.spz", axes="RDF")
    cloud = read_splats(tmp_path / "a.spz")
    assert cloud.means[0].tolist() == [1, 5, -(2**23 - 1) / 4096]
    assert cloud.shN[0].equal(raw.shN[0] * torch.tensor([-1.0, -1, 1])[:, None])
    said = struct.pack("<III", 0xADBE0003, 4, 6)  # RDF
    other = struct.pack("<II3s", 0x12340001, 3, b"abc")
    for version in (3, 4):
        (tmp_path / "b.spz").write_bytes(spz(version, flags=2, extensions=other + said))
        assert read_splats(tmp_path / "b.spz").means.equal(raw.means)


@pytest.mark.parametrize("version", [2, 3, 4])
@pytest.mark.parametrize("degree", [0, 1, 4])
def test_spz_loses_no_more_than_its_steps(tmp_path, version, degree):
    cloud = small(some_cloud(400, degree))
    write_splats(tmp_path / "a.spz", cloud, version=version)
    lost = most(cloud, read_splats(tmp_path / "a.spz"))
    assert lost["position"] <= 0.5 / 4096 + 1e-7
    assert lost["scale"] <= 100 * np.expm1(1 / 32) + 1e-3
    assert lost["opacity"] <= 0.5 / 255 + 1e-6 and lost["colour"] <= SH0 / 0.15 / 255 / 2 + 1e-6
    if degree:
        assert lost["harmonics"] <= (8 if degree > 1 else 4) / 128 + 0.5 / 128 + 1e-6
    if version > 2:
        assert lost["rotation"] < np.rad2deg(4 * HALF / 511), (
            "half a step in three entries, and what they leave"
        )
    write_splats(tmp_path / "b.spz", cloud, version=version, sh_bits=(8, 8))
    if degree:
        assert most(cloud, read_splats(tmp_path / "b.spz"))["harmonics"] <= 0.5 / 128 + 1e-6


def test_spz_takes_fewer_bits_for_far_places(tmp_path):
    cloud = some_cloud(20, 0)
    cloud.means[3, 1] = 1e5
    write_splats(tmp_path / "a.spz", cloud)
    assert most(cloud, read_splats(tmp_path / "a.spz"))["position"] <= 0.5 / 64 + 1e-6
    cloud.means[3, 1] = 1e8
    with pytest.raises(ValueError, match="a position is 1e.08 m from the origin"):
        write_splats(tmp_path / "a.spz", cloud)
    cloud.means[3, 1] = torch.nan
    with pytest.raises(ValueError, match="1 Gaussians have a NaN or an infinity; repair"):
        write_splats(tmp_path / "a.spz", cloud)


def lying(version, array, by):
    arrays = spz_arrays(version)
    arrays[array] = arrays[array] + bytes(by) if by > 0 else arrays[array][:by]
    return spz(version, arrays=arrays)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (spz(3, count=1 << 30), "promises 1073741824 Gaussians in .* refused"),
        (spz(4, count=1 << 30), "promises 1073741824 Gaussians in .* refused"),
        (spz(3, count=0), "holds 0 Gaussians"),
        (spz(3)[:-1], "cut off"),
        (spz(3)[:20], "cut off"),
        (spz(4)[:-1], "array 5 at offset .* are there: cut off"),
        (spz(4)[:30], "header has 32"),
        (spz(3, degree=5), "SH degree 5"),
        (spz(4, degree=0), "6 arrays, SH degree 0 has 5"),
        (spz(3, count=2000), "bytes of Gaussians, 2000 need 58000"),
        (lying(3, 5, 1), "goes on behind the 58 bytes"),
        (lying(4, 1, 5), "array 1 at offset .* has 7 bytes, 2 Gaussians need 2"),
        (spz(4).replace(struct.pack("<Q", 18), struct.pack("<Q", 1 << 50)), "array 0 at .* has 11258999068"),
        (spz(4).replace(b"NGSP\4", b"NGSP\5"), "version 5, expected 4"),
        (spz(1), "version 1, expected 2 or 3"),
        (b"PK\3\4 and so on", "neither a gzip stream nor 'NGSP'"),
        (gzip.compress(b"XGSP" + bytes(100), mtime=0), "what is packed begins with b'XGSP'"),
        (b"\x1f\x8b" + bytes(100), "gzip stream is damaged"),
    ],
)  # fmt: skip
def test_spz_that_is_wrong(tmp_path, data, message):
    (tmp_path / "bad.spz").write_bytes(data)
    with pytest.raises(DataError, match=message):
        open_splats(tmp_path / "bad.spz")


@pytest.mark.parametrize("version", [3, 4])
def test_a_bomb_is_not_unpacked(tmp_path, version):
    """One Gaussian by its header, 64 MB of zeros behind it."""
    import tracemalloc

    arrays = [bytes(9), bytes(1), bytes(3), bytes(3), bytes(4), bytes(9)]
    arrays[5 if version == 3 else 0] += bytes(1 << 26)
    data = spz(version, count=1, arrays=arrays)
    if version == 4:  # the table does not betray it
        data = data.replace(struct.pack("<Q", (1 << 26) + 9), struct.pack("<Q", 9))
    (tmp_path / "bad.spz").write_bytes(data)
    del arrays
    tracemalloc.start()
    with pytest.raises(DataError, match="goes on behind|unpacks to more"):
        open_splats(tmp_path / "bad.spz")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 22


def test_spz_of_others_is_the_same_as_their_ply(real_data):
    """The same Gaussians, once packed by Niantic's library, once from PlayCanvas' compressed .ply."""
    from scipy.spatial import cKDTree

    packed = read_splats(real_data / "splats" / "biker.spz")
    cloud = read_splats(real_data / "splats" / "biker_sh0_20k.ply")
    assert (len(packed), packed.sh_degree, len(cloud)) == (152746, 0, 20000)
    distance, row = cKDTree(packed.means.numpy()).query(cloud.means.numpy())
    # Half a step of 1 / 4096 m in each of three axes.
    assert distance.max() <= 3**0.5 / 8192 + 1e-6
    same = packed[torch.from_numpy(row)]
    lost = {loss.name: loss.rms for loss in losses([repair(cloud)[0]], [repair(same)[0]])}
    # Neighbours within a step may be taken for each other: few enough for the mean.
    assert lost["scale"] < 5 and lost["colour"] < 0.02 and lost["opacity"] < 0.02 and lost["rotation"] < 3
    other = read_splats(real_data / "splats" / "biker.spz", axes="RDF")
    assert other.means.equal(change_axes(packed, "RDF", "RUB").means)
    assert np.median(cKDTree(other.means.numpy()).query(cloud.means.numpy())[0]) > 1, "not in the other axes"
