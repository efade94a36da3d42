"""Each data set is judged by its own benchmark: perfect detections on made-up releases."""

import json
import math

import numpy as np
import pytest
import torch

from sparse3d import cli
from sparse3d.data.nuscenes import NuscenesConfig, NuscenesDataset
from sparse3d.data.open import open_dataset
from sparse3d.frames import Detections
from sparse3d.geometry.rigid import transform_boxes
from sparse3d.io.nuscenes_results import read_results
from sparse3d.models.centerpoint import CenterPoint
from sparse3d.recipes.detection_metrics import METRICS, metrics_of_data
from tests.data.argoverse2_folder import write_argoverse2
from tests.data.nuscenes_folder import write_nuscenes
from tests.data.waymo_folder import write_waymo
from tests.recipes.small_run import write_run

BOUNDS = [-40, -40, -5, 40, 40, 5]
SCENES = ("scene-0103", "scene-0916")  # the split mini_val


def finding_the_labels(model, batch):
    """In place of `CenterPoint.predict`: every label that the network was shown."""
    found = []
    for i in range(batch.batch_size):
        rows = batch.box_frame == i
        velocities = torch.nan_to_num(batch.velocities[rows])
        scores = torch.linspace(0.9, 0.5, int(rows.sum()))
        found.append(Detections(batch.boxes[rows], scores, batch.labels[rows], velocities))
    return found


def run_on(tmp_path, monkeypatch, kind, root, classes, split, **data):
    monkeypatch.setattr(CenterPoint, "predict", finding_the_labels)
    folder = write_run(
        tmp_path / "run",
        root,
        model={
            "classes": list(classes),
            "bounds": BOUNDS,
            "voxel_size": [0.5, 0.5, 0.5],
            "point_channels": 5 if kind == "waymo" else 4,
            "decode": {"iou_alphas": [0.5], "nms_thresholds": [0.5]},
        },
        data={"kind": kind, "root": str(root), "classes": list(classes), **data},
        evaluation={"split": split},
    )
    text = (folder / "config.yaml").read_text()
    (folder / "config.yaml").write_text(text[: text.index("generate:")] + text[text.index("loader:") :])
    return folder


def evaluated(folder, split, *options):
    assert cli.main(["evaluate", str(folder), *options]) == 0
    return json.loads((folder / "evaluation" / split / "metrics.json").read_text())


def test_nuscenes_is_judged_by_nds_without_the_bicycle_in_the_rack(tmp_path, monkeypatch, capsys):
    root = write_nuscenes(tmp_path / "nuscenes", scenes=SCENES)
    classes = ("car", "pedestrian", "bicycle")
    folder = run_on(
        tmp_path, monkeypatch, "nuscenes", root, classes, "mini_val", version="v1.0-mini", sweeps=1
    )
    document = evaluated(folder, "mini_val")
    assert "NDS" in capsys.readouterr().out
    by_name = {row["class_name"]: row for row in document["nuscenes"]["classes"]}
    assert {name: row["count"] for name, row in by_name.items()} == {"car": 6, "pedestrian": 6, "bicycle": 0}
    assert by_name["car"]["ap"] == pytest.approx([1] * 4) and by_name["bicycle"]["ap"] == [0] * 4
    for name in ("car", "pedestrian"):
        assert by_name[name]["errors"]["AVE"] < 0.2 and by_name[name]["errors"]["ATE"] < 1e-5
    # The car moves, as its speed suggests; the walker walks, but is labelled as standing.
    assert by_name["car"]["errors"]["AAE"] == 0 and by_name["pedestrian"]["errors"]["AAE"] == 1
    assert document["nuscenes"]["score_name"] == "NDS"
    # Not asked for by the benchmark, but by the measure of what the model can find.
    assert [row["count"] for row in document["centre_distance"]["classes"]] == [6, 6, 6]

    samples = read_results(folder / "evaluation/mini_val/results_nusc.json", "detection")
    data = NuscenesDataset(
        NuscenesConfig(root=str(root), classes=classes, version="v1.0-mini", sweeps=1), "mini_val"
    )
    assert tuple(samples) == data.frame_ids
    for i, sample in enumerate(samples.values()):
        frame = data.frame(i)
        assert sample.boxes == pytest.approx(
            transform_boxes(frame.boxes.astype(np.float64), frame.extra["world_from_lidar"]), abs=1e-4
        )
        assert sample.names.tolist() == [classes[label] for label in frame.labels]
        assert sample.tags[frame.labels == 0].tolist() == ["vehicle.moving"]
        speed = np.linalg.norm(sample.velocities, axis=1)
        assert speed == pytest.approx(np.linalg.norm(frame.known_velocities, axis=1), abs=0.01)


