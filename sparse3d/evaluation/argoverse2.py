"""Composite detection score (CDS) of Argoverse 2's 3-D detection benchmark, with its AP and three errors.

In each sweep and class every detection belongs to the nearest label, measured in three dimensions; the one of
highest score has it, and is true where it stands nearer than 0.5, 1, 2, 4 m (AP is the mean over these). A
label whose first claimant stands too far away is lost to the others, other than in nuScenes. Over the true
positives at 2 m

    ATE metres    ASE 1 - overlap of the sizes    AOE radians
    CDS = AP * mean(1 - ATE / 2 m, 1 - ASE, 1 - AOE / pi)

where the overlap is that of the boxes put into each other over the smallest box around both (nuScenes divides
by their union).

Counted are labels with a point, and the 100 best detections of a sweep and class, within 150 m of the
vehicle. The benchmark also leaves out what stands off the mapped region of interest; maps are the caller's
(`exclude`). Source: Wilson et al., "Argoverse 2" (NeurIPS datasets 2021), and av2's `evaluation.detection`.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from sparse3d.evaluation.centre_matching import claim_nearest
from sparse3d.evaluation.frame_boxes import (
    FrameBoxes,
    JoinedBoxes,
    check_results,
    join,
    mean_of_known,
    without_nan,
)
from sparse3d.evaluation.nuscenes import Absent
from sparse3d.geometry.boxes import angle_between

CLASSES = (
    "ARTICULATED_BUS",
    "BICYCLE",
    "BICYCLIST",
    "BOLLARD",
    "BOX_TRUCK",
    "BUS",
    "CONSTRUCTION_BARREL",
    "CONSTRUCTION_CONE",
    "DOG",
    "LARGE_VEHICLE",
    "MESSAGE_BOARD_TRAILER",
    "MOBILE_PEDESTRIAN_CROSSING_SIGN",
    "MOTORCYCLE",
    "MOTORCYCLIST",
    "PEDESTRIAN",
    "REGULAR_VEHICLE",
    "SCHOOL_BUS",
    "SIGN",
    "STOP_SIGN",
    "STROLLER",
    "TRUCK",
    "TRUCK_CAB",
    "VEHICULAR_TRAILER",
    "WHEELCHAIR",
    "WHEELED_DEVICE",
    "WHEELED_RIDER",
)
DISTANCES = (0.5, 1.0, 2.0, 4.0)  # metres
ERROR_DISTANCE = 2.0  # metres
WORST = {"ATE": ERROR_DISTANCE, "ASE": 1.0, "AOE": np.pi}  # what errors are divided by, and are without a hit
MAX_RANGE = 150.0  # metres from the vehicle's origin, heights included
MAX_DETECTIONS = 100  # of a class in a sweep
POSITIONS = 101
_EPSILON = float(np.finfo(np.float64).eps)  # of the benchmark's precision

Exclude = Callable[[FrameBoxes], np.ndarray]  # a frame -> (N,) bool, True for boxes that do not count


class _Score(NamedTuple):
    ap: float
    ATE: float
    ASE: float
    AOE: float
    cds: float


@dataclass(frozen=True)
class ClassScore:
    """One class, NaN without labels: `ap` and `cds` in [0, 1], errors in their units."""

    class_name: str
    count: int
    ap: float
    ATE: float
    ASE: float
    AOE: float
    cds: float


@dataclass(frozen=True)
class Argoverse2Result:
    """Scores class by class; every mean is over the classes that are not NaN."""

    classes: tuple[ClassScore, ...]
    frames: int

    def mean(self, name: str = "cds") -> float:
        """Of "cds", "ap", "ATE", "ASE" or "AOE"."""
        return mean_of_known([getattr(score, name) for score in self.classes])

    def to_dict(self) -> dict[str, Any]:
        """For JSON; NaN becomes None."""
        means = {name: self.mean(name) for name in ("cds", "ap", "ATE", "ASE", "AOE")}
        rows = [asdict(score) for score in self.classes]
        return without_nan({"frames": self.frames, **means, "classes": rows})

    def table(self) -> Table:
        """One line a class; "-" where there are no labels."""
        table = Table(title=f"Argoverse 2 detection, {self.frames} frames (AP and CDS in %)")
        for head in ("class", "labels", "AP", "ATE", "ASE", "AOE", "CDS"):
            table.add_column(head, justify="left" if head == "class" else "right")
        for s in self.classes:
            table.add_row(s.class_name, str(s.count), *_cells(s.ap, s.ATE, s.ASE, s.AOE, s.cds))
        table.add_section()
        labels = sum(score.count for score in self.classes)
        means = [self.mean(name) for name in ("ap", "ATE", "ASE", "AOE", "cds")]
        table.add_row("mean", str(labels), *_cells(*means))
        return table


def countable(frame: FrameBoxes, exclude: Exclude | None = None, max_range: float = MAX_RANGE) -> FrameBoxes:
    """The boxes of a sweep in the vehicle's frame, labelled or detected, that the benchmark looks at."""
    keep = np.linalg.norm(frame.boxes[:, :3].astype(np.float64), axis=1) < max_range
    if frame.num_points is not None:
        keep &= frame.num_points > 0
    if exclude is not None:
        keep &= ~exclude(frame)
    frame = frame.select(keep)
    if frame.scores is None:
        return frame
    order = np.argsort(-frame.scores, kind="stable")
    best = np.zeros(len(frame), dtype=bool)
    for label in np.unique(frame.labels):
        best[order[frame.labels[order] == label][:MAX_DETECTIONS]] = True
    return frame.select(best)


