"""The configs of nuScenes, Argoverse 2 and Waymo train and judge, on made-up releases."""

import json
import math

import numpy as np
import pytest

from sparse3d import cli, config
from sparse3d.data.open import open_dataset
from sparse3d.errors import ConfigError
from sparse3d.frames import Detections
from sparse3d.io.tracks import read_tracks
from sparse3d.models.centerpoint import CenterPoint
from sparse3d.recipes.detection import training_frames
from sparse3d.recipes.detection_config import DetectionConfig
from tests.data.argoverse2_folder import write_argoverse2
from tests.data.kitti_raw_folder import write_kitti_raw
from tests.data.nuscenes_folder import write_nuscenes
from tests.data.waymo_folder import write_waymo

pytest.importorskip("pyarrow")

pytestmark = pytest.mark.slow  # all of them together

# Grids coarse enough for a test; everything else is the config's own.
SMALL = {
    "centerpoint_nuscenes": ["model.voxel_size=[1.2, 1.2, 0.2]"],
    "dsvt_nuscenes": ["model.voxel_size=[1.8, 1.8, 8.0]", "model.backbone.blocks=[1]"],
    "centerpoint_av2": ["model.voxel_size=[1.0, 1.0, 0.4]"],
    "centerpoint_waymo": ["model.voxel_size=[0.8, 0.8, 0.15]", "data.lasers=[TOP]"],
    "voxelnext_nuscenes": ["model.voxel_size=[0.6, 0.6, 0.4]"],
    "voxelnext_av2": ["model.voxel_size=[1.0, 1.0, 1.0]"],
    "voxelnext_waymo": ["model.voxel_size=[0.8, 0.8, 0.3]", "data.lasers=[TOP]"],
    "dsvt_waymo_pillar": ["model.voxel_size=[2.08, 2.08, 6.0]", "data.lasers=[TOP]"],
}
THIN = ["model.bev.filters=[16, 16]", "model.bev.upsample_filters=[16, 16]", "model.bev.layers=[1, 1]"]
WRITERS = {"nuscenes": write_nuscenes, "av2": write_argoverse2, "waymo": write_waymo}
SPLITS = {"nuscenes": "mini_train", "av2": "val", "waymo": "train"}


def dataset_of(name):
    return next(part for part in WRITERS if part in name)


