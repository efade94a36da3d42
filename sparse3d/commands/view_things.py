"""Clouds on disk with what lies beside them, as scenes for `sparse3d view`."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse3d.errors import DataError
from sparse3d.io.kitti import objects_to_boxes, read_calibration, read_objects
from sparse3d.io.points import POINT_SUFFIXES, read_points
from sparse3d.io.semantickitti import read_labels
from sparse3d.viewers.scene import Boxes, Scene


class Gallery(NamedTuple):
    """Frames by name; `scene(i)` reads one (and lets a model judge it) when it is to be seen."""

    names: Sequence[str]
    scene: Callable[[int], Scene]


def files_gallery(clouds: Sequence[Path], columns: int = 4, labels: Path | None = None) -> Gallery:
    """Clouds on disk; `labels` is for a single one."""
    if labels is not None and len(clouds) > 1:
        raise ValueError(f"--labels is for one cloud, and there are {len(clouds)}")
    return Gallery([c.stem for c in clouds], lambda number: read_scene(clouds[number], columns, labels))


def clouds_of(thing: str | Path) -> list[Path]:
    """The clouds of a file, of a folder, or of a data set in KITTI's layout (`training/velodyne`) or one
    sequence of SemanticKITTI (`velodyne`). DataError where there are none."""
    path = Path(thing).expanduser()
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(path, "no such file or folder")
    for inner in ("training/velodyne", "velodyne", "."):
        found = sorted(p for p in (path / inner).glob("*") if p.suffix.lower() in POINT_SUFFIXES)
        if found:
            return found
    raise DataError(
        path,
        f"no point clouds here ({', '.join(POINT_SUFFIXES)}), and it is no data set in KITTI's layout, "
        "no sequence of SemanticKITTI and no run",
    )


def read_scene(cloud: Path, columns: int = 4, labels: Path | None = None) -> Scene:
    """A cloud with what lies beside it: KITTI's `label_2` and `calib`, SemanticKITTI's `labels`. `labels`
    names a .label file that lies elsewhere."""
    points = read_points(cloud, columns)
    root, name = cloud.resolve().parent.parent, cloud.stem
    found = labels or root / "labels" / f"{name}.label"
    kinds, classes = _classes(found, len(points)) if labels or _is_beside(cloud, found) else (None, ())
    names: tuple[str, ...] = ()
    truth = Boxes.none()
    objects, calibration = root / "label_2" / f"{name}.txt", root / "calib" / f"{name}.txt"
    if _is_beside(cloud, objects) and calibration.is_file():
        rows = read_objects(objects)
        rows = rows.select((rows.names != "DontCare") & np.all(rows.dimensions > 0, axis=1))
        names = tuple(sorted(set(rows.names.tolist())))
        boxes = objects_to_boxes(rows, read_calibration(calibration)).astype(np.float32)
        truth = Boxes(boxes, np.array([names.index(n) for n in rows.names], dtype=np.int64))
    return Scene(name, points, kinds, classes, truth=truth, box_classes=names)


def _is_beside(cloud: Path, other: Path) -> bool:
    return cloud.resolve().parent.name == "velodyne" and other.is_file()


def _classes(path: Path, points: int) -> tuple[np.ndarray, tuple[str, ...]]:
    from sparse3d.data.semantic_classes import SEMANTICKITTI_CLASSES, LabelMap

    raw = read_labels(path, points).semantic
    try:
        return LabelMap(SEMANTICKITTI_CLASSES).to_labels(raw), SEMANTICKITTI_CLASSES
    except ValueError as error:
        raise DataError(path, str(error)) from error
