"""Causes of false detections, thresholds, bins and confusion: by hand, and laws."""

import math

import numpy as np
import pytest

from sparse3d.evaluation.error_analysis import CAUSES, TRUE, analyse, explain
from sparse3d.evaluation.frame_boxes import FrameBoxes

NAMES = ("Car", "Pedestrian")
ENOUGH = (0.7, 0.5)


def car(x, y=0.0, yaw=0.0, length=4.0):
    return [x, y, 0, length, 2, 1.5, yaw]


def labelled(boxes, labels, points=None, occlusion=None):
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 7)
    occlusion = None if occlusion is None else np.array(occlusion)
    return FrameBoxes(boxes, np.array(labels, dtype=np.int64), num_points=points, occlusion=occlusion)


def found(boxes, labels, scores):
    boxes = np.array(boxes, dtype=np.float64).reshape(-1, 7)
    return FrameBoxes(boxes, np.array(labels, dtype=np.int64), np.array(scores, dtype=np.float64))


def causes(errors):
    return ["true" if cause == TRUE else CAUSES[cause] for cause in errors.cause]


def test_every_cause_by_hand():
    truth = labelled([car(0), car(20), car(40), car(60)], [0, 0, 1, 0])
    boxes = [
        car(0.2),  # 3.8 / 4.2 of label 0: it has it
        car(0.4),  # 3.6 / 4.4 of the same label, with a lower score
        car(21),  # 3 / 5: too little for a car
        car(40.1),  # a car on the pedestrian
        car(42.5),  # 1.5 / 6.5 of the pedestrian
        car(80),  # nothing
        car(63.5),  # 0.5 / 7.5 = 0.07 of label 3: nothing to do with it
    ]
    errors = explain(truth, found(boxes, [0] * 7, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3]), ENOUGH)
    expected = ["true", "duplicate", "localisation", "confusion", "confusion", "background", "background"]
    assert causes(errors) == expected
    assert errors.label.tolist() == [0, -1, -1, -1, -1, -1, -1]
    assert errors.touched.tolist() == [0, 0, 1, 2, 2, -1, -1]
    assert errors.overlap[:3] == pytest.approx([3.8 / 4.2, 3.6 / 4.4, 0.6])


def test_higher_scores_choose_first_and_by_overlap():
    truth = labelled([car(0), car(0.6)], [0, 0])
    errors = explain(truth, found([car(0.5), car(0.3)], [0, 0], [0.9, 0.8]), ENOUGH)
    assert errors.label.tolist() == [1, 0]
    swapped = explain(truth, found([car(0.3), car(0.5)], [0, 0], [0.8, 0.9]), ENOUGH)
    assert swapped.label.tolist() == [0, 1]


def test_threshold_counts_and_precision_by_hand():
    # By score: true, true, false, false, true of four labels. F1: 2/5, 4/6, 4/7, 4/8, 6/9: the second equals
    # the fifth; the first of them counts.
    truth = [labelled([car(20 * k) for k in range(4)], [0] * 4)]
    results = [found([car(0), car(20), car(200), car(21.5), car(40)], [0] * 5, [0.9, 0.8, 0.7, 0.6, 0.5])]
    analysis = analyse(truth, results, NAMES)
    part = analysis.classes[0]
    assert part.threshold == 0.8 and part.true_positives == 2 and part.causes == (0, 0, 0, 0)
    assert part.recall == pytest.approx([1 / 4, 1 / 2, 1 / 2, 1 / 2, 3 / 4])
    assert part.precision == pytest.approx([1, 1, 2 / 3, 1 / 2, 3 / 5])
    # Precision 1 up to recall 0.5 (51 positions), 3/5 up to 0.75 (25), then 0.
    assert part.ap == pytest.approx((51 + 25 * 0.6) / 101)
    assert [missed.sum() for missed in analysis.missed] == [2]
    # With a third hit right behind, the later threshold is better, and the false ones count.
    more = [
        found(
            [car(0), car(20), car(200), car(21.5), car(40), car(60)], [0] * 6, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
        )
    ]
    part = analyse(truth, more, NAMES).classes[0]
    assert (part.threshold, part.true_positives) == (0.4, 4)
    assert dict(zip(CAUSES, part.causes, strict=True)) == {
        "background": 1, "localisation": 1, "confusion": 0, "duplicate": 0
    }  # fmt: skip


def test_bins_by_distance_and_points_by_hand():
    truth = [labelled([car(5), car(15), car(16, 9), car(35)], [0] * 4, np.array([3, 7, 200, 30]))]
    results = [found([car(5), car(15), car(55)], [0] * 3, [0.9, 0.8, 0.7])]
    part = analyse(truth, results, NAMES).classes[0]
    values = {(b.low, b.high): (b.labels, b.ap) for b in part.by_distance}
    assert values[0, 10] == (1, pytest.approx(1)) and values[10, 20] == (2, pytest.approx(51 / 101))
    assert values[30, 40] == (1, 0) and values[50, math.inf][0] == 0 and math.isnan(values[50, math.inf][1])
    assert [b.recall for b in part.by_distance][:4] == [1, 0.5, pytest.approx(math.nan, nan_ok=True), 0]
    assert [(b.labels, b.recall) for b in part.by_points] == [(1, 1), (1, 1), (1, 0), (1, 0)]
    # The false detection comes last: it lowers no precision that a label of these bins reaches.
    assert [b.ap for b in part.by_points] == pytest.approx([1, 1, 0, 0])
    bare = analyse([labelled([car(5)], [0])], [found([], [], [])], NAMES)
    assert bare.classes[0].by_points == () and bare.classes[0].threshold == math.inf


