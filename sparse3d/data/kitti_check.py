"""Is this folder what KITTI should look like? The answer of `sparse3d data check kitti --root ROOT`."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from sparse3d.data.box_report import BoxReport
from sparse3d.data.kitti_index import find_root, frame_files, read_split
from sparse3d.errors import DataError
from sparse3d.io.kitti import KittiObjects, objects_to_boxes, read_calibration, read_objects
from sparse3d.io.points import drop_invalid, read_points
from sparse3d_ops.boxes import points_per_box


def check_kitti(root: str | Path, columns: int = 4) -> BoxReport:
    """Read every file of every split of a KITTI-layout folder and say what is wrong. Changes nothing.

    Missing, truncated and unreadable files and impossible labels are problems; boxes without points (also
    common in the real data), points that are not finite and frames without a picture are notes. Raises
    DataError where the root itself is missing.
    """
    folder = find_root(root)
    splits: dict[str, int] = {}
    problems: list[str] = []
    notes: list[str] = []
    frames: dict[str, str] = {}  # frame id -> the first split that names it, apart for training/ and testing/
    for path in sorted((folder / "ImageSets").glob("*.txt")):
        try:
            ids = read_split(folder, path.stem)
        except DataError as error:
            problems.append(str(error))
            continue
        splits[path.stem] = len(ids)
        side = "testing" if path.stem == "test" else "training"
        for frame_id in ids:
            frames.setdefault(f"{side}/{frame_id}", path.stem)
    if not splits:
        problems.append(f"{folder / 'ImageSets'}: no split files (train.txt, val.txt)")
    counts = _Counts()
    for key, split in frames.items():
        _check_frame(folder, split, key.partition("/")[2], columns, counts, problems, notes)
    if counts.pictures < len(frames):
        notes.append(f"{len(frames) - counts.pictures} of {len(frames)} frames have no picture in image_2")
    return BoxReport(
        folder, splits, counts.points, counts.objects, counts.empty, tuple(problems), tuple(notes)
    )


@dataclass
class _Counts:
    points: int = 0
    pictures: int = 0
    objects: dict[str, int] = field(default_factory=dict)
    empty: dict[str, int] = field(default_factory=dict)


def _check_frame(
    root: Path,
    split: str,
    frame_id: str,
    columns: int,
    counts: _Counts,
    problems: list[str],
    notes: list[str],
) -> None:
    files = frame_files(root, split, frame_id)
    counts.pictures += files.image.is_file()
    points = calibration = objects = None
    try:
        points, dropped = drop_invalid(read_points(files.velodyne, columns))
        counts.points += len(points)
        if dropped or not len(points):
            notes.append(f"{files.velodyne}: {len(points)} finite points, {dropped} others")
    except DataError as error:
        problems.append(str(error))
    try:
        calibration = read_calibration(files.calib)
    except DataError as error:
        problems.append(str(error))
    if split == "test":
        return
    try:
        objects = read_objects(files.label)
    except DataError as error:
        problems.append(str(error))
        return
    objects = objects.select(objects.names != "DontCare")
    problems += [f"{files.label}: {problem}" for problem in label_problems(objects)]
    for name in objects.names:
        counts.objects[str(name)] = counts.objects.get(str(name), 0) + 1
    solid = objects.select(np.all(objects.dimensions > 0, axis=1))
    if points is None or calibration is None or not len(solid):
        return
    boxes = torch.from_numpy(objects_to_boxes(solid, calibration).astype(np.float32))
    inside = points_per_box(torch.from_numpy(np.ascontiguousarray(points[:, :3])), boxes).numpy()
    for name in solid.names[inside == 0]:
        counts.empty[str(name)] = counts.empty.get(str(name), 0) + 1


def label_problems(objects: KittiObjects) -> list[str]:
    """What cannot be true of labelled objects (DontCare rows left out), one sentence each."""
    left, top, right, bottom = objects.boxes_image.T
    rules = (
        ("a size that is not positive", (objects.dimensions <= 0).any(axis=1)),
        ("an image box without area", (right <= left) | (bottom <= top)),
        ("a truncation outside of [0, 1]", (objects.truncated < 0) | (objects.truncated > 1)),
        ("an occlusion other than 0, 1, 2, 3", ~np.isin(objects.occluded, (0, 1, 2, 3))),
        # KITTI prints angles with two decimals: 3.15 occurs.
        ("a rotation_y beyond pi", np.abs(objects.rotation_y) > np.pi + 0.01),
        ("a place behind the camera", objects.locations[:, 2] < -1),
    )
    return [
        f"object {row} ({objects.names[row]}) has {what}"
        for what, bad in rules
        for row in np.flatnonzero(bad)
    ]
