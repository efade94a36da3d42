"""Average precision of the Waymo Open Dataset, plain (AP) and weighted by heading (APH), at two levels.

    level 1  labels with more than 5 LiDAR points      level 2  those with 1 to 5, or that a person found hard

At each of the scores 0, 0.01 .. 1 the detections from there on are assigned to the labels of their frame and
class so that the sum of their 3-D IoUs is greatest, pairs below the class's IoU excluded: the benchmark's
Hungarian matcher, in which scores play no part. (Its matcher that goes by falling score gives other numbers,
and the leaderboard does not use it.) TP, FP and FN are summed over the frames; AP is the area under
the curve of the best precision from each recall on, read at steps of 0.05 at most. In APH a true positive
counts 1 - |difference of heading| / pi in the precision, and 1 in the recall.

Rules of the benchmark that surprise: a true positive counts at level 1 even if its label is of level 2; in
the breakdown by distance, labels and detections are sorted by their own distance first, so that a pair across
30 m is a miss and a false positive; scores that fall between the same two thresholds are one.

Source: Sun et al. (arXiv 1912.04838), section 6.1, and the tool of the benchmark's repository, whose
published numbers for its example files tests/evaluation/test_waymo.py repeats.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numba
import numpy as np
import torch
from rich.table import Table

from sparse3d.evaluation.assignment import add_row, start
from sparse3d.evaluation.frame_boxes import FrameBoxes, check_results, mean_of_known, without_nan
from sparse3d.geometry.boxes import angle_between
from sparse3d_ops.boxes import box_iou_3d

MIN_OVERLAP: Mapping[str, float] = {"Vehicle": 0.7, "Pedestrian": 0.5, "Cyclist": 0.5, "Sign": 0.5}
RANGES = (0.0, 30.0, 50.0, np.inf)  # metres from the vehicle's origin, heights included
HARD_POINTS = 5  # labels with so many points or fewer are of level 2
CUTOFFS = np.array([0.01 * i for i in range(101)], dtype=np.float32)
RECALL_STEP = 0.05
_WEIGHT_STEPS = 1_000_000  # the benchmark rounds IoUs before it compares sums of them
_TINY = 0.01  # metres; thinner boxes overlap with nothing


@dataclass(frozen=True)
class WaymoRow:
    """One class at one level and distance, in percent, NaN without labels. `count`: labels of that level."""

    class_name: str
    level: int
    distance: str
    count: int
    ap: float
    aph: float


@dataclass(frozen=True)
class WaymoResult:
    """Rows class by class: all distances and each of `RANGES`, at levels 1 and 2."""

    rows: tuple[WaymoRow, ...]
    frames: int

    def value(self, class_name: str, level: int = 2, distance: str = "all", heading: bool = True) -> float:
        """APH (or AP) in percent. ValueError for what is not among the rows."""
        for row in self.rows:
            if (row.class_name, row.level, row.distance) == (class_name, level, distance):
                return row.aph if heading else row.ap
        raise ValueError(
            f"no value for {class_name}, level {level}, distance {distance!r}; distances are "
            f"{', '.join(dict.fromkeys(row.distance for row in self.rows))}"
        )

    def mean(self, level: int = 2, heading: bool = True) -> float:
        """mAPH (or mAP) over the classes that have labels."""
        names = dict.fromkeys(row.class_name for row in self.rows)
        return mean_of_known([self.value(name, level, heading=heading) for name in names])

    def to_dict(self) -> dict[str, Any]:
        """For JSON; NaN becomes None."""
        means = {
            f"{name}_L{level}": self.mean(level, heading)
            for level in (1, 2)
            for name, heading in (("mAP", False), ("mAPH", True))
        }
        return without_nan({"frames": self.frames, **means, "rows": [asdict(row) for row in self.rows]})

    def table(self) -> Table:
        """AP / APH of both levels, a line for each class and distance."""
        table = Table(
            title=f"Waymo average precision (%), {self.frames} frames",
            caption=f"mAPH level 1 {_shown(self.mean(1))}, level 2 {_shown(self.mean(2))}",
        )
        for head in ("class", "distance", "labels L1", "AP L1", "APH L1", "labels L2", "AP L2", "APH L2"):
            table.add_column(head, justify="left" if head in ("class", "distance") else "right")
        for i in range(0, len(self.rows), 2):
            one, two = self.rows[i : i + 2]
            cells = [str(one.count), _shown(one.ap), _shown(one.aph)]
            cells += [str(two.count), _shown(two.ap), _shown(two.aph)]
            last = i + 2 == len(self.rows) or self.rows[i + 2].class_name != one.class_name
            table.add_row(one.class_name, one.distance, *cells, end_section=last)
        return table


def evaluate(
    ground_truth: Sequence[FrameBoxes],
    results: Sequence[FrameBoxes],
    class_names: Sequence[str],
    min_overlap: Mapping[str, float] = MIN_OVERLAP,
) -> WaymoResult:
    """Score `results[i]` against `ground_truth[i]` in the vehicle's frame; labels index `class_names`.

    Labels need `num_points`; those without points do not count. `difficulty`, where it is given and not 0,
    decides the level in place of the points. ValueError for missing points or scores, frame counts that
    differ and classes without an overlap.
    """
    check_results(ground_truth, results)
    missing = [name for name in class_names if name not in min_overlap]
    if missing:
        raise ValueError(
            f"no overlap for {', '.join(missing)}; known are {', '.join(min_overlap)} (`min_overlap`)"
        )
    counts = np.zeros((len(class_names), len(RANGES), len(CUTOFFS), 4))
    misses = np.zeros((len(class_names), len(RANGES), 2), dtype=np.int64)
    for i, (truth, found) in enumerate(zip(ground_truth, results, strict=True)):
        if truth.num_points is None:
            raise ValueError(f"ground_truth[{i}] has no num_points; a level depends on them")
        truth = truth.select(truth.num_points > 0)
        for label, name in enumerate(class_names):
            of_class = truth.select(truth.labels == label), found.select(found.labels == label)
            _count_frame(*of_class, min_overlap[name], counts[label], misses[label])
    rows = []
    for label, name in enumerate(class_names):
        for shard in range(len(RANGES)):
            for level in (1, 2):
                labels = int(misses[label, shard, :level].sum())
                ap = aph = float("nan")
                if labels:
                    ap, aph = (100 * value for value in _precision(counts[label, shard], labels, level))
                rows.append(WaymoRow(name, level, _DISTANCES[shard], labels, ap, aph))
    return WaymoResult(tuple(rows), len(ground_truth))


_DISTANCES = ("all", *(f"[{low:g}, {high:g})" for low, high in zip(RANGES, RANGES[1:], strict=False)))


def levels(truth: FrameBoxes) -> np.ndarray:
    """(N,) 1 or 2."""
    assert truth.num_points is not None
    by_points = np.where(truth.num_points > HARD_POINTS, 1, 2)
    if truth.difficulty is None:
        return by_points
    return np.where(truth.difficulty > 0, truth.difficulty, by_points)


def _count_frame(
    truth: FrameBoxes, found: FrameBoxes, min_overlap: float, counts: np.ndarray, labels: np.ndarray
) -> None:
    """Add one frame of one class: `counts` (shards, cutoffs, TP FP heading TP-of-level-2), `labels` (shards,
    level)."""
    assert found.scores is not None
    level = levels(truth)
    reach = np.searchsorted(CUTOFFS, found.scores.astype(np.float32), side="right")
    order = np.argsort(-reach, kind="stable")
    found, reach = found.select(order), reach[order]
    overlap = _overlaps(found.boxes, truth.boxes)
    alike = (
        1
        - angle_between(
            found.boxes[:, None, 6].astype(np.float64), truth.boxes[None, :, 6].astype(np.float64)
        )
        / np.pi
    )
    weights = np.where(overlap >= np.float32(min_overlap), np.round(overlap * _WEIGHT_STEPS), 0.0)
    near_gt, near_det = (
        np.searchsorted(RANGES, np.linalg.norm(boxes.boxes[:, :3].astype(np.float64), axis=1), side="right")
        for boxes in (truth, found)
    )
    for shard in range(len(RANGES)):
        gt = np.flatnonzero(near_gt == shard) if shard else np.arange(len(truth))
        det = np.flatnonzero(near_det == shard) if shard else np.arange(len(found))
        labels[shard] += np.bincount(level[gt], minlength=3)[1:3]
        pairs = np.ix_(det, gt)
        _count_cutoffs(weights[pairs], alike[pairs], reach[det], level[gt], counts[shard])


def _overlaps(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """(D, G) float32 IoU."""
    rows = [torch.from_numpy(np.ascontiguousarray(boxes, dtype=np.float64)) for boxes in (found, truth)]
    thick_found, thick_truth = (boxes[:, 3:6].min(axis=1, initial=1) > _TINY for boxes in (found, truth))
    overlap = box_iou_3d(*rows).numpy().astype(np.float32)
    return overlap * (thick_found[:, None] & thick_truth[None])


@numba.njit(cache=True, nogil=True)
def _count_cutoffs(weights, alike, reach, level, counts):
    """Detections by falling `reach` (D,), the number of cutoffs that they pass; adds to `counts`."""
    rows, columns = weights.shape
    owner, u, v = start(rows, columns)
    seen = 0
    for cutoff in range(counts.shape[0] - 1, -1, -1):
        while seen < rows and reach[seen] > cutoff:
            if columns > 0 and weights[seen].max() > 0:
                add_row(weights, seen, owner, u, v)
            seen += 1
        hits = 0
        for g in range(columns):
            d = owner[g]
            if d >= 0 and weights[d, g] > 0:
                hits += 1
                counts[cutoff, 2] += alike[d, g]
                counts[cutoff, 3] += level[g] == 2
        counts[cutoff, 0] += hits
        counts[cutoff, 1] += seen - hits


def _precision(counts: np.ndarray, labels: int, level: int) -> tuple[float, float]:
    """AP and APH of one class, level and distance. `counts` (cutoffs, 4), `labels` those of the level."""
    hits, false, heading, hard = counts.T
    # Missed labels are those of the level; hits are all, of whatever level.
    missed = labels - (hits if level == 2 else hits - hard)
    shown = np.maximum(hits + false, 1)
    recall = hits / np.maximum(hits + missed, 1)
    plain, weighted = (np.where(recall > 0, good / shown, 1.0) for good in (hits, heading))
    return area_under(plain, recall), area_under(weighted, recall)


def area_under(precision: np.ndarray, recall: np.ndarray) -> float:
    """Area under the curve of the best precision from each recall on, trapezoids at most `RECALL_STEP` wide.

    Below the lowest recall the precision stays as it is there.
    """
    best: dict[float, float] = {0.0: 1.0}
    for p, r in zip(precision.tolist(), recall.tolist(), strict=True):
        best[r] = max(best.get(r, 0.0), p)
    curve: list[tuple[float, float]] = []  # recall, precision; from the right
    highest, last = 0.0, min(best)
    for here in sorted(best, reverse=True):
        while last - here > RECALL_STEP + 1e-6:
            last -= RECALL_STEP
            curve.append((last, highest))
        highest = max(highest, best[here])
        curve.append((here, highest))
        last = here
    if len(curve) > 1:
        curve[-1] = (curve[-1][0], curve[-2][1])  # the point at recall 0 is made up
    r, p = np.array(curve).T
    return float(((r[:-1] - r[1:]) * (p[:-1] + p[1:]) / 2).sum())


def _shown(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.2f}"