def test_bins_by_occlusion_by_hand():
    """By score: level 1, false, level 0, level 0, level 2. F1 is greatest at the fourth: 2 * 3 / (4 + 5)."""
    truth = [
        labelled([car(0), car(20), car(40)], [0] * 3, occlusion=[0, 0, 1]),
        labelled([car(0), car(20), car(40)], [0, 0, 1], occlusion=[2, -1, 3]),
    ]
    results = [
        found([car(40), car(80), car(0), car(20)], [0] * 4, [0.9, 0.8, 0.7, 0.6]),
        found([car(0), car(60), car(65)], [0, 0, 0], [0.3, 0.4, 0.45]),
    ]
    part, other = analyse(truth, results, NAMES).classes
    assert (part.threshold, part.count) == (0.6, 5)
    hidden = {int(b.low): (b.labels, b.recall) for b in part.by_occlusion}
    assert hidden == {0: (2, 1), 1: (1, 1), 2: (1, 0), 3: (0, pytest.approx(math.nan, nan_ok=True))}
    # Every false detection counts at every level, those that found a label of another level at none:
    # false, true, true: 1/2 up to recall 0.5, 2/3 up to 1; the better one counts everywhere.
    # true: 1. false, false, false, true: 1/4.
    assert [b.ap for b in part.by_occlusion[:3]] == pytest.approx([2 / 3, 1, 1 / 4])
    assert math.isnan(part.by_occlusion[3].ap)
    assert [b.labels for b in other.by_occlusion] == [0, 0, 0, 1] and other.by_occlusion[3].ap == 0


def test_there_are_no_bins_of_what_nobody_knows():
    results = [found([car(0)], [0], [0.9])] * 2
    known, unknown = labelled([car(0)], [0], occlusion=[0]), labelled([car(0)], [0], occlusion=[-1])
    assert analyse([known, unknown], results, NAMES).classes[0].by_occlusion[0].labels == 1
    for frames in ([unknown] * 2, [known, labelled([car(0)], [0])]):
        assert analyse(frames, results, NAMES).classes[0].by_occlusion == ()


def test_errors_of_what_was_found_by_hand():
    truth = [labelled([car(0), car(50)], [0, 0])]
    results = [found([car(0.2, 0.1, 0.05), [*car(50, length=3.6)[:6], math.pi]], [0, 0], [0.9, 0.9])]
    part = analyse(truth, results, NAMES).classes[0]
    assert part.shift == pytest.approx([math.hypot(0.2, 0.1), 0])
    assert part.size == pytest.approx([0, 0.1]) and part.turn == pytest.approx([0.05, math.pi])


def test_confusion_by_hand():
    # Label 0 found; label 1, a pedestrian, stood on by a car; label 2 by nobody; one car on nothing.
    truth = [labelled([car(0), car(20), car(40)], [0, 1, 0])]
    results = [found([car(0), car(20), car(80)], [0, 0, 0], [0.5, 0.5, 0.5])]
    assert analyse(truth, results, NAMES).confusion.tolist() == [[1, 0, 1], [1, 0, 0], [1, 0, 0]]


def test_worst_frames_first_and_perfect_ones_never():
    truth = [labelled([car(20 * k) for k in range(n)], [0] * n) for n in (1, 3, 2)]
    results = [found([car(0)], [0], [0.9])] * 3
    assert analyse(truth, results, NAMES).worst(20) == [1, 2]
    assert analyse(truth, results, NAMES).worst(1) == [1]


def test_laws_on_random_frames():
    rng = np.random.default_rng(0)
    truth, results = [], []
    for _ in range(20):
        cells = rng.permutation(100)[:12]
        boxes = np.zeros((12, 7))
        boxes[:, :2] = np.stack([cells // 10, cells % 10], 1) * 9.0
        boxes[:, 3:6] = [4, 2, 1.5]
        labels = rng.integers(0, 2, 12)
        truth.append(labelled(boxes, labels, rng.integers(1, 90, 12)))
        noise = rng.normal(size=(12, 7)) * [0.3, 0.3, 0.1, 0.1, 0.1, 0.1, 0.1]
        other = np.where(rng.random(12) < 0.2, 1 - labels, labels)
        results.append(found(boxes + noise, other, rng.uniform(size=12)))
    analysis = analyse(truth, results, NAMES)
    for label, part in enumerate(analysis.classes):
        shown = sum(
            int((s & (f.labels == label)).sum()) for s, f in zip(analysis.shown, results, strict=True)
        )
        assert part.true_positives + sum(part.causes) == shown
        assert sum(b.labels for b in part.by_distance) == sum(b.labels for b in part.by_points) == part.count
        assert 0 < part.ap < 1
    assert analysis.confusion[:2].sum() == 20 * 12
    found_by_class = [analysis.confusion[i, i] for i in range(2)]
    assert all(a >= p.true_positives for a, p in zip(found_by_class, analysis.classes, strict=True))
    order = rng.permutation(20)
    mixed = analyse([truth[i] for i in order], [results[i] for i in order], NAMES)
    assert (mixed.confusion == analysis.confusion).all()
    assert [p.ap for p in mixed.classes] == pytest.approx([p.ap for p in analysis.classes])
    perfect = [FrameBoxes(t.boxes, t.labels, np.linspace(0.9, 0.5, 12)) for t in truth]
    best = analyse(truth, perfect, NAMES)
    assert [p.ap for p in best.classes] == pytest.approx([1, 1]) and best.worst(20) == []
    assert best.confusion.tolist() == np.diag([*(p.count for p in best.classes), 0]).tolist()


def test_nothing_at_all():
    analysis = analyse([], [], NAMES)
    assert math.isnan(analysis.classes[0].ap) and analysis.worst(5) == []
    with pytest.raises(ValueError, match="1 result frames for 0"):
        analyse([], [found([], [], [])], NAMES)
