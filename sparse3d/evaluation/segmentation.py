"""Semantic segmentation: intersection over union of each class, as SemanticKITTI counts it.

One confusion matrix over all points of all scans; points whose ground truth is IGNORE are left out, points
predicted as IGNORE are misses of their true class. IoU = TP / (TP + FP + FN); the mean is over the classes
that occur in the ground truth or in the predictions. (The benchmark's script counts a class that occurs
nowhere as 0, which changes nothing on its full splits.)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from sparse3d.frames import IGNORE


class Confusion:
    """Counts of (true class, predicted class), scan after scan; the last column counts IGNORE predictions."""

    def __init__(self, classes: int):
        self.counts = np.zeros((classes, classes + 1), dtype=np.int64)

    def add(self, truth: np.ndarray, predicted: np.ndarray) -> None:
        """(N,) and (N,) labels of one scan. ValueError for lengths that differ and labels out of range."""
        classes = len(self.counts)
        if truth.shape != predicted.shape:
            raise ValueError(f"{truth.shape} true labels for {predicted.shape} predicted ones")
        for name, values in (("truth", truth), ("predicted", predicted)):
            if len(values) and not (values.min() >= IGNORE and values.max() < classes):
                raise ValueError(
                    f"{name} lies in [{values.min()}, {values.max()}], expected labels below {classes} "
                    f"or IGNORE ({IGNORE})"
                )
        counted = truth != IGNORE
        column = np.where(predicted[counted] == IGNORE, classes, predicted[counted])
        pair = truth[counted].astype(np.int64) * (classes + 1) + column
        self.counts += np.bincount(pair, minlength=self.counts.size).reshape(self.counts.shape)

    def result(self, class_names: Sequence[str]) -> "SegmentationResult":
        """What the counts say."""
        square = self.counts[:, :-1]
        hit, true, found = np.diagonal(square), self.counts.sum(axis=1), square.sum(axis=0)
        union = true + found - hit
        iou = np.where(union > 0, hit / np.maximum(union, 1), np.nan)
        total = self.counts.sum()
        return SegmentationResult(
            tuple(class_names),
            iou,
            true,
            float(hit.sum() / total) if total else float("nan"),
        )


@dataclass(frozen=True)
class SegmentationResult:
    """`iou` (C,) in [0, 1], NaN for classes that occur nowhere; `points` (C,) of the ground truth; `accuracy`
    the share of all points with the right label."""

    class_names: tuple[str, ...]
    iou: np.ndarray
    points: np.ndarray
    accuracy: float

    @property
    def mean_iou(self) -> float:
        """Mean over the classes that occur; NaN where none does."""
        known = self.iou[~np.isnan(self.iou)]
        return float(known.mean()) if len(known) else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """In percent, for JSON; None stands for NaN."""
        return {
            "mIoU": _percent(self.mean_iou),
            "accuracy": _percent(self.accuracy),
            "IoU": {name: _percent(v) for name, v in zip(self.class_names, self.iou, strict=True)},
            "points": dict(zip(self.class_names, self.points.tolist(), strict=True)),
        }

    def table(self) -> Table:
        """For a terminal."""
        table = Table("class", "IoU", "points", title="semantic segmentation, IoU in percent")
        for name, value, points in zip(self.class_names, self.iou, self.points, strict=True):
            table.add_row(name, "-" if np.isnan(value) else f"{100 * value:.1f}", str(points))
        table.add_section()
        table.add_row("mean", f"{100 * self.mean_iou:.1f}", str(self.points.sum()))
        table.add_row("accuracy", f"{100 * self.accuracy:.1f}", "")
        for column in table.columns[1:]:
            column.justify = "right"
        return table


def _percent(value: float) -> float | None:
    return None if np.isnan(value) else 100 * float(value)
