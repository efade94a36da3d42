"""Photos go in, a cloud of Gaussians comes out: on the three spheres, small."""

import json

import numba
import pytest
import torch
from PIL import Image

from sparse3d import cli
from sparse3d.data.three_spheres import ThreeSpheresConfig, write_three_spheres
from sparse3d.engine.checkpoint import CheckpointFolder, read_checkpoint
from sparse3d.gaussians.formats.table import read_splats
from sparse3d.recipes import tasks
from sparse3d.recipes.splatting import reconstruct as splatting
from tests.stop_at import StopAt

SMALL = [
    "train.steps=150",
    "start.count=300",
    "start.sh_degree=1",
    "sh_every=40",
    "strategy.most=400",
    "strategy.start_step=10",
    "strategy.refine_every=20",
    "strategy.stop_step=100",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three_spheres")
    write_three_spheres(folder, ThreeSpheresConfig(views=12, held_out=3, size=32))
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert cli.main(["reconstruct", str(photos), "--method", "splats", "--out", str(out), *SMALL]) == 0
    return out


def trained(photos, out, *changes, resume=False, stop_at=None):
    config = tasks.load("splats", [f"data.root={photos}", *SMALL, *changes])
    splatting.train(config, out, resume, extra_hooks=[StopAt(stop_at)])
    return weights(out)


def weights(run):
    return read_checkpoint(CheckpointFolder(run / "checkpoints").find("last")).part("model")


def same_bits(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_held_out_views_are_recognised(run):
    found = json.loads((run / "evaluation/test/metrics.json").read_text())
    # White pictures reach 12 dB.
    assert found["psnr"]["mean"] > 20 and found["depth_relative"]["mean"] < 0.1
    assert 300 < found["gaussians"] <= 400, "the strategy let it grow"
    assert len(list((run / "evaluation/test/views").glob("*.png"))) == 3
    with Image.open(run / "pictures/turntable/turntable.webp") as animation:
        assert animation.n_frames == 30
    assert torch.equal(read_splats(run / "splats.ply").means, weights(run)["splats.means"])


def test_a_video_of_a_path_is_whole(run, tmp_path, capsys):
    av = pytest.importorskip("av", reason="needs the extra video")
    command = ["render", str(run), "--trajectory", "spiral", "--frames", "6", "--size", "33"]
    assert cli.main([*command, "--out", str(tmp_path / "path.mp4"), "--show", "depth"]) == 0
    with av.open(str(tmp_path / "path.mp4")) as video:
        frames = [frame.to_ndarray(format="rgb24") for frame in video.decode(video=0)]
    assert len(frames) == 6 and frames[0].shape == (32, 32, 3) and frames[0].max() > 50
    assert (frames[0].astype(int) - frames[1]).any(), "the camera moves"
    assert [path.name for path in tmp_path.iterdir()] == ["path.mp4"], "frames are not left behind"
    path = tmp_path / "cameras.json"
    pose = [[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 3], [0, 0, 0, 1]]
    path.write_text(json.dumps({"w": 20, "h": 10, "fl_x": 15, "frames": [{"transform_matrix": pose}] * 2}))
    assert cli.main(["render", str(run), "--trajectory", str(path), "--out", str(tmp_path / "frames")]) == 0
    for kind in ("color", "depth", "normal"):
        with Image.open(tmp_path / "frames" / kind / "0001.png") as image:
            assert image.size == (20, 10)
    assert cli.main(["render", str(run), "--trajectory", "zigzag"]) == 2
    assert "orbit, spiral" in capsys.readouterr().err


def test_surfels_learn_and_continue_with_the_same_bits(photos, tmp_path):
    changes = ["train.steps=60", "start.count=200", "strategy.most=250", *SMALL[2:]]
    config = tasks.load("surfels", [f"data.root={photos}", *changes])
    splatting.train(config, tmp_path / "whole")
    for stop_at in (37, None):
        splatting.train(config, tmp_path / "parts", stop_at is None, extra_hooks=[StopAt(stop_at)])
    assert same_bits(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert splatting.evaluate(tmp_path / "whole").judgement.mean.image.psnr > 14


PRIORS = (
    "priors={drop: {}, floaters: {}, near_lens: {}, unseen: {}, co: {start_step: 10, prune_every: 20}}",
    "loss={squared: 1.0, alpha: {}, opacity: {}, scale: {}, depth: {}, surface: {}}",
    "appearance={kind: embedding}",
)


def test_all_priors_at_once_train_and_continue_with_the_same_bits(photos, tmp_path):
    config = tasks.load("splats", [f"data.root={photos}", *SMALL, "train.steps=40", *PRIORS])
    splatting.train(config, tmp_path / "whole")
    for stop_at in (23, None):
        splatting.train(config, tmp_path / "parts", stop_at is None, extra_hooks=[StopAt(stop_at)])
    whole = weights(tmp_path / "whole")
    assert same_bits(whole, weights(tmp_path / "parts"))
    assert "other.means" in whole and "appearance.codes" in whole
    line = json.loads((tmp_path / "whole/metrics.jsonl").read_text().splitlines()[-1])
    assert {"color_1", "unseen", "disagreement", "near_lens", "alpha", "scale"} <= line["losses"].keys()


def test_an_exposure_is_learned_for_each_photo(photos, tmp_path):
    changes = ["appearance={kind: exposure, lr: 0.05}", "train.steps=40"]
    found = trained(photos, tmp_path, *changes)["appearance.matrices"]
    assert found.shape == (12, 3, 4) and not torch.equal(found[0], found[1])


def test_few_photos_switch_the_preset_on_and_it_is_told(photos, tmp_path, caplog):
    trained(photos, tmp_path / "few", "data.views=3", "train.steps=4")
    assert "the preset for few views is on (drop" in caplog.text
    caplog.clear()
    trained(photos, tmp_path / "none", "data.views=3", "train.steps=4", "priors=none")
    assert "preset" not in caplog.text


def test_a_run_that_was_stopped_ends_with_the_same_bits(photos, run, tmp_path):
    # Within the first pass, right after a change of the cloud, and when it is done with them.
    for step in (7, 40, 120):
        stopped = trained(photos, tmp_path, resume=step > 7, stop_at=step)
        assert not same_bits(stopped, weights(run))
    assert same_bits(trained(photos, tmp_path, resume=True), weights(run))


def test_the_number_of_threads_changes_no_bit(photos, run, tmp_path):
    numba_threads, torch_threads = numba.get_num_threads(), torch.get_num_threads()
    other = 1 if numba_threads > 1 else 2
    if other > numba.config.NUMBA_NUM_THREADS:
        pytest.skip("numba has one thread here")
    try:
        numba.set_num_threads(other)
        torch.set_num_threads(other)
        assert same_bits(trained(photos, tmp_path / "other"), weights(run))
    finally:
        numba.set_num_threads(numba_threads)
        torch.set_num_threads(torch_threads)


STRATEGIES = {
    "default": "strategy={kind: default, start_step: 10, refine_every: 20, gradient: 1.0e-6, most: 500}",
    "voxel_anchors": "strategy={kind: voxel_anchors, start_step: 10, refine_every: 20}",
}


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_trains_and_continues_with_the_same_bits(photos, tmp_path, name):
    changes = [STRATEGIES[name], "train.steps=60"]
    config = tasks.load("splats", [f"data.root={photos}", *SMALL[:4], *changes])
    splatting.train(config, tmp_path / "whole")
    for stop_at in (33, None):
        splatting.train(config, tmp_path / "parts", stop_at is None, extra_hooks=[StopAt(stop_at)])
    assert same_bits(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    assert len(weights(tmp_path / "whole")["splats.means"]) != 300, "the strategy changed the cloud"


def test_faults_of_the_input_are_told_in_a_line(photos, tmp_path, capsys):
    command = ["reconstruct", str(photos), "--method", "splats", "--out", str(tmp_path / "run")]
    assert cli.main([*command, "start.kind=points"]) == 2
    assert "start.kind=random" in capsys.readouterr().err
    assert cli.main([*command, "start.opacity=1.5"]) == 2
    assert "opacity" in capsys.readouterr().err
    assert cli.main([*command, "--refine-poses"]) == 2
    assert "radiance fields" in capsys.readouterr().err
