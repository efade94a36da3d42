"""The KITTI object benchmark's files: velodyne scans, calibration, labels.

Camera frame: x right, y down, z forward; a box stands on its `location` (bottom centre) and `rotation_y`
turns about the camera's +y. LiDAR frame: x forward, y left, z up. Format: Geiger et al., "Are we ready for
autonomous driving?" (CVPR 2012), development kit readme. "Camera" below always means the rectified camera 0;
P2 takes its points to the image of camera 2.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.boxes import EDGES, corners, wrap_angle
from sparse3d.io.files import write_text
from sparse3d.io.reading import read_text

# Smallest box height in pixels, largest occlusion and truncation of easy, moderate and hard (benchmark's
# rules).
_DIFFICULTY_LIMITS = ((40, 0, 0.15), (25, 1, 0.30), (25, 2, 0.50))

# Camera depth in metres below which nothing is projected; KITTI's nearest labelled objects stand at about 1
# m.
_NEAR = 0.1


@dataclass(frozen=True)
class KittiObjects:
    """The rows of one label (or result) file, one array a column; DontCare rows stay in.

    `names` (M,) str, `truncated` (M,) float in [0, 1], `occluded` (M,) int 0..3, `alpha` (M,) rad,
    `boxes_image` (M, 4) left, top, right, bottom in pixels, `dimensions` (M, 3) h, w, l in metres,
    `locations` (M, 3) bottom centre in the rectified camera frame, `rotation_y` (M,) rad,
    `scores` (M,): 1 for ground truth.
    """

    names: np.ndarray
    truncated: np.ndarray
    occluded: np.ndarray
    alpha: np.ndarray
    boxes_image: np.ndarray
    dimensions: np.ndarray
    locations: np.ndarray
    rotation_y: np.ndarray
    scores: np.ndarray

    def __len__(self) -> int:
        return len(self.names)

    def select(self, rows: np.ndarray) -> "KittiObjects":
        """The objects of a boolean mask (M,) or of row indices."""
        return KittiObjects(**{name: column[rows] for name, column in vars(self).items()})


@dataclass(frozen=True)
class KittiCalibration:
    """`projection_2` (3, 4) P2, `rectification` (4, 4) R0_rect, `camera_from_lidar` (4, 4) Tr_velo_to_cam."""

    projection_2: np.ndarray
    rectification: np.ndarray
    camera_from_lidar: np.ndarray

    @cached_property
    def rectified_from_lidar(self) -> np.ndarray:
        """(4, 4): LiDAR points to the rectified camera frame, R0_rect Tr_velo_to_cam."""
        return self.rectification @ self.camera_from_lidar

    @cached_property
    def lidar_from_rectified(self) -> np.ndarray:
        """(4, 4): the inverse of `rectified_from_lidar`."""
        return np.linalg.inv(self.rectified_from_lidar)


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


# ---- geometry ----------------------------------------------------------------------------------------------


def camera_from_lidar(points_lidar: np.ndarray, calibration: KittiCalibration) -> np.ndarray:
    """(..., 3) points in the LiDAR frame -> (..., 3) float64 in the rectified camera frame."""
    matrix = calibration.rectified_from_lidar
    return np.asarray(points_lidar, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def lidar_from_camera(points_camera: np.ndarray, calibration: KittiCalibration) -> np.ndarray:
    """(..., 3) points in the rectified camera frame -> (..., 3) float64 in the LiDAR frame."""
    matrix = calibration.lidar_from_rectified
    return np.asarray(points_camera, dtype=np.float64) @ matrix[:3, :3].T + matrix[:3, 3]


def project_to_image(points_lidar: np.ndarray, calibration: KittiCalibration) -> np.ndarray:
    """(..., 3) LiDAR points -> (..., 2) pixels of camera 2; nan for points nearer than 0.1 m or behind the
    camera.
    """
    return _project(camera_from_lidar(points_lidar, calibration), calibration)


def in_image(
    points_lidar: np.ndarray, calibration: KittiCalibration, image_size: tuple[int, int]
) -> np.ndarray:
    """(N, >=3) LiDAR points -> (N,) bool: in front of camera 2 and inside its image, (width, height)
    pixels.
    """
    pixels = project_to_image(points_lidar[..., :3], calibration)
    with np.errstate(invalid="ignore"):
        inside = (pixels >= 0) & (pixels < np.array(image_size))
    return inside[..., 0] & inside[..., 1]


def objects_to_boxes(objects: KittiObjects, calibration: KittiCalibration) -> np.ndarray:
    """Objects -> (M, 7) float64 boxes in the LiDAR frame.

    The centre is half a height above the location along the camera's -y. The yaw is that of the true heading,
    turned into the LiDAR frame and seen from above; it differs from -rotation_y - pi/2 by the tilt between
    the two frames.
    """
    height, width, length = objects.dimensions.T
    centre_camera = objects.locations - np.stack([0 * height, height / 2, 0 * height], axis=1)
    heading = (
        np.stack([np.cos(objects.rotation_y), np.sin(objects.rotation_y)]).T @ _heading_map(calibration).T
    )
    yaw = wrap_angle(np.arctan2(heading[:, 1], heading[:, 0]))
    centre = lidar_from_camera(centre_camera, calibration)
    return np.column_stack([centre, length, width, height, yaw])


def boxes_to_objects(
    boxes: np.ndarray,
    names: np.ndarray,
    scores: np.ndarray,
    calibration: KittiCalibration,
    image_size: tuple[int, int],
) -> KittiObjects:
    """The inverse of `objects_to_boxes`: one row a box, in order, truncated and occluded -1 (unknown).

    The image box bounds the projected corners of the part in front of the camera, clipped to the image; a box
    that is out of view gets one without area (drop such rows before writing results: the benchmark does not
    see them).
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 7)
    height = boxes[:, 5]
    location = camera_from_lidar(boxes[:, :3], calibration) + np.stack(
        [0 * height, height / 2, 0 * height], 1
    )
    # The exact inverse of the heading map, rather than the transposed rotation, makes the round trip exact.
    heading = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6])]).T
    heading = heading @ np.linalg.inv(_heading_map(calibration)).T
    rotation_y = wrap_angle(np.arctan2(heading[:, 1], heading[:, 0]))
    unknown = np.full(len(boxes), -1)
    return KittiObjects(
        names=np.asarray(names, dtype=np.str_),
        truncated=unknown.astype(np.float64),
        occluded=unknown,
        alpha=wrap_angle(rotation_y - np.arctan2(location[:, 0], location[:, 2])),
        boxes_image=image_boxes(boxes, calibration, image_size),
        dimensions=boxes[:, [5, 4, 3]],
        locations=location,
        rotation_y=rotation_y,
        scores=np.asarray(scores, dtype=np.float64),
    )


