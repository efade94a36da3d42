"""Laws of the box ops beyond their oracles: symmetry, invariance, borders, errors."""

import math

import pytest
import torch

from sparse3d_ops import boxes
from tests.ops.cases_boxes import random_boxes
from tests.oracles import boxes as oracle

IOUS = [boxes.box_iou_bev, boxes.box_iou_3d]


def moved(rows, angle, offset):
    out = rows.clone()
    c, s = math.cos(angle), math.sin(angle)
    out[:, 0] = c * rows[:, 0] - s * rows[:, 1] + offset[0]
    out[:, 1] = s * rows[:, 0] + c * rows[:, 1] + offset[1]
    out[:, 2] += offset[2]
    out[:, 6] += angle
    return out


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(1)


@pytest.mark.parametrize("iou", IOUS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_symmetric_to_the_last_bit_with_a_diagonal_of_exactly_one(iou, dtype):
    a = random_boxes(80, 10, dtype)
    got = iou(a, a)
    assert torch.equal(got, got.T)
    assert torch.equal(got.diagonal(), torch.ones(80, dtype=dtype))
    assert got.min() == 0 and got.max() == 1 and ((got > 0) & (got < 1)).any()


@pytest.mark.parametrize("iou", IOUS)
def test_invariant_under_a_common_rigid_motion(iou):
    a, b = random_boxes(20), random_boxes(20)
    got = iou(moved(a, 1.2, (30, -70, 2)), moved(b, 1.2, (30, -70, 2)))
    torch.testing.assert_close(got, iou(a, b), rtol=0, atol=1e-12)


@pytest.mark.parametrize("iou", IOUS)
def test_invariant_under_half_turns_of_either_box(iou):
    a, b = random_boxes(20), random_boxes(20)
    turned = moved(b, 0, (0, 0, 0))
    turned[:, 6] += math.pi
    torch.testing.assert_close(iou(a, turned), iou(a, b), rtol=0, atol=1e-12)


@pytest.mark.parametrize("iou", IOUS)
def test_swapping_length_and_width_is_a_quarter_turn(iou):
    a, b = random_boxes(20), random_boxes(20)
    swapped = b[:, [0, 1, 2, 4, 3, 5, 6]]
    swapped[:, 6] += math.pi / 2
    torch.testing.assert_close(iou(a, swapped), iou(a, b), rtol=0, atol=1e-12)


def test_agrees_with_counted_cells():
    # The grid's error: about perimeter * cell / area = 10 * 0.02 / 5.
    a, b = random_boxes(5, 4), random_boxes(5, 4)
    counted = [[oracle.sampled_iou_bev(p, q, 0.02) for q in b.tolist()] for p in a.tolist()]
    torch.testing.assert_close(boxes.box_iou_bev(a, b), torch.tensor(counted).double(), rtol=0, atol=0.04)


@pytest.mark.parametrize("angle", [0.0, 1e-7, 0.3, math.pi / 2, 2.0])
def test_a_contained_box_has_the_ratio_of_areas(angle):
    outer = torch.tensor([[1.0, 2.0, 0.5, 8.0, 6.0, 4.0, 0.4]]).double()
    inner = torch.tensor([[1.5, 2.0, 0.5, 2.0, 1.0, 1.0, angle]]).double()
    assert float(boxes.box_iou_bev(outer, inner)) == pytest.approx(2 / 48, rel=1e-12)
    assert float(boxes.box_iou_3d(outer, inner)) == pytest.approx(2 / 192, rel=1e-12)


@pytest.mark.parametrize("exponent", range(-16, 1))
def test_nearly_equal_boxes_never_leave_the_unit_interval(exponent):
    a = random_boxes(30)
    b = a + torch.randn(30, 7).double() * 10.0**exponent
    b[:, 3:6] = b[:, 3:6].clamp(min=0)
    for got in (boxes.box_iou_bev(a, b).diagonal(), boxes.box_iou_3d_aligned(a, b)):
        assert ((got >= 0) & (got <= 1)).all()
        # A shift of d moves the overlap by about 4 d / size; sizes are 0.5 m at least, noise 4 sigma.
        assert (1 - got).max() <= 1e-14 + 400 * 10.0**exponent


def test_aligned_is_the_diagonal():
    a, b = random_boxes(40), random_boxes(40)
    assert torch.equal(boxes.box_iou_3d_aligned(a, b), boxes.box_iou_3d(a, b).diagonal())


def test_many_pairs_equal_few_pairs():
    # Above and below the size where rows are shared among threads.
    a = random_boxes(60)
    rows = torch.cat([boxes.box_iou_3d(a[i : i + 1], a) for i in range(60)])
    assert torch.equal(boxes.box_iou_3d(a, a), rows)


def test_nms_keeps_a_set_without_overlaps_that_covers_the_rest():
    a, scores = random_boxes(100, 14), torch.rand(100)
    kept = boxes.nms(a, scores, 0.3)
    overlap = boxes.box_iou_bev(a, a)
    assert (overlap[kept][:, kept].triu(1) <= 0.3).all()
    assert (scores[kept].diff() <= 0).all()
    gone = [i for i in range(100) if i not in set(kept.tolist())]
    assert gone
    for i in gone:
        assert any(overlap[i, k] > 0.3 and scores[k] >= scores[i] for k in kept.tolist())


def crowd(kind):
    """Boxes that put the grids of the bodies to the test."""
    a = random_boxes(150, 30)
    if kind == "one giant":  # one cell for all
        a[70, 3:5] = 500.0
    if kind == "far apart":  # cells as large as the extent allows
        a[:75, :2] += 1e9
    if kind == "far away":  # coordinates that float64 holds to 1e-7
        a[:, :2] -= 1e9
    if kind == "points":  # boxes without area
        a[:, 3:5] = 0
    return a


CROWDS = ["plain", "one giant", "far apart", "far away", "points"]


@pytest.mark.parametrize("kind", CROWDS)
def test_nms_is_the_greedy_choice_from_the_matrix_of_overlaps(kind):
    a, scores = crowd(kind), torch.rand(150)
    overlap, kept = boxes.box_iou_bev(a, a), []
    for i in scores.argsort(descending=True, stable=True).tolist():
        if not any(overlap[i, k] > 0.05 for k in kept):
            kept.append(i)
    assert boxes.nms(a, scores, 0.05).tolist() == kept


@pytest.mark.parametrize("kind", CROWDS)
def test_points_on_corners_and_far_outside_find_the_boxes_of_all_pairs(kind):
    a = crowd(kind)
    signs = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3).double()
    local = signs[None] * a[:, None, 3:6] / 2 * 0.999999
    c, s = a[:, 6:].cos(), a[:, 6:].sin()
    turned = torch.stack([c * local[..., 0] - s * local[..., 1], s * local[..., 0] + c * local[..., 1]], 2)
    corners = torch.cat([turned, local[..., 2:]], 2) + a[:, None, :3]
    points = torch.cat([corners.reshape(-1, 3), 1e5 * torch.randn(200, 3).double(), a[:, :3]])
    points[-1, 0] = math.nan
    owner, counts = boxes.points_in_boxes(points, a), boxes.points_per_box(points, a)
    one_by_one = torch.stack([boxes.points_in_boxes(points, a[m : m + 1]) == 0 for m in range(150)], 1)
    first = torch.where(one_by_one.any(1), one_by_one.int().argmax(1), -1)
    assert torch.equal(owner, first) and torch.equal(counts, one_by_one.sum(0))
    if kind == "far away":
        return  # there a corner may round to the outside of its box
    assert (owner[: 150 * 8] >= 0).all() and (owner[150 * 8 :][:200] == -1).all() or kind == "points"


