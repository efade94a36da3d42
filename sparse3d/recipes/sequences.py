"""Where the scans of a sequence come from: a folder of point clouds, or a drive of a run's data set."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparse3d.data.kitti_index import DEFAULT_IMAGE_SIZE
from sparse3d.data.open import open_dataset
from sparse3d.data.sequences import SequenceConfig, SequenceDataset
from sparse3d.errors import DataError
from sparse3d.io.kitti import KittiCalibration, in_image
from sparse3d.io.points import read_valid_points
from sparse3d.io.scan_folder import PERIOD, find_scans, read_sequence_calibration
from sparse3d.io.tracks import NAME, TrackedFrame, TrackedSequence, read_tracks
from sparse3d.recipes.detection_config import DetectionConfig


@dataclass(frozen=True)
class SequenceScan:
    """`points` (P, 3 + F) as the network is to see them; `truth` has labels of the run's classes, None where
    nothing is known."""

    name: str
    time: float  # seconds
    world_from_lidar: np.ndarray
    points: np.ndarray
    truth: TrackedFrame | None


@dataclass(frozen=True)
class Recording:
    """`len` scans in the order of time; `camera` is the one that labels and training speak of, None for all
    around."""

    camera: KittiCalibration | None
    scans: Iterator[SequenceScan]


def open_recording(config: DetectionConfig, sequence: str | Path, period: float = PERIOD) -> Recording:
    """A folder of scans (see `io.scan_folder`; the truth is in its tracks.json, where it has one), or else
    the drive of this name in the run's data set. Raises DataError where it is neither.

    Scans of a folder are `period` seconds apart where it does not tell. They are cut to the camera's view
    where the run was trained on that and the folder has a calibration.
    """
    folder, data = Path(sequence), config.dataset
    if folder.is_dir():
        camera = read_sequence_calibration(folder) if getattr(data, "camera_view", False) else None
        return Recording(camera, _of_folder(folder, config.data.classes, camera, period))
    if not isinstance(data, SequenceConfig):
        raise DataError(folder, "no such folder, and the run's data set has no drives that this could name")
    dataset = open_dataset(data, str(sequence))
    assert isinstance(dataset, SequenceDataset)
    return Recording(None, _of_dataset(dataset))


def _of_folder(
    folder: Path, classes: tuple[str, ...], camera: KittiCalibration | None, period: float
) -> Iterator[SequenceScan]:
    truth = _truth(folder, classes)
    for scan in find_scans(folder, period):
        points = read_valid_points(scan.path)
        if camera is not None:
            # The network was trained on what the camera sees; beside that it would only guess.
            points = points[in_image(points[:, :3], camera, DEFAULT_IMAGE_SIZE)]
        name = scan.path.stem
        if truth and name not in truth:
            raise DataError(folder / NAME, f"it has no frame {name!r}")
        yield SequenceScan(name, scan.time, scan.world_from_lidar, points, truth.get(name))


def _truth(folder: Path, classes: tuple[str, ...]) -> dict[str, TrackedFrame]:
    """The frames of tracks.json, with the labels of `classes`; empty where there is none."""
    if not (folder / NAME).is_file():
        return {}
    known: TrackedSequence = read_tracks(folder / NAME)
    label = np.array([classes.index(name) if name in classes else -1 for name in known.classes], np.int64)
    frames = {}
    for frame in known.frames:
        ours = frame.select(label[frame.labels] >= 0)
        frames[frame.name] = TrackedFrame(
            ours.name, ours.time, ours.ids, ours.boxes, label[ours.labels], ours.scores, ours.velocities
        )
    return frames


def _of_dataset(dataset: SequenceDataset) -> Iterator[SequenceScan]:
    for index in range(len(dataset)):
        frame = dataset.frame(index)
        truth = TrackedFrame(
            name=frame.frame_id,
            time=frame.extra["timestamp"],
            ids=frame.box_info["track"],
            boxes=frame.boxes,
            labels=frame.labels,
            scores=np.ones(len(frame.boxes), np.float32),
            velocities=frame.known_velocities,
        )
        seen = dataset.seen(frame)
        pose = frame.extra["world_from_lidar"]
        yield SequenceScan(truth.name, truth.time, pose, seen.points, truth)
