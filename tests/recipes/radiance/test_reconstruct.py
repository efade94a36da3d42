"""Photos go in, pictures come out: on the three spheres, small."""

import json

import numba
import pytest
import torch

from sparse3d import cli
from sparse3d.data.three_spheres import DEPTH_UNIT, ThreeSpheresConfig, write_three_spheres
from sparse3d.engine import distributed
from sparse3d.engine.checkpoint import CheckpointFolder, read_checkpoint
from sparse3d.engine.loop import Hook
from sparse3d.recipes import tasks
from sparse3d.recipes.radiance import reconstruct as radiance
from sparse3d.recipes.splatting import reconstruct as splatting
from tests.stop_at import StopAt

SMALL = ["train.steps=80", "model.resolution=12", "model.unit=0.033", "refine.prune_every=15"]
LEVELS = "refine.levels=[{pixels: 512, rays_per_side: 1}, {pixels: 256, rays_per_side: 2}]"


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("three_spheres")
    write_three_spheres(folder, ThreeSpheresConfig(views=12, held_out=3, size=24))
    return folder


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    """A finished run."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert reconstruct(photos, out) == 0
    return out


def reconstruct(photos, out, *changes):
    return cli.main(
        [
            "reconstruct",
            str(photos),
            "--out",
            str(out),
            "--config",
            "voxels_three_spheres",
            LEVELS,
            *SMALL,
            *changes,
        ]
    )


def trained(photos, out, *changes, resume=False, stop_at=None):
    """Trained and not judged."""
    config = tasks.load("voxels_three_spheres", [f"data.root={photos}", LEVELS, *SMALL, *changes])
    radiance.train(config, out, resume, extra_hooks=[StopAt(stop_at)])
    return weights(out)


def weights(run):
    return read_checkpoint(CheckpointFolder(run / "checkpoints").find("last")).part("model")


def same_bits(one, two):
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_held_out_views_are_recognised(run):
    folder = run / "evaluation/test"
    found = json.loads((folder / "metrics.json").read_text())
    assert len(found["psnr"]["views"]) == 3
    # White pictures reach 12 dB.
    assert found["psnr"]["mean"] > 20 and 0.7 < found["ssim"]["mean"] < 1
    assert len(list((folder / "views").glob("*.png"))) == 3
    assert weights(run)["field.resolution"] == 24, "it was refined once"


def test_a_run_that_was_stopped_ends_with_the_same_bits(photos, run, tmp_path):
    # In the first level, where the second begins (24 of 80), and within it.
    for step in (7, 24, 50):
        stopped = trained(photos, tmp_path, resume=step > 7, stop_at=step)
        assert not same_bits(stopped, weights(run))
    assert same_bits(trained(photos, tmp_path, resume=True), weights(run))


class DieAt(Hook):
    """Ends a run as a lack of memory would."""

    def after_step(self, trainer):
        if trainer.step == 45:
            raise RuntimeError("killed by the test")


def test_a_run_that_died_goes_on_from_its_last_epoch(photos, run, tmp_path):
    config = tasks.load("voxels_three_spheres", [f"data.root={photos}", LEVELS, *SMALL])
    with pytest.raises(RuntimeError, match="killed"):
        radiance.train(config, tmp_path, extra_hooks=[DieAt()])
    # Twelve photos of 24^2 pixels are 14 batches of 512.
    assert read_checkpoint(CheckpointFolder(tmp_path / "checkpoints").find("last")).state["step"] == 42
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


METHODS = {
    "hash": ["model.encoding.finest=32", "model.encoding.log2_entries=12", "model.sampler.resolution=16"],
    "lowrank": [
        "model.resolution=8",
        "model.sampler.resolution=16",
        "refine.levels=[{pixels: 32}, {pixels: 32}, {pixels: 32}]",
        "schedule.begins=[0.0, 0.2, 0.5]",  # grows before and after the stop
    ],
    "nerf": ["model.width=16", "model.depth=2", "model.encoding.count=4"],
    "volsdf": [
        "model.width=16",
        "model.encoding.finest=32",
        "schedule.begins=[0.0]",
        "schedule.factors=[1.0]",
    ],
}


@pytest.mark.parametrize("method", METHODS)
def test_every_method_learns_and_continues_with_the_same_bits(photos, tmp_path, method):
    changes = ["refine.levels=[{pixels: 32, rays_per_side: 1}]", "train.steps=20", *METHODS[method]]
    config = tasks.load(method, [f"data.root={photos}", *changes])
    radiance.train(config, tmp_path / "whole")
    for stop_at in (7, None):
        radiance.train(config, tmp_path / "parts", stop_at is None, extra_hooks=[StopAt(stop_at)])
    assert same_bits(weights(tmp_path / "whole"), weights(tmp_path / "parts"))
    lines = [json.loads(line) for line in (tmp_path / "whole/metrics.jsonl").read_text().splitlines()]
    colors = [line["losses"]["color"] for line in lines if "losses" in line]
    assert min(colors) < colors[0]


def test_other_fields_are_seen_and_judged(photos, tmp_path, capsys):
    changes = ["refine.levels=[{pixels: 64, rays_per_side: 1}]", "train.steps=3", *METHODS["nerf"]]
    arguments = ["reconstruct", str(photos), "--method", "nerf", "--out", str(tmp_path / "run"), *changes]
    assert cli.main([*arguments, "--no-mesh", "--no-turntable"]) == 0
    assert not (tmp_path / "run/mesh.ply").exists() and not (tmp_path / "run/pictures").exists()
    assert len(list((tmp_path / "run/evaluation/test/views").glob("*.png"))) == 3


PRIORS = [
    "data.views=3",
    "train.steps=12",
    "model.resolution=8",
    "priors.occlusion.weight=0.01",
    "priors.unseen.patches=4",
    "priors.ranking.groups=32",
    "priors.depth.weight=0.1",
]


def test_priors_continue_with_the_same_bits_and_do_something(photos, tmp_path):
    depth = [f"data.depth={photos}/depth", f"data.depth_unit={DEPTH_UNIT}"]
    whole = trained(photos, tmp_path / "whole", *PRIORS, *depth)
    parts = tmp_path / "parts"
    trained(photos, parts, *PRIORS, *depth, stop_at=5)
    assert same_bits(trained(photos, parts, *PRIORS, *depth, resume=True), whole)
    for name in ("ranking", "unseen"):
        fewer = trained(photos, tmp_path / name, *PRIORS, *depth, f"priors.{name}=null")
        assert not same_bits(fewer, whole), name


def test_few_photos_switch_the_preset_on_and_it_is_told(photos, tmp_path, caplog):
    few = ["data.views=3", "train.steps=3", "model.sh_degree=1"]
    trained(photos, tmp_path / "few", *few)
    assert "3 photos: the preset for few views is on" in caplog.text and "model.sh_degree" in caplog.text
    kept = (tmp_path / "few" / "config.yaml").read_text()
    assert "priors: auto" not in kept and "weight" in kept
    caplog.clear()
    trained(photos, tmp_path / "none", *few, "priors=none")
    assert "preset" not in caplog.text
    # Of three photos colours are the same from everywhere.
    columns = [weights(tmp_path / name)["field.harmonics"].shape[1] for name in ("few", "none")]
    assert columns == [3, 12]
    assert not same_bits(weights(tmp_path / "few"), weights(tmp_path / "none"))
    # All twelve photos are few, too; what was decided is found again when the run goes on.
    trained(photos, tmp_path / "few", *few, resume=True)
    caplog.clear()
    trained(photos, tmp_path / "twelve", "train.steps=3", "model.sh_degree=1")
    assert "12 photos: the preset" in caplog.text and "sh_degree" not in caplog.text


def test_depth_is_judged_where_it_is_known(run):
    found = json.loads((run / "evaluation/test/metrics.json").read_text())
    assert 0 < found["depth_relative"]["mean"] < 0.2
    assert found["depth_relative"]["mean"] < found["depth_rmse"]["mean"] < 0.5
    assert "lpips" not in found


def test_faults_of_the_input_are_told_in_a_line(photos, tmp_path, capsys):
    assert cli.main(["reconstruct", str(tmp_path / "nowhere"), "--out", str(tmp_path / "run")]) == 2
    assert "no such folder" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    assert reconstruct(photos, tmp_path / "run", "--views", "40") == 2
    assert "sparse3d: error" in capsys.readouterr().err
    assert reconstruct(photos, tmp_path / "run", "schedule.begins=[0.0]", "schedule.factors=[1.0]") == 2
    assert "refine.levels" in capsys.readouterr().err


@pytest.mark.parametrize(("config", "recipe"), [("voxels", radiance), ("splats", splatting)])
def test_several_processes_are_refused_before_any_photo_is_opened(tmp_path, monkeypatch, config, recipe):
    monkeypatch.setattr(distributed, "world_size", lambda: 2)
    with pytest.raises(ValueError, match="without torchrun"):
        recipe.train(tasks.load(config, [f"data.root={tmp_path / 'nowhere'}"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
