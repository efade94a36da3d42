"""Poses that are a little wrong are found again while a field is trained with them."""

import json
import sys

import numpy as np
import pytest
import torch

from sparse3d import cli
from sparse3d.data.photos import open_photos
from sparse3d.data.three_spheres import ThreeSpheresConfig, cameras, write_three_spheres
from sparse3d.engine.checkpoint import CheckpointFolder, read_checkpoint
from sparse3d.geometry.alignment import pose_errors
from sparse3d.geometry.rigid import rigid, rotation_from_euler
from sparse3d.io.transforms import read_blender
from sparse3d.recipes import tasks
from sparse3d.recipes.radiance import reconstruct as radiance
from tests.stop_at import StopAt

VIEWS, TURN, SHIFT = 16, np.radians(1.5), 0.03
SMALL = [
    "train.steps=240",
    "model.resolution=10",
    "model.unit=0.033",
    "refine.levels=[{pixels: 512, rays_per_side: 1}, {pixels: 512, rays_per_side: 1}]",
    "pose_refinement.enabled=true",
    "pose_refinement.rate=0.004",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures as they are, of cameras that are said to be 1.5 degrees and 3 cm beside where they were, along
    each axis, one standard deviation."""
    folder = tmp_path_factory.mktemp("moved_cameras")
    write_three_spheres(folder, ThreeSpheresConfig(views=VIEWS, held_out=2, size=32))
    random = np.random.default_rng(0)
    for split in ("train", "test"):
        path = folder / f"transforms_{split}.json"
        tree = json.loads(path.read_text())
        for frame in tree["frames"]:
            wrong = rigid(rotation_from_euler(*random.normal(0, TURN, 3)), np.zeros(3))
            moved = np.array(frame["transform_matrix"]) @ wrong
            moved[:3, 3] += random.normal(0, SHIFT, 3)
            frame["transform_matrix"] = moved.tolist()
        path.write_text(json.dumps(tree))
    return folder


def trained(photos, out, stop_at=None, resume=False, changes=()):
    config = tasks.load("voxels_three_spheres", [f"data.root={photos}", *SMALL, *changes])
    radiance.train(config, out, resume, extra_hooks=[StopAt(stop_at)])
    return read_checkpoint(CheckpointFolder(out / "checkpoints").find("last")).part("model")


@pytest.fixture(scope="module")
def run(photos, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "whole"
    trained(photos, out)
    return out


def errors(poses, split, count):
    return [
        float(np.median(part)) for part in pose_errors(poses, cameras(count, {"train": 1, "test": 7}[split]))
    ]


def test_wrong_poses_are_found_again(photos, run):
    """Turns to less than 2/5, shifts to less than 4/5: pictures of 32 pixels hardly tell shifts towards what
    is seen, of which 3 cm are a hundredth of the way."""
    before = errors(open_photos(photos, split="train").cameras.camera_to_world, "train", VIEWS)
    radiance.evaluate(run)
    stored = json.loads((run / "evaluation/test/training_poses.json").read_text())
    after = errors(np.array([entry["camera_to_world"] for entry in stored]), "train", VIEWS)
    assert after[0] < 0.4 * before[0] and after[1] < 0.8 * before[1]


def test_a_stopped_refinement_ends_with_the_same_bits(photos, run, tmp_path):
    whole = read_checkpoint(CheckpointFolder(run / "checkpoints").find("last")).part("model")
    stopped = trained(photos, tmp_path, stop_at=100)
    assert not torch.equal(stopped["poses.corrections"], whole["poses.corrections"])
    again = trained(photos, tmp_path, resume=True)
    assert again.keys() == whole.keys() and all(torch.equal(again[name], whole[name]) for name in whole)


def test_held_out_photos_are_judged_from_where_they_were_taken(photos, run):
    """Their poses are wrong too: found again, they are as near as those that the field was trained with."""
    folder = run / "evaluation/test"
    stored = {
        name: np.array([entry["camera_to_world"] for entry in json.loads((folder / name).read_text())])
        for name in ("training_poses.json", "poses.json")
    }
    truth = np.concatenate([cameras(VIEWS, 1), cameras(2, 7)])
    angles, distances = pose_errors(np.concatenate([*stored.values()]), truth)
    assert angles[-2:].max() < 2 * angles[:-2].max() and distances[-2:].max() < 2 * distances[:-2].max()
    assert json.loads((folder / "metrics.json").read_text())["psnr"]["mean"] > 20


def test_the_command_refines_poses(photos, tmp_path, capsys):
    small = ["train.steps=3", "pose_refinement.test_steps=2", "model.width=16", "model.depth=2"]
    arguments = [
        "reconstruct",
        str(photos),
        "--method",
        "nerf",
        "--refine-poses",
        "--no-mesh",
        "--no-turntable",
    ]
    changes = [*small, "refine.levels=[{pixels: 64, rays_per_side: 2}]"]
    assert cli.main([*arguments, "--out", str(tmp_path), *changes]) == 0
    assert "refining poses: 2 of 2" in capsys.readouterr().err
    config = (tmp_path / "config.yaml").read_text()
    assert "fine_end: 0.5" in config


def test_poses_are_found_from_the_photos_alone(photos, tmp_path, monkeypatch, capsys):
    """A stand-in for structure from motion, which has tests of its own."""
    asked = []

    def stand_in(root, config, *, cache_dir, progress):
        asked.append(config.lens)
        if progress is not None:
            for stage in ("features", "placing"):
                progress(stage, 0, 16)
                progress(stage, 16, 16)
        return read_blender(root)

    monkeypatch.setattr("sparse3d.data.photos.posed_by_motion", stand_in)
    arguments = ["reconstruct", str(photos), "--poses", "colmap", "--out", str(tmp_path / "run")]
    arguments += ["--no-mesh", "--no-turntable"]
    changes = ["--config", "voxels_three_spheres", *SMALL, "train.steps=2", "data.motion.lens=RADIAL"]
    assert cli.main([*arguments, *changes, "pose_refinement.enabled=false"]) == 0
    told = capsys.readouterr().err
    assert "features: 16 of 16" in told and "placing: 16 of 16" in told
    assert asked == ["RADIAL"], "once, to train and to judge"


def test_without_pycolmap_the_extra_is_named(photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    arguments = ["reconstruct", str(photos / "train"), "--poses", "colmap", "--out", str(tmp_path / "run")]
    assert cli.main(arguments) == 2
    assert "sparse3d[sfm]" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