def test_nms_of_what_was_kept_keeps_everything():
    a, scores = random_boxes(70, 12), torch.rand(70)
    kept = boxes.nms(a, scores, 0.2)
    assert boxes.nms(a[kept], scores[kept], 0.2).tolist() == list(range(len(kept)))


def test_nms_of_equal_boxes_and_scores_keeps_the_lowest_index():
    a = random_boxes(1).repeat(5, 1)
    assert boxes.nms(a, torch.ones(5), 0.5).tolist() == [0]


def test_nms_leaves_an_overlap_of_exactly_the_threshold():
    # Half-shifted squares overlap by 1/2 / (3/2); 0.25 / 1 is exact: a quarter of a square inside of it.
    a = torch.tensor([[0, 0, 0, 2, 2, 1, 0], [0.5, 0.5, 0, 1, 1, 1, 0.0]])
    assert boxes.nms(a, torch.tensor([0.9, 0.8]), 0.25).tolist() == [0, 1]
    assert boxes.nms(a, torch.tensor([0.9, 0.8]), 0.2499).tolist() == [0]


def test_points_in_boxes_and_counts_agree_where_boxes_are_apart():
    a = random_boxes(30, 40)
    a = a[boxes.nms(a, torch.rand(30), 0.0)]
    points = torch.rand(9000, 3).double() * torch.tensor([44.0, 44.0, 4.0]) - torch.tensor([2.0, 2.0, 2.0])
    owner = boxes.points_in_boxes(points, a)
    counts = torch.bincount(owner[owner >= 0], minlength=len(a))
    assert torch.equal(boxes.points_per_box(points, a), counts) and counts.sum() > 50


