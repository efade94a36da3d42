"""`sparse3d convert`: from every format to every other, in bounded memory, with what was lost."""

import itertools

import pytest
import torch

from sparse3d import cli
from sparse3d.errors import DataError
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.formats import convert, open_splats, opening, read_splats, write_splats
from sparse3d.gaussians.formats import source as splat_source
from sparse3d.gaussians.formats.converting import survey
from sparse3d.gaussians.formats.losses import losses
from sparse3d.gaussians.formats.source import regrouped
from tests.gaussians.splat_files import assert_same, some_cloud

NAMES = ("a.ply", "a.splat", "a.compressed.ply", "a.spz", "a.sog", "a/meta.json", "a.glb")


@pytest.mark.parametrize(("source", "target"), list(itertools.product(NAMES, NAMES)))
def test_from_every_format_to_every_other(tmp_path, source, target):
    cloud = some_cloud(80, 1)
    cloud = GaussianCloud.of({**cloud.parameters(), "sh0": cloud.sh0.clamp(-1.5, 1.5)})
    write_splats(tmp_path / "in" / source, cloud)
    done = convert(tmp_path / "in" / source, tmp_path / "out" / target)
    assert done.came.count == 80 and done.losses is not None
    again = read_splats(tmp_path / "out" / target)
    # Some writers bring neighbours together, so that the order is another.
    again = again[torch.cdist(cloud.means, again.means).argmin(1)]
    assert again.sh_degree == (0 if "splat" in source + target else 1)
    lost = {loss.name: loss.rms for loss in losses([cloud], [again])}
    assert (
        lost["position"] < 0.01 and lost["scale"] < 5 and lost["opacity"] < 0.005 and lost["colour"] < 0.006
    )
    # The same rotation whatever the axes of the two files; steps of 8 bits in .splat and .sog.
    assert lost["rotation"] < 0.8
    assert lost.get("harmonics", 0) < 0.05


def test_what_it_says_is_what_was_lost(tmp_path):
    cloud = some_cloud(500, 2)
    write_splats(tmp_path / "a.ply", cloud)
    done = convert(tmp_path / "a.ply", tmp_path / "b.spz")
    expected = losses([cloud], [read_splats(tmp_path / "b.spz")])
    for ours, theirs in zip(done.losses, expected, strict=True):
        assert ours.name == theirs.name and ours.rms == pytest.approx(theirs.rms) and ours.most > 0
    assert convert(tmp_path / "a.ply", tmp_path / "c.spz", compare=False).losses is None
    low, high = cloud.means.amin(0), cloud.means.amax(0)
    assert done.came.low == pytest.approx(low.tolist()) and done.came.high == pytest.approx(high.tolist())


def test_losses_are_told_in_their_units():
    cloud = some_cloud(4, 1)
    turned = GaussianCloud.of(cloud.parameters())
    turned.quats[:] = torch.tensor([1.0, 0, 0, 0])
    other = GaussianCloud.of({k: v.clone() for k, v in turned.parameters().items()})
    angle = torch.tensor(0.1)
    other.quats[2] = -torch.stack(
        [(angle / 2).cos(), (angle / 2).sin(), torch.tensor(0.0), torch.tensor(0.0)]
    )
    other.quats[3] = torch.tensor([0, 0, 1.0, 0])  # half a turn about an axis of its own: the same ellipsoid
    other.means[1, 0] += 2
    other.scales[0, 1] += 0.1
    found = {loss.name: loss for loss in losses([turned[:1], turned[1:]], [other[:3], other[3:]])}
    assert found["rotation"].most == pytest.approx(torch.rad2deg(angle).item(), rel=1e-4)
    assert found["position"].most == pytest.approx(2) and found["position"].rms == pytest.approx(
        (4 / 12) ** 0.5
    )
    assert found["scale"].most == pytest.approx(100 * (torch.tensor(0.1).exp().item() - 1), rel=1e-4)
    assert found["colour"].most == 0 and found["harmonics"].most == 0
    with pytest.raises(ValueError, match="not the same number"):
        losses([turned], [other[:3]])


@pytest.mark.parametrize("target", ["b.ply", "b.splat", "b.compressed.ply"])
def test_blocks_of_any_size_make_the_same_file(tmp_path, target, monkeypatch):
    """With rows left out in the middle, so that the blocks that are written are of no regular size."""
    cloud = some_cloud(2000, 1)
    cloud.means[[3, 700, 1500], 0] = torch.nan
    write_splats(tmp_path / "a.ply", cloud)
    whole = tmp_path / ("whole." + target)
    convert(tmp_path / "a.ply", whole)
    blocks = splat_source.Splats.blocks
    monkeypatch.setattr(
        splat_source.Splats, "blocks", lambda self, rows=0: blocks(self, min(rows or 512, 512))
    )
    done = convert(tmp_path / "a.ply", tmp_path / target)
    assert done.came.count == 1997 and done.came.repairs.left_out == 3 and done.losses is not None
    if target.endswith("compressed.ply"):  # in order within a block only
        assert len(read_splats(tmp_path / target)) == 1997
    else:
        assert (tmp_path / target).read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("name", ["a.ply", "a.compressed.ply", "a.spz", "a.sog"])
