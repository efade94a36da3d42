"""Segmentation from a config to labelled files, on generated scenes; and that tasks are not mixed up."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sparse3d import cli, config
from sparse3d.data.segmentation import SegmentationDataset
from sparse3d.errors import ConfigError
from sparse3d.frames import IGNORE, SegmentationFrame
from sparse3d.geometry.boxes import mirror_points, rotate_points_z
from sparse3d.io.points import read_points
from sparse3d.io.semantickitti import read_labels
from sparse3d.models.segmentation_losses import SegmentationLossConfig
from sparse3d.models.segmenter import Segmenter
from sparse3d.recipes import segmentation, tasks
from sparse3d.recipes.segmentation_config import SegmentationConfig
from sparse3d.recipes.segmentation_judge import EIGHT_VIEWS, judge_segmenter, segment_frames
from tests.recipes.small_run import write_run
from tests.recipes.test_two_processes import torchrun

TINY = """
task: segmentation
model:
  kind: minkunet
  classes: [car, person, road, sidewalk, building]
  voxel_size: 0.5
  inputs: relative
  stem_channels: 4
  stem_kernel: 3
  channels: [8, 8]
  layers: [1, 1]
data: {kind: kitti, root: mini, classes: [car, person, road, sidewalk, building]}
generate:
  scenes: 5
  simulator: {lidar: {beams: 8, columns: 128}}