def test_points_and_boxes_move_together():
    a, points = random_boxes(9), torch.rand(500, 3).double() * 6
    both = moved(torch.cat([points, torch.zeros(500, 4)], 1), 0.8, (100, 50, 1))[:, :3]
    assert torch.equal(
        boxes.points_in_boxes(both, moved(a, 0.8, (100, 50, 1))), boxes.points_in_boxes(points, a)
    )


def test_non_contiguous_points_are_read_right():
    scan = torch.rand(50, 5) * 6
    a = random_boxes(4, dtype=torch.float32)
    assert torch.equal(boxes.points_in_boxes(scan[:, :3], a), boxes.points_in_boxes(scan[:, :3].clone(), a))


@pytest.mark.parametrize(("column", "value"), [(0, math.nan), (6, math.inf), (4, -0.5)])
def test_a_bad_box_is_named(column, value):
    good, bad = random_boxes(3), random_boxes(3)
    bad[1, column] = value
    for call in (
        lambda: boxes.box_iou_bev(good, bad),
        lambda: boxes.box_iou_3d(good, bad),
        lambda: boxes.box_iou_3d_aligned(good, bad),
    ):
        with pytest.raises(ValueError, match=r"b\[1\] is .* expected finite"):
            call()
    for call in (
        lambda: boxes.nms(bad, torch.rand(3), 0.5),
        lambda: boxes.points_in_boxes(torch.zeros(1, 3), bad),
        lambda: boxes.points_per_box(torch.zeros(1, 3), bad),
    ):
        with pytest.raises(ValueError, match=r"boxes\[1\] is .* expected finite"):
            call()


def test_bad_scores_thresholds_and_shapes_are_refused():
    a = random_boxes(3)
    with pytest.raises(ValueError, match=r"scores\[2\] is nan"):
        boxes.nms(a, torch.tensor([1.0, 0.5, math.nan]), 0.5)
    with pytest.raises(ValueError, match=r"iou_threshold is 1.5"):
        boxes.nms(a, torch.rand(3), 1.5)
    with pytest.raises(ValueError, match=r"scores has shape \(2,\), expected \(3\)"):
        boxes.nms(a, torch.rand(2), 0.5)
    with pytest.raises(ValueError, match=r"b has shape \(2, 7\), expected \(3, 7\)"):
        boxes.box_iou_3d_aligned(a, a[:2])
    with pytest.raises(ValueError, match=r"a has shape \(3, 6\)"):
        boxes.box_iou_bev(a[:, :6], a)
    with pytest.raises(ValueError, match=r"points has shape \(2, 4\)"):
        boxes.points_in_boxes(torch.zeros(2, 4), a)


def test_mixed_dtypes_give_the_wider_one():
    a = random_boxes(2)
    assert boxes.box_iou_3d(a.float(), a).dtype == torch.float64
    assert boxes.box_iou_3d(a.half(), a.half()).dtype == torch.float16