def test_a_file_is_written_as_a_cloud_is(tmp_path, name):
    """In the same order. Formats with exponentials may round otherwise: what was read lies in strides."""
    cloud = some_cloud(600, 1)
    write_splats(tmp_path / "from" / "a.ply", cloud)
    convert(tmp_path / "from" / "a.ply", tmp_path / "one" / name)
    write_splats(tmp_path / "two" / name, cloud)
    assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


@pytest.fixture
def small_blocks(monkeypatch):
    """2048 Gaussians at a time."""
    blocks = splat_source.Splats.blocks
    monkeypatch.setattr(splat_source.Splats, "blocks", lambda self, rows=0: blocks(self, 2048))
    monkeypatch.setattr("sparse3d.gaussians.formats.compressed_ply._AT_ONCE", 2048)
    monkeypatch.setattr("sparse3d.gaussians.formats.order.BLOCK", 2048)


@pytest.mark.slow
@pytest.mark.parametrize(
    "target", ["b.ply", "b.splat", "b.compressed.ply", "b.glb", "b.spz", "b3.spz", "b.sog"]
)
def test_a_large_file_takes_the_memory_of_its_blocks(tmp_path, target, small_blocks, monkeypatch):
    import tracemalloc

    # A codebook of fewer rows, so that this is quick, and of fewer numbers, which are sorted in memory.
    monkeypatch.setattr("sparse3d.gaussians.formats.sog._MOST_ENTRIES", 1 << 10)
    monkeypatch.setattr("sparse3d.gaussians.formats.codebooks._MOST_NUMBERS", 1 << 14)
    monkeypatch.setattr("sparse3d.gaussians.formats.codebooks._WORK_A_STEP", 1 << 27)
    options = {"version": 3} if target == "b3.spz" else {}
    write_splats(tmp_path / "a.ply", some_cloud(60000, 3))
    convert(tmp_path / "a.ply", tmp_path / target, compare=False, **options)
    tracemalloc.start()  # numpy's memory; a whole table is 14 MB
    convert(tmp_path / "a.ply", tmp_path / target, compare=False, **options)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5e6
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ply", target], "nothing temporary is left"


