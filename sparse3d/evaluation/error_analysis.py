"""Why a detector is wrong: what each detection found, the cause of each false one, and where it is good.

Detections take labels of their class by falling score, each the free one that it overlaps most, from the
class's smallest volume IoU on. The cause of a false detection is the first that fits:

    duplicate     it overlaps a label of its class enough, which a better one has
    confusion     it overlaps a label of another class enough
    localisation  it overlaps a label of its class by at least 0.1
    confusion     it overlaps a label of another class by at least 0.1
    background    none of these

After Bolya et al., "TIDE" (ECCV 2020), with one kind of confusion. Ties: the lower row first. All counts are
at the score threshold of each class where 2 TP / (detections + labels), its F1, is greatest.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch

from sparse3d.evaluation.frame_boxes import FrameBoxes, check_results
from sparse3d.geometry.boxes import angle_between
from sparse3d_ops.boxes import box_iou_3d

CAUSES = ("background", "localisation", "confusion", "duplicate")
TRUE = -1
SLIGHT = 0.1  # IoU of a detection that has to do with a label
MIN_OVERLAP: Mapping[str, float] = {"Car": 0.7, "Van": 0.7, "Truck": 0.7, "Vehicle": 0.7, "car": 0.7}
DEFAULT_OVERLAP = 0.5
POSITIONS = 101


class FrameErrors(NamedTuple):
    """K detections of a frame: `label` (K,) the row of the label that each one found or -1, `cause` (K,) TRUE
    or a position in CAUSES, `touched` (K,) the row of the label of any class that it overlaps most, from
    SLIGHT on, or -1; `overlap` (K,) with that one."""

    label: np.ndarray
    cause: np.ndarray
    touched: np.ndarray
    overlap: np.ndarray


class Bin(NamedTuple):
    """Labels from `low` on and below `high` of something: how many, their average precision, and `recall`,
    the share that is found at the class's threshold; both NaN without labels."""

    low: float
    high: float
    labels: int
    ap: float
    recall: float


@dataclass(frozen=True)
class ClassAnalysis:
    """One class. `recall` and `precision` (D,) by falling score, `threshold` the score of the greatest F1;
    `causes` counts false detections from there on, in the order of CAUSES. Labels are binned by their
    distance, the points in them and their level of occlusion; a bin by distance has the detections at that
    distance, one by points or occlusion those that found a label of the bin and every false one. Errors of
    the true positives: `shift` metres seen from above, `size` 1 - IoU of the sizes, `turn` radians."""

    class_name: str
    min_overlap: float
    count: int
    recall: np.ndarray
    precision: np.ndarray
    ap: float
    threshold: float
    true_positives: int
    causes: tuple[int, ...]
    by_distance: tuple[Bin, ...]
    by_points: tuple[Bin, ...]
    by_occlusion: tuple[Bin, ...]
    shift: np.ndarray
    size: np.ndarray
    turn: np.ndarray


@dataclass(frozen=True)
class Analysis:
    """All classes, and each frame. `confusion` (C + 1, C + 1): labels of a class (the last row: none) that
    detections of a class (the last column: none) stand on. `shown[i]` (K,) bool: the detections of frame i
    from their class's threshold on; `missed[i]` (M,) bool: the labels that none of these found."""

    classes: tuple[ClassAnalysis, ...]
    confusion: np.ndarray
    frames: tuple[FrameErrors, ...]
    shown: tuple[np.ndarray, ...]
    missed: tuple[np.ndarray, ...]

    def worst(self, count: int) -> list[int]:
        """The frames with most misses and false detections, worst first, none that is perfect."""
        wrong = [
            int((errors.cause[shown] != TRUE).sum() + missed.sum())
            for errors, shown, missed in zip(self.frames, self.shown, self.missed, strict=True)
        ]
        order = sorted(range(len(wrong)), key=lambda i: (-wrong[i], i))
        return [i for i in order[:count] if wrong[i]]


def explain(truth: FrameBoxes, found: FrameBoxes, min_overlap: Sequence[float]) -> FrameErrors:
    """What each detection of a frame found, or why not; `min_overlap[c]` for detections of class c."""
    assert found.scores is not None
    rows = [torch.from_numpy(np.ascontiguousarray(b.boxes, dtype=np.float64)) for b in (found, truth)]
    overlap = box_iou_3d(*rows).numpy()
    same = found.labels[:, None] == truth.labels[None]
    free = np.ones(len(truth), dtype=bool)
    label = np.full(len(found), -1)
    cause = np.full(len(found), CAUSES.index("background"))
    for d in np.argsort(-found.scores, kind="stable"):
        enough = min_overlap[int(found.labels[d])]
        open_to_it = np.where(same[d] & free, overlap[d], -1)
        best = int(open_to_it.argmax()) if len(truth) else -1
        if best >= 0 and open_to_it[best] >= enough:
            label[d], cause[d], free[best] = best, TRUE, False
            continue
        own, other = overlap[d][same[d]].max(initial=0), overlap[d][~same[d]].max(initial=0)
        for name, fits in (
            ("duplicate", own >= enough),
            ("confusion", other >= enough),
            ("localisation", own >= SLIGHT),
            ("confusion", other >= SLIGHT),
        ):
            if fits:
                cause[d] = CAUSES.index(name)
                break
    touched = overlap.argmax(axis=1) if len(truth) else np.zeros(len(found), dtype=np.int64)
    most = overlap.max(axis=1, initial=0)
    return FrameErrors(label, cause, np.where(most >= SLIGHT, touched, -1), most)


