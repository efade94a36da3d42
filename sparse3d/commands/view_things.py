"""What `sparse3d view THING` names: clouds on disk, what is known of them and what a run says of them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sparse3d.errors import DataError
from sparse3d.io.kitti import objects_to_boxes, read_calibration, read_objects
from sparse3d.io.points import POINT_SUFFIXES, read_points
from sparse3d.io.semantickitti import read_labels
from sparse3d.viewers.scene import Boxes, Scene

Predict = Callable[[Path, Scene], Scene]


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


def predictor(run: Path, checkpoint: str, device: str | None, score: float) -> Predict:
    """What a run's model adds to a scene: detections, or a class for each point."""
    from sparse3d.recipes.tasks import task_of_run

    if task_of_run(run).name == "segmentation":
        return _segmenter(run, checkpoint, device)
    return _detector(run, checkpoint, device, score)


def run_clouds(run: Path, split: str | None) -> list[Path]:
    """The clouds of the split that a run is judged on. ValueError for data sets that are not files of clouds
    in KITTI's layout."""
    from sparse3d.data.kitti_index import find_root, frame_files, read_split
    from sparse3d.recipes.run_folder import RunFolder
    from sparse3d.recipes.tasks import task_of_run

    config: Any = RunFolder(run).read_config(task_of_run(run).config)
    if config.data.kind != "kitti":
        raise ValueError(
            f"{run} was trained on {config.data.kind}; name the clouds: sparse3d view {run} INPUT"
        )
    root, chosen = find_root(config.data.root), str(split or config.evaluation.split)
    return [frame_files(root, chosen, name).velodyne for name in read_split(root, chosen)]


def _detector(run: Path, checkpoint: str, device: str | None, score: float) -> Predict:
    from sparse3d.frames import LidarFrame
    from sparse3d.io.kitti import in_image
    from sparse3d.io.points import drop_invalid
    from sparse3d.recipes.detect_files import camera_view
    from sparse3d.recipes.detection import load_detector

    detector = load_detector(run, checkpoint, device)
    config = detector.config

    def predict(cloud: Path, scene: Scene) -> Scene:
        points, camera = drop_invalid(scene.points)[0], camera_view(cloud)
        if getattr(config.data, "camera_view", False) and camera.source is not None:
            points = points[in_image(points[:, :3], camera.calibration, camera.image_size)]
        frame = LidarFrame(scene.title, points, np.zeros((0, 7), np.float32), np.zeros(0, np.int64))
        found = detector.predict([frame])[0].cpu()
        found = found.select(found.scores >= score)
        # Names of labelled boxes that the model does not know go behind its own.
        names = (*config.data.classes, *(n for n in scene.box_classes if n not in config.data.classes))
        labels = np.array([names.index(scene.box_classes[k]) for k in scene.truth.labels], dtype=np.int64)
        return Scene(
            scene.title,
            scene.points,
            scene.labels,
            scene.point_classes,
            Boxes(found.boxes.numpy(), found.labels.numpy(), found.scores.numpy()),
            Boxes(scene.truth.boxes, labels),
            names,
        )

    return predict


def _segmenter(run: Path, checkpoint: str, device: str | None) -> Predict:
    from sparse3d.frames import IGNORE, SegmentationFrame
    from sparse3d.recipes.segmentation import load_segmenter
    from sparse3d.recipes.segmentation_judge import segment_frames

    segmenter = load_segmenter(run, checkpoint, device)

    def predict(cloud: Path, scene: Scene) -> Scene:
        finite = np.isfinite(scene.points).all(axis=1)
        labels = np.full(len(scene.points), IGNORE, dtype=np.int64)
        frame = SegmentationFrame.unlabelled(scene.title, scene.points[finite])
        (labels[finite],) = segment_frames(segmenter.model, [frame])
        classes = segmenter.config.data.classes
        return Scene(
            scene.title, scene.points, labels, classes, truth=scene.truth, box_classes=scene.box_classes
        )

    return predict
