"""Voxel R-CNN as a whole: laws for any weights, its published size, and that the second stage refines."""

from dataclasses import replace

import torch

from sparse3d.config import load
from sparse3d.frames import DetectionBatch, Detections
from sparse3d.models.detectors import build_detector
from sparse3d.models.roi_head import RoiHeadConfig
from sparse3d.models.roi_sampling import RoiSamplingConfig
from sparse3d.models.rois import decode
from sparse3d.models.voxel_rcnn import ProposalConfig, VoxelRCNN, VoxelRCNNConfig
from sparse3d.models.voxel_roi_pool import PoolLevelConfig, VoxelRoiPoolConfig
from sparse3d.recipes.detection_config import DetectionConfig
from sparse3d_ops.boxes import box_iou_3d
from tests.models.test_anchor_head import HEAD, conv
from tests.models.test_centerpoint import SMALL
from tests.models.two_objects import (
    BOXES,
    LABELS,
    around_the_truth,
    assert_every_parameter_learns,
    assert_finds_both,
    assert_same_bits,
    assert_stays_finite,
    empty_frames,
    frame_of,
    learn,
    quick_statistics,
    total,
)

CONFIG = VoxelRCNNConfig(
    classes=SMALL.classes,
    bounds=SMALL.bounds,
    voxel_size=SMALL.voxel_size,
    backbone=SMALL.backbone,
    bev=SMALL.bev,
    head=HEAD,
    train_proposals=ProposalConfig(pre=256, post=64, threshold=0.8),
    test_proposals=ProposalConfig(pre=256, post=32, threshold=0.7),
    sampling=RoiSamplingConfig(count=12),
    pool=VoxelRoiPoolConfig(
        grid=3,
        levels=(
            PoolLevelConfig(0, 0.6, (3, 3, 3), channels=(8, 8)),
            PoolLevelConfig(2, 1.5, (3, 3, 3), channels=(8, 8)),
        ),
    ),
    roi_head=RoiHeadConfig(shared=(48,), score=(32,), box=(32,), dropout=0.0),
)


def model_of(config: VoxelRCNNConfig = CONFIG) -> VoxelRCNN:
    torch.manual_seed(0)
    model = build_detector(config)
    assert isinstance(model, VoxelRCNN)
    return model


def near_truth(model: VoxelRCNN, spread: float = 0.15) -> None:
    """In place of proposals that a trained first stage would make: boxes around those of `BOXES`."""
    generator = torch.Generator().manual_seed(1)

    def candidates(maps, frame, most, score_threshold=0.0):
        boxes, labels = around_the_truth(spread, generator)
        scores = torch.linspace(0.9, 0.5, len(boxes))
        return Detections(boxes, scores, labels).select(scores > score_threshold)

    model.head.candidates = candidates  # pyright: ignore[reportAttributeAccessIssue]


def test_every_parameter_gets_a_gradient():
    model = model_of()
    near_truth(model)
    batch = DetectionBatch.collate([frame_of(), frame_of(seed=1)])
    losses = model.loss(batch)
    assert set(losses) == {"score", "box", "direction", "roi_score", "roi_box", "roi_corner"}
    assert_every_parameter_learns(model, losses)


@empty_frames
def test_empty_frames_stay_finite(frames):
    assert_stays_finite(model_of(), frames)


def test_same_bits_every_time():
    assert_same_bits(model_of)