def analyse(
    ground_truth: Sequence[FrameBoxes],
    results: Sequence[FrameBoxes],
    class_names: Sequence[str],
    *,
    distances: Sequence[float] = (0, 10, 20, 30, 40, 50, np.inf),
    points: Sequence[float] = (1, 5, 20, 100, np.inf),
    occlusions: Sequence[float] = (0, 1, 2, 3, 4),
    min_overlap: Mapping[str, float] = MIN_OVERLAP,
) -> Analysis:
    """`results[i]` against `ground_truth[i]`; labels index `class_names`, distances are from the origin.

    Classes that `min_overlap` does not name need `DEFAULT_OVERLAP`. Bins by points are given where all
    frames have `num_points`, those by occlusion where all have `occlusion` and it is known (not negative) of
    a label. ValueError for missing scores and frame counts that differ.
    """
    check_results(ground_truth, results)
    enough = [min_overlap.get(name, DEFAULT_OVERLAP) for name in class_names]
    frames = tuple(explain(truth, found, enough) for truth, found in zip(ground_truth, results, strict=True))
    rows = _Rows.of(ground_truth, results, frames)
    classes = tuple(
        _of_class(rows, name, label, enough[label], (distances, points, occlusions))
        for label, name in enumerate(class_names)
    )
    thresholds = np.array([part.threshold for part in classes])
    shown = tuple(f.scores >= thresholds[f.labels] for f in results if f.scores is not None)
    missed = tuple(_missed(len(t), e, s) for t, e, s in zip(ground_truth, frames, shown, strict=True))
    confusion = np.zeros((len(class_names) + 1,) * 2, dtype=np.int64)
    for truth, found, errors, seen in zip(ground_truth, results, frames, shown, strict=True):
        _count_pairs(truth, found, errors, seen, confusion)
    return Analysis(classes, confusion, frames, shown, missed)


class _Rows(NamedTuple):
    """Detections and labels of all frames end to end."""

    label: np.ndarray  # of the detection
    score: np.ndarray
    cause: np.ndarray
    distance: np.ndarray
    found_box: np.ndarray  # (K, 7)
    true_box: np.ndarray  # (K, 7) of the label that it found, NaN for none
    pair: np.ndarray  # (K,) row of that label, -1 for none
    gt_label: np.ndarray
    gt_distance: np.ndarray
    gt_points: np.ndarray | None
    gt_occlusion: np.ndarray | None

    @staticmethod
    def of(
        truth: Sequence[FrameBoxes], found: Sequence[FrameBoxes], frames: Sequence[FrameErrors]
    ) -> "_Rows":
        first = np.cumsum([0, *map(len, truth)])
        pairs = [np.where(e.label >= 0, e.label + at, -1) for e, at in zip(frames, first, strict=False)]
        pair = np.concatenate([np.zeros(0, dtype=np.int64), *pairs])
        gt_boxes = np.concatenate([np.zeros((0, 7)), *(f.boxes for f in truth)]).astype(np.float64)
        boxes = np.concatenate([np.zeros((0, 7)), *(f.boxes for f in found)]).astype(np.float64)
        occlusion = _column([frame.occlusion for frame in truth])
        if occlusion is not None and not (occlusion >= 0).any():
            occlusion = None
        return _Rows(
            np.concatenate([np.zeros(0, dtype=np.int64), *(f.labels for f in found)]),
            np.concatenate([np.zeros(0), *(f.scores for f in found if f.scores is not None)]),
            np.concatenate([np.zeros(0, dtype=np.int64), *(e.cause for e in frames)]),
            np.hypot(boxes[:, 0], boxes[:, 1]),
            boxes,
            np.concatenate([gt_boxes, np.full((1, 7), np.nan)])[pair],
            pair,
            np.concatenate([np.zeros(0, dtype=np.int64), *(f.labels for f in truth)]),
            np.hypot(gt_boxes[:, 0], gt_boxes[:, 1]),
            _column([frame.num_points for frame in truth]),
            occlusion,
        )


def _column(parts: Sequence[np.ndarray | None]) -> np.ndarray | None:
    """Values of all labels, None where a frame lacks them."""
    known = [part for part in parts if part is not None]
    return np.concatenate([np.zeros(0), *known]) if len(known) == len(parts) else None