@pytest.mark.parametrize("name", ["a.compressed.ply", "a.glb", "a.spz", "a3.spz", "a.sog"])
def test_blocks_are_written_as_the_whole_is(tmp_path, name, small_blocks, monkeypatch):
    cloud, options = some_cloud(5000, 1), {"version": 3} if name == "a3.spz" else {}
    write_splats(tmp_path / "a.ply", cloud)
    convert(tmp_path / "a.ply", tmp_path / "blocks" / name, **options)
    monkeypatch.undo()
    convert(tmp_path / "a.ply", tmp_path / "whole" / name, **options)
    assert (tmp_path / "blocks" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("name", ["a.compressed.ply", "a.glb", "a.spz", "a.sog"])
def test_a_disk_that_is_full_leaves_what_was_there(tmp_path, name, small_blocks, monkeypatch):
    import errno

    cloud = some_cloud(5000, 1)
    write_splats(tmp_path / "a.ply", cloud)
    write_splats(tmp_path / name, cloud[:9])
    before = (tmp_path / name).read_bytes()
    room = [100_000]

    def write_all(file, values):
        room[0] -= values.nbytes
        if room[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        whole(file, values)

    whole = opening.write_all
    for module in ("buckets", "compressed_ply", "gltf_splats", "spz"):
        monkeypatch.setattr(f"sparse3d.gaussians.formats.{module}.write_all", write_all)
    with pytest.raises(OSError, match="No space left"):
        convert(tmp_path / "a.ply", tmp_path / name)
    assert (tmp_path / name).read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(["a.ply", name])


@pytest.mark.parametrize("name", ["a.spz", "a3.spz", "a.sog", "a.compressed.ply"])
def test_many_gaussians_that_are_all_the_same_are_read_again(tmp_path, name):
    """Their file is a few bytes."""
    cloud = some_cloud(1, 0)[torch.zeros(300_000, dtype=torch.int64)]
    write_splats(tmp_path / name, cloud, **({"version": 3} if name == "a3.spz" else {}))
    again = read_splats(tmp_path / name)
    assert len(again) == 300_000 and bool((again.means == again.means[0]).all())
    torch.testing.assert_close(again.means[0], cloud.means[0], atol=1e-3, rtol=0)


@pytest.mark.parametrize("name", ["a.spz", "a3.spz", "a.sog"])
def test_what_is_more_than_memory_holds_is_refused_before_it_is_unpacked(tmp_path, name, monkeypatch):
    cloud = some_cloud(1, 0)[torch.zeros(100_000, dtype=torch.int64)]
    write_splats(tmp_path / name, cloud, **({"version": 3} if name == "a3.spz" else {}))
    monkeypatch.setattr(opening, "available_bytes", lambda: 1 << 18)
    with pytest.raises(DataError, match="GiB are free"):
        read_splats(tmp_path / name)


def test_regrouping_keeps_the_order():
    cloud = some_cloud(100, 1)
    pieces = [cloud[:1], cloud[1:40], cloud[40:41], cloud[41:97], cloud[97:]]
    groups = list(regrouped(iter(pieces), 32))
    assert [len(g) for g in groups] == [32, 32, 32, 4]
    assert torch.equal(torch.cat([g.means for g in groups]), cloud.means)


def run(capsys, *argv):
    code = cli.main(["convert", *map(str, argv)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def test_the_command_tells_counts_bounds_repairs_and_losses(tmp_path, capsys):
    cloud = some_cloud(100, 3)
    cloud.opacities[4], cloud.means[7, 1], cloud.quats[9] = torch.inf, torch.nan, 0
    write_splats(tmp_path / "a.ply", cloud)
    code, out, err = run(capsys, tmp_path / "a.ply", tmp_path / "b.glb")
    assert code == 0
    assert "99 Gaussians, SH degree 3; x " in out and " to " in out
    assert (
        "1 left out for a NaN or an infinity; 1 infinite opacities cut" in out
        and "1 quaternions of length 0" in out
    )
    assert "rotation" in out and "degrees" in out
    assert "axes LUF" in err and len(read_splats(tmp_path / "b.glb")) == 99


def test_the_command_tells_what_a_format_cannot_hold(tmp_path, capsys):
    write_splats(tmp_path / "a.ply", some_cloud(50, 4, surfels=True))
    code, out, err = run(capsys, tmp_path / "a.ply", tmp_path / "b.splat", "--no-check")
    assert code == 0 and "50 surfels" in out and "attribute" not in out
    assert "SH degree 0 is the highest that splat holds" in out and "splat has no surfels" in out


def test_frames_and_versions_of_the_command(tmp_path, capsys):
    cloud = some_cloud(50, 1)
    write_splats(tmp_path / "a.ply", cloud)
    assert run(capsys, tmp_path / "a.ply", tmp_path / "b.ply", "--frame", "RUB")[0] == 0
    assert run(capsys, tmp_path / "b.ply", tmp_path / "c.ply", "--out-frame", "RUB")[0] == 0
    assert_same(read_splats(tmp_path / "c.ply"), cloud)
    assert run(capsys, tmp_path / "a.ply", tmp_path / "b.spz", "--spz-version", "3")[0] == 0
    assert (tmp_path / "b.spz").read_bytes()[:2] == b"\x1f\x8b"


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["none.ply", "b.spz"], "none.ply: no such file"),
        (["a.ply", "b.xyz"], "b.xyz: what this ending holds is not known; there are .bin"),
        (["a.xyz", "b.ply"], "a.xyz: no such file or folder"),
        (["a.ply", "b.ply", "--frame", "up"], "'up' names no axes; there are RUF"),
        (["a.ply", "a.ply"], "is what is read; write to another name"),
        (["a.ply", "b.ply", "--spz-version", "3"], "--spz-version: b.ply is no .spz"),
    ],
)
def test_faults_are_one_line(tmp_path, capsys, monkeypatch, argv, message):
    monkeypatch.chdir(tmp_path)
    write_splats("a.ply", some_cloud(5))
    code, out, err = run(capsys, *argv)
    assert code == 2 and out == "" and message in err and len(err.strip().splitlines()) == 1
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.ply"]


def test_a_file_of_which_nothing_can_be_drawn_is_told(tmp_path, capsys):
    cloud = some_cloud(3)
    cloud.means[:] = torch.nan
    write_splats(tmp_path / "a.ply", cloud)
    code, out, err = run(capsys, tmp_path / "a.ply", tmp_path / "b.ply")
    assert (
        code == 2
        and "no Gaussian in it can be drawn: 3 left out" in err
        and not (tmp_path / "b.ply").exists()
    )


def test_a_real_file_keeps_what_it_can(real_data, tmp_path):
    path = real_data / "splats" / "playbot_lod3_sh2.ply"
    done = convert(path, tmp_path / "a.sog")
    lost = {loss.name: loss.rms for loss in done.losses}
    # It came out of a .sog once: its positions, scales and colours are entries of such tables already.
    assert (
        lost["position"] < 1e-6 and lost["scale"] < 1e-3 and lost["colour"] < 1e-5 and lost["opacity"] < 1e-5
    )
    assert lost["harmonics"] < 1e-3 and (tmp_path / "a.sog").stat().st_size < 1e6
    assert survey(open_splats(tmp_path / "a.sog")).count == 31000
