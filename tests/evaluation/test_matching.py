"""Found boxes and false positives of one frame, by hand."""

import numpy as np
import pytest

from sparse3d.evaluation.matching import match_boxes


def car(x, y=0.0):
    return [x, y, 0, 4, 2, 1.5, 0]


def test_by_hand():
    # Detection 0 (0.5): 3/5 = 0.6 of box 0. Detection 1 (0.9): 3.6/4.4 = 0.82 of box 0, which it takes.
    # Detection 2 stands on box 1 with another class. Detection 3 is box 2 itself.
    boxes = np.array([car(0), car(20), car(40)])
    detected = np.array([car(1), car(0.4), car(20), car(40)])
    got = match_boxes(boxes, [0, 0, 1], detected, [0.5, 0.9, 0.8, 0.1], [0, 0, 1, 1], [0.5, 0.5])
    assert got.detection.tolist() == [1, -1, 3]
    assert got.found.tolist() == [True, False, True]
    assert got.overlap == pytest.approx([3.6 / 4.4, 0, 1])
    assert got.false_positive.tolist() == [True, False, True, False]


def test_thresholds_are_per_class():
    # The same shift of 1 m, 0.6, is enough for class 1 only.
    boxes, detected = np.array([car(0), car(20)]), np.array([car(1), car(21)])
    got = match_boxes(boxes, [0, 1], detected, [1, 1], [0, 1], [0.7, 0.5])
    assert got.found.tolist() == [False, True] and got.false_positive.tolist() == [True, False]


def test_a_detection_takes_the_box_that_it_overlaps_most():
    boxes, detected = np.array([car(0), car(0.5)]), np.array([car(0.5), car(0.1)])
    got = match_boxes(boxes, [0, 0], detected, [0.9, 0.8], [0, 0], [0.5])
    assert got.detection.tolist() == [1, 0]


def test_detections_on_ignored_boxes_are_not_false():
    got = match_boxes(
        np.zeros((0, 7)), [], np.array([car(0), car(9)]), [1, 1], [0, 0], [0.5], ignored_boxes=[car(0.5)]
    )
    assert got.false_positive.tolist() == [False, True]


def test_nothing_and_nobody():
    nothing = np.zeros((0, 7))
    assert match_boxes(np.array([car(0)]), [0], nothing, [], [], [0.5]).found.tolist() == [False]
    assert match_boxes(nothing, [], np.array([car(0)]), [1], [0], [0.5]).false_positive.tolist() == [True]
    assert len(match_boxes(nothing, [], nothing, [], [], [0.5]).false_positive) == 0


def test_a_label_without_threshold_is_refused():
    with pytest.raises(ValueError, match="labels are 1 to 1, but min_overlap has 1 classes"):
        match_boxes(np.array([car(0)]), [1], np.array([car(0)]), [1], [0], [0.5])
