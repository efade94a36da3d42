"""`sparse3d track`: from a folder of scans to tracks.json and pictures, on a drive whose truth is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from sparse3d import cli
from sparse3d.data.minidrive import DriveConfig, LidarConfig, MinidriveConfig, write_drives
from sparse3d.frames import DetectionBatch, Detections
from sparse3d.io.tracks import read_tracks
from sparse3d.models.centerpoint import CenterPoint
from tests.recipes.small_run import write_run

SCANS = 8
VAN = 1  # label of vans in the truth


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run whose detector finds the objects of a drive that are not vans, in an order of chance; `missed` of
    the model's class says which share of them it misses."""
    monkeypatch.chdir(tmp_path)
    config = MinidriveConfig(lidar=LidarConfig(beams=24, columns=512))
    write_drives("drives", 1, 4, DriveConfig(scans=SCANS), config)
    truth = read_tracks("drives/0000/tracks.json")
    rng = np.random.default_rng(0)

    def predict(self, batch: DetectionBatch) -> list[Detections]:
        frame = truth.frames[int(batch.frame_ids[0])]
        rows = np.flatnonzero((frame.labels != VAN) & (rng.random(len(frame.ids)) >= self.missed))
        rng.shuffle(rows)
        labels = torch.from_numpy(np.array([0, -1, 1, 2])[frame.labels[rows]])
        scores = torch.linspace(0.9, 0.6, len(rows))
        return [Detections(torch.from_numpy(frame.boxes[rows]), scores, labels)]

    monkeypatch.setattr(CenterPoint, "predict", predict)
    monkeypatch.setattr(CenterPoint, "missed", 0.33, raising=False)
    return str(write_run(tmp_path / "run"))


def test_a_perfect_detector_has_a_perfect_tracker(run, capsys, monkeypatch):
    """All objects found: no switch, no miss; those outside of what the network sees do not count."""
    monkeypatch.setattr(CenterPoint, "missed", 0.0)
    assert cli.main(["track", run, "drives/0000", "--out", "found"]) == 0
    assert "tracking: AMOTA" in capsys.readouterr().out
    metrics = json.loads(Path("found/metrics.json").read_text())
    assert metrics["misses"] == metrics["switches"] == 0 and metrics["recall"] == 1
    counted = {c["class_name"]: c["count"] for c in metrics["classes"]}
    assert counted["Car"] > SCANS and sum(counted.values()) < sum(
        len(f.ids) for f in read_tracks("drives/0000/tracks.json").frames
    )


def test_without_the_truth_there_are_tracks_alone(run, capsys):
    Path("drives/0000/tracks.json").rename("moved.json")
    assert cli.main(["track", run, "drives/0000", "--out", "found"]) == 0
    assert sorted(p.name for p in Path("found").iterdir()) == ["tracks.json"]
    assert "AMOTA" not in capsys.readouterr().out


def test_objects_keep_the_numbers_that_the_truth_gives_them(run, capsys):
    """Each track is one object of the drive; each object, seen in most scans, is rarely two tracks."""
    assert cli.main(["track", run, "drives/0000", "--out", "found", "--pictures", "--video"]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].startswith("000000: ") and f"{SCANS} scans" in shown.err
    found, truth = read_tracks("found/tracks.json"), read_tracks("drives/0000/tracks.json")
    assert [f.name for f in found.frames] == [f.name for f in truth.frames]
    object_of: dict[int, set[int]] = {}
    for frame, known in zip(found.frames, truth.frames, strict=True):
        distance = np.abs(frame.boxes[:, None, :3] - known.boxes[None, :, :3]).max(axis=2)
        assert distance.min(axis=1).max() < 1e-3
        for number, row in zip(frame.ids.tolist(), distance.argmin(axis=1), strict=True):
            object_of.setdefault(number, set()).add(int(known.ids[row]))
    mixed = sum(len(objects) > 1 for objects in object_of.values())
    names = [next(iter(objects)) for objects in object_of.values()]
    assert len(names) > 8 and mixed <= 0.1 * len(names) and len(names) <= 1.25 * len(set(names))
    # Who walks or drives has a velocity over the ground, whatever the sensor does.
    last, known = found.frames[-1], truth.frames[-1]
    row_of = np.abs(last.boxes[:, None, :3] - known.boxes[None, :, :3]).max(axis=2).argmin(axis=1)
    told = np.isfinite(last.velocities).all(axis=1)
    error = np.linalg.norm(last.velocities - known.velocities[row_of], axis=1)[told]
    assert told.sum() > 5 and np.median(error) < 0.2
    with Image.open("found/tracks.webp") as video:
        assert getattr(video, "n_frames", 1) == SCANS
    with Image.open("found/000003.png") as picture:
        assert np.asarray(picture).std() > 5


def test_what_cannot_be_tracked_is_named(run, capsys):
    for arguments, message in (
        (["track", run, "nothing", "--out", "x"], "no such folder"),
        (["track", run, "drives/0000", "--out", "x", "--score", "2"], "--score is 2.0"),
        (["track", run, "drives/0000", "--out", "x", "--period", "0"], "--period is 0.0"),
        (["track", run, "drives/0000", "--out", "x", "--max-age", "-1"], "max_age"),
        (["track", "none", "drives/0000", "--out", "x"], "none"),
    ):
        assert cli.main(arguments) == 2
        assert message in capsys.readouterr().err
