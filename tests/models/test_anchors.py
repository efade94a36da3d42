"""Anchors: where they stand, the code of a box, who answers for whom. Numbers in comments are by hand."""

import math

import pytest
import torch

from sparse3d.errors import ConfigError
from sparse3d.models.anchors import (
    KITTI_ANCHORS,
    AnchorConfig,
    Anchors,
    assign,
    check_classes,
    decode,
    direction_bin,
    encode,
    footprint_iou,
    footprints,
    make_anchors,
    turn_into_bin,
)
from sparse3d.models.center_code import BevGrid

GRID = BevGrid((0.0, -4.0, -3.0, 8.0, 4.0, 1.0), (2.0, 4.0), (4, 2))
UNIT = AnchorConfig("A", (2.0, 2.0, 2.0), -1.0, 0.5, 0.3)


def random_boxes(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(count, 7, generator=generator)
    low = torch.tensor([0.0, -20.0, -2.0, 0.5, 0.5, 0.5, -math.pi])
    high = torch.tensor([40.0, 20.0, 1.0, 5.0, 3.0, 3.0, math.pi])
    return low + uniform * (high - low)


def test_anchors_stand_in_the_middle_of_their_cells_or_are_stretched_over_the_map():
    made = make_anchors(GRID, (UNIT,), (0.0, 1.5))
    assert made.boxes.shape == (16, 7)
    # Order x, y, class, rotation: rows 0, 1 are cell (0, 0), rows 2, 3 cell (0, 1), rows 4, 5 cell (1, 0).
    assert made.boxes[0].tolist() == [1, -2, 0, 2, 2, 2, 0]
    assert made.boxes[1].tolist() == [1, -2, 0, 2, 2, 2, 1.5]
    assert made.boxes[2, :2].tolist() == [1, 2]
    assert made.boxes[4, :2].tolist() == [3, -2]
    corners = make_anchors(GRID, (UNIT,), (0.0,), "corners").boxes
    assert corners[0, :2].tolist() == [0, -4] and corners[-1, :2].tolist() == [8, 4]


def test_labels_follow_the_classes():
    made = make_anchors(GRID, KITTI_ANCHORS, (0.0, math.pi / 2))
    assert made.labels[:7].tolist() == [0, 0, 1, 1, 2, 2, 0]
    # A car's anchor stands with its lower face at -1.78: its centre is half of 1.56 higher.
    assert made.boxes[0, 2].item() == pytest.approx(-1.0)


def test_code_worked_by_hand():
    anchor = torch.tensor([[1.0, 2.0, 3.0, 4.0, 3.0, 2.0, 0.5]])  # diagonal 5
    box = torch.tensor([[2.0, 0.0, 4.0, 8.0, 1.5, 2.0, 0.75]])
    expected = [0.2, -0.4, 0.5, math.log(2), math.log(0.5), 0.0, 0.25]
    assert encode(box, anchor)[0].tolist() == pytest.approx(expected, abs=1e-6)


def test_decode_undoes_encode():
    boxes, anchors = random_boxes(200), random_boxes(200, seed=1)
    torch.testing.assert_close(decode(encode(boxes, anchors), anchors), boxes, rtol=1e-5, atol=1e-5)


def test_a_wild_code_makes_no_infinite_box():
    code = torch.full((1, 7), 1e4)
    assert decode(code, random_boxes(1)).isfinite().all()


@pytest.mark.parametrize("bins", [1, 2, 4])
def test_a_yaw_is_told_by_its_remainder_and_its_bin(bins):
    """Whatever multiple of a sector is lost, the bin brings it back."""
    yaw = torch.linspace(-math.pi + 1e-3, math.pi - 1e-3, 181)
    offset = math.pi / 4
    bin = direction_bin(yaw, offset, bins)
    assert bin.unique().tolist() == list(range(bins))
    for lost in range(-2, 3):
        back = turn_into_bin(yaw + lost * 2 * math.pi / bins, bin, offset, bins)
        # Compared on the circle: -pi and pi are one direction.
        assert ((back - yaw).sin().abs() + (1 - (back - yaw).cos())).max() < 1e-5


def test_footprints_turn_to_the_nearest_axis():
    boxes = torch.tensor([[0.0, 0, 0, 4, 2, 1, yaw] for yaw in (0.1, math.pi / 2 - 0.1, math.pi, -1.4)])
    along_x, along_y = [-2.0, -1.0, 2.0, 1.0], [-1.0, -2.0, 1.0, 2.0]
    assert footprints(boxes).tolist() == [along_x, along_y, along_x, along_y]


def test_footprint_iou_worked_by_hand():
    a = torch.tensor([[0.0, 0, 2, 2]])
    b = torch.tensor([[1.0, 1, 3, 3], [0, 0, 2, 2], [2, 2, 3, 3], [0, 0, 1, 1]])
    # Shared 1 of 4 + 4 - 1; the same; touching; 1 of 4.
    assert footprint_iou(a, b)[0].tolist() == pytest.approx([1 / 7, 1, 0, 0.25])


def row_of_anchors(*places: float, labels: list[int] | None = None) -> Anchors:
    """2 x 2 anchors along x."""
    boxes = torch.tensor([[x, 0.0, 0.0, 2, 2, 2, 0] for x in places])
    return Anchors(boxes, torch.tensor(labels or [0] * len(places)))


def at(x: float) -> list[float]:
    return [x, 0, 0, 2, 2, 2, 0]


def test_thresholds_decide():
    # A square of side 2 shifted by s along x has an IoU of (2 - s) / (2 + s): 0.82, 0.43 (ignored), 0.2.
    found = assign(row_of_anchors(0.2, 0.8, 4 / 3), torch.tensor([at(0.0)]), torch.tensor([0]), (UNIT,))
    assert found.positive.tolist() == [True, False, False]
    assert found.background.tolist() == [False, False, True]


def test_every_box_gets_its_best_anchors_however_bad():
    # IoU 0.2 with two of them alike, less with the third: both answer.
    found = assign(row_of_anchors(-4 / 3, 4 / 3, 1.9), torch.tensor([at(0.0)]), torch.tensor([0]), (UNIT,))
    assert found.positive.tolist() == [True, True, False]
    assert found.background.tolist() == [False, False, True]
    far = assign(row_of_anchors(10.0), torch.tensor([at(0.0)]), torch.tensor([0]), (UNIT,))
    assert far.positive.tolist() == [False] and far.background.tolist() == [True]


def test_an_anchor_answers_for_the_box_that_it_is_nearest_to():
    boxes = torch.tensor([at(0.0), at(3.0)])
    found = assign(row_of_anchors(0.1, 2.9), boxes, torch.tensor([0, 0]), (UNIT,))
    assert found.positive.all() and found.box.tolist() == [0, 1]


def test_anchors_of_other_classes_do_not_answer():
    other = AnchorConfig("B", (2.0, 2.0, 2.0), -1.0, 0.5, 0.3)
    found = assign(
        row_of_anchors(0.0, 0.0, labels=[0, 1]), torch.tensor([at(0.0)]), torch.tensor([1]), (UNIT, other)
    )
    assert found.positive.tolist() == [False, True]
    assert found.background.tolist() == [True, False]


def test_a_frame_without_boxes_is_background():
    found = assign(row_of_anchors(0.0, 1.0), torch.zeros(0, 7), torch.zeros(0, dtype=torch.int64), (UNIT,))
    assert found.background.all() and not found.positive.any()


def test_anchors_must_be_of_the_models_classes():
    with pytest.raises(ConfigError, match="expected one entry for each of \\['Car', 'Van'\\]"):
        check_classes(KITTI_ANCHORS[:1], ("Car", "Van"))
    with pytest.raises(ConfigError, match="0 < unmatched <= matched"):
        AnchorConfig("A", (1.0, 1.0, 1.0), 0.0, 0.3, 0.5)
