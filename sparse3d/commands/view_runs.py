"""What a trained model says of clouds, or of the data that it is judged on, as scenes for `sparse3d view`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sparse3d.commands.view_things import Gallery, clouds_of, read_scene
from sparse3d.frames import IGNORE, LidarFrame, SegmentationFrame
from sparse3d.io.kitti import in_image
from sparse3d.io.points import drop_invalid
from sparse3d.recipes.detect_files import camera_view
from sparse3d.recipes.detection import Detector, load_detector
from sparse3d.recipes.segmentation import Segmenter, load_segmenter
from sparse3d.recipes.segmentation_judge import segment_frames
from sparse3d.recipes.tasks import task_of_run
from sparse3d.viewers.scene import Boxes, Scene


@dataclass(frozen=True)
class RunChoice:
    """Which model of a run, and what of its results."""

    run: Path
    checkpoint: str = "best"
    device: str | None = None
    score: float = 0.3  # lowest of a detection


def run_gallery(
    choice: RunChoice,
    inputs: Sequence[str] = (),
    split: str | None = None,
    data_root: str | None = None,
    columns: int = 4,
) -> Gallery:
    """Results on clouds (`inputs`, files or folders), or on a split of the run's data, with its labels."""
    clouds = [cloud for given in inputs for cloud in clouds_of(given)]
    if task_of_run(choice.run).name == "segmentation":
        segmenter = load_segmenter(choice.run, choice.checkpoint, choice.device)
        if not clouds:
            return _segmented_split(segmenter, split, data_root)
        return _files(clouds, columns, lambda cloud, scene: _segmented(segmenter, scene))
    detector = load_detector(choice.run, choice.checkpoint, choice.device)
    if not clouds:
        return _detected_split(detector, choice.score, split, data_root)
    return _files(clouds, columns, lambda cloud, scene: _detected(detector, choice.score, cloud, scene))


def _files(clouds: Sequence[Path], columns: int, judge) -> Gallery:
    def scene(number: int) -> Scene:
        return judge(clouds[number], read_scene(clouds[number], columns))

    return Gallery([cloud.stem for cloud in clouds], scene)


def _detected_split(detector: Detector, score: float, split: str | None, root: str | None) -> Gallery:
    from sparse3d.data.open import open_dataset

    config = detector.config
    source = config.dataset if root is None else replace(config.dataset, root=root)
    dataset = open_dataset(source, split or config.evaluation.split)

    def scene(number: int) -> Scene:
        frame = dataset[number]
        found, truth = _detections(detector, score, frame), Boxes(frame.boxes, frame.labels)
        classes = tuple(dataset.class_names)
        return Scene(frame.frame_id, frame.points, found=found, truth=truth, box_classes=classes)

    return Gallery(dataset.frame_ids, scene)


def _segmented_split(segmenter: Segmenter, split: str | None, root: str | None) -> Gallery:
    from sparse3d.data.segmentation import SegmentationDataset

    config = segmenter.config
    source = config.data if root is None else replace(config.data, root=root)
    dataset = SegmentationDataset(source, split or config.evaluation.split)

    def scene(number: int) -> Scene:
        frame = dataset[number]
        (labels,) = segment_frames(segmenter.model, [frame])
        return Scene(frame.frame_id, frame.points, labels, config.data.classes)

    return Gallery(dataset.frame_ids, scene)


def _detections(detector: Detector, score: float, frame: LidarFrame) -> Boxes:
    found = detector.predict([frame])[0].cpu()
    found = found.select(found.scores >= score)
    return Boxes(found.boxes.numpy(), found.labels.numpy(), found.scores.numpy())


def _detected(detector: Detector, score: float, cloud: Path, scene: Scene) -> Scene:
    """Like `sparse3d detect`: of what the camera sees, where the model was trained on that."""
    data, camera = detector.config.data, camera_view(cloud)
    points = drop_invalid(scene.points)[0]
    if getattr(data, "camera_view", False) and camera.source is not None:
        points = points[in_image(points[:, :3], camera.calibration, camera.image_size)]
    frame = LidarFrame(scene.title, points, np.zeros((0, 7), np.float32), np.zeros(0, np.int64))
    # Names of labelled boxes that the model does not know go behind its own.
    names = (*data.classes, *(name for name in scene.box_classes if name not in data.classes))
    labels = np.array([names.index(scene.box_classes[k]) for k in scene.truth.labels], dtype=np.int64)
    return replace(
        scene,
        found=_detections(detector, score, frame),
        truth=Boxes(scene.truth.boxes, labels),
        box_classes=names,
    )


def _segmented(segmenter: Segmenter, scene: Scene) -> Scene:
    finite = np.isfinite(scene.points).all(axis=1)
    labels = np.full(len(scene.points), IGNORE, dtype=np.int64)
    frame = SegmentationFrame.unlabelled(scene.title, scene.points[finite])
    (labels[finite],) = segment_frames(segmenter.model, [frame])
    return replace(scene, labels=labels, point_classes=segmenter.config.data.classes)