def _of_class(
    rows: _Rows,
    name: str,
    label: int,
    min_overlap: float,
    edges: tuple[Sequence[float], Sequence[float], Sequence[float]],
) -> ClassAnalysis:
    """`edges` of the bins by distance, points and occlusion."""
    ours = np.flatnonzero(rows.label == label)
    ours = ours[np.argsort(-rows.score[ours], kind="stable")]
    true = rows.cause[ours] == TRUE
    labels = np.flatnonzero(rows.gt_label == label)
    hits = np.cumsum(true)
    recall, precision = hits / max(len(labels), 1), hits / np.arange(1, len(ours) + 1)
    f1 = 2 * hits / (np.arange(1, len(ours) + 1) + len(labels))
    threshold = float(rows.score[ours[f1.argmax()]]) if hits.any() else np.inf
    shown = ours[rows.score[ours] >= threshold]
    false = rows.cause[shown]
    right = shown[false == TRUE]
    a, b = rows.true_box[right], rows.found_box[right]
    shared = np.minimum(a[:, 3:6], b[:, 3:6]).prod(1)
    was_found = np.isin(labels, rows.pair[right])
    by_distance, by_points, by_occlusion = edges

    def by_label(values: np.ndarray | None, edges: Sequence[float]) -> tuple[Bin, ...]:
        """A detection has the value of the label that it found; a false one has none."""
        if values is None:
            return ()
        own = np.where(true, np.append(values, np.nan)[rows.pair[ours]], np.nan)
        return _bins(edges, true, own, values[labels], was_found)

    return ClassAnalysis(
        class_name=name,
        min_overlap=min_overlap,
        count=len(labels),
        recall=recall,
        precision=precision,
        ap=_average_precision(true, len(labels)),
        threshold=threshold,
        true_positives=len(right),
        causes=tuple(int((false == i).sum()) for i in range(len(CAUSES))),
        by_distance=_bins(by_distance, true, rows.distance[ours], rows.gt_distance[labels], was_found),
        by_points=by_label(rows.gt_points, by_points),
        by_occlusion=by_label(rows.gt_occlusion, by_occlusion),
        shift=np.hypot(*(b[:, :2] - a[:, :2]).T),
        size=1 - shared / (a[:, 3:6].prod(1) + b[:, 3:6].prod(1) - shared),
        turn=angle_between(a[:, 6], b[:, 6]),
    )


def _bins(
    edges: Sequence[float], true: np.ndarray, own: np.ndarray, values: np.ndarray, was_found: np.ndarray
) -> tuple[Bin, ...]:
    """Detections by falling score, of which `true` (K,) found a label, with values `own` (K,), NaN for one
    that counts in every bin; labels with `values` (M,), of which `was_found` (M,) are found."""
    bins = []
    for low, high in zip(edges, edges[1:], strict=False):
        counted = true[np.isnan(own) | ((own >= low) & (own < high))]
        here = (values >= low) & (values < high)
        share = float(was_found[here].mean()) if here.any() else float("nan")
        bins.append(Bin(low, high, int(here.sum()), _average_precision(counted, int(here.sum())), share))
    return tuple(bins)


def _average_precision(true: np.ndarray, count: int) -> float:
    """Mean over the recalls 0, 0.01 .. 1 of the best precision from there on; NaN without labels. A recall in
    (0, r] is reached where r is."""
    if not count:
        return float("nan")
    if not true.any():
        return 0.0
    hits = np.cumsum(true)
    best = np.maximum.accumulate((hits / np.arange(1, len(true) + 1))[::-1])[::-1]
    at = np.searchsorted(hits / count, np.linspace(0, 1, POSITIONS) - 1e-9)
    return float(np.append(best, 0.0)[np.minimum(at, len(best))].mean())


def _missed(labels: int, errors: FrameErrors, shown: np.ndarray) -> np.ndarray:
    missed = np.ones(labels, dtype=bool)
    found = errors.label[shown]
    missed[found[found >= 0]] = False
    return missed


def _count_pairs(
    truth: FrameBoxes, found: FrameBoxes, errors: FrameErrors, shown: np.ndarray, counts: np.ndarray
) -> None:
    """A label counts in the column of the detection that found it, else of the best one of another class that
    stands on it (IoU 0.5), else of none; the other false detections count in the row of none."""
    nothing = len(counts) - 1
    column = np.full(len(truth), nothing)
    used = np.zeros(len(found), dtype=bool)
    for d in np.flatnonzero(shown & (errors.label >= 0)):
        column[errors.label[d]], used[d] = found.labels[d], True
    assert found.scores is not None
    for d in np.argsort(-found.scores, kind="stable"):
        g = errors.touched[d]
        if shown[d] and not used[d] and g >= 0 and errors.overlap[d] >= 0.5 and column[g] == nothing:
            column[g], used[d] = found.labels[d], True
    np.add.at(counts, (truth.labels, column), 1)
    rest = found.labels[shown & ~used]
    np.add.at(counts, (np.full(len(rest), nothing), rest), 1)
