"""A trained detector and a tracker on a sequence of point clouds: objects that keep their number."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparse3d.data.kitti_index import DEFAULT_IMAGE_SIZE
from sparse3d.frames import LidarFrame
from sparse3d.geometry.rigid import inverse, transform_points
from sparse3d.io.kitti import in_image
from sparse3d.io.points import read_valid_points
from sparse3d.io.scan_folder import PERIOD, find_scans, read_sequence_calibration
from sparse3d.io.tracks import NAME, TrackedFrame, write_tracks
from sparse3d.models.tracker import Tracker, TrackerConfig
from sparse3d.recipes.detection import load_detector
from sparse3d.recipes.detect_files import has_point_within


@dataclass(frozen=True)
class TrackedScan:
    """One scan with its objects. `trails`: for each of them the places (T, 2) where it was seen so far, along x
    and y of this scan's LiDAR frame, metres, the last one its own."""

    path: Path
    points: np.ndarray
    frame: TrackedFrame
    ages: np.ndarray
    trails: list[np.ndarray]


def track(
    run: str | Path,
    sequence: str | Path,
    out: str | Path,
    checkpoint: str = "best",
    *,
    tracker: TrackerConfig | None = None,
    device: str | None = None,
    period: float = PERIOD,
) -> Iterator[TrackedScan]:
    """Detect and track the objects of a sequence (a folder, see `io.scan_folder`); writes `out/tracks.json`
    after the last scan.

    Yields each scan. `tracker` defaults to the classes of the run; `period` is the time between scans where
    the folder does not tell it. Where the run was trained on what a camera sees and the folder has its
    calibration, scans are cut to that view.
    """
    scans = find_scans(sequence, period)
    camera = read_sequence_calibration(sequence)
    detector = load_detector(run, checkpoint, device)
    classes = detector.config.data.classes
    follow = Tracker(tracker or TrackerConfig(classes))
    frames: list[TrackedFrame] = []
    seen_at: defaultdict[int, list[np.ndarray]] = defaultdict(list)
    for scan in scans:
        points = read_valid_points(scan.path)
        if camera is not None and detector.config.data.camera_view:
            points = points[in_image(points[:, :3], camera, DEFAULT_IMAGE_SIZE)]
        frame = LidarFrame(scan.path.stem, points, np.zeros((0, 7), np.float32), np.zeros(0, np.int64))
        found = detector.predict([frame])[0].cpu()
        found = found.select((found.scores >= 0) & has_point_within(points, detector.config.model.bounds))
        tracks = follow.update(found, scan.time, scan.world_from_lidar)
        places = transform_points(tracks.boxes[:, :3].astype(np.float64), scan.world_from_lidar)
        lidar_from_world = inverse(scan.world_from_lidar)
        trails = []
        for number, place in zip(tracks.ids.tolist(), places, strict=True):
            seen_at[number].append(place)
            trails.append(transform_points(np.array(seen_at[number]), lidar_from_world)[:, :2])
        frames.append(
            TrackedFrame(
                name=scan.path.stem,
                time=scan.time,
                ids=tracks.ids,
                boxes=tracks.boxes,
                labels=tracks.labels,
                scores=tracks.scores,
                velocities=tracks.velocities,
            )
        )
        yield TrackedScan(scan.path, points, frames[-1], tracks.ages, trails)
    write_tracks(Path(out) / NAME, classes, frames)
