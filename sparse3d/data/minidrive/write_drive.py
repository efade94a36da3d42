"""Drives as folders in the layout of KITTI's odometry benchmark, with the truth about every object.

    OUT/<drive>/velodyne/<scan>.bin   poses.txt   times.txt   calib.txt   tracks.json

tracks.json is written last: a drive is there when it is.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sparse3d.data.minidrive.config import MinidriveConfig
from sparse3d.data.minidrive.drive import DriveConfig, DriveScan, simulate_drive
from sparse3d.data.minidrive.labels import calibration
from sparse3d.io.files import write_bytes
from sparse3d.io.scan_folder import write_sequence_files
from sparse3d.io.tracks import NAME, TrackedFrame, write_tracks

CLASSES = ("Car", "Van", "Pedestrian", "Cyclist")


def write_drives(
    out: str | Path,
    drives: int,
    seed: int,
    drive: DriveConfig | None = None,
    config: MinidriveConfig | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write drives 0 .. `drives` - 1 of `seed` into folders OUT/0000 ...; those that are there are kept.

    tracks.json holds the objects around the sensor that a scan has enough returns of (`labels.min_points`)
    and that are near enough (`labels.max_distance`). `progress(done, drives)` is called after each drive.
    """
    if drives < 0 or seed < 0:
        raise ValueError(f"drives and seed must not be negative, got {drives} and {seed}")
    config = MinidriveConfig() if config is None else config
    drive = DriveConfig() if drive is None else drive
    for index in range(drives):
        folder = Path(out) / f"{index:04d}"
        if not (folder / NAME).exists():
            _write_drive(folder, seed, index, drive, config)
        if progress is not None:
            progress(index + 1, drives)


def _write_drive(folder: Path, seed: int, index: int, drive: DriveConfig, config: MinidriveConfig) -> None:
    times, poses, frames = [], [], []
    for number, seen in enumerate(simulate_drive(seed, index, drive, config)):
        write_bytes(folder / "velodyne" / f"{number:06d}.bin", seen.scan.points.astype("<f4").tobytes())
        times.append(seen.time)
        poses.append(seen.world_from_lidar)
        frames.append(_truth(f"{number:06d}", seen, config))
    write_sequence_files(folder, times, poses, calibration())
    write_tracks(folder / NAME, CLASSES, frames, scores=False)


def _truth(name: str, seen: DriveScan, config: MinidriveConfig) -> TrackedFrame:
    distance = np.hypot(seen.boxes[:, 0], seen.boxes[:, 1])
    known = (seen.scan.hits >= config.labels.min_points) & (distance <= config.labels.max_distance)
    rows = np.flatnonzero(known)
    return TrackedFrame(
        name=name,
        time=seen.time,
        ids=rows + 1,
        boxes=seen.boxes[rows],
        labels=np.array([CLASSES.index(kind) for kind in seen.names[rows]], dtype=np.int64),
        scores=np.ones(len(rows), dtype=np.float32),
        velocities=seen.velocities[rows],
    )
