"""Centre-distance average precision and error terms of the nuScenes detection benchmark.

A detection is true when the nearest free box of its class stands within a distance, centre to centre seen
from above; detections choose by falling score over all frames. AP is the mean over the recalls 0.11, 0.12 ..
1 of max(precision - 0.1, 0) / 0.9. The error terms are means over the true positives at 2 m, averaged over
the reached recalls above 0.1; they are 1 where recall stays below.

What the benchmark does to its data before, belongs to the caller: boxes out of a class's range or without
points are to be left out. A class without ground truth is left out of every mean (the benchmark, whose data
have all classes, counts it as 0). Source: Caesar et al., "nuScenes" (CVPR 2020), section 3.1, and its
development kit's choices.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from sparse3d.geometry.boxes import angle_between

DISTANCES = (0.5, 1.0, 2.0, 4.0)  # metres
ERROR_DISTANCE = 2.0  # metres: the assignment that the error terms are taken from
MIN_RECALL = MIN_PRECISION = 0.1
POSITIONS = 101
ERRORS = ("ATE", "ASE", "AOE", "AVE", "AAE")


@dataclass(frozen=True)
class FrameBoxes:
    """The boxes of one frame, labelled or detected.

    `boxes` (N, 7) in metres and radians, `labels` (N,) int, `scores` (N,) for detections; `velocities` (N, 2)
    m/s (NaN rows: unknown) and `attributes` (N,) int (-1: unknown) where there are any, else None.
    """

    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray | None = None
    velocities: np.ndarray | None = None
    attributes: np.ndarray | None = None

    def __post_init__(self) -> None:
        expected = {"boxes": (7,), "labels": (), "scores": (), "velocities": (2,), "attributes": ()}
        for name, rest in expected.items():
            column = getattr(self, name)
            if column is not None and column.shape != (len(self.boxes), *rest):
                raise ValueError(f"{name} has shape {column.shape}, expected {(len(self.boxes), *rest)}")


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
        return _mean([score.mean_ap for score in self.classes])

    @property
    def errors(self) -> dict[str, float]:
        """Each term, averaged over the classes for which it is defined."""
        return {
            term: _mean([s.errors[term] for s in self.classes if term in s.errors]) for term in self.terms
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
        return _without_nan(
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
        return table


def evaluate(
    ground_truth: Sequence[FrameBoxes],
    results: Sequence[FrameBoxes],
    class_names: Sequence[str],
    rules: Mapping[str, ErrorRule] = RULES,
) -> NuscenesResult:
    """Score `results[i]` against `ground_truth[i]`; labels index `class_names`.

    AVE and AAE are taken when every frame, labelled and detected, has velocities or attributes. Detections
    without scores and frame counts that differ are a ValueError. Equal scores: the earlier frame, then the
    lower index, first.
    """
    if len(ground_truth) != len(results):
        raise ValueError(f"{len(results)} result frames for {len(ground_truth)} ground-truth frames")
    for i, frame in enumerate(results):
        if frame.scores is None or not np.isfinite(frame.scores).all():
            raise ValueError(f"results[{i}] has no scores, or one that is not finite")
    everything = (*ground_truth, *results)
    terms = ["ATE", "ASE", "AOE"]
    terms += ["AVE"] if all(frame.velocities is not None for frame in everything) else []
    terms += ["AAE"] if all(frame.attributes is not None for frame in everything) else []
    scores = []
    for label, name in enumerate(class_names):
        rule = rules.get(name, ErrorRule())
        defined = tuple(term for term in terms if term not in rule.undefined)
        scores.append(_class_score(ground_truth, results, label, name, rule, defined))
    return NuscenesResult(classes=tuple(scores), terms=tuple(terms))


class _Assignment(NamedTuple):
    """The detections of one class by falling score: who is true; frame, detection and box of the true."""

    true: np.ndarray
    scores: np.ndarray
    matches: list[tuple[int, int, int]]


def _class_score(
    ground_truth: Sequence[FrameBoxes],
    results: Sequence[FrameBoxes],
    label: int,
    name: str,
    rule: ErrorRule,
    terms: tuple[str, ...],
) -> ClassScore:
    count = sum(int((frame.labels == label).sum()) for frame in ground_truth)
    if not count:
        nothing = float("nan")
        return ClassScore(name, 0, (nothing,) * len(DISTANCES), dict.fromkeys(terms, nothing))
    assignments = {distance: _assign(ground_truth, results, label, distance) for distance in DISTANCES}
    ap = tuple(_average_precision(assignment.true, count) for assignment in assignments.values())
    chosen = assignments[ERROR_DISTANCE]
    pairs = [(ground_truth[f], g, results[f], d) for f, d, g in chosen.matches]
    errors = {
        term: _mean_error(np.array([_error(term, rule, *pair) for pair in pairs]), chosen, count)
        for term in terms
    }
    return ClassScore(name, count, ap, errors)


def _assign(
    ground_truth: Sequence[FrameBoxes], results: Sequence[FrameBoxes], label: int, distance: float
) -> _Assignment:
    rows = [(f, int(d)) for f, frame in enumerate(results) for d in np.flatnonzero(frame.labels == label)]
    scores = np.array([_scores(results[f])[d] for f, d in rows], dtype=np.float64)
    order = np.argsort(-scores, kind="stable")
    free = [np.flatnonzero(frame.labels == label).tolist() for frame in ground_truth]
    true = np.zeros(len(rows), dtype=bool)
    matches = []
    for rank, row in enumerate(order):
        f, d = rows[row]
        if not free[f]:
            continue
        gaps = np.hypot(*(ground_truth[f].boxes[free[f], :2] - results[f].boxes[d, :2]).T)
        nearest = int(gaps.argmin())
        if gaps[nearest] < distance:
            true[rank] = True
            matches.append((f, d, free[f].pop(nearest)))
    return _Assignment(true, scores[order], matches)


def _average_precision(true: np.ndarray, count: int) -> float:
    if not true.any():
        return 0.0
    hits = np.cumsum(true)
    precision = hits / np.arange(1, len(true) + 1)
    sampled = np.interp(np.linspace(0, 1, POSITIONS), hits / count, precision, right=0)
    beyond = sampled[round(100 * MIN_RECALL) + 1 :]
    return float(np.maximum(beyond - MIN_PRECISION, 0).mean() / (1 - MIN_PRECISION))


def _mean_error(values: np.ndarray, assignment: _Assignment, count: int) -> float:
    """Running mean over the true positives, read off at the score of each recall position, averaged."""
    first = round(100 * MIN_RECALL) + 1
    recalls = np.linspace(0, 1, POSITIONS)
    recall = np.cumsum(assignment.true) / count
    last = int(np.searchsorted(recalls, recall[-1] + 1e-12, side="right")) - 1 if len(recall) else -1
    if last < first:
        return 1.0
    known = ~np.isnan(values)
    if not known.any():
        return 1.0
    seen = np.cumsum(known)
    running = np.divide(
        np.cumsum(np.where(known, values, 0)), seen, out=np.zeros(len(values)), where=seen > 0
    )
    score_at = np.interp(recalls[: last + 1], recall, assignment.scores)
    # np.interp wants rising abscissae: scores from low to high.
    sampled = np.interp(score_at, assignment.scores[assignment.true][::-1], running[::-1])
    return float(sampled[first:].mean())


def _error(term: str, rule: ErrorRule, truth: FrameBoxes, g: int, found: FrameBoxes, d: int) -> float:
    """One error term of one true positive; NaN where the label does not say."""
    a, b = truth.boxes[g].astype(np.float64), found.boxes[d].astype(np.float64)
    if term == "ATE":
        return float(np.hypot(*(b[:2] - a[:2])))
    if term == "ASE":  # one minus the overlap of the two boxes put onto the same centre and heading
        shared = np.minimum(a[3:6], b[3:6]).prod()
        return float(1 - shared / (a[3:6].prod() + b[3:6].prod() - shared))
    if term == "AOE":
        return float(angle_between(a[6], b[6], rule.orientation_period))
    if term == "AVE":
        assert truth.velocities is not None and found.velocities is not None
        return float(np.hypot(*(found.velocities[d] - truth.velocities[g])))
    assert truth.attributes is not None and found.attributes is not None
    return float("nan") if truth.attributes[g] < 0 else float(truth.attributes[g] != found.attributes[d])


def _scores(frame: FrameBoxes) -> np.ndarray:
    assert frame.scores is not None
    return frame.scores


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _shown(value: float, factor: float) -> str:
    return "-" if np.isnan(value) else f"{factor * value:.2f}"


def _without_nan(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _without_nan(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_without_nan(value) for value in tree]
    return None if isinstance(tree, float) and np.isnan(tree) else tree
