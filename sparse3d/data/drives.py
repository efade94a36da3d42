"""Drives of which every scan is a frame, put together into the table of a data set."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from sparse3d.data.sequences import SequenceTable, track_velocities


class Labels(NamedTuple):
    """M boxes of a drive, those of its first scan first; in the LiDAR frame of their scan."""

    scan: np.ndarray  # (M,) int64, number of the scan in the drive
    boxes: np.ndarray  # (M, 7) float64
    category: np.ndarray  # (M,) str
    track: np.ndarray  # (M,) int64
    velocity: np.ndarray  # (M, 2), NaN where unknown
    points: np.ndarray  # (M,) int64, -1 where the data set does not count
    difficulty: np.ndarray  # (M,) int64, -1 where unrated

    @staticmethod
    def none() -> "Labels":
        """Of a drive without labels."""
        whole = np.zeros(0, np.int64)
        text = np.zeros(0, np.str_)
        return Labels(whole, np.zeros((0, 7)), text, whole, np.zeros((0, 2)), whole, whole)


class Drive(NamedTuple):
    """S scans by time."""

    name: str
    files: list[str]  # what `scan_file` of the table will be
    ids: list[str]
    times: np.ndarray  # (S,) int64, ns
    poses: np.ndarray  # (S, 4, 4) world from LiDAR
    labels: Labels


def velocities_of(labels: Labels, times: np.ndarray, poses: np.ndarray, max_gap: float) -> np.ndarray:
    """(M, 2) m/s along x and y of the LiDAR frame, from where the same track is labelled before and after;
    see `track_velocities`."""
    turn = poses[labels.scan, :3, :3]
    world = (turn @ labels.boxes[:, :3, None])[..., 0] + poses[labels.scan, :3, 3]
    seconds = (times[labels.scan] - times[:1]) * 1e-9
    moved = track_velocities(labels.track, seconds, world, max_gap)
    return (np.swapaxes(turn, 1, 2) @ moved[..., None])[:, :2, 0]


def table_of(drives: Sequence[Drive], categories: Sequence[str]) -> SequenceTable:
    """One table; categories of the labels that are not in `categories` come after them."""
    scans = [len(drive.times) for drive in drives]
    first = np.cumsum([0, *scans])
    labels = [drive.labels for drive in drives] or [Labels.none()]
    scan = np.concatenate([part.scan + start for part, start in zip(labels, first, strict=False)])
    names, code = np.unique(np.concatenate([part.category for part in labels]), return_inverse=True)
    category_names = [*categories, *(name for name in names.tolist() if name not in categories)]
    position = np.array([category_names.index(name) for name in names.tolist()], dtype=np.int64)
    return SequenceTable(
        sequence_names=np.array([drive.name for drive in drives], dtype=np.str_),
        scan_sequence=np.repeat(np.arange(len(drives)), scans),
        scan_time=np.concatenate([np.zeros(0, np.int64), *(drive.times for drive in drives)]),
        world_from_lidar=np.concatenate([np.zeros((0, 4, 4)), *(drive.poses for drive in drives)]),
        vehicle=np.zeros((first[-1], 3), np.float32),
        scan_file=_bytes([file for drive in drives for file in drive.files]),
        frame_scan=np.arange(first[-1]),
        frame_id=_bytes([text for drive in drives for text in drive.ids]),
        first_box=np.searchsorted(scan, np.arange(first[-1] + 1)),
        boxes=np.concatenate([part.boxes for part in labels]).astype(np.float32),
        category=position[code].astype(np.int64),
        velocity=np.concatenate([part.velocity for part in labels]).astype(np.float32),
        track=np.concatenate([part.track for part in labels]),
        points=np.concatenate([part.points for part in labels]),
        attribute=np.full(len(scan), -1, dtype=np.int64),
        difficulty=np.concatenate([part.difficulty for part in labels]),
        occlusion=np.full(len(scan), -1, dtype=np.int64),
        category_names=np.array(category_names, dtype=np.str_),
        attribute_names=np.zeros(0, dtype=np.str_),
    )


def _bytes(texts: list[str]) -> np.ndarray:
    return np.array([text.encode() for text in texts], dtype=np.bytes_)
