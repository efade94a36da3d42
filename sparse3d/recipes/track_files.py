"""A trained detector and a tracker on a sequence of scans: objects that keep their number."""

import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from sparse3d.data.kitti_index import DEFAULT_IMAGE_SIZE
from sparse3d.evaluation.frame_boxes import FrameBoxes
from sparse3d.evaluation.tracking import TrackingResult, evaluate
from sparse3d.frames import LidarFrame
from sparse3d.geometry.rigid import inverse, transform_boxes, transform_points
from sparse3d.io.files import write_text
from sparse3d.io.kitti import KittiCalibration, image_boxes
from sparse3d.io.scan_folder import PERIOD
from sparse3d.io.tracks import NAME, TrackedFrame, write_tracks
from sparse3d.models.tracker import Tracker, TrackerConfig
from sparse3d.recipes.detect_files import has_point_within
from sparse3d.recipes.detection import load_detector
from sparse3d.recipes.sequences import SequenceScan, open_recording
from sparse3d_ops.boxes import points_per_box


@dataclass(frozen=True)
class TrackedScan:
    """One scan with its objects. `ages` (M,): in how many scans each was seen so far; `trails`: where, (T, 2)
    along x and y of this scan's LiDAR frame, metres, the last place its own."""

    name: str
    points: np.ndarray
    frame: TrackedFrame
    ages: np.ndarray
    trails: list[np.ndarray]


@dataclass
class Tracking:
    """A sequence on its way: iterate over `scans`; then tracks.json is written and, where the truth is known
    of every scan, `result` says how good the tracks are (metrics.json)."""

    classes: tuple[str, ...]
    scans: Iterator[TrackedScan] = field(default_factory=lambda: iter(()))
    result: TrackingResult | None = None


def track(
    run: str | Path,
    sequence: str | Path,
    out: str | Path,
    checkpoint: str = "best",
    *,
    tracker: TrackerConfig | None = None,
    device: str | None = None,
    period: float = PERIOD,
) -> Tracking:
    """Detect and track the objects of a sequence, see `open_recording`; `tracker` defaults to the classes of
    the run. Files go to the folder `out` when the last scan has been taken from the result."""
    detector = load_detector(run, checkpoint, device)
    recording = open_recording(detector.config, sequence, period)
    bounds, classes = detector.config.model.bounds, detector.config.data.classes
    tracking = Tracking(classes)

    def scans() -> Iterator[TrackedScan]:
        follow, trails = Tracker(tracker or TrackerConfig(classes)), _Trails()
        frames: list[TrackedFrame] = []
        judge = _Judge(classes, bounds, recording.camera)
        for scan in recording.scans:
            frame = LidarFrame(scan.name, scan.points, np.zeros((0, 7), np.float32), np.zeros(0, np.int64))
            found = detector.predict([frame])[0].cpu()
            if not has_point_within(scan.points, bounds):
                found = found.select(found.labels < 0)
            seen = follow.update(found, scan.time, scan.world_from_lidar)
            frames.append(
                TrackedFrame(
                    scan.name, scan.time, seen.ids, seen.boxes, seen.labels, seen.scores, seen.velocities
                )
            )
            judge.add(scan, frames[-1])
            yield TrackedScan(scan.name, scan.points, frames[-1], seen.ages, trails.add(scan, frames[-1]))
        write_tracks(Path(out) / NAME, classes, frames)
        tracking.result = judge.result()
        if tracking.result is not None:
            write_text(Path(out) / "metrics.json", json.dumps(tracking.result.to_dict(), indent=1) + "\n")

    tracking.scans = scans()
    return tracking


class _Trails:
    """Where each object has been seen, in the world."""

    def __init__(self) -> None:
        self.places: defaultdict[int, list[np.ndarray]] = defaultdict(list)

    def add(self, scan: SequenceScan, frame: TrackedFrame) -> list[np.ndarray]:
        world = transform_points(frame.boxes[:, :3].astype(np.float64), scan.world_from_lidar)
        lidar_from_world = inverse(scan.world_from_lidar)
        trails = []
        for number, place in zip(frame.ids.tolist(), world, strict=True):
            self.places[number].append(place)
            trails.append(transform_points(np.array(self.places[number]), lidar_from_world)[:, :2])
        return trails


class _Judge:
    """Collects what is found and what is true, in the world's frame.

    An object counts where the network could see it: within its bounds, with a point in its box, and in the
    camera's picture where labels speak of a camera.
    """

    def __init__(
        self,
        classes: tuple[str, ...],
        bounds: tuple[float, ...],
        camera: KittiCalibration | None,
    ):
        self.classes, self.camera = classes, camera
        self.low, self.high = np.array(bounds[:3]), np.array(bounds[3:])
        self.truth: list[FrameBoxes] = []
        self.found: list[FrameBoxes] = []
        self.times: list[float] = []
        self.complete = True

    def add(self, scan: SequenceScan, frame: TrackedFrame) -> None:
        if scan.truth is None:
            self.complete = False
            return
        boxes = scan.truth.boxes
        countable = ((boxes[:, :3] >= self.low) & (boxes[:, :3] < self.high)).all(axis=1)
        inside = points_per_box(torch.from_numpy(scan.points[:, :3].copy()), torch.from_numpy(boxes))
        countable &= inside.numpy() > 0
        truth = scan.truth.select(countable & self._in_picture(boxes))
        self.truth.append(self._in_world(scan, truth))
        self.found.append(self._in_world(scan, frame.select(self._in_picture(frame.boxes))))
        self.times.append(scan.time)

    def _in_picture(self, boxes: np.ndarray) -> np.ndarray:
        if self.camera is None:
            return np.ones(len(boxes), dtype=bool)
        left, top, right, bottom = image_boxes(boxes, self.camera, DEFAULT_IMAGE_SIZE).T
        return (right > left) & (bottom > top)

    def _in_world(self, scan: SequenceScan, frame: TrackedFrame) -> FrameBoxes:
        boxes = transform_boxes(frame.boxes.astype(np.float64), scan.world_from_lidar)
        return FrameBoxes(boxes, frame.labels, frame.scores, tracks=frame.ids)

    def result(self) -> TrackingResult | None:
        if not self.complete or not self.times:
            return None
        return evaluate([self.truth], [self.found], self.classes, [self.times])
