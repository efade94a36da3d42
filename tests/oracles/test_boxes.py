"""The oracles of the box ops on cases worked out by hand."""

import math

import pytest
import torch

from tests.oracles import boxes as oracle

UNIT = [0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0]


def test_half_shifted_square_shares_a_third():
    # Shared 1/2, union 1 + 1 - 1/2 = 3/2.
    assert oracle.iou_bev(UNIT, [0.5, 0, 0, 1, 1, 1, 0]) == pytest.approx(1 / 3)


def test_shift_along_all_three_axes():
    # Shared (1/2)^3 = 1/8, union 2 - 1/8 = 15/8.
    assert oracle.iou_3d(UNIT, [0.5, 0.5, 0.5, 1, 1, 1, 0]) == pytest.approx(1 / 15)


def test_square_turned_by_45_degrees_shares_an_octagon():
    # A unit square and its copy turned by pi/4 share a regular octagon of inradius r = 1/2: area 8 r^2
    # tan(pi/8).
    octagon = 2 * math.tan(math.pi / 8)
    assert oracle.iou_bev(UNIT, [0, 0, 0, 1, 1, 1, math.pi / 4]) == pytest.approx(octagon / (2 - octagon))


def test_contained_box():
    # 1 x 2 inside of 4 x 4.
    assert oracle.iou_bev([5, 5, 0, 4, 4, 1, 0], [5, 5.5, 0, 1, 2, 1, 0.3]) == pytest.approx(2 / 16)


def test_crossed_boxes_share_the_middle():
    # 4 x 1 and 4 x 1 turned by a quarter: shared 1, union 7.
    assert oracle.iou_bev([0, 0, 0, 4, 1, 1, 0], [0, 0, 0, 4, 1, 1, math.pi / 2]) == pytest.approx(1 / 7)


@pytest.mark.parametrize("other", [[1, 0, 0, 1, 1, 1, 0], [9, 0, 0, 1, 1, 1, 0], [0, 0, 0, 0, 1, 1, 0]])
def test_touching_distant_and_empty_boxes_share_nothing(other):
    assert oracle.iou_bev(UNIT, other) == oracle.iou_3d(UNIT, other) == 0


def test_boxes_on_top_of_each_other():
    assert oracle.iou_3d(UNIT, [0, 0, 1, 1, 1, 1, 0]) == 0
    assert oracle.iou_3d(UNIT, [0, 0, 0.75, 1, 1, 1, 0]) == pytest.approx(0.25 / 1.75)


def test_polygon_and_sampling_agree():
    a, b = [1.0, 2.0, 0.0, 4.0, 2.0, 1.5, 0.4], [1.6, 2.5, 0.0, 3.0, 1.8, 1.5, -0.9]
    assert oracle.sampled_iou_bev(a, b, 0.01) == pytest.approx(oracle.iou_bev(a, b), abs=0.01)


def test_nms_by_hand():
    # Order of scores: 1, 0, 2, 3. Box 0 overlaps box 1 by 0.6/1.4 > 0.4 and goes; box 2 overlaps box 1 by
    # 0.2/1.8 only, and box 0, by 0.6/1.4, which no longer counts; box 3 is far away.
    boxes = torch.tensor([[0.4, 0, 0, 1, 1, 1, 0], UNIT, [0.8, 0, 0, 1, 1, 1, 0], [9.0, 0, 0, 1, 1, 1, 0]])
    assert oracle.nms(boxes, torch.tensor([0.8, 0.9, 0.5, 0.1]), 0.4).tolist() == [1, 2, 3]


def test_points_by_hand():
    # A 4 x 2 box that looks along +y: |x| <= 1, |y| <= 2.
    boxes = torch.tensor([[0, 0, 0, 4, 2, 2, math.pi / 2], [0, 0, 0, 8, 8, 8, 0]], dtype=torch.float64)
    points = torch.tensor([[0.9, 1.9, 0.9], [1.1, 0, 0], [0, 0, 1.1], [0, 5, 0.0]], dtype=torch.float64)
    assert oracle.points_in_boxes(points, boxes).tolist() == [0, 1, 1, -1]
    assert oracle.points_per_box(points, boxes).tolist() == [1, 3]
