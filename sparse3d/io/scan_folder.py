"""A recorded sequence as a folder of point clouds, laid out as KITTI's odometry benchmark.

    SEQUENCE/velodyne/000000.bin ...    or the clouds in SEQUENCE itself
    SEQUENCE/poses.txt                  a row of 3 x 4 numbers a scan
    SEQUENCE/calib.txt                  rows "Tr:" and "P2:"; then poses are camera 0's, else the LiDAR's own
    SEQUENCE/times.txt                  seconds, a row a scan

A calib.txt without "Tr:", as the archives of pictures have it, counts as a camera that looks ahead from the
LiDAR's place, which is logged; the benchmark's calibration archive has the row. Poses and times may be
missing. Where they have a row for every scan of a drive but only some of the scans are
there, file 000123 has row 123. Source: Geiger, Lenz, Urtasun (CVPR 2012), development kit readme.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.rigid import inverse, is_rigid
from sparse3d.io.files import write_text
from sparse3d.io.kitti import KittiCalibration
from sparse3d.io.points import POINT_SUFFIXES
from sparse3d.io.reading import read_text
from sparse3d.io.semantickitti import lidar_poses, read_camera_from_lidar, read_poses

_log = logging.getLogger(__name__)

# Camera x is -y of the LiDAR, y is -z, z is x.
LOOKING_AHEAD = np.array([[0.0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
PERIOD = 0.1  # seconds between scans where nothing tells it: most LiDARs turn ten times a second


@dataclass(frozen=True)
class ScanFile:
    """`time` in seconds; `world_from_lidar` (4, 4) float64, the world being at rest."""

    path: Path
    time: float
    world_from_lidar: np.ndarray


def find_scans(folder: str | Path, period: float = PERIOD) -> list[ScanFile]:
    """The scans of a sequence in the order of time. Without times.txt they are `period` seconds apart,
    without poses.txt the sensor counts as standing still, which is logged.

    Raises DataError for a folder without clouds, and for poses or times that are malformed or too few.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(folder, "no such folder; a sequence is a folder of point clouds")
    clouds = folder / "velodyne" if (folder / "velodyne").is_dir() else folder
    files = sorted(path for path in clouds.iterdir() if path.suffix.lower() in POINT_SUFFIXES)
    if not files:
        raise DataError(clouds, f"no point clouds in this folder ({', '.join(POINT_SUFFIXES)})")
    poses, times = _poses(folder), _times(folder)
    if times is None:
        times = period * np.arange(len(files))
    else:
        times = _rows(times, files, folder / "times.txt")
    if poses is None:
        _log.warning("%s: no poses.txt; the sensor counts as standing still", folder)
        poses = np.broadcast_to(np.eye(4), (len(files), 4, 4))
    else:
        poses = _rows(poses, files, folder / "poses.txt")
    if not (np.diff(times) > 0).all():
        scan = files[int((np.diff(times) <= 0).argmax()) + 1].name
        raise DataError(folder / "times.txt", f"times must rise from scan to scan; they do not at {scan}")
    return [ScanFile(path, float(t), pose) for path, t, pose in zip(files, times, poses, strict=True)]


def read_sequence_calibration(folder: str | Path) -> KittiCalibration | None:
    """The camera of calib.txt; None without that file, or without its row "P2:"."""
    path = Path(folder) / "calib.txt"
    if not path.is_file():
        return None
    rows = dict(line.split(":", 1) for line in read_text(path).splitlines() if ":" in line)
    if "P2" not in rows:
        return None
    try:
        projection = np.array([float(word) for word in rows["P2"].split()]).reshape(3, 4)
    except ValueError as error:
        raise DataError(path, "row P2 is not 12 numbers") from error
    return KittiCalibration(projection, np.eye(4), _camera_from_lidar(path))


def write_sequence_files(
    folder: str | Path,
    times: Sequence[float],
    world_from_lidar: Sequence[np.ndarray],
    calibration: KittiCalibration,
) -> None:
    """Write times.txt, poses.txt and calib.txt, each atomically; poses become those of camera 0, in the frame
    that it has where the LiDAR is at the identity."""
    camera_from_lidar = calibration.camera_from_lidar
    poses = [camera_from_lidar @ pose @ inverse(camera_from_lidar) for pose in world_from_lidar]
    write_text(Path(folder) / "poses.txt", "".join(f"{_row(pose)}\n" for pose in poses))
    write_text(Path(folder) / "times.txt", "".join(f"{time:.6e}\n" for time in times))
    calib = f"P2: {_row(calibration.projection_2)}\nTr: {_row(camera_from_lidar)}\n"
    write_text(Path(folder) / "calib.txt", calib)


def _row(matrix: np.ndarray) -> str:
    return " ".join(f"{value:.12g}" for value in matrix[:3].reshape(-1))


def _poses(folder: Path) -> np.ndarray | None:
    path = folder / "poses.txt"
    if not path.is_file():
        return None
    poses = read_poses(path)
    bad = [row for row, pose in enumerate(poses) if not is_rigid(pose, tolerance=1e-2)]
    if bad:
        raise DataError(path, f"row {bad[0] + 1} is not a rotation and a translation")
    calibration = folder / "calib.txt"
    if calibration.is_file():
        poses = lidar_poses(poses, _camera_from_lidar(calibration))
    return poses


def _camera_from_lidar(path: Path) -> np.ndarray:
    if any(line.startswith("Tr:") for line in read_text(path).splitlines()):
        return read_camera_from_lidar(path)
    _log.warning("%s: no row Tr; the camera counts as looking ahead from the LiDAR's place", path)
    return LOOKING_AHEAD


def _times(folder: Path) -> np.ndarray | None:
    path = folder / "times.txt"
    if not path.is_file():
        return None
    try:
        times = np.array([float(word) for word in read_text(path).split()])
    except ValueError as error:
        raise DataError(path, f"not a list of seconds: {error}") from error
    if not np.isfinite(times).all():
        raise DataError(path, "a time is not finite")
    return times


def _rows(values: np.ndarray, files: list[Path], path: Path) -> np.ndarray:
    """The row of each scan."""
    if len(values) == len(files):
        return values
    stems = [file.stem for file in files]
    numbers = np.array([int(stem) if stem.isdigit() else -1 for stem in stems])
    if len(values) < len(files) or numbers.min() < 0 or numbers.max() >= len(values):
        raise DataError(path, f"{len(values)} rows for {len(files)} scans, {stems[0]} to {stems[-1]}")
    return values[numbers]