def test_waymo_is_judged_by_aph(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pyarrow")
    root = write_waymo(tmp_path / "waymo", split="validation")
    classes = ("Vehicle", "Pedestrian", "Cyclist")
    folder = run_on(tmp_path, monkeypatch, "waymo", root, classes, "val", lasers=["TOP"])
    document = evaluated(folder, "val")
    assert "APH L2" in capsys.readouterr().out
    rows = {(row["class_name"], row["level"], row["distance"]): row for row in document["waymo"]["rows"]}
    frames = [open_dataset(_data(folder), "val").frame(i) for i in range(document["frames"])]
    points = np.concatenate([f.box_info["points"][f.labels == 0] for f in frames])
    assert rows["Vehicle", 2, "all"]["count"] == (points > 0).sum() > 0
    for name, level in (("Vehicle", 2), ("Cyclist", 2)):
        assert rows[name, level, "all"]["aph"] == pytest.approx(100), name
    assert rows["Cyclist", 1, "all"]["count"] == 0, "a person found it hard"


def test_argoverse2_is_judged_by_cds(tmp_path, monkeypatch, capsys):
    pytest.importorskip("pyarrow")
    root = write_argoverse2(tmp_path / "av2")
    frame = open_dataset(_config_of("argoverse2", root), "val").frame(0)
    names = open_dataset(_config_of("argoverse2", root), "val").class_names
    classes = tuple(dict.fromkeys(names[label] for label in frame.labels))
    folder = run_on(tmp_path, monkeypatch, "argoverse2", root, classes, "val")
    document = evaluated(folder, "val")
    assert "Argoverse 2 detection" in capsys.readouterr().out
    assert document["argoverse2"]["cds"] == pytest.approx(1, abs=1e-6)


def _data(folder):
    from sparse3d import config
    from sparse3d.recipes.detection_config import DetectionConfig

    return config.load(DetectionConfig, folder / "config.yaml").data


def _config_of(kind, root):
    from sparse3d.data.argoverse2 import Argoverse2Config

    assert kind == "argoverse2"
    return Argoverse2Config(root=str(root))


def test_the_config_may_choose_among_what_fits(tmp_path, monkeypatch, capsys):
    root = write_nuscenes(tmp_path / "nuscenes", scenes=SCENES)
    folder = run_on(
        tmp_path, monkeypatch, "nuscenes", root, ("car",), "mini_val", version="v1.0-mini", sweeps=1
    )
    path = folder / "config.yaml"
    path.write_text(
        path.read_text().replace("split: mini_val", "split: mini_val\n  metrics: [centre_distance]")
    )
    assert list(evaluated(folder, "mini_val")) == ["split", "checkpoint", "frames", "centre_distance"]
    path.write_text(path.read_text().replace("[centre_distance]", "[waymo]"))
    capsys.readouterr()
    assert cli.main(["evaluate", str(folder)]) == 2
    assert "'waymo' does not fit data.kind 'nuscenes'; fitting are nuscenes" in " ".join(
        capsys.readouterr().err.split()
    )
    assert metrics_of_data("kitti", ()) == METRICS["kitti"]


def test_what_training_watches_comes_first_and_is_defined(tmp_path, monkeypatch):
    from sparse3d.recipes.detection import load_detector
    from sparse3d.recipes.detection_judge import judge

    root = write_nuscenes(tmp_path / "nuscenes", scenes=SCENES)
    folder = run_on(
        tmp_path, monkeypatch, "nuscenes", root, ("car", "bus"), "mini_val", version="v1.0-mini", sweeps=1
    )
    detector = load_detector(folder)
    dataset = open_dataset(detector.config.dataset, "mini_val")
    for metrics, first in (((), "NDS"), (("centre_distance",), "mAP_centre_distance")):
        judgement = judge(detector.model, dataset, BOUNDS, 2, metrics=metrics)
        numbers = judgement.watched()
        assert next(iter(numbers)) == first and not any(map(math.isnan, numbers.values()))
        assert numbers["car_AP"] == pytest.approx(100)
