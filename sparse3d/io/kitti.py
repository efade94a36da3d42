"""The KITTI object benchmark's files: calibration, labels, results.

Format: Geiger et al., "Are we ready for autonomous driving?" (CVPR 2012), development kit readme. The types
are in `kitti_types`, the frames and projections in `kitti_geometry`; both are re-exported here.
"""

from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.io.files import write_text
from sparse3d.io.kitti_geometry import boxes_to_objects as boxes_to_objects
from sparse3d.io.kitti_geometry import camera_from_lidar as camera_from_lidar
from sparse3d.io.kitti_geometry import image_boxes as image_boxes
from sparse3d.io.kitti_geometry import in_image as in_image
from sparse3d.io.kitti_geometry import lidar_from_camera as lidar_from_camera
from sparse3d.io.kitti_geometry import objects_to_boxes as objects_to_boxes
from sparse3d.io.kitti_geometry import project_to_image as project_to_image
from sparse3d.io.kitti_types import KittiCalibration as KittiCalibration
from sparse3d.io.kitti_types import KittiObjects as KittiObjects
from sparse3d.io.reading import read_text

# Smallest box height in pixels, largest occlusion and truncation of easy, moderate and hard (benchmark).
_DIFFICULTY_LIMITS = ((40, 0, 0.15), (25, 1, 0.30), (25, 2, 0.50))


# ---- calibration files -------------------------------------------------------------------------------------


def read_calibration(path: str | Path) -> KittiCalibration:
    """Read calib/<id>.txt. A missing or malformed P2, R0_rect or Tr_velo_to_cam line is a DataError that
    names it.
    """
    rows: dict[str, tuple[int, list[str]]] = {}
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        key, *values = line.split() or [""]
        rows[key.rstrip(":")] = (number, values)

    def matrix(key: str, alias: str, shape: tuple[int, int]) -> np.ndarray:
        number, values = rows.get(key) or rows.get(alias) or (0, [])
        if not number:
            raise DataError(path, f"no line '{key}:'; expected P2, R0_rect and Tr_velo_to_cam")
        if len(values) != shape[0] * shape[1]:
            raise DataError(
                f"{path}:{number}", f"{key} has {len(values)} values, expected {shape[0] * shape[1]}"
            )
        return np.array(_floats(values, f"{path}:{number}")).reshape(shape)

    def transform(key: str, alias: str, shape: tuple[int, int]) -> np.ndarray:
        result = np.eye(4)
        result[: shape[0], : shape[1]] = matrix(key, alias, shape)
        # Printed with 12 digits in KITTI; a hundredth lets hand-written files pass but no wrong column order.
        if np.abs(result[:3, :3] @ result[:3, :3].T - np.eye(3)).max() > 0.01:
            raise DataError(
                f"{path}:{rows.get(key, rows.get(alias, (0, [])))[0]}", f"{key} is not a rotation"
            )
        return result

    return KittiCalibration(
        projection_2=matrix("P2", "P2", (3, 4)),
        rectification=transform("R0_rect", "R_rect", (3, 3)),
        camera_from_lidar=transform("Tr_velo_to_cam", "Tr_velo_cam", (3, 4)),
    )


def write_calibration(path: str | Path, calibration: KittiCalibration) -> None:
    """Write a calib file atomically, all seven lines of KITTI's: P0, P1 and P3 repeat P2, the IMU stands in
    the LiDAR.
    """
    lines = [(f"P{camera}", calibration.projection_2) for camera in range(4)]
    lines += [
        ("R0_rect", calibration.rectification[:3, :3]),
        ("Tr_velo_to_cam", calibration.camera_from_lidar[:3]),
        ("Tr_imu_to_velo", np.eye(4)[:3]),
    ]
    write_text(path, "".join(f"{k}: {' '.join(f'{v:.12e}' for v in m.ravel())}\n" for k, m in lines))


# ---- label and result files --------------------------------------------------------------------------------


def read_objects(path: str | Path) -> KittiObjects:
    """Read a label file (15 columns) or a result file (16, the score last). An empty file holds no
    objects.
    """
    return parse_objects(read_text(path), path)


def parse_objects(text: str, path: str | Path) -> KittiObjects:
    """The objects in the text of a label or result file; `path` stands in the DataErrors, with the line."""
    names: list[str] = []
    rows: list[list[float]] = []
    for number, line in enumerate(text.splitlines(), start=1):
        words = line.split()
        if not words:
            continue
        if len(words) not in (15, 16):
            raise DataError(
                f"{path}:{number}",
                f"{len(words)} columns; expected 15 (name truncated occluded alpha, 4 image box, "
                "3 size h w l, 3 location, rotation_y) or 16 with a score",
            )
        names.append(words[0])
        rows.append(_floats(words[1:], f"{path}:{number}") + ([1.0] if len(words) == 15 else []))
    table = np.array(rows, dtype=np.float64).reshape(-1, 15)
    return KittiObjects(
        names=np.array(names, dtype=np.str_),
        truncated=table[:, 0],
        occluded=table[:, 1].astype(np.int64),
        alpha=table[:, 2],
        boxes_image=table[:, 3:7],
        dimensions=table[:, 7:10],
        locations=table[:, 10:13],
        rotation_y=table[:, 13],
        scores=table[:, 14],
    )


def write_objects(path: str | Path, objects: KittiObjects, with_scores: bool = True) -> None:
    """Write a result file (16 columns) or, without scores, a label file (15) atomically; four decimals,
    scores six.
    """
    lines = []
    for i, name in enumerate(objects.names):
        columns = np.concatenate(
            [
                objects.alpha[i : i + 1],
                objects.boxes_image[i],
                objects.dimensions[i],
                objects.locations[i],
                objects.rotation_y[i : i + 1],
            ]
        )
        words = [str(name), f"{objects.truncated[i]:.2f}", str(int(objects.occluded[i]))]
        words += [f"{value:.4f}" for value in columns]
        lines.append(" ".join(words + ([f"{objects.scores[i]:.6f}"] if with_scores else [])))
    write_text(path, "".join(line + "\n" for line in lines))


def difficulty(objects: KittiObjects) -> np.ndarray:
    """(M,) int64: 0 easy, 1 moderate, 2 hard, -1 none of them (too small, too hidden, DontCare)."""
    height = objects.boxes_image[:, 3] - objects.boxes_image[:, 1]
    result = np.full(len(objects), -1, dtype=np.int64)
    for level in (2, 1, 0):
        min_height, max_occluded, max_truncated = _DIFFICULTY_LIMITS[level]
        fits = (objects.occluded <= max_occluded) & (objects.truncated <= max_truncated)
        result[fits & (height >= min_height)] = level
    result[objects.names == "DontCare"] = -1
    return result


def _floats(words: list[str], where: str) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise DataError(where, f"not a number: {str(error).rpartition(': ')[2]}") from None
    if not all(abs(value) < 1e9 for value in values):
        raise DataError(where, "a value is not finite or beyond 1e9")
    return values