def evaluate(
    ground_truth: Sequence[FrameBoxes],
    results: Sequence[FrameBoxes],
    class_names: Sequence[str] = CLASSES,
    absent: Absent = "skip",
) -> Argoverse2Result:
    """Score `results[i]` against `ground_truth[i]`, both of `countable` boxes; labels index `class_names`.

    A class without labels is left out of the means, or has AP 0 and the worst errors (`absent` "zero": the
    benchmark). Equal scores: the earlier frame, then the lower row, first. Detections without scores and
    frame counts that differ are a ValueError.
    """
    check_results(ground_truth, results)
    truth, found = join(ground_truth), join(results)
    nan = float("nan")
    scores = []
    for label, name in enumerate(class_names):
        of_class = truth.of_class(label), found.of_class(label)
        count = len(of_class[0].rows)
        if count:
            score = _class_score(*of_class, len(ground_truth))
        else:
            score = _Score(nan, nan, nan, nan, nan) if absent == "skip" else _Score(0.0, **WORST, cds=0.0)
        scores.append(ClassScore(name, count, *score))
    return Argoverse2Result(tuple(scores), len(ground_truth))


def _class_score(truth: JoinedBoxes, found: JoinedBoxes, frames: int) -> _Score:
    assert found.rows.scores is not None
    order = np.argsort(-found.rows.scores, kind="stable")
    ranking = JoinedBoxes(found.rows.select(order), found.frame[order])
    gt_rows, gaps = np.empty(len(order), dtype=np.int64), np.empty(len(order))
    centres = (np.ascontiguousarray(boxes.rows.boxes[:, :3]) for boxes in (ranking, truth))
    det_centres, gt_centres = centres
    claim_nearest(ranking.frame, det_centres, truth.starts(frames), gt_centres, gt_rows, gaps)
    true = {distance: (gt_rows >= 0) & (gaps < distance) for distance in DISTANCES}
    ap = float(np.mean([average_precision(hits, len(truth.rows)) for hits in true.values()]))
    errors = dict(WORST)
    hits = true[ERROR_DISTANCE]
    if hits.any():
        a, b = truth.rows.boxes[gt_rows[hits]], ranking.rows.boxes[hits]
        overlap = np.minimum(a[:, 3:6], b[:, 3:6]).prod(1) / np.maximum(a[:, 3:6], b[:, 3:6]).prod(1)
        errors = {
            "ATE": float(gaps[hits].mean()),
            "ASE": float((1 - overlap).mean()),
            "AOE": float(angle_between(a[:, 6], b[:, 6]).mean()),
        }
    quality = float(np.mean([1 - errors[name] / WORST[name] for name in WORST]))
    return _Score(ap, **errors, cds=ap * quality)


def average_precision(true: np.ndarray, count: int) -> float:
    """Of detections by falling score, `true` (D,) bool, for `count` labels: mean over the recalls 0, 0.01
    .. 1 of the best precision from there on."""
    if not len(true):
        return 0.0
    hits = np.cumsum(true)
    precision = hits / (np.arange(1, len(true) + 1) + _EPSILON)
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float(np.interp(np.linspace(0, 1, POSITIONS), hits / count, best, right=0).mean())


def _cells(ap: float, ate: float, ase: float, aoe: float, cds: float) -> list[str]:
    factors = ((ap, 100), (ate, 1), (ase, 1), (aoe, 1), (cds, 100))
    return ["-" if np.isnan(value) else f"{factor * value:.2f}" for value, factor in factors]
