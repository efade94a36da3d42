"""Average precision of the KITTI object benchmark: 2-D boxes, orientation (AOS), bird's-eye view and 3-D.

Detections are assigned to ground truth frame by frame (`kitti_counts`) at up to 41 score thresholds;
precision at a recall is the best precision from there on. R40 is its mean over the recalls 1/40 .. 1
(Simonelli et al., arXiv 1905.12365), R11 over 0, 0.1 .. 1. AOS weighs a true positive by (1 + cos(difference
of alpha)) / 2.

Three rules of the benchmark that surprise: a box counts as too small by its height in the image, so results
need image boxes for the 3-D numbers too; DontCare regions excuse detections in the image only; and a score
serves one recall position only, so that n < 41 ground-truth boxes, all found, give at most 100 (n - 1) / 40
(the table says where).
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from rich.table import Table

from sparse3d.evaluation import kitti_counts
from sparse3d.evaluation.kitti_frames import DONT_CARE, KittiFrames, join_frames
from sparse3d.io.kitti import KittiObjects

Metric = Literal["2d", "aos", "bev", "3d"]
Recall = Literal["R40", "R11"]
Overlap = Literal["strict", "loose"]

POSITIONS = 41


class Difficulty(NamedTuple):
    """What counts as ground truth: image height above `min_height` px, limited occlusion and truncation."""

    name: str
    min_height: float
    max_occluded: int
    max_truncated: float


DIFFICULTIES = (
    Difficulty("easy", 40, 0, 0.15),
    Difficulty("moderate", 25, 1, 0.30),
    Difficulty("hard", 25, 2, 0.50),
)


class ClassRule(NamedTuple):
    """Smallest overlaps of a true positive, and the class that may be mistaken for this one."""

    strict: float
    loose: float
    neighbour: str | None = None


# The benchmark's classes are Car, Pedestrian and Cyclist; the others follow the one that they are most like.
# The loose overlaps, for BEV and 3-D only, are a habit of the literature.
RULES: Mapping[str, ClassRule] = {
    "Car": ClassRule(0.7, 0.5, "Van"),
    "Pedestrian": ClassRule(0.5, 0.25, "Person_sitting"),
    "Cyclist": ClassRule(0.5, 0.25),
    "Van": ClassRule(0.7, 0.5),
    "Truck": ClassRule(0.7, 0.5),
    "Tram": ClassRule(0.7, 0.5),
    "Person_sitting": ClassRule(0.5, 0.25),
}


@dataclass(frozen=True)
class KittiRow:
    """One average precision in percent, NaN where undefined. `count`: ground-truth boxes that counted."""

    class_name: str
    metric: Metric
    overlap: Overlap
    min_overlap: float
    difficulty: str
    count: int
    r40: float
    r11: float


@dataclass(frozen=True)
class KittiResult:
    """All average precisions of one evaluation, class by class."""

    rows: tuple[KittiRow, ...]
    frames: int

    def value(
        self,
        class_name: str,
        metric: Metric = "3d",
        difficulty: str = "moderate",
        recall: Recall = "R40",
        overlap: Overlap = "strict",
    ) -> float:
        """One number in percent, NaN without ground truth; ValueError for what is not among the rows."""
        if recall not in ("R40", "R11"):
            raise ValueError(f"recall is {recall!r}, expected 'R40' or 'R11'")
        wanted = (class_name, metric, difficulty, overlap)
        for row in self.rows:
            if (row.class_name, row.metric, row.difficulty, row.overlap) == wanted:
                return row.r40 if recall == "R40" else row.r11
        known = sorted({row.class_name for row in self.rows})
        raise ValueError(
            f"no value for class, metric, difficulty, overlap {wanted}; classes are {', '.join(known)}, "
            "metrics 2d aos bev 3d, difficulties easy moderate hard, overlaps strict loose (bev, 3d)"
        )

    def mean(
        self,
        metric: Metric = "3d",
        difficulty: str = "moderate",
        recall: Recall = "R40",
        overlap: Overlap = "strict",
    ) -> float:
        """Mean over the classes that have ground truth; NaN when none has."""
        names = dict.fromkeys(row.class_name for row in self.rows)
        values = [self.value(name, metric, difficulty, recall, overlap) for name in names]
        values = [value for value in values if not np.isnan(value)]
        return float(np.mean(values)) if values else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """For JSON; NaN becomes None."""
        rows = [
            {
                key: None if isinstance(value, float) and np.isnan(value) else value
                for key, value in asdict(row).items()
            }
            for row in self.rows
        ]
        return {"frames": self.frames, "rows": rows}

    def table(self) -> Table:
        """Easy, moderate and hard side by side, R40 then R11; "-" where there is no ground truth."""
        few = {row.class_name: row.count for row in self.rows if 0 < row.count < POSITIONS}
        table = Table(title=f"KITTI average precision (%), {self.frames} frames", caption=_few_note(few))
        for name in ("class", "metric", "IoU"):
            table.add_column(name, no_wrap=True)
        for recall in ("R40", "R11"):
            for difficulty in DIFFICULTIES:
                short = {"moderate": "mod."}.get(difficulty.name, difficulty.name)
                table.add_column(f"{recall}\n{short}", justify="right", no_wrap=True)
        step = len(DIFFICULTIES)
        for i in range(0, len(self.rows), step):
            group = self.rows[i : i + step]
            numbers = [row.r40 for row in group] + [row.r11 for row in group]
            table.add_row(
                group[0].class_name,
                group[0].metric.upper(),
                f"{group[0].min_overlap:g}",
                *("-" if np.isnan(number) else f"{number:.2f}" for number in numbers),
                end_section=i + step >= len(self.rows)
                or self.rows[i + step].class_name != group[0].class_name,
            )
        return table


def evaluate(
    ground_truth: Sequence[KittiObjects],
    results: Sequence[KittiObjects],
    class_names: Sequence[str] = ("Car", "Pedestrian", "Cyclist"),
    rules: Mapping[str, ClassRule] = RULES,
) -> KittiResult:
    """Average precision of `results` (with scores) frame by frame against `ground_truth`.

    Results of other classes may be present; names are compared without case. AOS is NaN when a detection's
    alpha is -10 (unknown). A class without a rule, or frame counts that differ, are a ValueError.
    """
    for name in class_names:
        if name not in rules:
            raise ValueError(
                f"class {name!r} has no overlap rule; known are {', '.join(rules)} (argument `rules`)"
            )
    frames = join_frames(ground_truth, results)
    rows: list[KittiRow] = []
    for name in class_names:
        rows += _class_rows(frames, name, rules[name])
    return KittiResult(rows=tuple(rows), frames=len(ground_truth))


def _class_rows(frames: KittiFrames, name: str, rule: ClassRule) -> list[KittiRow]:
    plan: list[tuple[Metric, Overlap, float, np.ndarray]] = [
        ("2d", "strict", rule.strict, frames.overlap_image),
        ("aos", "strict", rule.strict, frames.overlap_image),
        ("bev", "strict", rule.strict, frames.overlap_bev),
        ("3d", "strict", rule.strict, frames.overlap_3d),
        ("bev", "loose", rule.loose, frames.overlap_bev),
        ("3d", "loose", rule.loose, frames.overlap_3d),
    ]
    states = [_states(frames, name, rule.neighbour, difficulty) for difficulty in DIFFICULTIES]
    rows = []
    for metric, overlap, min_overlap, values in plan:
        for difficulty, (gt_state, det_state) in zip(DIFFICULTIES, states, strict=True):
            count = int((gt_state == kitti_counts.VALID).sum())
            if count and (metric != "aos" or frames.has_alpha):
                curve = _curve(frames, gt_state, det_state, values, min_overlap, metric == "aos")
                r40, r11 = 100 * float(curve[1:].mean()), 100 * float(curve[::4].mean())
            else:
                r40 = r11 = float("nan")
            rows.append(KittiRow(name, metric, overlap, min_overlap, difficulty.name, count, r40, r11))
    return rows


def _states(
    frames: KittiFrames, name: str, neighbour: str | None, difficulty: Difficulty
) -> tuple[np.ndarray, np.ndarray]:
    """Who counts: states of ground truth (G,) and detections (D,) int8, see `kitti_counts`."""
    same = frames.gt_names == name.lower()
    easily_confused = frames.gt_names == (neighbour or "").lower()
    hard = (
        (frames.gt_occluded > difficulty.max_occluded)
        | (frames.gt_truncated > difficulty.max_truncated)
        | (frames.gt_heights <= difficulty.min_height)
    )
    gt_state = np.full(len(same), kitti_counts.OTHER, dtype=np.int8)
    gt_state[same & ~hard] = kitti_counts.VALID
    gt_state[(same & hard) | easily_confused] = kitti_counts.IGNORED
    gt_state[frames.gt_names == DONT_CARE] = kitti_counts.DONT_CARE

    det_state = np.full(len(frames.det_names), kitti_counts.OTHER, dtype=np.int8)
    det_state[frames.det_names == name.lower()] = kitti_counts.VALID
    # Small detections of any class: the benchmark looks at the height before it looks at the class.
    det_state[np.abs(frames.det_heights) < difficulty.min_height] = kitti_counts.IGNORED
    return gt_state, det_state


def _curve(
    frames: KittiFrames,
    gt_state: np.ndarray,
    det_state: np.ndarray,
    overlap: np.ndarray,
    min_overlap: float,
    weigh_by_orientation: bool,
) -> np.ndarray:
    """(41,) best precision (or orientation similarity) at recall k/40 or above."""
    scores = np.empty(len(frames.scores))
    hits = kitti_counts.matched_scores(
        frames.starts, gt_state, det_state, frames.scores, overlap, min_overlap, scores
    )
    gt_count = int((gt_state == kitti_counts.VALID).sum())
    thresholds = kitti_counts.recall_thresholds(scores[:hits], gt_count, POSITIONS)
    counts = np.zeros((len(thresholds), 3))
    kitti_counts.count_at_thresholds(
        frames.starts,
        gt_state,
        det_state,
        frames.scores,
        overlap,
        frames.similarity,
        min_overlap,
        thresholds,
        counts,
    )
    true, false, similar = counts.T
    curve = np.zeros(POSITIONS)
    shown = true + false
    good = similar if weigh_by_orientation else true
    curve[: len(thresholds)] = np.divide(good, shown, out=np.zeros(len(thresholds)), where=shown > 0)
    return np.maximum.accumulate(curve[::-1])[::-1]


def _few_note(counts: Mapping[str, int]) -> str | None:
    if not counts:
        return None
    return (
        f"fewer than {POSITIONS} ground-truth boxes ({', '.join(counts)}): the benchmark's sampling of n "
        "boxes cannot give more than 100 (n - 1) / 40 in R40"
    )
