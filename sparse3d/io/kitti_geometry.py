"""KITTI's frames: points and boxes between LiDAR, rectified camera and image.

Camera frame: x right, y down, z forward; a box stands on its `location` (bottom centre) and `rotation_y`
turns about the camera's +y. LiDAR frame: x forward, y left, z up. "Camera" always means the rectified camera
0; P2 takes its points to the image of camera 2.
"""

import numba
import numpy as np

from sparse3d.geometry.boxes import EDGES, corners, wrap_angle
from sparse3d.io.kitti_types import KittiCalibration, KittiObjects

# Camera depth in metres below which nothing is projected; KITTI's nearest labelled objects stand at about 1
# m.
_NEAR = 0.1


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
    """(N, >=3) LiDAR points -> (N,) bool: in front of camera 2 and inside its image, (width, height) pixels.

    The same as `project_to_image` and a comparison, in one pass over the points.
    """
    out = np.empty(len(points_lidar), dtype=np.bool_)
    _in_image(
        points_lidar,
        calibration.rectified_from_lidar,
        calibration.projection_2,
        image_size[0],
        image_size[1],
        out,
    )
    return out


@numba.njit(cache=True, nogil=True)
def _in_image(points, camera_from_lidar, projection, width, height, out):
    for row in range(len(points)):
        x, y, z = np.float64(points[row, 0]), np.float64(points[row, 1]), np.float64(points[row, 2])
        m = camera_from_lidar
        cx = x * m[0, 0] + y * m[0, 1] + z * m[0, 2] + m[0, 3]
        cy = x * m[1, 0] + y * m[1, 1] + z * m[1, 2] + m[1, 3]
        cz = x * m[2, 0] + y * m[2, 1] + z * m[2, 2] + m[2, 3]
        p = projection
        u = cx * p[0, 0] + cy * p[0, 1] + cz * p[0, 2] + p[0, 3]
        v = cx * p[1, 0] + cy * p[1, 1] + cz * p[1, 2] + p[1, 3]
        w = cx * p[2, 0] + cy * p[2, 1] + cz * p[2, 2] + p[2, 3]
        out[row] = cz >= _NEAR and w > 0 and 0 <= u < width * w and 0 <= v < height * w


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
