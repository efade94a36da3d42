"""VoxelNeXt: its sums on sparse cells by hand, laws that hold for any weights, and that it learns."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from sparse3d import SparseTensor
from sparse3d.config import load
from sparse3d.errors import ConfigError
from sparse3d.frames import DetectionBatch, LidarFrame
from sparse3d.models.center_code import BevGrid, decode
from sparse3d.models.center_decode import CenterDecodeConfig
from sparse3d.models.center_losses import AtObjects, CenterLossConfig, center_losses, head_losses
from sparse3d.models.center_targets import center_targets
from sparse3d.models.sparse_center_head import SparseCenterHeadConfig, cell_targets
from sparse3d.models.voxelnext import VoxelNeXt, VoxelNeXtConfig
from sparse3d.models.voxelnext_backbone import VoxelNeXtBackboneConfig
from sparse3d.recipes.detection_config import DetectionConfig
from tests.models.two_objects import BOXES, LABELS, assert_finds_both, frame_of, learn, no_points, total

SMALL = VoxelNeXtConfig(
    classes=("Car", "Pedestrian"),
    bounds=(0.0, -8.0, -2.0, 16.0, 8.0, 2.0),
    voxel_size=(0.25, 0.25, 0.25),
    backbone=VoxelNeXtBackboneConfig(
        channels=(8, 16, 24, 24),
        layers=(1, 1, 1, 1),
        kernels=(3, 3, 3, 3),
        strides=(1, 2, 2, 2),
        z_strides=(1, 2, 2, 2),
        merged=2,
        out_channels=24,
    ),
    decode=CenterDecodeConfig(nms_thresholds=(0.2,)),
)
VARIANTS = {
    "plain": SMALL,
    "iou": replace(
        SMALL,
        head=SparseCenterHeadConfig(iou_branch=True, kernel_size=3),
        loss=CenterLossConfig(),
        decode=CenterDecodeConfig(iou_alphas=(0.5,), nms_thresholds=(0.2,)),
    ),
    "velocity": replace(SMALL, head=SparseCenterHeadConfig(velocity_branch=True)),
    "groups": replace(SMALL, head=SparseCenterHeadConfig(groups=(("Pedestrian",), ("Car",)))),
    "peaks": replace(SMALL, peaks_only=True),
    "no_biases": replace(
        SMALL, backbone=replace(SMALL.backbone, biases=False), head=SparseCenterHeadConfig(biases=False)
    ),
}
GRID = BevGrid((0.0, 0.0, -2.0, 8.0, 8.0, 2.0), (1.0, 1.0), (8, 8))


def model_of(config: VoxelNeXtConfig = SMALL, seed: int = 0) -> VoxelNeXt:
    torch.manual_seed(seed)
    return VoxelNeXt(config)


def cells_at(*cells: tuple[int, int, int]) -> torch.Tensor:
    """(N, 4) from (batch, x, y)."""
    return torch.tensor([[b, x, y, 0] for b, x, y in cells], dtype=torch.int32)


def targets_of(coordinates, boxes, frames=None, labels=None, classes=(0,), **more):
    boxes = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 7)
    zeros = torch.zeros(len(boxes), dtype=torch.long)
    frames = zeros if frames is None else torch.tensor(frames)
    labels = zeros if labels is None else torch.tensor(labels)
    return cell_targets(coordinates, boxes, labels, frames, classes, GRID, **more)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_parameter_gets_a_gradient(variant):
    model = model_of(VARIANTS[variant])
    frames = [frame_of(), frame_of(seed=1)]
    batch = DetectionBatch.collate([replace(f, velocities=np.ones((2, 2), np.float32)) for f in frames])
    losses = model.loss(batch)
    total(losses).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert ("iou" in losses) == (variant == "iou") and ("velocity" in losses) == (variant == "velocity")


def test_parameters_are_as_many_as_in_the_reference_for_nuscenes():
    """OpenPCDet's cbgs_voxel0075_voxelnext: its backbone holds 7,368,720; each of the 36 branches (six groups
    of six) has a 128 x 128 layer with bias and norm, and 70 outputs in all have 128 weights and a bias."""
    config = load(DetectionConfig, "voxelnext_nuscenes").model
    assert isinstance(config, VoxelNeXtConfig)
    model = VoxelNeXt(config)
    assert sum(p.numel() for p in model.backbone.parameters()) == 7_368_720
    branches = 36 * (128 * 128 + 128 + 2 * 128) + 70 * 129
    assert sum(p.numel() for p in model.parameters()) == 7_368_720 + branches == 7_981_398


def test_levels_are_summed_over_heights_and_strides():
    backbone = model_of().backbone
    fine = cells_at((0, 0, 0), (0, 3, 2), (1, 3, 2))
    fine[:, 3] = torch.tensor([1, 4, 0])
    also = torch.tensor([[0, 3, 2, 2]], dtype=torch.int32)  # the same cell, another height
    coarse = cells_at((0, 1, 1), (1, 0, 0))  # cells (2, 2) and (0, 0) of the fine level
    levels = [
        SparseTensor(
            torch.tensor([[1.0], [2.0], [4.0], [8.0]]),
            torch.cat([fine, also]),
            stride=4,
            shape=(16, 16, 5),
            batch_size=2,
        ),
        SparseTensor(torch.tensor([[16.0], [32.0]]), coarse, stride=8, shape=(8, 8, 3), batch_size=2),
    ]
    flat = backbone._flatten(levels)
    dense = torch.zeros(2, 1, 16, 16, 1)
    dense[0, 0, 0, 0], dense[0, 0, 3, 2], dense[1, 0, 3, 2] = 1.0, 10.0, 4.0
    dense[0, 0, 2, 2], dense[1, 0, 0, 0] = 16.0, 32.0
    assert flat.shape == (16, 16, 1)
    torch.testing.assert_close(flat.dense(), dense, rtol=0, atol=0)


def test_targets_of_a_box_by_hand():
    """A 4 m x 2 m box around (3.25, 3.5): of four cells, (2, 3) with middle (2.5, 3.5) is the nearest."""
    cells = cells_at((0, 7, 7), (0, 2, 3), (0, 5, 3), (1, 3, 3))
    box = [3.25, 3.5, -0.5, 4.0, 2.0, 1.5, 0.3]
    found = targets_of(cells, box, min_radius=2, overlap=0.999)
    assert found.row.tolist() == [1] and found.cell.tolist() == [[2, 3]]
    want = [1.25, 0.5, -0.5, math.log(4), math.log(2), math.log(1.5), math.cos(0.3), math.sin(0.3)]
    torch.testing.assert_close(found.code[0], torch.tensor(want))
    sigma = 5 / 6  # radius 2
    # (7, 7) is nearer to the box than to (2, 3); (5, 3) also; frame 1 has no box.
    far = ((7.5 - 3.25) ** 2 + (7.5 - 3.5) ** 2, (5.5 - 3.25) ** 2)
    heat = [math.exp(-far[0] / (2 * sigma**2)), 1.0, math.exp(-far[1] / (2 * sigma**2)), 0.0]
    torch.testing.assert_close(found.heatmap[:, 0], torch.tensor(heat))


def test_around_the_nearest_cell_the_heatmap_falls_off_as_around_a_centre():
    """The box has no cell close to it: the neighbours of the nearest cell are judged from that cell."""
    cells = cells_at((0, 0, 0), (0, 1, 0))
    found = targets_of(cells, [6.5, 0.5, 0.0, 1.0, 1.0, 1.0, 0.0], min_radius=2)
    assert found.row.tolist() == [1]
    torch.testing.assert_close(found.heatmap[:, 0], torch.tensor([math.exp(-1 / (2 * (5 / 6) ** 2)), 1.0]))


def test_boxes_that_cannot_be_learned_are_left_out():
    cells = cells_at((0, 2, 3))
    good = [3.0, 3.0, 0.0, 1.0, 1.0, 1.0, 0.0]
    boxes = [good for _ in range(6)]
    boxes[1] = [30.0, *good[1:]]
    boxes[2] = [*good[:3], 0.0, *good[4:]]
    boxes[3] = [float("nan"), *good[1:]]
    # The fifth is of another class, the sixth in a frame without cells.
    found = targets_of(cells, boxes, labels=[0, 0, 0, 0, 1, 0], frames=[0, 0, 0, 0, 0, 1])
    assert found.row.tolist() == [0] and len(found.boxes) == 1
    none = targets_of(cells[:0], [good])
    assert none.heatmap.shape == (0, 1) and len(none.row) == 0


def test_order_of_cells_and_boxes_does_not_matter():
    rng = torch.Generator().manual_seed(0)
    every = torch.cartesian_prod(torch.arange(2), torch.arange(8), torch.arange(8))
    some = torch.randperm(128, generator=rng)[:40]
    cells = cells_at(*every[some].tolist())
    boxes = torch.cat([torch.rand(9, 2, generator=rng) * 8, torch.rand(9, 5, generator=rng) + 0.5], 1)
    boxes[:, 2] = 0.0
    frames, labels = torch.arange(9) % 2, torch.arange(9) % 3
    a = cell_targets(cells, boxes, labels, frames, (0, 1, 2), GRID)
    cell_order, box_order = torch.randperm(40, generator=rng), torch.randperm(9, generator=rng)
    mixed = (boxes[box_order], labels[box_order], frames[box_order])
    b = cell_targets(cells[cell_order], *mixed, (0, 1, 2), GRID)
    torch.testing.assert_close(b.heatmap, a.heatmap[cell_order], rtol=0, atol=0)
    assert len(a.row) == len(b.row) == 9

    def sorted_rows(t, order):
        told = torch.cat([t.boxes, order[t.row, None].float(), t.code], 1)
        return told[told[:, 0].argsort()]

    torch.testing.assert_close(sorted_rows(b, cell_order), sorted_rows(a, torch.arange(40)), rtol=0, atol=0)


def test_losses_of_cells_are_those_of_a_dense_map_with_the_same_numbers():
    torch.manual_seed(0)
    zeros = torch.zeros(2, dtype=torch.long)
    boxes = torch.tensor([[2.3, 3.4, 0.1, 2.0, 1.0, 1.0, 0.2], [6.1, 5.2, 0.1, 2.0, 1.0, 1.0, 0.2]])
    dense = center_targets(boxes, zeros, zeros, 1, (0,), GRID)
    heat, code = torch.randn(1, 1, 8, 8), torch.randn(2, 8)
    maps_code = torch.zeros(1, 8, 8, 8)
    maps_code[0, :, dense.cell[:, 0], dense.cell[:, 1]] = code.T

    class Maps:
        heatmap, iou, velocity = heat, None, None

        def code(self):
            return maps_code

    want = center_losses(Maps(), dense, GRID, CenterLossConfig())  # pyright: ignore
    flat = dense._replace(heatmap=dense.heatmap.flatten()[:, None])
    got = head_losses(heat.flatten()[:, None], AtObjects(code, None, None), flat, GRID, CenterLossConfig())
    assert want.keys() == got.keys() == {"heatmap", "box", "iou_regression"}
    for name, value in want.items():
        torch.testing.assert_close(got[name], value)


@pytest.mark.parametrize("variant", ["plain", "groups"])
def test_detections_carry_the_cell_that_found_them(variant):
    """Each query is the middle of an occupied cell of its frame, and the box is what the head says there."""
    model = model_of(VARIANTS[variant]).eval()
    model.config = replace(model.config, decode=replace(model.config.decode, score_threshold=0.0))
    batch = DetectionBatch.collate([frame_of(), frame_of(seed=1)])
    cells, groups = model(batch)
    low, side = torch.tensor(model.grid.bounds[:2]), torch.tensor(model.grid.cell)
    for frame, found in enumerate(model.predict(batch)):
        assert found.queries is not None and len(found.queries) == len(found.scores) > 5
        cell = ((found.queries - low) / side).floor().int()
        torch.testing.assert_close((cell + 0.5) * side + low, found.queries)
        for query, box, label in zip(cell.tolist(), found.boxes, found.labels.tolist(), strict=True):
            where = torch.tensor([frame, *query, 0], dtype=cells.coordinates.dtype)
            (row,) = (cells.coordinates == where).all(dim=1).nonzero()[:, 0].tolist()
            outputs = next(o for o, ours in zip(groups, model.group_labels, strict=True) if label in ours)
            want = decode(outputs.code()[row : row + 1], torch.tensor([query]), model.grid)
            torch.testing.assert_close(box, want[0])


@pytest.mark.parametrize("variant", ["plain", "iou", "groups"])
def test_frames_of_a_batch_do_not_see_each_other(variant):
    model = model_of(VARIANTS[variant]).eval()
    model.config = replace(model.config, decode=replace(model.config.decode, score_threshold=0.0))
    frames = [frame_of(), no_points(), frame_of(seed=1)]
    together = model.predict(DetectionBatch.collate(frames))
    assert len(together[1].scores) == 0 and len(together[0].scores) > 5
    for frame, found in zip(frames, together, strict=True):
        (alone,) = model.predict(DetectionBatch.collate([frame]))
        torch.testing.assert_close(found.boxes, alone.boxes, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(found.scores, alone.scores, rtol=1e-4, atol=1e-5)
        assert found.labels.tolist() == alone.labels.tolist()


def test_a_batch_without_points_costs_nothing():
    batch = DetectionBatch.collate([replace(frame_of(), points=np.zeros((0, 4), np.float32))])
    loss = total(model_of().loss(batch))
    loss.backward()
    assert loss.item() == 0


def test_time_and_memory_follow_the_points_not_the_area():
    """The same cloud within bounds of 4 km x 4 km, whose dense map would hold 16 million cells."""
    wide = replace(SMALL, bounds=(-2000.0, -2000.0, -2.0, 2000.0, 2000.0, 2.0))
    model = model_of(wide).eval()
    near, _ = model(DetectionBatch.collate([frame_of()]))
    far = frame_of()
    far.points[:, :2] += np.float32(1500)
    there, _ = model(DetectionBatch.collate([far]))
    assert there.shape == (4000, 4000, 1) and abs(len(there) - len(near)) < 0.1 * len(near)


def test_peaks_are_cells_that_no_neighbour_beats():
    model = model_of(VARIANTS["peaks"]).eval()
    cells, groups = model(DetectionBatch.collate([frame_of(), frame_of(seed=1)]))
    scores = groups[0].heatmap.sigmoid()
    kept = model._scores(cells, groups[0])
    where = cells.coordinates.long()
    for k in range(2):
        for row in range(len(cells)):
            near = ((where - where[row]).abs() <= torch.tensor([0, 1, 1, 0])).all(dim=1)
            is_peak = scores[row, k] == scores[near, k].max()
            assert kept[row, k] == (scores[row, k] if is_peak else 0)
    assert 0 < (kept > 0).sum() < kept.numel() / 2


def test_overfits_one_frame_with_and_without_velocities():
    """In 150 steps on one frame both objects are found, with place, size, heading, class and velocity."""
    model = model_of(VARIANTS["velocity"])
    velocities = np.array([[3.0, -1.5], [np.nan, np.nan]], dtype=np.float32)
    batch = DetectionBatch.collate([replace(frame_of(), velocities=velocities)])
    learn(model, batch, 150, lr=5e-3)
    (found,) = model.predict(batch)  # with the batch's statistics, as in training
    order = assert_finds_both(found)
    assert found.velocities is not None
    assert (found.velocities[order[0]] - torch.tensor([3.0, -1.5])).abs().max() < 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(merged=5), "expected 1 to 4 stages"),
        (dict(merged=3), "equal channels"),
        (dict(kernels=(3, 2, 3, 3)), "odd"),
        (dict(strides=(2, 2, 2, 2)), "first stage"),
        (dict(layers=(1, 1)), "one entry a stage"),
    ],
)
def test_backbones_that_make_no_sense_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(SMALL.backbone, **change)


def test_groups_and_values_for_other_classes_are_refused():
    with pytest.raises(ConfigError, match="each of"):
        replace(SMALL, head=SparseCenterHeadConfig(groups=(("Car",),)))
    with pytest.raises(ConfigError, match="decode.nms_thresholds has 3 values, expected 1 or 2"):
        replace(SMALL, decode=CenterDecodeConfig())


def test_frames_of_numbers_that_are_not_finite_do_not_reach_the_head():
    cloud = frame_of().points.copy()
    cloud[::7, 0] = np.nan
    frame = LidarFrame("nan", cloud, BOXES, LABELS)
    assert total(model_of().loss(DetectionBatch.collate([frame]))).isfinite()
