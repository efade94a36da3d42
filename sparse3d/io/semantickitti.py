"""Files of SemanticKITTI: point labels (.label), poses.txt and calib.txt of a sequence.

A .label file holds one little-endian uint32 a point of the scan of the same name: the class id in the lower
16 bits, the instance in the upper ones (Behley et al., arXiv 1904.01416). Poses are those of the rectified
camera 0, as KITTI's odometry benchmark writes them: 12 numbers a line, the rows of a 3 x 4 matrix.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse3d.errors import DataError
from sparse3d.io.files import write_bytes
from sparse3d.io.reading import read_bytes, read_text


class PointLabels(NamedTuple):
    """`semantic`, `instance` (N,) int64 in [0, 65536)."""

    semantic: np.ndarray
    instance: np.ndarray


def read_labels(path: str | Path, points: int | None = None) -> PointLabels:
    """The labels of a scan. `points`: how many the scan has; DataError where the file has another number, or
    a part of one."""
    data = read_bytes(path)
    if len(data) % 4:
        raise DataError(
            path, f"{len(data)} bytes are not whole labels of 4 bytes; the file is truncated, copy it again"
        )
    values = np.frombuffer(data, dtype="<u4").astype(np.int64)
    if points is not None and len(values) != points:
        raise DataError(
            path, f"{len(values)} labels for a scan of {points} points; one of the two files is not whole"
        )
    return PointLabels(values & 0xFFFF, values >> 16)


def write_labels(path: str | Path, semantic: np.ndarray, instance: np.ndarray | None = None) -> None:
    """Write a .label file atomically. Numbers outside of [0, 65536) are a ValueError."""
    semantic = np.asarray(semantic, dtype=np.int64)
    instance = np.zeros_like(semantic) if instance is None else np.asarray(instance, dtype=np.int64)
    if semantic.shape != instance.shape or semantic.ndim != 1:
        raise ValueError(f"semantic {semantic.shape} and instance {instance.shape} must both be (N,)")
    for name, values in (("semantic", semantic), ("instance", instance)):
        if len(values) and not (values.min() >= 0 and values.max() < 1 << 16):
            raise ValueError(f"{name} lies in [{values.min()}, {values.max()}], 16 bits hold [0, 65535]")
    write_bytes(path, ((instance << 16) | semantic).astype("<u4").tobytes())


def read_poses(path: str | Path) -> np.ndarray:
    """poses.txt -> (S, 4, 4) float64 world_from_camera0, one a scan."""
    rows = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if line.strip():
            rows.append(_matrix(line, path, number))
    return np.stack(rows) if rows else np.zeros((0, 4, 4))


def read_camera_from_lidar(path: str | Path) -> np.ndarray:
    """The row `Tr:` of calib.txt -> (4, 4) float64 camera0_from_lidar."""
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        name, colon, values = line.partition(":")
        if colon and name.strip() == "Tr":
            return _matrix(values, path, number)
    raise DataError(path, "no row 'Tr:' (LiDAR to camera 0)")


def lidar_poses(world_from_camera: np.ndarray, camera_from_lidar: np.ndarray) -> np.ndarray:
    """(S, 4, 4) and (4, 4) -> (S, 4, 4) that bring points of each scan into the LiDAR frame that a scan with
    the identity as camera pose has (the first one of a sequence)."""
    return np.linalg.inv(camera_from_lidar) @ world_from_camera @ camera_from_lidar


def _matrix(text: str, path: str | Path, line: int) -> np.ndarray:
    try:
        values = np.array([float(word) for word in text.split()])
    except ValueError as error:
        raise DataError(path, f"line {line}: {error}") from error
    if len(values) != 12 or not np.isfinite(values).all():
        raise DataError(
            path, f"line {line}: expected 12 finite numbers (a 3 x 4 matrix), got {len(values)} numbers"
        )
    return np.vstack([values.reshape(3, 4), [0.0, 0.0, 0.0, 1.0]])
