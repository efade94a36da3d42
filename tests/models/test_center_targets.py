"""The targets of the centre head: laws and cases worked out by hand."""

import math

import pytest
import torch

from sparse3d.models.center_code import BevGrid, decode, encode
from sparse3d.models.center_targets import center_targets, draw_gaussians, gaussian_radius

# 40 x 20 cells of 0.5 m x 0.4 m.
GRID = BevGrid((-10.0, -4.0, -3.0, 10.0, 4.0, 1.0), (0.5, 0.4), (40, 20))


def random_boxes(count: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    uniform = torch.rand(count, 7, generator=generator)
    low = torch.tensor([-10.0, -4.0, -3.0, 0.3, 0.3, 0.3, -math.pi])
    high = torch.tensor([10.0, 4.0, 1.0, 8.0, 3.0, 3.0, math.pi])
    return low + uniform * (high - low) * 0.9999


def targets_of(boxes, labels=None, frame=None, batch_size=1, classes=(0,), grid=GRID, **kwargs):
    labels = torch.zeros(len(boxes), dtype=torch.long) if labels is None else torch.tensor(labels)
    frame = torch.zeros(len(boxes), dtype=torch.long) if frame is None else torch.tensor(frame)
    return center_targets(boxes, labels, frame, batch_size, classes, grid, **kwargs)


def test_gaussian_radius_by_hand():
    # l = 10, w = 5, o = 0.1: perimeter 15, area 50.
    # r1: c = 50 * 0.9 / 1.1 = 40.9091; (15 + sqrt(225 - 163.6364)) / 2 = (15 + 7.83349) / 2 = 11.41675
    # r2: b = 30, c = 45;  (30 + sqrt(900 - 720)) / 2 = (30 + 13.41641) / 2 = 21.70820
    # r3: a = 0.4, b = -3, c = -45; (-3 + sqrt(9 + 72)) / 2 = 3
    radius = gaussian_radius(torch.tensor([10.0]), torch.tensor([5.0]), 0.1)
    assert radius.item() == pytest.approx(3.0, abs=1e-5)


def test_gaussian_radius_takes_the_first_root_where_it_is_smallest():
    # l = w = 10, o = 0.9:
    # r1 = (20 + sqrt(400 - 4 * 5.26316)) / 2 = 19.7333; r2 = (40 + sqrt(1600 - 160)) / 2 = 38.97;
    # r3: a = 3.6, b = -36, c = -10; (-36 + sqrt(1296 + 144)) / 2 = (-36 + 37.94733) / 2 = 0.97367
    radius = gaussian_radius(torch.tensor([10.0]), torch.tensor([10.0]), 0.9)
    assert radius.item() == pytest.approx(0.97367, abs=1e-4)


def test_known_box_at_known_cell():
    # x: (1.1 + 10) / 0.5 = 22.2; y: (-0.9 + 4) / 0.4 = 7.75.
    box = torch.tensor([[1.1, -0.9, -0.5, 2.0, math.e, 1.0, math.pi / 2]])
    got = targets_of(box)
    assert got.cell.tolist() == [[22, 7]]
    assert got.frame.tolist() == [0]
    want = torch.tensor([[0.2, 0.75, -0.5, math.log(2.0), 1.0, 0.0, 0.0, 1.0]])
    torch.testing.assert_close(got.code, want, rtol=0, atol=1e-5)
    # 4 x 6.8 cells: r3 = (-0.2 * 10.8 + sqrt(0.04 * 116.6 + 1.44 * 27.2)) / 2 = 2.2 -> radius 2, sigma 5 / 6.
    assert got.heatmap[0, 0, 22, 7] == 1
    assert got.heatmap[0, 0, 23, 7].item() == pytest.approx(math.exp(-0.5 / (5 / 6) ** 2))
    assert got.heatmap[0, 0, 24, 9].item() == pytest.approx(math.exp(-4 / (5 / 6) ** 2))
    assert (got.heatmap > 0).sum() == 25


def test_small_radius_is_raised_to_the_minimum():
    box = torch.tensor([[0.1, 0.1, 0.0, 0.5, 0.5, 1.0, 0.0]])
    assert (targets_of(box, min_radius=2).heatmap > 0).sum() == 25
    assert (targets_of(box, min_radius=1).heatmap > 0).sum() == 9


def test_encode_then_decode_is_the_identity():
    boxes = random_boxes(500)
    cells = GRID.cells(boxes)
    torch.testing.assert_close(decode(encode(boxes, cells, GRID), cells, GRID), boxes, rtol=0, atol=1e-5)


def test_offsets_are_fractions_of_a_cell():
    code = targets_of(random_boxes(500)).code
    assert (code[:, :2] >= 0).all() and (code[:, :2] < 1 + 1e-5).all()


def test_decoded_yaw_lies_in_the_half_open_interval():
    code = torch.zeros(3, 8)
    code[:, 6:] = torch.tensor([[-1.0, 0.0], [-1.0, -0.0], [0.0, 0.0]])
    yaw = decode(code, torch.zeros(3, 2, dtype=torch.long), GRID)[:, 6]
    assert (yaw >= -math.pi).all() and (yaw < math.pi).all()


def test_boxes_out_of_range_of_other_classes_or_malformed_are_ignored():
    good = torch.tensor([0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0])
    bad = good.repeat(7, 1)
    bad[0, 0] = 10.0  # the upper border is outside
    bad[1, 1] = -4.001
    bad[2, 2] = 1.5
    bad[3, 3] = 0.0
    bad[4, 4] = -1.0
    bad[5, 6] = float("nan")
    labels = [0, 0, 0, 0, 0, 0, 1, 0]
    got = targets_of(torch.cat([bad, good[None]]), labels=labels)
    assert len(got.code) == 1
    assert (got.heatmap == 1).sum() == 1
    assert got.code.isfinite().all()


def test_a_centre_on_the_last_float_below_the_border_stays_in_the_last_cell():
    grid = BevGrid((0.0, 0.0, -1.0, 70.4, 70.4, 1.0), (0.1, 0.1), (704, 704))
    edge = torch.nextafter(torch.tensor(70.4), torch.tensor(0.0)).item()
    got = targets_of(torch.tensor([[edge, edge, 0.0, 1.0, 1.0, 1.0, 0.0]]), grid=grid)
    assert got.cell.tolist() == [[703, 703]]


def test_frames_and_classes_get_their_own_planes():
    boxes = torch.tensor([[0.1, 0.1, 0.0, 1.0, 1.0, 1.0, 0.0]]).repeat(3, 1)
    got = targets_of(boxes, labels=[5, 2, 5], frame=[0, 2, 2], batch_size=3, classes=(2, 5))
    peaks = (got.heatmap == 1).sum(dim=(2, 3))
    assert peaks.tolist() == [[0, 1], [0, 0], [1, 1]]
    assert got.frame.tolist() == [0, 2, 2]


def test_no_boxes_give_an_empty_heatmap():
    got = targets_of(torch.zeros(0, 7), batch_size=2)
    assert got.heatmap.shape == (2, 1, 40, 20)
    assert not got.heatmap.any()
    assert got.code.shape == (0, 8)


def test_overlapping_gaussians_keep_the_larger_value_in_any_order():
    boxes = random_boxes(60, seed=3)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(1))
    one, other = targets_of(boxes), targets_of(boxes[order])
    assert torch.equal(one.heatmap, other.heatmap)
    alone = torch.stack([targets_of(box[None]).heatmap for box in boxes])
    assert torch.equal(one.heatmap, alone.amax(dim=0))


def test_two_objects_in_one_cell_both_stay():
    boxes = torch.tensor([[0.1, 0.1, 0.0, 1.0, 1.0, 1.0, 0.0], [0.2, 0.2, 0.0, 1.0, 1.0, 1.0, 1.0]])
    got = targets_of(boxes)
    assert got.cell[0].tolist() == got.cell[1].tolist()
    assert len(got.code) == 2
    assert (got.heatmap == 1).sum() == 1


def test_gaussians_are_cut_at_the_border_and_do_not_wrap():
    heatmap = torch.zeros(1, 1, 6, 8)
    zero = torch.zeros(1, dtype=torch.long)
    draw_gaussians(heatmap, zero, zero, torch.tensor([[0, 7]]), torch.tensor([3]))
    assert (heatmap > 0).sum() == 16
    assert (heatmap[0, 0, :4, 4:] > 0).all()
