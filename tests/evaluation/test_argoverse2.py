"""Argoverse 2's composite detection score: fixtures worked out by hand, and laws."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from sparse3d.evaluation.argoverse2 import CLASSES, average_precision, countable, evaluate
from sparse3d.evaluation.frame_boxes import FrameBoxes
from sparse3d.geometry.boxes import rotate_boxes_z

NAMES = ("REGULAR_VEHICLE", "PEDESTRIAN", "BUS")


def boxes_at(*centres, size=(4.0, 2.0, 1.5), yaw=0.0):
    return np.array([[*centre, *size, yaw] for centre in centres], dtype=np.float64).reshape(-1, 7)


def frame(boxes, scores=None, label=0, **columns):
    scores = None if scores is None else np.asarray(scores, dtype=np.float64)
    return FrameBoxes(boxes, np.full(len(boxes), label), scores, **columns)


def random_truth(count=30, seed=0):
    rng = np.random.default_rng(seed)
    low, high = [-60, -60, -1, 1, 1, 1, -3], [60, 60, 1, 5, 3, 2, 3]
    return [FrameBoxes(rng.uniform(low, high, (9, 7)), rng.integers(0, 3, 9)) for _ in range(count)]


def detections(truth, seed=1, noise=0.0):
    rng = np.random.default_rng(seed)
    return [
        FrameBoxes(
            f.boxes + noise * rng.normal(size=f.boxes.shape) * [1, 1, 1, 0, 0, 0, 1],
            f.labels,
            rng.uniform(0.1, 1, len(f)),
        )
        for f in truth
    ]


def test_one_of_two_by_hand():
    # Recall 1/2 at precision 1: the recalls 0, 0.01 .. 0.5 are 51 of 101 positions.
    truth = [frame(boxes_at((0, 0, 0), (20, 0, 0)))]
    score = evaluate(truth, [frame(boxes_at((0, 0, 0)), [0.9])], NAMES[:1]).classes[0]
    assert score.ap == pytest.approx(51 / 101) and score.cds == pytest.approx(51 / 101)
    assert (score.ATE, score.ASE, score.AOE, score.count) == (0, 0, 0, 2)


def test_errors_and_score_by_hand():
    # 0.3, 0.4, 1.2 m off: 1.3 m in three dimensions, true at 2 and 4 m. Half as long and twice as
    # wide: one shares 2 x 2 of 4 x 4, ASE 3/4. Turned by 0.9.
    truth = [frame(boxes_at((0, 0, 0)))]
    found = [frame(boxes_at((0.3, 0.4, 1.2), size=(2, 4, 1.5), yaw=0.9), [1])]
    score = evaluate(truth, found, NAMES[:1]).classes[0]
    assert score.ap == pytest.approx(1 / 2)
    assert (score.ATE, score.ASE, score.AOE) == pytest.approx((1.3, 0.75, 0.9))
    assert score.cds == pytest.approx(0.5 * (1 - 1.3 / 2 + 1 - 0.75 + 1 - 0.9 / math.pi) / 3)


def test_a_far_first_claimant_takes_the_label_away_from_the_others():
    # Score 0.9 stands 10 m off but has no other label: it is the first of label 0. The exact one is false.
    truth = [frame(boxes_at((0, 0, 0)))]
    lost = evaluate(truth, [frame(boxes_at((10, 0, 0), (0, 0, 0)), [0.9, 0.5])], NAMES[:1])
    assert lost.classes[0].ap == 0
    # The other way round it is found, with a false positive behind it.
    assert evaluate(truth, [frame(boxes_at((10, 0, 0), (0, 0, 0)), [0.5, 0.9])], NAMES[:1]).mean("ap") > 0.99


def test_the_best_precision_from_a_recall_on_counts():
    # True, false, true of two labels: precision 1 up to recall 1/2 and 2/3 at 1; np.interp draws a line from
    # (1/2, 2/3), the false one's lifted place, to (1, 2/3).
    expected = (50 * 1 + 51 * 2 / 3) / 101
    assert average_precision(np.array([True, False, True]), 2) == pytest.approx(expected)
    assert average_precision(np.zeros(0, dtype=bool), 2) == 0


def test_what_counts_by_hand():
    truth = frame(
        boxes_at((149.9, 0, 0), (150, 0, 0), (120, 80, 42), (1, 0, 0)), num_points=np.array([1, 9, 9, 0])
    )
    assert countable(truth).boxes[:, 0].tolist() == [149.9]
    many = frame(boxes_at(*((0.5 * i, 0, 0) for i in range(120))), np.linspace(0.1, 0.9, 120))
    kept = countable(many)
    assert len(kept) == 100 and kept.scores.min() == many.scores[20]
    half = countable(many, exclude=lambda f: f.boxes[:, 0] < 55)
    assert half.boxes[:, 0].tolist() == [55 + 0.5 * i for i in range(10)]
    two = FrameBoxes(np.tile(many.boxes, (2, 1)), np.repeat([0, 2], 120), np.tile(many.scores, 2))
    assert np.bincount(countable(two).labels).tolist() == [100, 0, 100]


def test_perfect_detections_are_perfect():
    truth = random_truth()
    result = evaluate(truth, detections(truth), NAMES)
    assert result.mean() == pytest.approx(1) and result.mean("AOE") == 0


def test_order_of_frames_and_boxes_and_the_place_of_the_world_do_not_matter():
    truth = random_truth()
    results = detections(truth, noise=0.6)
    expected = evaluate(truth, results, NAMES)
    assert 0.2 < expected.mean() < 0.9
    rng = np.random.default_rng(2)
    order = rng.permutation(len(truth))
    mixed = [[frames[i].select(rng.permutation(9)) for i in order] for frames in (truth, results)]
    moved = [
        [FrameBoxes(rotate_boxes_z(f.boxes, 2.0) + [9, 9, 9, 0, 0, 0, 0], f.labels, f.scores) for f in frames]
        for frames in (truth, results)
    ]
    for other in (evaluate(*mixed, NAMES), evaluate(*moved, NAMES)):
        for name in ("cds", "ap", "ATE", "ASE", "AOE"):
            assert other.mean(name) == pytest.approx(expected.mean(name))


def test_a_false_positive_of_low_score_never_raises_the_score():
    truth = random_truth()
    results = detections(truth, noise=0.4)
    more = [
        FrameBoxes(
            np.concatenate([f.boxes, f.boxes[:1]]),
            np.append(f.labels, f.labels[0]),
            np.append(f.scores, 0.01),
        )
        for f in results
    ]
    assert evaluate(truth, more, NAMES).mean() <= evaluate(truth, results, NAMES).mean()


def test_classes_without_labels():
    truth, found = [frame(boxes_at((0, 0, 0)))], [frame(boxes_at((0, 0, 0)), [1])]
    assert evaluate(truth, found, NAMES).mean() == pytest.approx(1)
    assert evaluate(truth, found, absent="zero").mean("ATE") == pytest.approx(25 / 26 * 2)
    strict = evaluate(truth, [frame(boxes_at((0, 0, 0)), [1])], NAMES, absent="zero")
    assert strict.mean() == pytest.approx(1 / 3) and strict.mean("AOE") == pytest.approx(2 * math.pi / 3)
    assert len(CLASSES) == len(set(CLASSES)) == 26


def test_a_class_that_is_not_found_has_the_worst_errors():
    score = evaluate([frame(boxes_at((0, 0, 0)))], [frame(boxes_at(), [])], NAMES[:1]).classes[0]
    assert (score.ap, score.ATE, score.ASE, score.AOE, score.cds) == pytest.approx((0, 2, 1, math.pi, 0))


def test_table_and_json():
    result = evaluate([frame(boxes_at((0, 0, 0)))], [frame(boxes_at((0, 0, 0)), [1])], NAMES)
    tree = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert tree["cds"] == pytest.approx(1) and tree["classes"][1]["cds"] is None
    console = Console(width=160, file=io.StringIO())
    console.print(result.table())
    lines = console.file.getvalue().splitlines()
    assert any("PEDESTRIAN" in line and line.count(" - ") == 5 for line in lines)
    assert any("mean" in line and "100.00" in line for line in lines)
    with pytest.raises(ValueError, match="0 result frames for 1"):
        evaluate([frame(boxes_at((0, 0, 0)))], [], NAMES)