@pytest.mark.parametrize("name", SMALL)
def test_a_config_trains_a_step_and_is_judged(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind = dataset_of(name)
    root, split = WRITERS[kind](tmp_path / kind), SPLITS[kind]
    options = [f"data.root={root}", f"loader.split={split}", f"evaluation.split={split}", "train.steps=1"]
    options += ["loader.batch_size=1", "loader.workers=0", "train.device=cpu", *SMALL[name]]
    options += THIN if name.startswith("centerpoint") else []
    assert cli.main(["train", name, "--out", "run", *options]) == 0
    lines = [json.loads(text) for text in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    losses = next(line["losses"] for line in lines if line["kind"] == "train")
    assert all(math.isfinite(value) for value in losses.values()) and losses["heatmap"] > 0
    if name.startswith(("centerpoint", "voxelnext")) and kind != "waymo":
        assert losses["velocity"] > 0
    assert cli.main(["evaluate", "run"]) == 0
    folder = tmp_path / "run/evaluation" / split
    assert json.loads((folder / "metrics.json").read_text())["split"] == split
    if kind == "nuscenes":
        results = json.loads((folder / "results_nusc.json").read_text())["results"]
    else:
        results = (folder / "results.jsonl").read_text().splitlines()
    loaded = config.load(DetectionConfig, tmp_path / "run/config.yaml")
    assert len(results) == len(open_dataset(loaded.dataset, split))


def perfect(dataset):
    """In place of `CenterPoint.predict`: the labels of each frame."""
    import torch

    by_id = {frame_id: dataset.labelled(i) for i, frame_id in enumerate(dataset.frame_ids)}

    def predict(model, batch):
        found = []
        for frame_id in batch.frame_ids:
            frame = by_id[frame_id]
            found.append(
                Detections(
                    torch.from_numpy(frame.boxes),
                    torch.linspace(0.9, 0.8, len(frame.boxes)),
                    torch.from_numpy(frame.labels),
                    torch.from_numpy(np.nan_to_num(frame.known_velocities)),
                )
            )
        return found

    return predict


@pytest.mark.parametrize(
    "name, value",
    [
        # Classes without a label count as zero: of nuScenes' ten, car and pedestrian have labels.
        ("centerpoint_nuscenes", lambda found: found["nuscenes"]["mAP"] * 10 / 2),
        ("centerpoint_av2", lambda found: max(row["cds"] or 0 for row in found["argoverse2"]["classes"])),
        ("centerpoint_waymo", lambda found: found["waymo"]["mAPH_L2"] / 100),
    ],
)
def test_the_labels_themselves_score_all_there_is(name, value, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    kind = dataset_of(name)
    root, split = WRITERS[kind](tmp_path / kind), SPLITS[kind]
    options = [f"data.root={root}", f"loader.split={split}", f"evaluation.split={split}", "train.steps=1"]
    options += ["loader.batch_size=1", "loader.workers=0", "train.device=cpu", *SMALL[name], *THIN]
    loaded = config.load(DetectionConfig, name, options)
    monkeypatch.setattr(CenterPoint, "predict", perfect(open_dataset(loaded.dataset, split)))
    assert cli.main(["train", name, "--out", "run", *options]) == 0
    assert cli.main(["evaluate", "run"]) == 0
    found = json.loads((tmp_path / f"run/evaluation/{split}/metrics.json").read_text())
    assert value(found) > 0.99
    if kind == "nuscenes":
        assert found["nuscenes"]["score_name"] == "NDS"
        known = {row["class_name"]: row["errors"] for row in found["nuscenes"]["classes"] if row["count"]}
        assert set(known) == {"car", "pedestrian"}, "the bicycle stands in a rack"
        assert max(known[c][name] for c in known for name in ("ATE", "ASE", "AOE", "AVE")) < 1e-6
        # Guessed from the speed: the car moves, and the pedestrian who "stands" does so at 1.2 m/s.
        assert (known["car"]["AAE"], known["pedestrian"]["AAE"]) == (0, 1)
        # The server's file has the boxes in the world.
        rows = json.loads((tmp_path / f"run/evaluation/{split}/results_nusc.json").read_text())["results"]
        truth = json.loads((root / "v1.0-mini/sample_annotation.json").read_text())
        expected = next(row for row in truth if row["token"] == "scene-0061-s1-a0")
        got = next(row for row in rows["scene-0061-s1"] if row["detection_name"] == "car")
        np.testing.assert_allclose(got["translation"], expected["translation"], atol=1e-3)
        np.testing.assert_allclose(got["size"], expected["size"], rtol=1e-5)
        np.testing.assert_allclose(got["rotation"], expected["rotation"], atol=2e-3)  # the sensor's tilt


@pytest.mark.parametrize("balance, frames, epochs", [("none", 2, 3), ("classes", 4, 2)])
def test_training_takes_every_nth_frame_and_knows_when_steps_fade(tmp_path, balance, frames, epochs):
    root = write_waymo(tmp_path / "waymo")
    options = [f"data.root={root}", "data.every=2", "data.lasers=[TOP]", f"loader.balance={balance}"]
    options += ["train.steps=5", "loader.batch_size=1"]
    loaded = config.load(DetectionConfig, "centerpoint_waymo", options)
    found = training_frames(loaded)
    assert len(found) == frames
    # Five steps of one frame each: of two frames the third epoch is the last; both are drawn for two classes.
    assert (found.dataset if balance == "classes" else found).epochs == epochs


def test_a_drive_of_the_data_set_is_tracked(tmp_path, monkeypatch, capsys):
    """By the name of a scene; with its labels for detections the tracks are the instances."""
    monkeypatch.chdir(tmp_path)
    root = write_nuscenes(tmp_path / "nuscenes")
    options = [f"data.root={root}", "loader.split=mini_train", "evaluation.split=mini_train", "train.steps=1"]
    options += ["loader.batch_size=1", "loader.workers=0", "train.device=cpu", *THIN]
    options += [*SMALL["centerpoint_nuscenes"], "data.version=v1.0-mini"]
    loaded = config.load(DetectionConfig, "centerpoint_nuscenes", options)
    dataset = open_dataset(loaded.dataset, "scene-0061")
    monkeypatch.setattr(CenterPoint, "predict", perfect(open_dataset(loaded.dataset, "mini_train")))
    assert cli.main(["train", "centerpoint_nuscenes", "--out", "run", *options]) == 0
    assert cli.main(["track", "run", "scene-0061", "--out", "found"]) == 0
    assert "AMOTA" in capsys.readouterr().out
    found = read_tracks("found/tracks.json")
    assert [frame.name for frame in found.frames] == list(dataset.frame_ids)
    objects: dict[int, set[int]] = {}
    for i, frame in enumerate(found.frames):
        labelled = dataset.labelled(i)
        assert len(frame.ids) == len(labelled.boxes)
        for number, box in zip(frame.ids.tolist(), frame.boxes, strict=True):
            row = int(np.abs(labelled.boxes[:, :3] - box[:3]).sum(axis=1).argmin())
            objects.setdefault(number, set()).add(int(labelled.box_info["track"][row]))
    assert all(len(tracks) == 1 for tracks in objects.values()) and len(found.frames) > 1
    assert json.loads((tmp_path / "found/metrics.json").read_text())["switches"] == 0

    assert cli.main(["track", "run", "scene-9999", "--out", "found"]) == 2
    assert "no split 'scene-9999'" in capsys.readouterr().err


def test_the_number_of_values_a_point_is_checked_when_the_config_is_read():
    for override in ("data.sweeps=1", "model.point_channels=4"):
        with pytest.raises(
            ConfigError, match=r"model.point_channels is \d, but points of the data have \d values"
        ):
            config.load(DetectionConfig, "centerpoint_nuscenes", [override])


def test_a_drive_of_kitti_raw_trains_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    root = write_kitti_raw(tmp_path / "raw")
    options = [
        "data.kind=kitti_raw",
        f"data.root={root}",
        "loader.split=labelled",
        "evaluation.split=labelled",
    ]
    options += ["train.steps=1", "loader.workers=0", "train.device=cpu", "augment.steps=[]", "generate=null"]
    assert cli.main(["train", "centerpoint_minidrive", "--out", "run", *options]) == 0
    assert cli.main(["evaluate", "run"]) == 0
