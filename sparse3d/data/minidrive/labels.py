"""From boxes in the LiDAR frame to rows of a KITTI label file, through one calibration that all scenes share.

A row exists for every object whose box meets the image of camera 2. KITTI's labels were drawn by people who
saw the scan and the picture: an object with too few points is a DontCare region, and the occlusion level
follows the share of the object that nothing hides.
"""

from dataclasses import replace

import numpy as np

from sparse3d.data.minidrive.config import LabelConfig
from sparse3d.data.minidrive.scene import MinidriveScene
from sparse3d.geometry.boxes import EDGES, corners
from sparse3d.io.kitti import KittiCalibration, KittiObjects, boxes_to_objects, camera_from_lidar

# Focal length and optical centre (pixels) and place of camera 2 in KITTI's recordings.
FOCAL, CENTRE_X, CENTRE_Y, BASELINE = 721.5377, 609.5593, 172.854, 44.85728
# Axes are exactly exchanged (x right, y down, z forward), so an upright box stays upright.
CAMERA_FROM_LIDAR = (
    (0.0, -1.0, 0.0, -0.004),
    (0.0, 0.0, -1.0, -0.076),
    (1.0, 0.0, 0.0, -0.272),
    (0.0, 0.0, 0.0, 1.0),
)
NEAR = 0.1  # metres before the camera, where boxes are cut


def calibration() -> KittiCalibration:
    """The calibration of every minidrive frame."""
    projection = np.array([[FOCAL, 0, CENTRE_X, BASELINE], [0, FOCAL, CENTRE_Y, 0], [0, 0, 1, 0]])
    return KittiCalibration(projection, np.eye(4), np.array(CAMERA_FROM_LIDAR))


def projected_extent(box: np.ndarray, camera: KittiCalibration) -> np.ndarray:
    """(4,) pixels left, top, right, bottom of a box (7,), not clipped to the image; nan behind the camera."""
    points = camera_from_lidar(corners(box[None])[0], camera)
    start, end = points[EDGES[:, 0]], points[EDGES[:, 1]]
    crossing = (start[:, 2] < NEAR) != (end[:, 2] < NEAR)
    a, b = start[crossing], end[crossing]
    share = (NEAR - a[:, 2]) / (b[:, 2] - a[:, 2])
    before = np.concatenate([points[points[:, 2] >= NEAR], a + share[:, None] * (b - a)])
    if len(before) == 0:
        return np.full(4, np.nan)
    pixels = before @ camera.projection_2[:, :3].T + camera.projection_2[:, 3]
    pixels = pixels[:, :2] / pixels[:, 2:]
    return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])


def label_objects(scene: MinidriveScene, config: LabelConfig) -> tuple[KittiObjects, np.ndarray]:
    """The scene's label rows, and the scene's object (K,) int64 behind each. DontCare rows come last."""
    camera, size = calibration(), (config.image_width, config.image_height)
    boxes = scene.boxes.astype(np.float64)
    objects = boxes_to_objects(boxes, scene.names, np.ones(len(boxes)), camera, size)
    full = np.array([projected_extent(box, camera) for box in boxes]).reshape(-1, 4)
    area, full_area = _area(objects.boxes_image), _area(full)
    in_view = (area > 0) & (np.hypot(boxes[:, 0], boxes[:, 1]) <= config.max_distance)
    known = scene.hits >= config.min_points
    objects = replace(
        objects,
        truncated=1 - area / np.maximum(full_area, 1e-9),
        occluded=(scene.visible[:, None] < np.array(config.visible)).sum(axis=1),
    )
    rows, ignored = np.flatnonzero(in_view & known), np.flatnonzero(in_view & ~known)
    return _concatenate(objects.select(rows), _dont_care(objects.select(ignored))), np.concatenate(
        [rows, ignored]
    )


def _area(boxes_image: np.ndarray) -> np.ndarray:
    return np.prod(boxes_image[:, 2:] - boxes_image[:, :2], axis=1)


def _dont_care(objects: KittiObjects) -> KittiObjects:
    """Only the image boxes stay; the rest is what KITTI writes for unknown."""
    n = len(objects)
    return replace(
        objects,
        names=np.full(n, "DontCare"),
        truncated=np.full(n, -1.0),
        occluded=np.full(n, -1),
        alpha=np.full(n, -10.0),
        dimensions=np.full((n, 3), -1.0),
        locations=np.full((n, 3), -1000.0),
        rotation_y=np.full(n, -10.0),
    )


def _concatenate(a: KittiObjects, b: KittiObjects) -> KittiObjects:
    return KittiObjects(
        **{name: np.concatenate([column, getattr(b, name)]) for name, column in vars(a).items()}
    )
