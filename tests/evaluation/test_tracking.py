"""AMOTA, AMOTP and what goes into them: sequences worked out by hand, and laws."""

import io
import json
import math

import numpy as np
import pytest
from rich.console import Console

from sparse3d.evaluation.frame_boxes import FrameBoxes
from sparse3d.evaluation.tracking import evaluate


def frame(rows, scored=False):
    """Rows (track, x, y[, score[, label]]) of cars."""
    rows = [(*row, *(0.9, 0)[len(row) - 3 :]) for row in rows]
    boxes = np.array([[x, y, 0, 4, 2, 1.5, 0] for _, x, y, *_ in rows], dtype=np.float64).reshape(-1, 7)
    tracks, labels = (np.array([row[i] for row in rows], dtype=np.int64) for i in (0, 4))
    scores = np.array([row[3] for row in rows], dtype=np.float64)
    return FrameBoxes(boxes, labels, scores if scored else None, tracks=tracks)


def judge(truth, found, names=("car",), times=None):
    """Sequences of frames of rows."""
    return evaluate(
        [[frame(rows) for rows in sequence] for sequence in truth],
        [[frame(rows, True) for rows in sequence] for sequence in found],
        list(names),
        times,
    )


def walk(frames=10, objects=4):
    """Objects 10 m apart that move by a metre a frame."""
    return [[(k, 10.0 * k + t, 3.0 * k) for k in range(objects)] for t in range(frames)]


def shifted(sequence, by):
    return [[(k, x + by, y) for k, x, y in rows] for rows in sequence]


def test_perfect_tracks_are_perfect_and_half_a_metre_is_the_mean_distance():
    score = judge([walk()], [shifted(walk(), 0.5)]).classes[0]
    assert (score.amota, score.amotp) == pytest.approx((1, 0.5))
    assert (score.mota, score.motp, score.recall) == pytest.approx((1, 0.5, 1))
    assert (score.count, score.true_positives, score.switches, score.false_positives) == (40, 40, 0, 0)
    assert (score.mostly_tracked, score.mostly_lost, score.fragments) == (4, 0, 0)
    assert (score.first_seconds, score.gap_seconds) == (0, 0)


def test_one_object_of_two_by_hand():
    # Recall ends at 1/2: of the 40 recalls 0.1 + 0.9 k / 39 those up to 0.5 are k = 0 .. 17, each with
    # MOTAR 1 and distance 0; the other 22 give 0 and 2 m.
    score = judge([walk(10, 2)], [walk(10, 1)]).classes[0]
    assert (score.amota, score.amotp) == pytest.approx((18 / 40, 22 / 40 * 2))
    assert (score.mota, score.recall, score.misses) == pytest.approx((0.5, 0.5, 10))
    assert (score.mostly_tracked, score.mostly_lost) == (1, 1)


def test_a_switch_by_hand():
    # One object, ten frames; from the sixth on another track stands on it. 9 hits and one switch of 10.
    found = [[(t >= 5, x, y) for _, x, y in rows] for t, rows in enumerate(walk(10, 1))]
    score = judge([walk(10, 1)], [found]).classes[0]
    assert (score.switches, score.true_positives, score.misses) == (1, 9, 0)
    assert score.mota == pytest.approx(0.9) and score.recall == 1
    # MOTAR with r = 0.9: 1 - (1 - 0.1 x 10) / 9 = 1 wherever the threshold is reached, which is up to 0.9 by
    # the hits: k = 0 .. 34 of 40.
    assert score.motar == pytest.approx(1) and score.amota == pytest.approx(35 / 40)


def test_an_object_keeps_its_track_although_another_one_is_nearer():
    near = [[(0, 0.0, 0.0)]] * 3
    found = [[(7, 1.5, 0)], [(7, 1.5, 0), (8, 0.1, 0)], [(7, 1.9, 0), (8, 0.1, 0)]]
    score = judge([near], [found]).classes[0]
    assert (score.switches, score.true_positives, score.false_positives) == (0, 3, 2)
    # Beyond 2 m it is let go, and the change is a switch.
    found[2] = [(7, 2.1, 0), (8, 0.1, 0)]
    assert judge([near], [found]).classes[0].switches == 1


