"""Which labelled boxes a detector found, and which of its boxes are false: one frame, no curve, no average.

Meant for looking at single frames (has this network learned these frames?) and for drawing hits and misses.
Averages over a data set are in `kitti` and `nuscenes`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from sparse3d_ops.boxes import box_iou_3d


@dataclass(frozen=True)
class FrameMatches:
    """M labelled boxes against K detections.

    `detection` (M,) int64: which detection found each box, -1 none; `overlap` (M,) float64: by how much, 0 if
    none. `false_positive` (K,) bool: detections that found nothing and lie on no ignored box.
    """

    detection: np.ndarray
    overlap: np.ndarray
    false_positive: np.ndarray

    @property
    def found(self) -> np.ndarray:
        """(M,) bool."""
        return self.detection >= 0


def match_boxes(
    boxes: np.ndarray,
    labels: np.ndarray,
    detected_boxes: np.ndarray,
    scores: np.ndarray,
    detected_labels: np.ndarray,
    min_overlap: Sequence[float],
    *,
    ignored_boxes: np.ndarray | None = None,
) -> FrameMatches:
    """Assign detections, best score first, each to the free box of its class that it overlaps most.

    `boxes` (M, 7), `labels` (M,), `detected_boxes` (K, 7), `scores` (K,), `detected_labels` (K,). A box of
    class c is found by a volume IoU of at least `min_overlap[c]`. Detections that overlap one of
    `ignored_boxes` (I, 7), of whatever class, as much are not false. Ties: lowest index.
    """
    labels, detected_labels = np.asarray(labels), np.asarray(detected_labels)
    for name, given in (("labels", labels), ("detected_labels", detected_labels)):
        if len(given) and not (0 <= given.min() and given.max() < len(min_overlap)):
            raise ValueError(
                f"{name} are {given.min()} to {given.max()}, but min_overlap has {len(min_overlap)} classes"
            )
    detected = _rows(detected_boxes)
    overlaps = box_iou_3d(detected, _rows(boxes)).numpy()
    excuses = box_iou_3d(
        detected, _rows(np.zeros((0, 7)) if ignored_boxes is None else ignored_boxes)
    ).numpy()

    found_by = np.full(len(labels), -1, dtype=np.int64)
    overlap = np.zeros(len(labels))
    false_positive = np.zeros(len(detected_labels), dtype=bool)
    for d in np.argsort(-np.asarray(scores, dtype=np.float64), kind="stable"):
        enough = min_overlap[int(detected_labels[d])]
        candidates = np.where((labels == detected_labels[d]) & (found_by < 0), overlaps[d], -1.0)
        best = int(candidates.argmax()) if len(candidates) else -1
        if best >= 0 and candidates[best] >= enough:
            found_by[best], overlap[best] = d, candidates[best]
        else:
            false_positive[d] = not (excuses[d] >= enough).any()
    return FrameMatches(found_by, overlap, false_positive)


def _rows(boxes: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(boxes, dtype=np.float64).reshape(-1, 7))
