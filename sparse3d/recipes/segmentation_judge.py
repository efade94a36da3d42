"""How good a segmenter is on labelled scans, and what it says of one scan, with test-time augmentation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor, nn

from sparse3d.data.segmentation import SegmentationDataset
from sparse3d.data.semantic_classes import THINGS
from sparse3d.engine import distributed
from sparse3d.evaluation.panoptic import PanopticCounts, PanopticResult
from sparse3d.evaluation.segmentation import SegmentationResult
from sparse3d.frames import SegmentationBatch, SegmentationFrame
from sparse3d.geometry.boxes import mirror_points, rotate_points_z
from sparse3d.models.instances import cluster_instances
from sparse3d.models.segmenter import Segmenter

Progress = Callable[[int, int], None]  # (done, total)
View = Callable[[np.ndarray], np.ndarray]  # (N, >=3) points -> the same points seen in another way


def _seen(turn: float, mirrors: str) -> View:
    def view(points: np.ndarray) -> np.ndarray:
        points = rotate_points_z(points, turn) if turn else points
        for axis in mirrors:
            points = mirror_points(points, "x" if axis == "x" else "y")
        return points

    return view


# The scan as it is, and what test-time augmentation averages over: its mirror images along y, x and both, and
# the same of the scan turned a little. A quarter turn would be a scan that a network has not seen where it
# learned streets along x.
AS_IT_IS: tuple[View, ...] = (_seen(0.0, ""),)
EIGHT_VIEWS: tuple[View, ...] = tuple(_seen(turn, m) for turn in (0.0, 0.2) for m in ("", "y", "x", "xy"))


def segment_frames(
    model: nn.Module, frames: Sequence[SegmentationFrame], views: Sequence[View] = AS_IT_IS
) -> list[np.ndarray]:
    """The label (n,) int64 of every point of each frame: the class of the highest logit, averaged over
    views."""
    assert isinstance(model, Segmenter)
    device = next(model.parameters()).device
    total: list[Tensor] = []
    for view in views:
        seen = [replace(frame, points=view(frame.points)) for frame in frames]
        batch = SegmentationBatch.collate(seen).to(device)
        with torch.no_grad():
            found = batch.split(model.logits(batch))
        total = [a + b for a, b in zip(total, found, strict=True)] if total else found
    return [logits.argmax(dim=1).cpu().numpy() for logits in total]


@dataclass(frozen=True)
class SegmentationJudgement:
    """What the model is worth on a split: of its labels, and of the objects that they are clustered into."""

    semantic: SegmentationResult
    panoptic: PanopticResult

    def tables(self) -> tuple[Table, ...]:
        """For a terminal."""
        return self.semantic.table(), self.panoptic.table()

    def to_dict(self) -> dict[str, Any]:
        """For JSON; NaN becomes None."""
        return {"semantic": self.semantic.to_dict(), "panoptic": self.panoptic.to_dict()}


def judge_segmenter(
    model: nn.Module,
    dataset: SegmentationDataset,
    batch_size: int,
    progress: Progress | None = None,
    views: Sequence[View] = AS_IT_IS,
) -> SegmentationJudgement | None:
    """Run a segmenter (in eval mode) over every scan of a data set of its classes.

    Several processes share the scans; the first one adds up the counts, the others get None.
    """
    classes = dataset.config.classes

    def count(rows: range) -> list[PanopticCounts]:
        found = []
        frames = [dataset[i] for i in rows]
        for frame, labels in zip(frames, segment_frames(model, frames, views), strict=True):
            instances = cluster_instances(frame.points, labels, classes)
            found.append(PanopticCounts(classes, THINGS))
            found[-1].add(frame.labels, frame.instances, labels, instances)
        return found

    # Counted scan by scan: sums of floats are the same bits only in the same order.
    scans = distributed.share_out(len(dataset), batch_size, count, progress)
    if scans is None:
        return None
    counts = PanopticCounts(classes, THINGS)
    for scan in scans:
        counts.merge(scan)
    return SegmentationJudgement(counts.semantic.result(classes), counts.result())