def test_more_pairs_before_nearer_pairs():
    # Track 5 is nearest to object 0, but only it can reach object 1.
    truth = [[(0, 0.0, 0.0), (1, 1.5, 0.0)]]
    found = [[(5, 0.1, 0.0), (6, -1.5, 0.0)]]
    score = judge([truth], [found]).classes[0]
    assert score.true_positives == 2 and score.motp == pytest.approx((1.5 + 1.4) / 2)


def test_holes_are_filled_in_labels_and_in_tracks():
    whole = walk(9, 2)
    holed = [[row for row in rows if not (row[0] == 0 and t == 4)] for t, rows in enumerate(whole)]
    for truth, found in ((whole, holed), (holed, whole), (holed, holed)):
        score = judge([truth], [found]).classes[0]
        assert (score.count, score.true_positives, score.amota) == pytest.approx((18, 18, 1))
    # Not beyond the ends of a track.
    late = [[row for row in rows if not (row[0] == 0 and t < 3)] for t, rows in enumerate(whole)]
    score = judge([whole], [late]).classes[0]
    assert (score.misses, score.count) == (3, 18)
    assert score.first_seconds == pytest.approx(0.5 * 3 / 2) and score.gap_seconds == pytest.approx(
        0.5 * 3 / 2
    )


def test_the_weights_of_a_filled_box_follow_the_times_as_the_benchmark_has_them():
    # Between x = 0 at 0 s and x = 10 at 10 s the frame at 2 s is missing: its place is 8, not 2.
    truth, found = [[(0, 0, 0)], [(0, 8, 0)], [(0, 10, 0)]], [[(0, 0, 0)], [], [(0, 10, 0)]]
    score = judge([truth], [found], times=[[0, 2, 10]]).classes[0]
    assert score.true_positives == 3 and score.motp == pytest.approx(0)


def test_fragments_and_gaps_by_hand():
    # Seen in frames 0, 1, 4, 5, 9 of 10 by tracks of their own (so that nothing is filled): fragments 2, the
    # longest gap 3 frames; switches 2; 5 of 10 seen.
    seen = {0: 1, 1: 1, 4: 2, 5: 2, 9: 3}
    found = [[(seen[t], x, y) for _, x, y in rows if t in seen] for t, rows in enumerate(walk(10, 1))]
    score = judge([walk(10, 1)], [found]).classes[0]
    assert (score.fragments, score.switches, score.misses) == (2, 2, 5)
    assert score.gap_seconds == pytest.approx(1.5)
    assert (score.mostly_tracked, score.mostly_lost) == (0, 0)


def test_a_false_track_by_hand():
    # Besides a perfect track one of higher score on nothing, in 5 of 10 frames: MOTA 1 - 5/10 everywhere.
    found = [
        [(0, x, y, 0.5), *([(9, -50.0, 0.0, 0.8)] if t < 5 else [])]
        for t, ((_, x, y),) in enumerate(walk(10, 1))
    ]
    score = judge([walk(10, 1)], [found]).classes[0]
    assert (score.false_positives, score.mota) == pytest.approx((5, 0.5))
    # One score for all boxes of a track, so every recall is reached by all ten: MOTAR 1 - 5/10.
    assert score.amota == pytest.approx(0.5) and score.false_alarms == pytest.approx(50)
    # Of lower score it is not shown at the thresholds.
    found = [[(k, x, y, 0.5 if k == 0 else 0.2) for k, x, y, _ in rows] for rows in found]
    assert judge([walk(10, 1)], [found]).classes[0].amota == pytest.approx(1)


def test_scores_of_a_track_are_averaged():
    # Two objects; the false track has the higher score in one frame but the lower mean.
    found = [[*rows, (9, -50.0, 0.0, 0.95 if t == 0 else 0.1)] for t, rows in enumerate(walk(10, 2))]
    assert judge([walk(10, 2)], [found]).classes[0].amota == pytest.approx(1)


