"""The boxes of a frame, labelled or detected, as every metric but KITTI's takes them.

What a metric needs beyond boxes, labels and scores stands in a column of its own; a column that a data set
does not have is None.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np

_SHAPES = {"boxes": (7,), "velocities": (2,)}  # of a row; of every other column: ()


@dataclass(frozen=True)
class FrameBoxes:
    """N boxes of one frame.

    `boxes` (N, 7) x, y, z, l, w, h, yaw in metres and radians, `labels` (N,) int; `scores` (N,) of
    detections. `velocities` (N, 2) m/s along x and y, NaN where unknown; `attributes` (N,) int, -1: unknown;
    `num_points` (N,) int LiDAR points within a labelled box; `difficulty` (N,) int, a person's judgement: 0
    none, 1, 2 (Waymo's levels); `occlusion` (N,) int, how much of a labelled object is hidden, from 0,
    hardly, to 3 (KITTI's levels), -1: unknown; `tracks` (N,) int: equal numbers in a sequence are one object.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None
    velocities: np.ndarray | None = None
    attributes: np.ndarray | None = None
    num_points: np.ndarray | None = None
    difficulty: np.ndarray | None = None
    occlusion: np.ndarray | None = None
    tracks: np.ndarray | None = None

    def __post_init__(self) -> None:
        for name, column in self._columns():
            expected = (len(self.boxes), *_SHAPES.get(name, ()))
            if column is not None and column.shape != expected:
                raise ValueError(f"{name} has shape {column.shape}, expected {expected}")

    def __len__(self) -> int:
        return len(self.boxes)

    def select(self, rows: np.ndarray) -> "FrameBoxes":
        """Some of the boxes: (N,) bool or row numbers."""
        chosen: dict[str, Any] = {
            name: None if column is None else column[rows] for name, column in self._columns()
        }
        return FrameBoxes(**chosen)

    def _columns(self) -> list[tuple[str, Any]]:
        return [(field.name, getattr(self, field.name)) for field in fields(self)]


class JoinedBoxes(NamedTuple):
    """Frames laid end to end: row i of `rows` is of frame `frame[i]`. What one frame lacks is None."""

    rows: FrameBoxes
    frame: np.ndarray

    def of_class(self, label: int) -> "JoinedBoxes":
        """The rows of one label, in order."""
        chosen = np.flatnonzero(self.rows.labels == label)
        return JoinedBoxes(self.rows.select(chosen), self.frame[chosen])

    def starts(self, frames: int) -> np.ndarray:
        """(frames + 1,) int64: where the rows of each frame begin."""
        return np.searchsorted(self.frame, np.arange(frames + 1))


def join(frames: Sequence[FrameBoxes]) -> JoinedBoxes:
    """All frames end to end, numbers as float64 and int64."""
    columns: dict[str, Any] = {}
    for field in fields(FrameBoxes):
        parts = [getattr(frame, field.name) for frame in frames]
        if any(part is None for part in parts):
            columns[field.name] = None
            continue
        real = field.name in ("boxes", "scores", "velocities")
        empty = np.zeros((0, *_SHAPES.get(field.name, ())))
        columns[field.name] = np.concatenate([empty, *parts]).astype(np.float64 if real else np.int64)
    frame = np.repeat(np.arange(len(frames)), [len(part) for part in frames])
    return JoinedBoxes(FrameBoxes(**columns), frame)


def check_results(ground_truth: Sequence[FrameBoxes], results: Sequence[FrameBoxes]) -> None:
    """ValueError for frame counts that differ, and for detections without finite scores."""
    if len(ground_truth) != len(results):
        raise ValueError(f"{len(results)} result frames for {len(ground_truth)} ground-truth frames")
    for i, frame in enumerate(results):
        if frame.scores is None or not np.isfinite(frame.scores).all():
            raise ValueError(f"results[{i}] has no scores, or one that is not finite")


def without_nan(tree: Any) -> Any:
    """The same tree of dicts, lists and numbers with None in place of NaN, which JSON does not know."""
    if isinstance(tree, dict):
        return {key: without_nan(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [without_nan(value) for value in tree]
    return None if isinstance(tree, float) and np.isnan(tree) else tree


def mean_of_known(values: Sequence[float]) -> float:
    """Mean of what is not NaN; NaN where nothing is."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
