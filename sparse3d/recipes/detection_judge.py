"""How good a detector is on labelled frames: KITTI's average precision, and centre-distance precision.

Labels cover what camera 2 sees, so both measures leave out detections without a box in its image. The
centre-distance measure counts, as ground truth, the labelled boxes of the model's classes that stand in the
image, have their centre within the model's bounds and hold at least one point.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table
from torch import nn

from sparse3d.data.kitti import KittiDataset
from sparse3d.data.labelled import drop_sparse_boxes
from sparse3d.engine import distributed
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
) -> Judgement | None:
    """Run a detector with these bounds (in eval mode) over every frame of a data set of its classes.

    Several processes share the frames; the first one judges what all of them found, the others get None.
    """
    assert isinstance(model, DetectorModel)
    device = next(model.parameters()).device

    def look(rows: range) -> list[_FrameResult]:
        frames = [dataset[i] for i in rows]
        with torch.no_grad():
            found = model.predict(DetectionBatch.collate(frames).to(device))
        return [
            _frame_result(frame, detections.cpu(), dataset.class_names, bounds)
            for frame, detections in zip(frames, found, strict=True)
        ]

    frames = distributed.share_out(len(dataset), batch_size, look, progress)
    if frames is None:
        return None
    truth, results = [f.truth for f in frames], [f.results for f in frames]
    true_boxes, found_boxes = [f.true_boxes for f in frames], [f.found_boxes for f in frames]
    return Judgement(
        kitti.evaluate(truth, results, dataset.class_names),
        nuscenes.evaluate(true_boxes, found_boxes, dataset.class_names),
        tuple(results),
    )


class _FrameResult(NamedTuple):
    """What both measures need of a frame."""

    truth: KittiObjects
    results: KittiObjects
    true_boxes: nuscenes.FrameBoxes
    found_boxes: nuscenes.FrameBoxes


def _frame_result(
    frame: LidarFrame, found: Detections, class_names: Sequence[str], bounds: Sequence[float]
) -> _FrameResult:
    objects = as_objects(found, class_names, frame.extra["calibration"], frame.extra["image_size"])
    seen = has_image_box(objects)
    boxes, labels, scores = (column.numpy()[seen] for column in (found.boxes, found.labels, found.scores))
    return _FrameResult(
        frame.extra["objects"],
        objects.select(seen),
        countable_boxes(frame, bounds),
        nuscenes.FrameBoxes(boxes, labels, scores),
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