@torch.no_grad()
def test_frames_of_a_batch_do_not_see_each_other():
    model = model_of(replace(CONFIG, decode=replace(CONFIG.decode, score_threshold=0.0))).eval()
    near_truth(model, spread=0.0)
    frames = [frame_of(), frame_of(BOXES[:1], LABELS[:1], seed=1)]
    together = model.predict(DetectionBatch.collate(frames))
    for k, frame in enumerate(frames):
        (alone,) = model.predict(DetectionBatch.collate([frame]))
        torch.testing.assert_close(together[k].scores, alone.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(together[k].boxes, alone.boxes, rtol=1e-4, atol=1e-4)


def test_losses_under_bfloat16_autocast_are_float32_and_finite():
    model, batch = model_of(), DetectionBatch.collate([frame_of()])
    near_truth(model)
    with torch.autocast("cpu", torch.bfloat16):
        losses = model.loss(batch)
        found = model.predict(batch)
    total(losses).backward()
    assert all(value.dtype == torch.float32 and value.isfinite() for value in losses.values())
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert found[0].boxes.dtype == torch.float32


def test_overfits_one_frame():
    """In 150 steps both objects are found, with place, size, heading and class."""
    model, batch = model_of(), DetectionBatch.collate([frame_of()])
    quick_statistics(model)
    first, last = learn(model, batch, 150, lr=2e-3)
    assert last < 0.25 * first
    (found,) = model.eval().predict(batch)
    assert_finds_both(found)


def test_the_second_stage_refines_boxes_that_are_off():
    """Trained around two objects, it brings other boxes around them nearer, and scores the better ones
    higher."""
    model, batch = model_of(), DetectionBatch.collate([frame_of()])
    near_truth(model)
    learn(model, batch, 100, lr=2e-3)
    stages, maps = model(batch)
    rois = model.propose(maps, ProposalConfig(pre=100, post=100, threshold=1.0))
    with torch.no_grad():
        output = model.roi_head(model.pool(rois, stages))
    truth = torch.from_numpy(BOXES)
    before = box_iou_3d(rois.boxes, truth)[torch.arange(40), rois.labels]
    after = box_iou_3d(decode(output.codes, rois.boxes), truth)[torch.arange(40), rois.labels]
    assert after.mean() > before.mean() + 0.1
    assert (after > before).float().mean() > 0.8
    scores = output.scores.sigmoid()
    assert torch.corrcoef(torch.stack([scores, before]))[0, 1] > 0.7


def linear(cin: int, cout: int) -> int:
    """A linear map without a bias and the norm after it."""
    return cin * cout + 2 * cout


def test_parameters_are_those_of_the_published_network():
    """Layer by layer from OpenPCDet's voxel_rcnn_car: VoxelBackBone8x; two levels of six convolutions, 64 and
    128 wide; two anchors a cell; three scales pooled by 32-32; layers of 256."""
    sparse = (
        conv(4, 16, 27)
        + conv(16, 16, 27)
        + conv(16, 32, 27)
        + 2 * conv(32, 32, 27)
        + conv(32, 64, 27)
        + 2 * conv(64, 64, 27)
        + 3 * conv(64, 64, 27)
        + conv(64, 128, 3)
    )
    bev = conv(256, 64, 9) + 5 * conv(64, 64, 9) + conv(64, 128, 9) + 5 * conv(128, 128, 9)
    bev += conv(64, 128, 1) + conv(128, 128, 4)
    head = 257 * (2 + 2 * 7 + 2 * 2)
    pool = sum(linear(c, 32) + linear(3, 32) + linear(32, 32) for c in (32, 64, 64))
    layers = linear(6**3 * 96, 256) + 5 * linear(256, 256)
    outputs = 257 * (1 + 7)

    config = load(DetectionConfig, "voxel_rcnn_kitti").model
    assert isinstance(config, VoxelRCNNConfig) and config.classes == ("Car",)
    model = VoxelRCNN(config)
    parts = [model.backbone, model.bev, model.head, model.pool, model.roi_head]
    want = [sparse, bev, head, pool, layers + outputs]
    assert [sum(p.numel() for p in part.parameters()) for part in parts] == want
    assert sum(p.numel() for p in model.parameters()) == sum(want) == 7_586_620
    assert model.head.grid.shape == (176, 200)


def test_the_config_of_the_small_one_builds():
    config = load(DetectionConfig, "voxel_rcnn_minidrive").model
    assert isinstance(config, VoxelRCNNConfig)
    assert sum(p.numel() for p in VoxelRCNN(config).parameters()) < 2e6
