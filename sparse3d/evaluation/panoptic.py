"""Panoptic segmentation: quality PQ of segments, as SemanticKITTI's panoptic benchmark counts it.

A segment is an instance of a thing class, or all points of a stuff class in a scan. A true and a predicted
segment of one class match when their IoU is above 0.5, which at most one pair each can be. Over all scans

    SQ = mean IoU of the matches    RQ = TP / (TP + FP/2 + FN/2)    PQ = SQ * RQ

Unmatched segments of fewer than `min_points` points count neither as FP nor as FN; points whose ground truth
is IGNORE count nowhere. PQ-dagger takes the semantic IoU in place of PQ for stuff. Means are over the classes
that occur. Sources: Kirillov et al. (arXiv 1801.00868), Porzi et al. (arXiv 1905.01220) for the dagger,
Behley et al. (arXiv 2003.02371) for the 50 points.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.table import Table

from sparse3d.evaluation.segmentation import Confusion
from sparse3d.frames import IGNORE

MIN_POINTS = 50
_INSTANCES = 1 << 32


class PanopticCounts:
    """Matches and misses of each class, scan after scan. `things`: the names of the countable classes."""

    def __init__(self, class_names: Sequence[str], things: Collection[str], min_points: int = MIN_POINTS):
        self.class_names, self.min_points = tuple(class_names), min_points
        self.is_thing = np.array([name in things for name in class_names], dtype=bool)
        self.semantic = Confusion(len(class_names))
        self.matched = np.zeros(len(class_names), dtype=np.int64)
        self.overlap = np.zeros(len(class_names))  # sum of the matches' IoU
        self.false_positive = np.zeros(len(class_names), dtype=np.int64)
        self.false_negative = np.zeros(len(class_names), dtype=np.int64)

    def add(
        self,
        true_labels: np.ndarray,
        true_instances: np.ndarray,
        labels: np.ndarray,
        instances: np.ndarray,
    ) -> None:
        """(N,) each, of one scan. Points of a thing class without an instance (0) are one more segment."""
        self.semantic.add(true_labels, labels)
        counted = true_labels != IGNORE
        truth = self._segments(true_labels[counted], true_instances[counted])
        found = self._segments(labels[counted], instances[counted])
        true_keys, true_row, true_size = np.unique(truth, return_inverse=True, return_counts=True)
        keys, row, size = np.unique(found, return_inverse=True, return_counts=True)
        pairs, common = np.unique(true_row * len(keys) + row, return_counts=True)
        a, b = pairs // max(len(keys), 1), pairs % max(len(keys), 1)
        iou = common / (true_size[a] + size[b] - common)
        match = (true_keys[a] // _INSTANCES == keys[b] // _INSTANCES) & (iou > 0.5) & (keys[b] >= 0)
        classes = true_keys[a[match]] // _INSTANCES
        np.add.at(self.matched, classes, 1)
        np.add.at(self.overlap, classes, iou[match])
        for counts, key, area, hit in (
            (self.false_negative, true_keys, true_size, a[match]),
            (self.false_positive, keys, size, b[match]),
        ):
            missed = (area >= self.min_points) & (key >= 0)
            missed[hit] = False
            np.add.at(counts, key[missed] // _INSTANCES, 1)

    def merge(self, other: "PanopticCounts") -> None:
        """Add the counts of other scans, of the same classes."""
        self.semantic.counts += other.semantic.counts
        self.matched += other.matched
        self.overlap += other.overlap
        self.false_positive += other.false_positive
        self.false_negative += other.false_negative

    def _segments(self, labels: np.ndarray, instances: np.ndarray) -> np.ndarray:
        """(N,) int64 key of each point's segment, negative for IGNORE."""
        if len(instances) and not (instances.min() >= 0 and instances.max() < _INSTANCES):
            raise ValueError(
                f"instances lie in [{instances.min()}, {instances.max()}], expected 0 to 2^32 - 1"
            )
        labels = labels.astype(np.int64)
        return labels * _INSTANCES + np.where(self.is_thing[labels], instances.astype(np.int64), 0)

    def result(self) -> "PanopticResult":
        """What the counts say."""
        wrong = (self.false_positive + self.false_negative) / 2
        known = self.matched + wrong > 0
        sq = np.where(known, self.overlap / np.maximum(self.matched, 1), np.nan)
        rq = np.where(known, self.matched / np.where(known, self.matched + wrong, 1), np.nan)
        semantic = self.semantic.result(self.class_names)
        return PanopticResult(self.class_names, self.is_thing, sq * rq, sq, rq, semantic.iou)


@dataclass(frozen=True)
class PanopticResult:
    """`pq`, `sq`, `rq`, `iou` (C,) in [0, 1], NaN for classes that occur nowhere."""

    class_names: tuple[str, ...]
    is_thing: np.ndarray
    pq: np.ndarray
    sq: np.ndarray
    rq: np.ndarray
    iou: np.ndarray

    def means(self) -> dict[str, float]:
        """PQ, SQ, RQ over all classes, over things (_Th) and stuff (_St); PQ_dagger; mIoU."""
        everything = np.ones_like(self.is_thing)
        found = {}
        for suffix, rows in (("", everything), ("_Th", self.is_thing), ("_St", ~self.is_thing)):
            for name, values in (("PQ", self.pq), ("SQ", self.sq), ("RQ", self.rq)):
                found[name + suffix] = _mean(values[rows])
        found["PQ_dagger"] = _mean(np.where(self.is_thing, self.pq, self.iou))
        found["mIoU"] = _mean(self.iou)
        return found

    def to_dict(self) -> dict[str, Any]:
        """In percent, for JSON; None stands for NaN."""

        def by_class(values: np.ndarray) -> dict[str, float | None]:
            return {name: _percent(v) for name, v in zip(self.class_names, values.tolist(), strict=True)}

        means = {name: _percent(value) for name, value in self.means().items()}
        return means | {"PQ_of_classes": by_class(self.pq), "RQ_of_classes": by_class(self.rq)}

    def table(self) -> Table:
        """For a terminal."""
        table = Table("class", "PQ", "SQ", "RQ", title="panoptic segmentation, percent")
        for name, *values in zip(self.class_names, self.pq, self.sq, self.rq, strict=True):
            table.add_row(name, *map(_shown, values))
        table.add_section()
        means = self.means()
        for title, suffix in (("mean", ""), ("things", "_Th"), ("stuff", "_St")):
            table.add_row(title, *(_shown(means[name + suffix]) for name in ("PQ", "SQ", "RQ")))
        table.add_row("PQ-dagger", _shown(means["PQ_dagger"]), "", "")
        for column in table.columns[1:]:
            column.justify = "right"
        return table


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")


def _percent(value: float) -> float | None:
    return None if np.isnan(value) else 100 * value


def _shown(value: float) -> str:
    return "-" if np.isnan(value) else f"{100 * value:.1f}"