def test_sequences_do_not_touch_each_other():
    # The same ids mean other objects in another sequence: no switch, and the holes between are none.
    other = [[(1 - k, x, y) for k, x, y in rows] for rows in walk(10, 2)]
    result = judge([walk(10, 2), walk(10, 2)], [walk(10, 2), other])
    assert result.total("switches") == 0 and result.amota == pytest.approx(1)
    one = [walk(10, 2), [[(0, 0.0, 0.0)]]]
    assert judge(one, one).classes[0].count == 21


def test_order_of_boxes_and_sequences_names_of_tracks_and_place_do_not_matter():
    rng = np.random.default_rng(0)
    truth, found = [], []
    for _ in range(4):
        paths = rng.uniform(-40, 40, (6, 2))
        steps = rng.normal(0, 1, (6, 2))
        frames = [
            [(k, *(paths[k] + t * steps[k])) for k in range(6) if rng.random() > 0.1] for t in range(20)
        ]
        truth.append(frames)
        found.append(
            [
                [
                    (
                        k + 10 * (t > 9 + k),
                        *(np.array(place) + rng.normal(0, 0.7, 2)),
                        0.3 + 0.1 * k + 0.01 * t,
                    )
                    for k, *place in rows
                    if rng.random() > 0.2
                ]
                for t, rows in enumerate(frames)
            ]
        )
    expected = judge(truth, found)
    assert 0.2 < expected.amota < 0.9 and expected.total("switches") > 0
    renamed = [[[(-k * 31 + 5, *rest) for k, *rest in rows[::-1]] for rows in s] for s in found[::-1]]
    moved = [[[(k, 7 - y, x + 99, *rest) for k, x, y, *rest in rows] for rows in s] for s in found]
    turned = [[[(k, 7 - y, x + 99) for k, x, y in rows] for rows in s] for s in truth]
    for other in (judge(truth[::-1], renamed), judge(turned, moved)):
        for name in ("amota", "amotp", "mota", "switches", "fragments", "false_positives"):
            assert other.total(name) == pytest.approx(expected.total(name)), name


def test_classes_apart():
    truth = [[(0, 0.0, 0.0, 1, 0), (1, 0.0, 0.5, 1, 1)]] * 5
    result = judge([truth], [[[(0, 0.0, 0.0, 0.9, 0)]] * 5], ("car", "pedestrian", "truck"))
    car, walker, truck = result.classes
    assert (car.amota, walker.amota) == (1, 0) and math.isnan(truck.amota)
    assert (walker.amotp, walker.misses, walker.mostly_lost) == (2, 5, 1)
    assert math.isnan(walker.false_positives)
    assert result.amota == pytest.approx(0.5) and result.total("misses") == 5
    tree = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert tree["classes"][2]["amota"] is None and tree["amota"] == pytest.approx(0.5)
    console = Console(width=200, file=io.StringIO())
    console.print(result.table())
    assert "IDS" in console.file.getvalue() and "100.0" in console.file.getvalue()


def test_nothing_and_errors():
    assert math.isnan(judge([], []).amota)
    assert judge([[[], [(0, 1, 1)]]], [[[], []]]).classes[0].amota == 0
    with pytest.raises(ValueError, match="0 result sequences for 1"):
        judge([walk()], [])
    with pytest.raises(ValueError, match="9 result frames for 10"):
        judge([walk()], [walk(9)])
    with pytest.raises(ValueError, match=r"times\[0\] are not 10 rising times"):
        judge([walk()], [walk()], times=[[0] * 10])
    bare = FrameBoxes(np.zeros((0, 7)), np.zeros(0, dtype=np.int64), np.zeros(0))
    with pytest.raises(ValueError, match="sequence 0 has a frame without tracks"):
        evaluate([[bare]], [[bare]], ["car"])
