"""nuScenes detection score: centre-distance average precision and five errors of what was found.

A detection is true when the nearest free box of its class stands within a distance, centre to centre seen
from above; detections choose by falling score over all frames. AP is the mean over the recalls 0.11, 0.12 ..
1 of max(precision - 0.1, 0) / 0.9. The errors are running means over the true positives at 2 m, averaged over
the reached recalls above 0.1; they are 1 where recall stays below:

    ATE metres between centres    ASE 1 - IoU of the sizes    AOE radians
    AVE m/s                       AAE share of wrong attributes
    NDS = (5 mAP + sum of max(0, 1 - error)) / 10

What the benchmark does to its data before (ranges, boxes without points, bicycle racks) is in
`nuscenes_rules`. Source: Caesar et al., "nuScenes" (CVPR 2020), section 3.1, and its development kit's
choices, which this file follows to the last digit: see tests/evaluation/test_against_devkits.py.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np
from rich.table import Table

from sparse3d.evaluation.centre_matching import take_nearest_free
from sparse3d.evaluation.frame_boxes import (
    FrameBoxes,
    JoinedBoxes,
    check_results,
    join,
    mean_of_known,
    without_nan,
)
from sparse3d.geometry.boxes import angle_between

DISTANCES = (0.5, 1.0, 2.0, 4.0)  # metres
ERROR_DISTANCE = 2.0  # metres: the assignment that the error terms are taken from
MIN_RECALL = MIN_PRECISION = 0.1
POSITIONS = 101
ERRORS = ("ATE", "ASE", "AOE", "AVE", "AAE")

Absent = Literal["skip", "zero"]


@dataclass(frozen=True)
class ErrorRule:
    """`undefined`: error terms without sense for a class; `orientation_period`: pi if front equals back."""

    undefined: tuple[str, ...] = ()
    orientation_period: float = 2 * np.pi


RULES: Mapping[str, ErrorRule] = {
    "barrier": ErrorRule(("AVE", "AAE"), np.pi),
    "traffic_cone": ErrorRule(("AOE", "AVE", "AAE")),
}


@dataclass(frozen=True)
class ClassScore:
    """One class: AP at each of `DISTANCES`, and its error terms (ATE m, ASE, AOE rad, AVE m/s, AAE)."""

    class_name: str
    count: int
    ap: tuple[float, ...]
    errors: Mapping[str, float] = field(default_factory=dict)

    @property
    def mean_ap(self) -> float:
        return float(np.mean(self.ap))


@dataclass(frozen=True)
class NuscenesResult:
    """Scores in [0, 1]. `terms` are the error terms that the data allowed."""

    classes: tuple[ClassScore, ...]
    terms: tuple[str, ...]

    @property
    def mean_ap(self) -> float:
        """Mean over classes with ground truth and distances; NaN when there is no ground truth."""
        return mean_of_known([score.mean_ap for score in self.classes])

    @property
    def errors(self) -> dict[str, float]:
        """Each term, averaged over the classes for which it is defined."""
        return {
            term: mean_of_known([s.errors[term] for s in self.classes if term in s.errors])
            for term in self.terms
        }

    @property
    def score(self) -> float:
        """(5 mAP + sum of max(0, 1 - error)) / (5 + number of terms): NDS when all five terms are there."""
        errors = [value for value in self.errors.values() if not np.isnan(value)]
        return (5 * self.mean_ap + sum(1 - min(1.0, value) for value in errors)) / (5 + len(errors))

    @property
    def score_name(self) -> str:
        """NDS, or another name that says which terms are missing: such a score is not comparable to NDS."""
        used = [term for term, value in self.errors.items() if not np.isnan(value)]
        missing = [term for term in ERRORS if term not in used]
        return "NDS" if not missing else f"detection score without {', '.join(missing)} (not NDS)"

    def to_dict(self) -> dict[str, Any]:
        """For JSON; NaN becomes None."""
        return without_nan(
            {
                "mAP": self.mean_ap,
                "score": self.score,
                "score_name": self.score_name,
                "errors": self.errors,
                "distances": list(DISTANCES),
                "classes": [{**asdict(score), "ap": list(score.ap)} for score in self.classes],
            }
        )

    def table(self) -> Table:
        """One line a class, means and score in the caption; "-" where a number is not defined."""
        table = Table(
            title="centre-distance average precision (%)",
            caption=f"mAP {_shown(self.mean_ap, 100)}, {self.score_name} {_shown(self.score, 100)}",
        )
        heads = ["AP", *(f"{distance:g} m" for distance in DISTANCES), *self.terms]
        for head in ("class", *heads):
            table.add_column(head, justify="left" if head == "class" else "right")
        for score in self.classes:
            cells = [_shown(value, 100) for value in (score.mean_ap, *score.ap)]
            cells += [_shown(score.errors.get(term, float("nan")), 1) for term in self.terms]
            table.add_row(score.class_name, *cells)
        table.add_section()
        by_distance = [mean_of_known([s.ap[i] for s in self.classes]) for i in range(len(DISTANCES))]
        cells = [_shown(value, 100) for value in (self.mean_ap, *by_distance)]
        table.add_row("mean", *cells, *(_shown(self.errors[term], 1) for term in self.terms))
        return table


def evaluate(
    ground_truth: Sequence[FrameBoxes],
    results: Sequence[FrameBoxes],
    class_names: Sequence[str],
    rules: Mapping[str, ErrorRule] = RULES,
    absent: Absent = "skip",
) -> NuscenesResult:
    """Score `results[i]` against `ground_truth[i]`; labels index `class_names`.

    AVE and AAE are taken when every frame, labelled and detected, has velocities or attributes. A class
    without ground truth is left out of every mean, or has AP 0 and errors of 1 (`absent` "zero": the
    benchmark, whose splits have all classes). Detections without scores and frame counts that differ are a
    ValueError. Equal scores: the later frame, then the higher row, first, as the development kit sorts.
    """
    check_results(ground_truth, results)
    truth, found = join(ground_truth), join(results)
    terms = ["ATE", "ASE", "AOE"]
    for term, column in (("AVE", "velocities"), ("AAE", "attributes")):
        if getattr(truth.rows, column) is not None and getattr(found.rows, column) is not None:
            terms.append(term)
    scores = []
    for label, name in enumerate(class_names):
        rule = rules.get(name, ErrorRule())
        defined = tuple(term for term in terms if term not in rule.undefined)
        of_class = truth.of_class(label), found.of_class(label)
        scores.append(_class_score(*of_class, len(ground_truth), name, rule, defined, absent))
    return NuscenesResult(classes=tuple(scores), terms=tuple(terms))


def _class_score(
    truth: JoinedBoxes,
    found: JoinedBoxes,
    frames: int,
    name: str,
    rule: ErrorRule,
    terms: tuple[str, ...],
    absent: Absent,
) -> ClassScore:
    count = len(truth.rows)
    if not count:
        ap, error = (float("nan"),) * 2 if absent == "skip" else (0.0, 1.0)
        return ClassScore(name, 0, (ap,) * len(DISTANCES), dict.fromkeys(terms, error))
    ranking = rank(found)
    matched = {distance: assign(truth, ranking, frames, distance) for distance in DISTANCES}
    ap = tuple(average_precision(gt_rows >= 0, count) for gt_rows in matched.values())
    gt_rows = matched[ERROR_DISTANCE]
    true = gt_rows >= 0
    pair = truth.rows.select(gt_rows[true]), ranking.rows.select(true)
    assert ranking.rows.scores is not None
    errors = {
        term: _mean_error(true_positive_errors(term, *pair, rule), true, ranking.rows.scores, count)
        for term in terms
    }
    return ClassScore(name, count, ap, errors)


def rank(found: JoinedBoxes) -> JoinedBoxes:
    """By falling score; among equals the last comes first."""
    assert found.rows.scores is not None
    order = np.argsort(found.rows.scores, kind="stable")[::-1]
    return JoinedBoxes(found.rows.select(order), found.frame[order])


def assign(truth: JoinedBoxes, ranking: JoinedBoxes, frames: int, distance: float) -> np.ndarray:
    """(D,) int64: the row of `truth` that each detection found, -1 for a false one."""
    out = np.empty(len(ranking.frame), dtype=np.int64)
    centres = (np.ascontiguousarray(boxes.rows.boxes[:, :2]) for boxes in (ranking, truth))
    det_centres, gt_centres = centres
    take_nearest_free(ranking.frame, det_centres, truth.starts(frames), gt_centres, distance, out)
    return out


def average_precision(true: np.ndarray, count: int) -> float:
    """Of detections by falling score, `true` (D,) bool, for `count` boxes: in [0, 1]."""
    if not true.any():
        return 0.0
    hits = np.cumsum(true)
    precision = hits / np.arange(1, len(true) + 1)
    sampled = np.interp(np.linspace(0, 1, POSITIONS), hits / count, precision, right=0)
    beyond = sampled[round(100 * MIN_RECALL) + 1 :]
    return float(np.maximum(beyond - MIN_PRECISION, 0).mean() / (1 - MIN_PRECISION))


def true_positive_errors(term: str, truth: FrameBoxes, found: FrameBoxes, rule: ErrorRule) -> np.ndarray:
    """(T,) one error term of each true positive, row for row; NaN where the label does not say."""
    a, b = truth.boxes, found.boxes
    if term == "ATE":
        return np.linalg.norm(b[:, :2] - a[:, :2], axis=1)
    if term == "ASE":  # one minus the overlap of the two boxes put onto the same centre and heading
        shared = np.minimum(a[:, 3:6], b[:, 3:6]).prod(1)
        return 1 - shared / (a[:, 3:6].prod(1) + b[:, 3:6].prod(1) - shared)
    if term == "AOE":
        return angle_between(a[:, 6], b[:, 6], rule.orientation_period)
    if term == "AVE":
        assert truth.velocities is not None and found.velocities is not None
        return np.linalg.norm(found.velocities - truth.velocities, axis=1)
    assert truth.attributes is not None and found.attributes is not None
    wrong = (truth.attributes != found.attributes).astype(np.float64)
    return np.where(truth.attributes < 0, np.nan, wrong)


def _mean_error(values: np.ndarray, true: np.ndarray, scores: np.ndarray, count: int) -> float:
    """Running mean over the true positives, read off at the score of each recall position, averaged."""
    first = round(100 * MIN_RECALL) + 1
    recalls = np.linspace(0, 1, POSITIONS)
    recall = np.cumsum(true) / count
    # Positions up to the last recall, compared as floats without leeway, because the development kit does.
    reached = int((recalls <= recall[-1]).sum()) if len(recall) else 0
    if reached <= first:
        return 1.0
    known = ~np.isnan(values)
    if not known.any():
        return 1.0
    seen = np.cumsum(known)
    running = np.divide(
        np.cumsum(np.where(known, values, 0)), seen, out=np.zeros(len(values)), where=seen > 0
    )
    score_at = np.interp(recalls[:reached], recall, scores)
    # np.interp wants rising abscissae: scores from low to high.
    sampled = np.interp(score_at, scores[true][::-1], running[::-1])
    return float(sampled[first:].mean())


def _shown(value: float, factor: float) -> str:
    return "-" if np.isnan(value) else f"{factor * value:.2f}"