augment: {steps: [{kind: flip}, {kind: laser_mix}]}
loader: {batch_size: 2, workers: 0}
train: {steps: 30, device: cpu}
optimizer: {kind: adamw, lr: 1.0e-2}
evaluation: {batch_size: 2, every_epochs: 1000}
log: {every: 10}
"""


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SPARSE3D_DATASETS", raising=False)
    (tmp_path / "tiny.yaml").write_text(TINY)
    return tmp_path


def fault(capsys, *argv) -> str:
    capsys.readouterr()
    assert cli.main(argv) == 2
    return capsys.readouterr().err


def test_train_evaluate_segment(here, capsys):
    assert cli.main(["train", "tiny.yaml", "--out", "run"]) == 0
    assert "sparse3d evaluate run" in capsys.readouterr().err
    lines = [json.loads(line) for line in (here / "run/metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "train"]
    assert losses[-1] < 0.8 * losses[0]

    assert cli.main(["evaluate", "run"]) == 0
    shown = capsys.readouterr().out
    assert "semantic segmentation" in shown and "panoptic segmentation" in shown
    written = json.loads((here / "run/evaluation/val/metrics.json").read_text())
    assert (written["frames"], written["views"]) == (1, 1) and 10 < written["semantic"]["mIoU"] <= 100
    assert cli.main(["evaluate", "run", "--tta"]) == 0
    assert json.loads((here / "run/evaluation/val/metrics.json").read_text())["views"] == 8

    np.zeros((0, 4), np.float32).tofile(here / "empty.bin")
    cloud = read_points(here / "mini/training/velodyne/000004.bin")
    cloud[[1, 5]] = np.nan
    cloud.tofile(here / "cloud.bin")
    command = ["segment", "run", "empty.bin", "cloud.bin", "--out", "found"]
    assert cli.main([*command, "--pictures", "--tta"]) == 0 and cli.main(command) == 0
    assert (here / "found/empty.label").read_bytes() == b""
    found, instances = read_labels(here / "found/cloud.label", len(cloud))
    np.testing.assert_array_equal(instances > 0, np.isin(found, (10, 30)))  # cars and people are objects
    assert set(found) <= {0, 10, 30, 40, 48, 50}
    assert (found[[1, 5]] == 0).all() and (np.delete(found, [1, 5]) != 0).all()
    with Image.open(here / "found/cloud.png") as picture:
        assert picture.size == (1000, 1000)

    # The .label that was written and the metric speak of the same labels.
    truth = read_labels(here / "mini/training/labels/000004.label", len(cloud)).semantic
    right = (found == truth)[np.isin(truth, (10, 30, 40, 48, 50)) & np.isfinite(cloud).all(1)].mean()
    assert right == pytest.approx(written["semantic"]["accuracy"] / 100, abs=0.02)

    assert "run of segmentation" in fault(capsys, "detect", "run", "cloud.bin", "--out", "o")
    assert "no such split" in fault(capsys, "evaluate", "run", "--split", "vla")
    assert "no such file or folder" in fault(capsys, "segment", "run", "nowhere.bin", "--out", "o")


@pytest.mark.slow
def test_two_processes_train_together(here):
    """Each has its own scans, and synced norms; the first one writes."""
    said = torchrun(
        here, "sparse3d", "train", "tiny.yaml", "--out", "two", "loader.batch_size=1", "train.steps=4"
    )
    assert said.count("evaluate with: sparse3d evaluate two") == 1
    rows = [json.loads(line) for line in (here / "two/metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["kind"] == "evaluation" and 0 <= rows[-1]["metrics"]["mIoU"] <= 100
    assert segmentation.load_segmenter("two", "last").checkpoint.name == "step_00000004"


def test_an_interrupted_run_goes_on_to_the_same_weights(here):
    loaded = config.load(SegmentationConfig, "tiny.yaml", ["train.steps=6", "checkpoint.every_steps=3"])
    segmentation.train(loaded, "whole")

    class Stop(segmentation.Hook):
        def after_step(self, trainer):
            if trainer.step == 3:
                trainer.stop("here")

    segmentation.train(loaded, "parts", extra_hooks=[Stop()])
    segmentation.train(loaded, "parts", resume=True)
    one, other = (segmentation.load_segmenter(run, "last").model.state_dict() for run in ("whole", "parts"))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_run_of_detection_does_not_segment(here, capsys):
    write_run(here / "run")
    assert "is a run of detection" in fault(capsys, "segment", "run", "x.bin", "--out", "o")
    assert "--tta" in fault(capsys, "evaluate", "run", "--tta")
    assert "not the folder of a run" in fault(capsys, "segment", ".", "x.bin", "--out", "o")


def test_the_task_of_a_config(here, capsys):
    assert tasks.task_of("tiny.yaml").name == "segmentation"
    assert tasks.task_of("centerpoint_minidrive").name == "detection"
    (here / "plain.yaml").write_text("train: {epochs: 1}\n")
    assert tasks.task_of("plain.yaml").name == "detection"
    assert tasks.task_of("plain.yaml", ["task=segmentation"]).name == "segmentation"
    (here / "odd.yaml").write_text("train: {epochs: 1}\ntask: segmentatoin\n")
    with pytest.raises(ConfigError, match=r"odd.yaml:2: unknown task 'segmentatoin'; did you mean 'seg"):
        tasks.task_of("odd.yaml")
    (here / "odd.yaml").write_text("task: [detection]\n")
    with pytest.raises(ConfigError, match="unknown task None; there are: detection, segmentation"):
        tasks.task_of("odd.yaml")
    assert cli.main(["config", "show", "tiny.yaml"]) == 0
    shown = capsys.readouterr().out
    (here / "shown.yaml").write_text(shown)
    assert tasks.load("shown.yaml") == tasks.load("tiny.yaml")
    assert cli.main(["config", "keys", "--task", "segmentation", "model.loss"]) == 0
    assert "model.loss.lovasz" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.classes=[car]", "a label is a position in both"),
        ("model.loss.class_weights=[1,2]", "has 2 values for 5 classes"),
        (
            "data={kind: semantickitti, classes: [car, person, road, sidewalk, building]}",
            "write data.kind: kitti",
        ),
        ("data.classes=[car,persn]", "expected each once, of: car, bicycle"),
        ("model.layers=[1]", "one entry above 0 for each level"),
        ("augment.steps=[{kind: polarmix}]", "polar"),
    ],
)
def test_configs_that_do_not_fit(here, capsys, override, message):
    assert message in fault(capsys, "train", "tiny.yaml", override)


def test_shipped_configs_are_whole():
    for name in config.config_names():
        loaded = tasks.load(name)
        assert loaded.task == tasks.task_of(name).name


class Directed(Segmenter):
    """Says "front" (0) or "back" (1) by the sign of x, and is sure of it by |x|; 2 has a constant logit."""

    def __init__(self, constant: float):
        super().__init__(SegmentationLossConfig())
        self.constant = torch.nn.Parameter(torch.tensor(constant))

    def logits(self, batch):
        x = batch.points[:, 0]
        return torch.stack([x, -x, torch.full_like(x, float(self.constant.detach()))], dim=1)


def frame_of(points: np.ndarray, labels: np.ndarray) -> SegmentationFrame:
    return SegmentationFrame("f", points.astype(np.float32), labels, np.zeros(len(points), np.int64))


def test_test_time_augmentation_averages_the_logits_of_eight_views():
    rng = np.random.default_rng(0)
    points = rng.normal(0, 5, (50, 4)).astype(np.float32)
    seen = np.stack([view(points) for view in EIGHT_VIEWS])
    np.testing.assert_allclose(
        np.linalg.norm(seen[..., :3], axis=2)[3], np.linalg.norm(points[:, :3], axis=1), rtol=1e-5
    )
    assert len(np.unique(seen.round(3), axis=0)) == 8
    np.testing.assert_allclose(seen[0], points)
    np.testing.assert_allclose(seen[5], mirror_points(rotate_points_z(points, 0.2), "y"), atol=1e-5)
    frame = frame_of(points, np.zeros(50, np.int64))
    (single,) = segment_frames(Directed(0.1), [frame])
    np.testing.assert_array_equal(
        single[np.abs(points[:, 0]) > 0.1], (points[:, 0] < 0)[np.abs(points[:, 0]) > 0.1]
    )
    # Over all views x averages to zero, so that the constant wins everywhere.
    (averaged,) = segment_frames(Directed(0.1), [frame], EIGHT_VIEWS)
    assert (averaged == 2).all()


def test_the_judge_counts_every_point_of_every_scan(here):
    loaded = config.load(SegmentationConfig, "tiny.yaml")
    segmentation.generate_scenes("mini", loaded.generate, True)
    dataset = SegmentationDataset(loaded.data, "train")
    calls = []

    class Roads(Directed):
        def logits(self, batch):
            return torch.nn.functional.one_hot(torch.full((len(batch.points),), 2), 5).float()

    judged = judge_segmenter(Roads(0.0), dataset, 3, lambda *done: calls.append(done)).semantic
    labels = np.concatenate([dataset[i].labels for i in range(len(dataset))])
    assert calls == [(3, 4), (4, 4)]
    assert judged.points.sum() == (labels != IGNORE).sum()
    assert judged.iou[2] == pytest.approx((labels == 2).sum() / (labels != IGNORE).sum())
    assert judged.iou[0] == 0


def test_generated_scenes_get_labels_later(here):
    """Scenes that a detector's config generated are completed, not made again."""
    loaded = config.load(SegmentationConfig, "tiny.yaml")
    segmentation.generate_scenes("mini", loaded.generate, False)
    cloud = Path("mini/training/velodyne/000000.bin").read_bytes()
    segmentation.generate_scenes("mini", loaded.generate, True)
    assert Path("mini/training/velodyne/000000.bin").read_bytes() == cloud
    assert len(read_labels("mini/training/labels/000000.label").semantic) == len(cloud) // 16
    Path("mine").mkdir()
    segmentation.generate_scenes("mine", loaded.generate, True)
    assert not list(Path("mine").iterdir())
