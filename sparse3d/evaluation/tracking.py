"""Tracking metrics of the nuScenes benchmark: AMOTA, AMOTP, and CLEAR MOT at the best threshold.

Per class, at a score threshold: in each frame a label keeps the track that it had last while that stands
within 2 m (seen from above); the others are assigned so that as many pairs as possible, and of these the
nearest, are made. A label that gets another track than it had is a switch (IDS). With P labels, recall
r = TP / P:

    MOTA = max(0, 1 - (FN + FP + IDS) / P)         MOTP = mean distance of the pairs, metres
    MOTAR = max(0, 1 - (FN + FP + IDS - (1 - r) P) / (r P))
    AMOTA, AMOTP = mean of MOTAR, MOTP over 40 thresholds, those at which recall is 0.1 .. 1; a recall that is
                   not reached gives 0 and 2 m

TP counts pairs that are no switches. Scores are those of the tracks: the mean over their boxes. Holes in
tracks, labelled and found, are filled in a line first. The rest (recall, FP, FN, IDS, FRAG, mostly tracked
at 80 % and lost below 20 % of their life, TID and LGD, seconds until the first pair and of the longest gap,
false alarms in 100 frames) is given at the threshold of the best MOTA.

Sources: Weng and Kitani (arXiv 1907.03961) for the averages, Bernardin and Stiefelhagen (EURASIP 2008) for
CLEAR MOT, the benchmark's development kit for all choices (tests/evaluation/test_against_devkits.py).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, NamedTuple

import numpy as np
from rich.table import Table

from sparse3d.evaluation.frame_boxes import FrameBoxes, check_results, join, mean_of_known, without_nan
from sparse3d.evaluation.track_association import MATCH, MISS, associate

DISTANCE = 2.0  # metres
RECALLS = np.linspace(0.1, 1, 40).round(12)
FRAME_SECONDS = 0.5  # between labelled frames of nuScenes


@dataclass(frozen=True)
class ClassTracks:
    """One class; NaN without labels. From `score_threshold` on: at the threshold of the best MOTA."""

    class_name: str
    count: int  # labelled boxes, with those that fill holes
    amota: float
    amotp: float  # metres
    score_threshold: float = float("nan")
    recall: float = float("nan")
    motar: float = float("nan")
    mota: float = float("nan")
    motp: float = float("nan")  # metres
    true_positives: float = float("nan")
    false_positives: float = float("nan")
    misses: float = float("nan")
    switches: float = float("nan")
    fragments: float = float("nan")
    mostly_tracked: float = float("nan")
    mostly_lost: float = float("nan")
    false_alarms: float = float("nan")  # in 100 frames
    first_seconds: float = float("nan")  # TID
    gap_seconds: float = float("nan")  # LGD


_SUMS = (
    "true_positives",
    "false_positives",
    "misses",
    "switches",
    "fragments",
    "mostly_tracked",
    "mostly_lost",
)


@dataclass(frozen=True)
class TrackingResult:
    """Metrics class by class."""

    classes: tuple[ClassTracks, ...]

    def total(self, name: str) -> float:
        """A field of `ClassTracks` over the classes that have it: counts are added, the rest is averaged."""
        values = [float(getattr(score, name)) for score in self.classes]
        if name in _SUMS:
            return float(np.nansum(values))
        return mean_of_known(values)

    @property
    def amota(self) -> float:
        return self.total("amota")

    @property
    def amotp(self) -> float:
        """Metres."""
        return self.total("amotp")

    def to_dict(self) -> dict[str, Any]:
        """For JSON; NaN becomes None."""
        names = [field.name for field in fields(ClassTracks)]
        totals = {n: self.total(n) for n in names if n not in ("class_name", "count", "score_threshold")}
        return without_nan(totals | {"classes": [asdict(score) for score in self.classes]})

    def table(self) -> Table:
        """One line a class; "-" where there are no labels."""
        table = Table(title="tracking: AMOTA, MOTA and recall in %, AMOTP and MOTP in metres")
        heads = (
            "labels",
            "AMOTA",
            "AMOTP",
            "MOTA",
            "MOTP",
            "recall",
            "TP",
            "FP",
            "FN",
            "IDS",
            "FRAG",
            "MT",
            "ML",
        )
        for head in ("class", *heads):
            table.add_column(head, justify="left" if head == "class" else "right")
        shown = ("amota", "amotp", "mota", "motp", "recall", *_SUMS)
        for s in self.classes:
            table.add_row(s.class_name, str(s.count), *(_shown(name, getattr(s, name)) for name in shown))
        table.add_section()
        labels = str(sum(score.count for score in self.classes))
        table.add_row("all", labels, *(_shown(name, self.total(name)) for name in shown))
        return table


def evaluate(
    ground_truth: Sequence[Sequence[FrameBoxes]],
    results: Sequence[Sequence[FrameBoxes]],
    class_names: Sequence[str],
    times: Sequence[Sequence[float]] | None = None,
) -> TrackingResult:
    """Score sequences of frames; `results[s][i]` against `ground_truth[s][i]`, in axes that do not move.

    Frames need `tracks`, results also `scores`; labels index `class_names`. `times[s]`, rising, are those of
    the frames; without them all frames are equally far apart. What is out of range or without points is to be
    left out before (`nuscenes_rules.countable`). ValueError for sequences that do not fit each other.
    """
    if len(ground_truth) != len(results):
        raise ValueError(f"{len(results)} result sequences for {len(ground_truth)} labelled ones")
    if times is None:
        times = [range(len(frames)) for frames in ground_truth]
    for s, (truth, found) in enumerate(zip(ground_truth, results, strict=True)):
        check_results(truth, found)
        if len(times[s]) != len(truth) or (np.diff(times[s]) <= 0).any():
            raise ValueError(f"times[{s}] are not {len(truth)} rising times, one for each frame")
        if any(frame.tracks is None for frame in (*truth, *found)):
            raise ValueError(f"sequence {s} has a frame without tracks")
    truth, found = _lay_out(ground_truth, times), _lay_out(results, times)
    frames = sum(map(len, ground_truth))
    return TrackingResult(
        tuple(
            _class_tracks(name, truth.of_class(label), found.of_class(label), frames)
            for label, name in enumerate(class_names)
        )
    )


class _Tracks(NamedTuple):
    """Boxes of all sequences by frame: `frame` counts on over the sequences, `track` over their tracks."""

    frame: np.ndarray
    track: np.ndarray
    label: np.ndarray
    centre: np.ndarray  # (N, 2)
    score: np.ndarray  # of the track

    def of_class(self, label: int) -> "_Tracks":
        return _Tracks(*(column[self.label == label] for column in self))


def _lay_out(sequences: Sequence[Sequence[FrameBoxes]], times: Sequence[Sequence[float]]) -> _Tracks:
    """All frames end to end, holes in tracks filled; tracks are numbered as they first appear."""
    rows, frame = join([frame for sequence in sequences for frame in sequence])
    assert rows.tracks is not None
    of_frame = np.repeat(np.arange(len(sequences)), [len(sequence) for sequence in sequences])
    keys = np.stack([of_frame[frame], rows.tracks], axis=1)
    _, first, track = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    track = first.argsort().argsort()[track.reshape(-1)]
    score = np.zeros(len(frame)) if rows.scores is None else rows.scores
    by_track = np.split(score[track.argsort(kind="stable")], np.cumsum(np.bincount(track))[:-1])
    # np.mean's order of summing: a filled box may be an ulp off its track's score, and thresholds notice.
    score = np.array([part.mean() if len(part) else 0.0 for part in by_track])[track]
    columns = [frame, track, rows.labels, rows.boxes[:, :2], score]
    time = np.array([t for sequence in times for t in sequence], dtype=np.float64)
    filled = _fill_holes(_Tracks(*columns), time)
    joined = [np.concatenate([a, b]) for a, b in zip(columns, filled, strict=True)]
    order = joined[0].argsort(kind="stable")
    return _Tracks(*(column[order] for column in joined))


def _fill_holes(tracks: _Tracks, time: np.ndarray) -> _Tracks:
    """The boxes that are missing between a track's first and last, track by track in each frame.

    As the development kit does it, with the weights of both ends in each other's place: a filled box is as
    far from the box before it as it should be from the one after it. With one frame missing in a regular
    sequence that is the middle, either way.
    """
    order = np.lexsort((tracks.frame, tracks.track))
    a, b = order[:-1], order[1:]
    gap = np.where(tracks.track[a] == tracks.track[b], tracks.frame[b] - tracks.frame[a] - 1, 0).clip(0)
    a, b = np.repeat(a, gap), np.repeat(b, gap)
    frame = tracks.frame[a] + 1 + np.arange(len(a)) - np.repeat(np.cumsum(gap) - gap, gap)
    begin, end = time[tracks.frame[a]], time[tracks.frame[b]]
    of_end = (end - time[frame]) / np.where(end > begin, end - begin, 1)
    centre = (1 - of_end)[:, None] * tracks.centre[a] + of_end[:, None] * tracks.centre[b]
    # Both ends have the same score; computed, because thresholds are compared to the last bit.
    score = (1 - of_end) * tracks.score[a] + of_end * tracks.score[b]
    return _Tracks(frame, tracks.track[a], tracks.label[b], centre, score)


class _Threshold(NamedTuple):
    """What is counted at one threshold."""

    hits: int
    switches: int
    false: int
    misses: int
    gap: float  # sum of the distances of all pairs
    frames: int  # with a label or a detection
    status: np.ndarray

    @property
    def mota(self) -> float:
        return max(0.0, 1 - (self.misses + self.switches + self.false) / len(self.status))

    @property
    def motar(self) -> float:
        count = len(self.status)
        wrong = self.misses + self.switches + self.false - (count - self.hits)
        return max(0.0, 1 - wrong / self.hits) if self.hits else float("nan")

    @property
    def motp(self) -> float:
        pairs = self.hits + self.switches
        return self.gap / pairs if pairs else float("nan")


def _class_tracks(name: str, truth: _Tracks, found: _Tracks, frames: int) -> ClassTracks:
    count = len(truth.frame)
    if not count:
        return ClassTracks(name, 0, float("nan"), float("nan"))
    status = np.empty(count, dtype=np.int8)
    pair = np.empty(count, dtype=np.int64)
    gaps = np.empty(count)

    def run(threshold: float) -> _Threshold:
        shown = _Tracks(*(column[found.score >= threshold] for column in found))
        starts = [np.searchsorted(t.frame, np.arange(frames + 1)) for t in (truth, shown)]
        associate(
            starts[0],
            truth.track,
            truth.centre,
            starts[1],
            shown.track,
            shown.centre,
            DISTANCE,
            status,
            pair,
            gaps,
        )
        misses = int((status == MISS).sum())
        hits = int((status == MATCH).sum())
        busy = int(((np.diff(starts[0]) > 0) | (np.diff(starts[1]) > 0)).sum())
        false = len(shown.frame) - (count - misses)
        gap = float(gaps[status != MISS].sum())
        return _Threshold(hits, count - misses - hits, false, misses, gap, busy, status.copy())

    everything = run(-np.inf)
    reached = np.sort(found.score[pair[everything.status == MATCH]])[::-1]
    recall = np.arange(1, len(reached) + 1) / count
    if not len(recall) or recall[-1] < RECALLS[0]:
        return _nothing_found(name, truth)
    thresholds = np.interp(RECALLS, recall, reached, right=0)[recall[-1] >= RECALLS]
    counted = {threshold: run(threshold) for threshold in dict.fromkeys(thresholds.tolist())}
    points = [counted[threshold] for threshold in thresholds.tolist()]
    missing = len(RECALLS) - len(points)
    motar = [0.0 if np.isnan(point.motar) else point.motar for point in points] + [0.0] * missing
    motp = [DISTANCE if np.isnan(point.motp) else point.motp for point in points] + [DISTANCE] * missing
    # The best MOTA; of equal ones that of the highest recall.
    best = max(range(len(points)), key=lambda i: (points[i].mota, i))
    averages = name, count, float(np.mean(motar)), float(np.mean(motp))
    return ClassTracks(*averages, float(thresholds[best]), *_details(points[best], truth))


def _details(at: _Threshold, truth: _Tracks) -> tuple[float, ...]:
    """The fields of `ClassTracks` from `recall` on."""
    count = len(at.status)
    order = np.lexsort((truth.frame, truth.track))
    lives = np.split(at.status[order] != MISS, np.flatnonzero(np.diff(truth.track[order])) + 1)
    share = np.array([life.mean() for life in lives])
    seen = [life for life in lives if life.any()]
    fragments = sum(int((np.diff(np.trim_zeros(life.astype(np.int8))) == -1).sum()) for life in seen)
    first = [FRAME_SECONDS * int(life.argmax()) for life in seen]
    longest = [FRAME_SECONDS * _longest_gap(life) for life in seen]
    return (
        (at.hits + at.switches) / count,
        at.motar,
        at.mota,
        at.motp,
        at.hits,
        at.false,
        at.misses,
        at.switches,
        fragments,
        int((share >= 0.8).sum()),
        int((share < 0.2).sum()),
        100 * at.false / at.frames,
        mean_of_known(first),
        mean_of_known(longest),
    )


def _longest_gap(life: np.ndarray) -> int:
    """Frames of the longest run without a pair."""
    edges = np.flatnonzero(np.concatenate([[True], life, [True]]))
    return int(np.diff(edges).max()) - 1


def _nothing_found(name: str, truth: _Tracks) -> ClassTracks:
    """The benchmark's worst values."""
    return ClassTracks(
        name,
        len(truth.frame),
        amota=0.0,
        amotp=DISTANCE,
        recall=0.0,
        motar=0.0,
        mota=0.0,
        motp=DISTANCE,
        true_positives=0,
        misses=len(truth.frame),
        mostly_tracked=0,
        mostly_lost=len(np.unique(truth.track)),
        false_alarms=500,
        first_seconds=20,
        gap_seconds=20,
    )


def _shown(name: str, value: float) -> str:
    if np.isnan(value):
        return "-"
    if name in _SUMS:
        return f"{value:.0f}"
    return f"{value:.2f}" if name in ("amotp", "motp") else f"{100 * value:.1f}"
