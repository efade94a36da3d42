"""What a viewer shows: points with colours, boxes, and what they are called. Windows, pages and pictures draw
the same one.

Coordinates are those of the LiDAR frame: x forward, y left, z up, metres. Boxes are (x, y, z, l, w, h, yaw).
"""

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, get_args

import numpy as np

from sparse3d.geometry.boxes import EDGES, corners
from sparse3d.viewers.colors import class_color, height_colors
from sparse3d.viewers.semantic import SEMANTIC_COLORS, UNLABELLED

Coloring = Literal["height", "intensity", "class"]
COLORINGS: tuple[Coloring, ...] = get_args(Coloring)
TRUTH_COLOR = (236, 248, 238)


@dataclass(frozen=True)
class Boxes:
    """(M, 7) boxes; (M,) labels, negative for no class; (M,) scores, None for labelled boxes."""

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None

    def __post_init__(self):
        lengths = {len(self.boxes), len(self.labels), len(self.boxes if self.scores is None else self.scores)}
        if len(lengths) != 1 or self.boxes.shape[1:] != (7,):
            raise ValueError(f"{self.boxes.shape} boxes with labels and scores of lengths {sorted(lengths)}")

    @staticmethod
    def none() -> "Boxes":
        """No boxes."""
        return Boxes(np.zeros((0, 7), np.float32), np.zeros(0, np.int64))


@dataclass(frozen=True)
class Scene:
    """One frame. `points` (N, >= 3): x, y, z, and where there is a fourth column the intensity. `labels` (N,)
    are positions in `point_classes`, negative for none; `found` and `truth` have labels of `box_classes`."""

    title: str
    points: np.ndarray
    labels: np.ndarray | None = None
    point_classes: tuple[str, ...] = ()
    found: Boxes = field(default_factory=Boxes.none)
    truth: Boxes = field(default_factory=Boxes.none)
    box_classes: tuple[str, ...] = ()

    def __post_init__(self):
        if self.points.ndim != 2 or self.points.shape[1] < 3:
            raise ValueError(f"points are {self.points.shape}, expected (N, 3 or more)")
        if self.labels is not None and self.labels.shape != (len(self.points),):
            raise ValueError(f"{self.labels.shape} labels for {len(self.points)} points")

    @property
    def colorings(self) -> tuple[Coloring, ...]:
        """The ways in which the points can be coloured, the most telling one first."""
        ways: list[Coloring] = ["class"] if self.labels is not None else []
        return (*ways, "height", *(["intensity"] if self.points.shape[1] > 3 else []))

    def colors(self, by: Coloring) -> np.ndarray:
        """(N, 3) uint8 RGB. ValueError where the points do not have it."""
        if by not in self.colorings:
            raise ValueError(
                f"{self.title}: points have no {by}; colour them by {' or '.join(self.colorings)}"
            )
        if by == "class":
            assert self.labels is not None
            names = (*self.point_classes, "unlabelled")
            table = np.array([SEMANTIC_COLORS.get(name, UNLABELLED) for name in names], dtype=np.uint8)
            return table[np.where(self.labels < 0, len(names) - 1, self.labels)]
        values = self.points[:, 2] if by == "height" else self.points[:, 3]
        return height_colors(_stretched(values)).astype(np.uint8)

    def legend(self, by: Coloring, truth: bool = True) -> list["LegendRow"]:
        """What occurs: classes of points (where they are the colours), of detections, and labelled boxes."""
        rows: list[LegendRow] = []
        if by == "class" and self.labels is not None:
            for label in np.unique(self.labels[self.labels >= 0]).tolist():
                name = self.point_classes[label]
                rows.append(LegendRow(name, SEMANTIC_COLORS.get(name, UNLABELLED), False))
        for label in np.unique(self.found.labels).tolist():
            name = self.box_classes[label] if 0 <= label < len(self.box_classes) else "other"
            count = int((self.found.labels == label).sum())
            rows.append(LegendRow(f"{name} ({count})", class_color(label), True))
        if truth and len(self.truth.boxes):
            rows.append(LegendRow(f"labelled ({len(self.truth.boxes)})", TRUTH_COLOR, True))
        return rows


class LegendRow(NamedTuple):
    """A text with its colour; boxes are drawn as frames, classes of points as filled squares."""

    text: str
    color: tuple[int, int, int]
    framed: bool


def box_lines(boxes: np.ndarray) -> np.ndarray:
    """(M, 7) -> (M, 13, 2, 3): both ends of the twelve edges of each box, and of a line on its floor from the
    centre to beyond the front, which shows its heading."""
    edges = corners(boxes)[:, EDGES]
    length = boxes[:, 3] / 2 + np.minimum(1.0, 0.4 * boxes[:, 3])
    heading = np.stack([np.cos(boxes[:, 6]), np.sin(boxes[:, 6]), np.zeros(len(boxes))], axis=1)
    floor = boxes[:, :3] - [0, 0, 0.5] * boxes[:, 5:6]
    arrow = np.stack([floor, floor + length[:, None] * heading], axis=1)
    return np.concatenate([edges, arrow[:, None]], axis=1)


def _stretched(values: np.ndarray) -> np.ndarray:
    """(N,) to [0, 1], from the 1st to the 99th percentile: a few outliers must not take all the colours."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return np.zeros(len(values))
    low, high = np.percentile(finite, [1, 99])
    return np.nan_to_num(np.clip((values - low) / max(high - low, 1e-6), 0, 1))