def image_boxes(boxes: np.ndarray, calibration: KittiCalibration, image_size: tuple[int, int]) -> np.ndarray:
    """(M, 7) LiDAR boxes -> (M, 4) left, top, right, bottom in pixels, clipped; all zero where out of
    view.
    """
    points = camera_from_lidar(corners(boxes.astype(np.float64)), calibration)
    start, end = points[:, EDGES[:, 0]], points[:, EDGES[:, 1]]
    # Where an edge crosses the near plane, its crossing point bounds the visible part of the box.
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (_NEAR - start[..., 2:]) / (end[..., 2:] - start[..., 2:])
        crossing = start + share * (end - start)
    crossing[~((share > 0) & (share < 1))[..., 0]] = np.nan
    crossing[..., 2] = np.where(np.isnan(crossing[..., 2]), np.nan, _NEAR)
    pixels = _project(np.concatenate([points, crossing], axis=1), calibration)
    hidden = np.isnan(pixels).any(axis=-1, keepdims=True)
    low, high = np.where(hidden, np.inf, pixels).min(axis=1), np.where(hidden, -np.inf, pixels).max(axis=1)
    limit = np.array(image_size, dtype=np.float64) - 1
    outside = ((high <= 0) | (low >= limit)).any(axis=1)
    result = np.concatenate([np.clip(low, 0, limit), np.clip(high, 0, limit)], axis=1)
    result[outside] = 0
    return result


def _project(points_camera: np.ndarray, calibration: KittiCalibration) -> np.ndarray:
    homogeneous = points_camera @ calibration.projection_2[:, :3].T + calibration.projection_2[:, 3]
    with np.errstate(invalid="ignore", divide="ignore"):
        pixels = homogeneous[..., :2] / homogeneous[..., 2:]
        hidden = ~((points_camera[..., 2] >= _NEAR) & (homogeneous[..., 2] > 0))
    pixels[hidden] = np.nan
    return pixels


def _heading_map(calibration: KittiCalibration) -> np.ndarray:
    """(2, 2): (cos, sin) of rotation_y -> heading's x and y in the LiDAR frame; the camera heading is (cos,
    0, -sin).
    """
    rotation = calibration.lidar_from_rectified[:2, :3]
    return np.stack([rotation[:, 0], -rotation[:, 2]], axis=1)


def _floats(words: list[str], where: str) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError as error:
        raise DataError(where, f"not a number: {str(error).rpartition(': ')[2]}") from None
    if not all(abs(value) < 1e9 for value in values):
        raise DataError(where, "a value is not finite or beyond 1e9")
    return values
