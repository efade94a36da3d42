"""Decoding undoes the targets, and obeys its thresholds."""

import math

import pytest
import torch

from sparse3d.models.center_code import BevGrid
from sparse3d.models.center_decode import CenterDecodeConfig, decode_detections, per_class, rectify
from sparse3d.models.center_head import CenterHeadOutput, CenterMaps
from sparse3d.models.center_targets import center_targets

GRID = BevGrid((-20.0, -10.0, -3.0, 20.0, 10.0, 1.0), (0.5, 0.5), (80, 40))
CLASSES = (0, 1, 2)
# Perfect maps: nothing but peaks passes, and neighbours do not suppress each other.
PEAKS = CenterDecodeConfig(score_threshold=0.999, nms_thresholds=(1.0,))


def spread_boxes(count: int, seed: int) -> torch.Tensor:
    """Boxes with random sizes and turns, each centre in a cell of its own."""
    generator = torch.Generator().manual_seed(seed)
    cell = torch.randperm(80 * 40, generator=generator)[:count]
    centre = (
        torch.stack([cell // 40, cell % 40], dim=1) + 0.02 + 0.96 * torch.rand(count, 2, generator=generator)
    )
    xy = centre * 0.5 + torch.tensor([-20.0, -10.0])
    z = torch.rand(count, 1, generator=generator) * 3.8 - 2.9
    size = 0.2 + torch.rand(count, 3, generator=generator) * 9
    yaw = (torch.rand(count, 1, generator=generator) - 0.5) * 2 * math.pi * 0.999
    return torch.cat([xy, z, size, yaw], dim=1)


def maps_of(boxes, labels, frame, batch_size, classes=CLASSES, iou=None) -> CenterMaps:
    """Maps that say exactly what the targets ask for."""
    want = center_targets(boxes, labels, frame, batch_size, classes, GRID)
    code = torch.zeros(batch_size, *GRID.shape, 8)
    code[want.frame, want.cell[:, 0], want.cell[:, 1]] = want.code
    code = code.permute(0, 3, 1, 2)
    heatmap = torch.logit(want.heatmap, 1e-5)
    iou_map = None if iou is None else torch.full_like(code[:, :1], iou)
    return CenterMaps(heatmap, code[:, :2], code[:, 2:3], code[:, 3:6], code[:, 6:], iou_map)


def sorted_rows(boxes: torch.Tensor) -> torch.Tensor:
    return boxes[boxes[:, 0].argsort()]


@pytest.mark.parametrize("seed", range(5))
def test_perfect_maps_decode_to_the_ground_truth(seed):
    boxes = spread_boxes(60, seed)
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 3, (60,), generator=generator)
    frame = torch.randint(0, 3, (60,), generator=generator)
    found = decode_detections(CenterHeadOutput((maps_of(boxes, labels, frame, 3),)), (CLASSES,), GRID, PEAKS)
    assert len(found) == 3
    for k, detections in enumerate(found):
        for label in CLASSES:
            want = boxes[(frame == k) & (labels == label)]
            got = detections.boxes[detections.labels == label]
            torch.testing.assert_close(sorted_rows(got), sorted_rows(want), rtol=0, atol=1e-4)


def test_groups_of_classes_are_merged_by_score():
    boxes = spread_boxes(30, 7)
    labels, frame = torch.arange(30) % 3, torch.zeros(30, dtype=torch.long)
    groups = ((2,), (0, 1))
    output = CenterHeadOutput(tuple(maps_of(boxes, labels, frame, 1, g) for g in groups))
    (got,) = decode_detections(output, groups, GRID, PEAKS)
    (one,) = decode_detections(CenterHeadOutput((maps_of(boxes, labels, frame, 1),)), (CLASSES,), GRID, PEAKS)
    assert torch.equal(sorted_rows(got.boxes), sorted_rows(one.boxes))
    assert (got.scores.diff() <= 0).all()
    for label in CLASSES:
        assert (got.labels == label).sum() == 10


def empty_maps(iou: bool = False) -> CenterMaps:
    channels = (3, 2, 1, 3, 2)
    maps = [torch.zeros(1, c, *GRID.shape) for c in channels]
    maps[0] -= 10
    maps[4][:, 0] = 1
    return CenterMaps(*maps, torch.zeros(1, 1, *GRID.shape) if iou else None)


def put(maps: CenterMaps, label: int, i: int, j: int, score: float) -> None:
    maps.heatmap[0, label, i, j] = math.log(score / (1 - score))


def decoded(maps: CenterMaps, **kwargs):
    (found,) = decode_detections(CenterHeadOutput((maps,)), (CLASSES,), GRID, CenterDecodeConfig(**kwargs))
    return found


def test_scores_below_the_threshold_are_dropped():
    maps = empty_maps()
    put(maps, 0, 10, 10, 0.9)
    put(maps, 0, 30, 10, 0.31)
    put(maps, 1, 50, 10, 0.29)
    found = decoded(maps, score_threshold=0.3)
    torch.testing.assert_close(found.scores, torch.tensor([0.9, 0.31]))
    assert found.labels.tolist() == [0, 0]
    # 10 cells of 0.5 m from -20 m and from -10 m.
    torch.testing.assert_close(found.boxes[0, :2], torch.tensor([-15.0, -5.0]))


def test_suppression_works_within_a_class_and_by_its_threshold():
    # Boxes of 1 m, half a metre apart: IoU (0.5 * 1) / 1.5 = 1 / 3.
    maps = empty_maps()
    for label in (0, 1):
        put(maps, label, 10, 10, 0.9)
        put(maps, label, 11, 10, 0.8)
    found = decoded(maps, nms_thresholds=(0.3, 0.4, 0.3))
    assert sorted(found.labels.tolist()) == [0, 1, 1]
    assert found.scores[found.labels == 0].tolist() == pytest.approx([0.9])


def test_boxes_of_a_class_that_agree_on_a_centre_but_not_on_a_heading_become_one():
    # Long boxes crossed at right angles, one cell (0.5 m) apart: IoU 1 / 15, two objects for most thresholds.
    maps = empty_maps()
    maps.dim[:, 0] = math.log(8.0)
    for label, i in ((0, 10), (0, 11), (1, 11), (0, 14)):
        put(maps, label, i, 10, 0.9 - 0.01 * i)
    maps.rot[0, :, 11, 10] = torch.tensor([0.0, 1.0])
    apart = decoded(maps, nms_thresholds=(0.7,))
    assert sorted(apart.labels.tolist()) == [0, 0, 0, 1]
    one = decoded(maps, nms_thresholds=(0.7,), min_distances=(1.0, 1.0, 1.0))
    assert sorted(one.labels.tolist()) == [0, 0, 1]
    # The better of the two stays; the box two metres further on is another object.
    torch.testing.assert_close(one.boxes[one.labels == 0][:, 0], torch.tensor([-15.0, -13.0]))
    assert torch.equal(decoded(maps, nms_thresholds=(0.7,), min_distances=(0.5,)).boxes, apart.boxes)


def test_counts_are_limited():
    maps = empty_maps()
    for i in range(12):
        put(maps, i % 2, 5 * i, 5, 0.2 + 0.05 * i)
    assert len(decoded(maps, top_k=5).scores) == 5
    assert decoded(maps, top_k=5).scores.min() > 0.5
    assert len(decoded(maps, nms_pre=3).scores) == 6
    assert len(decoded(maps, nms_post=2).scores) == 4


def test_equal_scores_go_to_the_lowest_cell():
    maps = empty_maps()
    for i, j in ((40, 3), (7, 30), (7, 9)):
        put(maps, 0, i, j, 0.6)
    found = decoded(maps, top_k=2)
    torch.testing.assert_close(found.boxes[:, :2], torch.tensor([[-16.5, -5.5], [-16.5, 5.0]]))


def test_rectified_score_by_hand():
    # iou output 0.28 -> (0.28 + 1) / 2 = 0.64
    got = rectify(torch.tensor([0.25]), torch.tensor([0.28]), torch.tensor([0.5]))
    assert got.item() == pytest.approx(0.5 * 0.8, rel=1e-6)
    assert rectify(torch.tensor([0.25]), torch.tensor([-3.0]), torch.tensor([0.5])).item() == 0
    assert rectify(torch.tensor([0.25]), torch.tensor([9.0]), torch.tensor([1.0])).item() == 1
    assert rectify(torch.tensor([0.25]), torch.tensor([0.1]), torch.tensor([0.0])).item() == 0.25


def test_predicted_iou_changes_the_order_by_class():
    maps = empty_maps(iou=True)
    put(maps, 0, 10, 10, 0.9)
    put(maps, 1, 40, 10, 0.8)
    maps.iou[0, 0, 10, 10], maps.iou[0, 0, 40, 10] = -0.8, 0.9
    found = decoded(maps, iou_alphas=(0.5, 0.0, 0.0))
    assert found.labels.tolist() == [1, 0]
    assert found.scores.tolist() == pytest.approx([0.8, math.sqrt(0.9 * 0.1)], rel=1e-5)


def test_centres_out_of_bounds_are_dropped():
    maps = empty_maps()
    for i in (10, 30):
        put(maps, 0, i, 10, 0.9)
    maps.z[0, 0, 10, 10] = 1.5
    assert len(decoded(maps).scores) == 1
    assert len(decoded(maps, center_bounds=(-20, -10, -3, 20, 10, 2)).scores) == 2
    assert len(decoded(maps, center_bounds=(-20, -10, -3, -6, 10, 2)).scores) == 1


def test_boxes_that_are_not_finite_are_dropped():
    maps = empty_maps()
    for i in (10, 30, 50):
        put(maps, 0, i, 10, 0.9)
    maps.dim[0, 1, 10, 10] = float("nan")
    maps.rot[0, 0, 30, 10] = float("nan")
    assert len(decoded(maps).scores) == 1


def test_nothing_found_gives_empty_detections():
    found = decoded(empty_maps(iou=True))
    assert found.boxes.shape == (0, 7) and found.scores.shape == (0,) and found.labels.shape == (0,)
    assert found.labels.dtype == torch.int64


def test_one_value_serves_all_classes():
    assert per_class((0.5,), 2) == 0.5
    assert per_class((0.5, 0.6, 0.7), 2) == 0.7
