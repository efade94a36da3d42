"""CenterPoint as a whole: laws that must hold for any weights, and that it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sparse3d.config import load
from sparse3d.errors import ConfigError
from sparse3d.frames import DetectionBatch
from sparse3d.models.bev_backbone import BevBackboneConfig
from sparse3d.models.center_decode import CenterDecodeConfig
from sparse3d.models.center_head import CenterHeadConfig
from sparse3d.models.centerpoint import CenterPoint, CenterPointConfig
from sparse3d.models.pillar_features import PillarScatterConfig
from sparse3d.models.voxel_backbone import VoxelBackbone8xConfig, VoxelResBackbone8xConfig
from sparse3d.models.voxel_features import DynamicVoxelFeaturesConfig
from tests.models.two_objects import (
    BOXES,
    assert_every_parameter_learns,
    assert_finds_both,
    assert_same_bits,
    assert_stays_finite,
    empty_frames,
    frame_of,
    learn,
    no_points,
    total,
)

# 64 x 64 x 17 voxels, 16 x 16 cells of one metre.
STAGES = dict(
    channels=(8, 16, 16),
    layers=(1, 1, 1),
    strides=(1, 2, 2),
    z_strides=(1, 2, 2),
    z_paddings=(1, 1, 1),
    stem_channels=8,
    out_channels=16,
)
SMALL = CenterPointConfig(
    classes=("Car", "Pedestrian"),
    bounds=(0.0, -8.0, -2.0, 16.0, 8.0, 2.0),
    voxel_size=(0.25, 0.25, 0.25),
    backbone=VoxelBackbone8xConfig(**STAGES),
    bev=BevBackboneConfig(
        layers=(1, 1), strides=(1, 2), filters=(24, 32), upsample_strides=(1, 2), upsample_filters=(24, 24)
    ),
    head=CenterHeadConfig(shared_channels=16, branch_channels=16),
    decode=CenterDecodeConfig(iou_alphas=(0.5,), nms_thresholds=(0.2,)),
)
VARIANTS = {
    "plain": SMALL,
    "residual": replace(SMALL, backbone=VoxelResBackbone8xConfig(**STAGES)),
    "dynamic": replace(SMALL, voxel_features=DynamicVoxelFeaturesConfig((8, 8))),
    "pillars": replace(
        SMALL,
        voxel_size=(0.25, 0.25, 4.0),
        voxel_features=DynamicVoxelFeaturesConfig((16,)),
        backbone=PillarScatterConfig(),
        bev=replace(SMALL.bev, strides=(4, 2)),
    ),
    "groups": replace(SMALL, head=replace(SMALL.head, groups=(("Pedestrian",), ("Car",)))),
    "velocity": replace(SMALL, head=replace(SMALL.head, velocity_branch=True)),
    "no_iou": replace(SMALL, head=replace(SMALL.head, iou_branch=False)),
    "one_level": replace(
        SMALL,
        bev=BevBackboneConfig(
            layers=(1,), strides=(1,), filters=(24,), upsample_strides=(1,), upsample_filters=(24,)
        ),
    ),
}


def model_of(config: CenterPointConfig = SMALL, seed: int = 0) -> CenterPoint:
    torch.manual_seed(seed)
    return CenterPoint(config)


@pytest.mark.parametrize("variant", VARIANTS)
def test_maps_have_the_size_of_the_grid_and_every_parameter_gets_a_gradient(variant):
    model = model_of(VARIANTS[variant])
    frames = [frame_of(), frame_of(seed=1)]
    batch = DetectionBatch.collate([replace(f, velocities=np.ones((2, 2), np.float32)) for f in frames])
    for maps in model(batch).groups:
        for values in maps:
            assert values is None or values.shape[2:] == model.grid.shape == (16, 16)
    losses = model.loss(batch)
    assert ("iou" in losses) == VARIANTS[variant].head.iou_branch
    assert_every_parameter_learns(model, losses)


def test_default_is_kittis_grid():
    assert CenterPointConfig().group_labels == ((0, 1, 2),)
    model = CenterPoint(CenterPointConfig())
    assert model.grid.shape == (176, 200)
    assert model.grid.cell == pytest.approx((0.4, 0.4))


@empty_frames
@pytest.mark.parametrize("variant", ["plain", "dynamic", "pillars"])
def test_empty_frames_stay_finite(frames, variant):
    assert_stays_finite(model_of(VARIANTS[variant]), frames)


def test_losses_under_bfloat16_autocast_are_float32_and_close():
    model = model_of()
    batch = DetectionBatch.collate([frame_of()])
    exact = model.loss(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model.loss(batch)
    for name, value in rough.items():
        assert value.dtype == torch.float32
        # bfloat16 keeps 8 bits; the losses are sums of errors that mostly are not small.
        assert value.item() == pytest.approx(exact[name].item(), rel=0.1, abs=0.05)
    total(rough).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_same_bits_every_time():
    assert_same_bits(model_of)


def test_frames_of_a_batch_do_not_see_each_other():
    model = model_of().eval()
    frames = [frame_of(), no_points(), frame_of(seed=1)]
    together = model(DetectionBatch.collate(frames)).groups[0]
    for k, frame in enumerate(frames):
        alone = model(DetectionBatch.collate([frame])).groups[0]
        torch.testing.assert_close(together.code()[k], alone.code()[0], rtol=1e-4, atol=1e-5)


def test_moving_the_cloud_by_whole_cells_moves_the_detections():
    """Holds inside of the map, out of reach of padding, for a network that is not told absolute x and y."""
    config = replace(VARIANTS["one_level"], bounds=(-20.0, -20.0, -2.0, 20.0, 20.0, 2.0))
    config = replace(config, decode=replace(config.decode, score_threshold=0.0, nms_thresholds=(1.0,)))
    model = model_of(config).eval()
    stem = next(p for p in model.backbone.stem.parameters() if p.dim() > 1)
    with torch.no_grad():
        stem[..., :2, :] = 0  # weights (Kx, Ky, Kz, Cin, Cout) of the x and y columns
    still = frame_of(boxes=BOXES - np.float32([8, 0, 0, 0, 0, 0, 0]), ground=0)
    # Points on a lattice of 1/64 m move exactly, so none changes its voxel by rounding.
    still.points[:, :3] = np.round(still.points[:, :3] * 64) / 64
    moved = replace(still, points=still.points + np.float32([3, -2, 0, 0]))
    one, other = (model(DetectionBatch.collate([f])).groups[0] for f in (still, moved))
    # Cells (i, j) of the first map are cells (i + 3, j - 2) of the second; 8 cells of border are left out.
    for a, b in zip(one, other, strict=True):
        if a is None and b is None:
            continue  # a branch that this head does not have
        torch.testing.assert_close(a[:, :, 8:29, 10:32], b[:, :, 11:32, 8:30], rtol=1e-4, atol=1e-5)

    def inner(detections, shift=(0.0, 0.0)):
        centre = detections.boxes[:, :2] - torch.tensor(shift)
        keep = (centre.abs() < 8).all(dim=1)
        boxes = detections.boxes[keep].clone()
        boxes[:, :2] = centre[keep]
        return boxes[(boxes[:, 0] * 100 + boxes[:, 1]).argsort()]

    model.config = replace(config, decode=replace(config.decode, top_k=10**6, nms_pre=10**6, nms_post=10**6))
    (found,) = model.predict(DetectionBatch.collate([still]))
    (shifted,) = model.predict(DetectionBatch.collate([moved]))
    assert len(inner(found)) > 100
    torch.testing.assert_close(inner(shifted, (3.0, -2.0)), inner(found), rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("variant", ["plain", "pillars"])
def test_overfits_one_frame(variant):
    """In 120 steps on one frame both objects are found, with place, size, heading and class.

    Errors end near 0.02 for every seed tried: the bounds below leave a factor of ten.
    """
    model = model_of(VARIANTS[variant])
    batch = DetectionBatch.collate([frame_of()])
    first, last = learn(model, batch, 120, lr=5e-3)
    assert last < 0.1 * first
    # Batch norm's running statistics lag behind 120 steps: predict with those of the batch.
    (found,) = model.predict(batch)
    assert_finds_both(found)


def test_groups_that_miss_a_class_are_refused():
    with pytest.raises(ConfigError, match="each of"):
        replace(SMALL, head=CenterHeadConfig(groups=(("Car",),)))


def test_values_that_are_not_one_a_class_are_refused():
    with pytest.raises(ConfigError, match="decode.nms_thresholds has 3 values, expected 1 or 2"):
        replace(SMALL, decode=CenterDecodeConfig(iou_alphas=(0.5,)))


def test_config_reads_from_yaml(tmp_path):
    path = tmp_path / "model.yaml"
    path.write_text(
        "voxel_features: {kind: dynamic, channels: [16, 16]}\n"
        "backbone: {kind: voxel_res_8x, out_channels: 64}\n"
        "bev: {upsample_strides: [1, 2]}\n"
        "decode: {score_threshold: 0.2}\n"
    )
    config = load(CenterPointConfig, path)
    assert config.voxel_features == DynamicVoxelFeaturesConfig((16, 16))
    assert config.backbone == VoxelResBackbone8xConfig(out_channels=64)
    assert config.decode.score_threshold == 0.2


def test_learns_velocities_and_tells_them_of_each_detection():
    """One object moves, the other's velocity is not known and costs nothing."""
    model = model_of(VARIANTS["velocity"])
    velocities = np.array([[3.0, -1.5], [np.nan, np.nan]], dtype=np.float32)
    batch = DetectionBatch.collate([replace(frame_of(), velocities=velocities)])
    learn(model, batch, 120, lr=5e-3)
    (found,) = model.predict(batch)
    assert found.velocities is not None and found.velocities.shape == (len(found.boxes), 2)
    moving = found.velocities[found.labels == 0][0]
    assert (moving - torch.tensor([3.0, -1.5])).abs().max() < 0.3
    unknown = DetectionBatch.collate([frame_of()])
    assert model.loss(unknown)["velocity"].item() == 0
