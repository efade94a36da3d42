"""A small KITTI-layout folder, made up: boxes on a road with points in them, seen by a camera without
tilt.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from sparse3d.geometry.boxes import from_box_frame
from sparse3d.io.kitti import KittiCalibration, boxes_to_objects, write_calibration, write_objects
from sparse3d.io.points import write_points

AXES = np.array([[0, -1, 0, 0], [0, 0, -1, 0], [1, 0, 0, 0], [0, 0, 0, 1]], dtype=np.float64)
PINHOLE = np.array([[700, 0, 620, 0], [0, 700, 187, 0], [0, 0, 1, 0]], dtype=np.float64)
CALIBRATION = KittiCalibration(PINHOLE, np.eye(4), AXES)
SIZES = {"Car": (4.0, 1.6, 1.5), "Pedestrian": (0.6, 0.6, 1.8), "Van": (5.0, 1.9, 2.2)}
GROUND = -1.7


def points_in(box: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """(count, 4) points well inside of a box."""
    local = rng.uniform(-0.45, 0.45, (count, 3)) * box[3:6]
    return from_box_frame(np.column_stack([local, rng.random(count)]), box).astype(np.float32)


def write_frame(root: Path, frame_id: str, seed: int, points_per_object: int = 30, ground: int = 400) -> None:
    """Two cars, a pedestrian and a van in their own strips of the road, points in each, and ground all
    around.
    """
    rng = np.random.default_rng(seed)
    names = ["Car", "Car", "Pedestrian", "Van"]
    boxes = np.array(
        [
            [
                rng.uniform(12, 20) + 14 * (row % 2),
                rng.uniform(-1, 1) + (-4, 4)[row // 2],
                GROUND + SIZES[name][2] / 2,
                *SIZES[name],
                rng.uniform(-0.4, 0.4),
            ]
            for row, name in enumerate(names)
        ]
    )
    objects = boxes_to_objects(boxes, np.array(names), np.ones(4), CALIBRATION, (1242, 375))
    objects = replace(objects, truncated=np.zeros(4), occluded=np.arange(4))
    plane = np.column_stack(
        [rng.uniform(-40, 40, (ground, 2)), np.full(ground, GROUND - 0.01), rng.random(ground)]
    )
    cloud = np.concatenate([plane, *(points_in(box, points_per_object, rng) for box in boxes)])
    folder = root / "training"
    write_points(folder / "velodyne" / f"{frame_id}.bin", cloud.astype(np.float32))
    write_calibration(folder / "calib" / f"{frame_id}.txt", CALIBRATION)
    write_objects(folder / "label_2" / f"{frame_id}.txt", objects, with_scores=False)
    with open(folder / "label_2" / f"{frame_id}.txt", "a") as file:
        file.write("DontCare -1 -1 -10 5.00 229.89 214.12 367.61 -1 -1 -1 -1000 -1000 -1000 -10\n")


def write_folder(root: Path, frames: int = 4) -> Path:
    """A folder whose split "train" has `frames` frames and "val" the first of them."""
    ids = [f"{i:06d}" for i in range(frames)]
    for seed, frame_id in enumerate(ids):
        write_frame(root, frame_id, seed)
    (root / "ImageSets").mkdir()
    (root / "ImageSets" / "train.txt").write_text("".join(f"{i}\n" for i in ids))
    (root / "ImageSets" / "val.txt").write_text(f"{ids[0]}\n")
    return root
