"""From boxes in the LiDAR frame to rows of a KITTI label file, through one calibration that all scenes share.

A row exists for every object whose box meets the image of camera 2. KITTI's labels were drawn by people who saw the scan
and the picture: an object with too few points is a DontCare region, and the occlusion level follows the share of the
object that nothing hides.
"""

import numpy as np

from sparse3d.data.minidrive.config import LabelConfig
from sparse3d.data.minidrive.scene import MinidriveScene
from sparse3d.io.kitti import KittiCalibration, KittiObjects

# Camera 2 of KITTI's raw recordings (focal length 721.5 pixels), its four cameras' baselines in pixels times metres, and
# axes exactly exchanged (x right, y down, z forward), so that a box stays upright and its yaw is one subtraction.
FOCAL, CENTRE_X, CENTRE_Y = 721.5377, 609.5593, 172.854
BASELINES = (0.0, -387.5744, 44.85728, -339.5242)
CAMERA_FROM_LIDAR = np.array([[0, -1, 0, -0.004], [0, 0, -1, -0.076], [1, 0, 0, -0.272]], dtype=np.float64)
LIDAR_FROM_IMU = np.array([[1, 0, 0, -0.81], [0, 1, 0, 0.32], [0, 0, 1, -0.80]], dtype=np.float64)
NEAR = 0.1  # metres before the camera's plane where boxes are cut
# Corner pairs of a box's edges; corner bits: 1 front, 2 left, 4 top.
EDGES = np.array([(a, a | bit) for bit in (1, 2, 4) for a in range(8) if not a & bit])


def projection(camera: int) -> np.ndarray:
    """(3, 4) matrix of one of KITTI's four cameras."""
    return np.array([[FOCAL, 0, CENTRE_X, BASELINES[camera]], [0, FOCAL, CENTRE_Y, 0], [0, 0, 1, 0]])


def calibration() -> KittiCalibration:
    """The calibration of every minidrive frame."""
    bottom = np.array([[0.0, 0, 0, 1]])
    return KittiCalibration(projection(2), np.eye(4), np.vstack([CAMERA_FROM_LIDAR, bottom]))


def calibration_text() -> str:
    """The seven lines of a KITTI calib file."""
    rows = [(f"P{k}", projection(k)) for k in range(4)]
    rows += [
        ("R0_rect", np.eye(3)),
        ("Tr_velo_to_cam", CAMERA_FROM_LIDAR),
        ("Tr_imu_to_velo", LIDAR_FROM_IMU),
    ]
    return "".join(f"{name}: {' '.join(f'{v:.12e}' for v in matrix.ravel())}\n" for name, matrix in rows)


def box_corners(box: np.ndarray) -> np.ndarray:
    """(8, 3) corners of one box (7,) in its own frame's coordinates, numbered by the bits 1 front, 2 left, 4 top."""
    bits = np.arange(8)
    signs = np.column_stack([bits & 1, (bits >> 1) & 1, (bits >> 2) & 1]) - 0.5
    local = signs * box[3:6]
    cos, sin = np.cos(box[6]), np.sin(box[6])
    x, y = cos * local[:, 0] - sin * local[:, 1], sin * local[:, 0] + cos * local[:, 1]
    return np.column_stack([x, y, local[:, 2]]) + box[:3]


def image_box(box: np.ndarray) -> np.ndarray | None:
    """(4,) left, top, right, bottom of the box's projection, not clipped to the image; None behind the camera."""
    corners = box_corners(box) @ CAMERA_FROM_LIDAR[:, :3].T + CAMERA_FROM_LIDAR[:, 3]
    start, end = corners[EDGES[:, 0]], corners[EDGES[:, 1]]
    crossing = (start[:, 2] < NEAR) != (end[:, 2] < NEAR)
    a, b = start[crossing], end[crossing]
    share = (NEAR - a[:, 2]) / (b[:, 2] - a[:, 2])
    visible = np.concatenate([corners[corners[:, 2] >= NEAR], a + share[:, None] * (b - a)])
    if len(visible) == 0:
        return None
    p = projection(2)
    pixels = (visible @ p[:, :3].T + p[:, 3])[:, :2] / visible[:, 2:]
    return np.concatenate([pixels.min(axis=0), pixels.max(axis=0)])


def label_objects(scene: MinidriveScene, config: LabelConfig) -> tuple[KittiObjects, np.ndarray]:
    """The scene's label rows, and of each row the scene's object index (K,) int64. DontCare rows come last."""
    limits = np.array([config.image_width - 1, config.image_height - 1] * 2, dtype=np.float64)
    rows: list[tuple] = []
    ignored: list[tuple] = []
    for m, box in enumerate(scene.boxes.astype(np.float64)):
        full = image_box(box)
        if full is None or np.hypot(box[0], box[1]) > config.max_distance:
            continue
        clipped = np.clip(full, 0.0, limits)
        width, height = clipped[2:] - clipped[:2]
        if width <= 0 or height <= 0:
            continue
        if scene.hits[m] < config.min_points:
            dimensions, location, angle = (-1.0,) * 3, (-1000.0,) * 3, -10.0
            ignored.append(("DontCare", -1.0, -1, -10.0, clipped, dimensions, location, angle, m))
            continue
        truncated = 1 - width * height / ((full[2] - full[0]) * (full[3] - full[1]))
        occluded = int(sum(scene.visible[m] < share for share in config.visible))
        bottom = CAMERA_FROM_LIDAR[:, :3] @ (box[:3] - [0, 0, box[5] / 2]) + CAMERA_FROM_LIDAR[:, 3]
        rotation_y = np.remainder(-box[6] - np.pi / 2 + np.pi, 2 * np.pi) - np.pi
        alpha = np.remainder(rotation_y - np.arctan2(bottom[0], bottom[2]) + np.pi, 2 * np.pi) - np.pi
        dimensions = (box[5], box[4], box[3])
        name = str(scene.names[m])
        rows.append((name, truncated, occluded, alpha, clipped, dimensions, tuple(bottom), rotation_y, m))
    names, truncated, occluded, alpha, boxes, dimensions, locations, angles, index = (
        zip(*(rows + ignored), strict=True) if rows or ignored else ((),) * 9
    )
    objects = KittiObjects(
        names=np.array(names, dtype=str),
        truncated=np.array(truncated, dtype=np.float64),
        occluded=np.array(occluded, dtype=np.int64),
        alpha=np.array(alpha, dtype=np.float64),
        boxes_image=np.array(boxes, dtype=np.float64).reshape(-1, 4),
        dimensions=np.array(dimensions, dtype=np.float64).reshape(-1, 3),
        locations=np.array(locations, dtype=np.float64).reshape(-1, 3),
        rotation_y=np.array(angles, dtype=np.float64),
        scores=np.ones(len(names)),
    )
    return objects, np.array(index, dtype=np.int64)


def label_text(objects: KittiObjects) -> str:
    """The rows of a KITTI label file, two decimals each. DontCare rows are written as KITTI writes them."""
    lines = []
    for m in range(len(objects)):
        box = " ".join(f"{v:.2f}" for v in objects.boxes_image[m])
        name = objects.names[m]
        if name == "DontCare":
            lines.append(f"DontCare -1 -1 -10 {box} -1 -1 -1 -1000 -1000 -1000 -10\n")
            continue
        numbers = (*objects.dimensions[m], *objects.locations[m], objects.rotation_y[m])
        lines.append(
            f"{name} {objects.truncated[m]:.2f} {objects.occluded[m]} {objects.alpha[m]:.2f} {box} "
            + " ".join(f"{v:.2f}" for v in numbers)
            + "\n"
        )
    return "".join(lines)
