"""How good a detector is on labelled frames: KITTI's average precision, and centre-distance precision.

Labels cover what camera 2 sees, so both measures leave out detections without a box in its image. The
centre-distance measure counts, as ground truth, the labelled boxes of the model's classes that stand in the
image, have their centre within the model's bounds and hold at least one point.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import nn

from sparse3d.data.kitti import KittiDataset
from sparse3d.data.labelled import drop_sparse_boxes
from sparse3d.evaluation import kitti, nuscenes
from sparse3d.frames import DetectionBatch, Detections, LidarFrame
from sparse3d.io.kitti import KittiCalibration, KittiObjects, boxes_to_objects, image_boxes
from sparse3d.models.detectors import DetectorModel

Progress = Callable[[int, int], None]  # (done, total)


@dataclass(frozen=True)
class Judgement:
    """Both measures, and the KITTI result rows of each frame that the first one saw."""

    kitti: kitti.KittiResult
    centre_distance: nuscenes.NuscenesResult
    results: tuple[KittiObjects, ...]

    def tables(self) -> tuple[Table, Table]:
        """For a terminal."""
        return self.kitti.table(), self.centre_distance.table()

    def to_dict(self) -> dict[str, Any]:
        """For JSON; NaN becomes None."""
        return {"kitti": self.kitti.to_dict(), "centre_distance": self.centre_distance.to_dict()}


def judge(
    model: nn.Module,
    dataset: KittiDataset,
    bounds: Sequence[float],
    batch_size: int,
    progress: Progress | None = None,
) -> Judgement:
    """Run a detector with these bounds (in eval mode) over every frame of a data set of its classes."""
    assert isinstance(model, DetectorModel)
    device = next(model.parameters()).device
    truth: list[KittiObjects] = []
    results: list[KittiObjects] = []
    true_boxes: list[nuscenes.FrameBoxes] = []
    found_boxes: list[nuscenes.FrameBoxes] = []
    for start in range(0, len(dataset), batch_size):
        frames = [dataset[i] for i in range(start, min(start + batch_size, len(dataset)))]
        with torch.no_grad():
            found = model.predict(DetectionBatch.collate(frames).to(device))
        for frame, detections in zip(frames, found, strict=True):
            camera, size = frame.extra["calibration"], frame.extra["image_size"]
            detections = detections.cpu()
            objects = as_objects(detections, dataset.class_names, camera, size)
            seen = has_image_box(objects)
            truth.append(frame.extra["objects"])
            results.append(objects.select(seen))
            true_boxes.append(countable_boxes(frame, bounds))
            boxes, labels, scores = (
                column.numpy()[seen] for column in (detections.boxes, detections.labels, detections.scores)
            )
            found_boxes.append(nuscenes.FrameBoxes(boxes, labels, scores))
        if progress is not None:
            progress(len(truth), len(dataset))
    return Judgement(
        kitti.evaluate(truth, results, dataset.class_names),
        nuscenes.evaluate(true_boxes, found_boxes, dataset.class_names),
        tuple(results),
    )


def countable_boxes(frame: LidarFrame, bounds: Sequence[float]) -> nuscenes.FrameBoxes:
    """The labelled boxes that a detector with these bounds can be asked for, see the head of this file."""
    frame = drop_sparse_boxes(frame, 1)
    left, top, right, bottom = image_boxes(
        frame.boxes, frame.extra["calibration"], frame.extra["image_size"]
    ).T
    low, high = np.array(bounds[:3]), np.array(bounds[3:])
    within = ((frame.boxes[:, :3] >= low) & (frame.boxes[:, :3] < high)).all(axis=1)
    keep = within & (right > left) & (bottom > top)
    return nuscenes.FrameBoxes(frame.boxes[keep], frame.labels[keep])


def as_objects(
    found: Detections,
    class_names: Sequence[str],
    calibration: KittiCalibration,
    image_size: tuple[int, int],
) -> KittiObjects:
    """Detections (on the CPU) as KITTI result rows, all of them and in order; the image box of one that the
    camera does not see is -1 -1 -1 -1."""
    objects = boxes_to_objects(
        found.boxes.numpy(),
        np.asarray(class_names, dtype=np.str_)[found.labels.numpy()],
        found.scores.numpy(),
        calibration,
        image_size,
    )
    seen = has_image_box(objects)
    return replace(objects, boxes_image=np.where(seen[:, None], objects.boxes_image, -1.0))


def has_image_box(objects: KittiObjects) -> np.ndarray:
    """(M,) bool: the image box has an area."""
    left, top, right, bottom = objects.boxes_image.T
    return (right > left) & (bottom > top)
