"""DSVT as a whole: laws that must hold for any weights, sizes worked out by hand, and that it learns."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from sparse3d.config import load
from sparse3d.errors import ConfigError
from sparse3d.frames import DetectionBatch
from sparse3d.models.bev_res_backbone import BevResBackbone, BevResBackboneConfig
from sparse3d.models.center_decode import CenterDecodeConfig
from sparse3d.models.center_head import CenterHeadConfig
from sparse3d.models.dsvt import DSVT, DSVTConfig
from sparse3d.models.dsvt_backbone import DSVTBackboneConfig
from sparse3d.models.dsvt_layers import PositionEmbedding, WindowShape
from sparse3d.models.dsvt_pooling import MaxPooling, cells_of, in_slots
from sparse3d.models.voxel_features import DynamicVoxelFeaturesConfig
from sparse3d.recipes.detection_config import DetectionConfig
from sparse3d.tensor import SparseTensor
from tests.models.two_objects import (
    BOXES,
    LABELS,
    assert_stays_finite,
    empty_frames,
    frame_of,
    quick_statistics,
    total,
)

PILLARS = DSVTConfig(
    classes=("Car", "Pedestrian"),
    bounds=(0.0, -8.0, -2.0, 16.0, 8.0, 2.0),
    voxel_size=(0.5, 0.5, 4.0),
    point_channels=4,
    voxel_features=DynamicVoxelFeaturesConfig((16, 16), inputs="relative"),
    backbone=DSVTBackboneConfig(
        channels=(16,),
        feedforward=(24,),
        heads=(2,),
        blocks=(2,),
        set_sizes=(6,),
        windows=((6, 6, 1),),
        shifts=(((0, 0, 0), (3, 3, 0)),),
    ),
    bev=BevResBackboneConfig(
        layers=(0, 1), strides=(2, 2), filters=(16, 24), upsample_strides=(1, 2), upsample_filters=(16, 16)
    ),
    head=CenterHeadConfig(shared_channels=16, branch_channels=16),
    decode=CenterDecodeConfig(iou_alphas=(0.5,), nms_thresholds=(0.2,)),
)
STAGES = DSVTBackboneConfig(
    channels=(16, 16),
    feedforward=(24, 24),
    heads=(2, 4),
    blocks=(1, 2),
    set_sizes=(8, 6),
    windows=((6, 6, 8), (6, 6, 1)),
    shifts=(((0, 0, 0), (3, 3, 0)), ((0, 0, 0), (3, 3, 0))),
    pool_strides=((1, 1, 8),),
)
VOXELS = replace(PILLARS, voxel_size=(0.5, 0.5, 0.5), backbone=STAGES)
VARIANTS = {
    "pillars": PILLARS,
    "absolute": replace(PILLARS, voxel_features=DynamicVoxelFeaturesConfig((16, 16))),
    "voxels": VOXELS,
    "linear": replace(VOXELS, backbone=replace(STAGES, channels=(16, 24), pooling="linear")),
    "levels_left": replace(
        VOXELS, backbone=replace(STAGES, pool_strides=((1, 1, 4),), windows=((6, 6, 8), (6, 6, 2)))
    ),
    "maxpool": replace(VOXELS, backbone=replace(STAGES, pooling="maxpool")),
    "legacy": replace(VOXELS, backbone=replace(STAGES, legacy_pos_embed=True, normalize_positions=True)),
}


def model_of(config: DSVTConfig = PILLARS, seed: int = 0) -> DSVT:
    torch.manual_seed(seed)
    return DSVT(config)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


# ---- laws of the network -----------------------------------------------------------------------------------


@pytest.mark.parametrize("variant", VARIANTS)
def test_maps_have_the_size_of_the_grid_and_every_parameter_gets_a_gradient(variant):
    model = model_of(VARIANTS[variant])
    batch = DetectionBatch.collate([frame_of(), frame_of(seed=1)])
    for maps in model(batch).groups:
        for values in maps:
            assert values is None or values.shape[2:] == model.grid.shape == (16, 16)
    assert model.grid.cell == (1.0, 1.0)
    total(model.loss(batch)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        # A bias of all keys shifts every score of a query alike, and a softmax does not see it.
        keys = parameter.grad.chunk(3)[1] if name.endswith("in_proj_bias") else None
        rest = parameter.grad if keys is None else torch.cat(parameter.grad.chunk(3)[::2])
        # The head's outer biases sum signs of L1 losses, which can cancel.
        assert rest.abs().sum() > 0 or name.startswith("head.") and name.endswith("3.bias"), name
        assert keys is None or keys.abs().max() < 1e-4 * rest.abs().max(), name


@empty_frames
@pytest.mark.parametrize("variant", ["pillars", "voxels", "linear"])
def test_empty_frames_stay_finite(frames, variant):
    assert_stays_finite(model_of(VARIANTS[variant]), frames)


@pytest.mark.parametrize("variant", ["pillars", "voxels"])
@torch.no_grad()
def test_neither_the_order_of_points_nor_other_frames_change_a_frame(variant):
    model = model_of(VARIANTS[variant]).eval()
    frame, other = frame_of(), frame_of(seed=1)
    shuffle = np.random.default_rng(0).permutation(len(frame.points))
    mixed = replace(frame, points=frame.points[shuffle])
    alone = model(DetectionBatch.collate([frame])).groups[0].heatmap
    shuffled = model(DetectionBatch.collate([mixed])).groups[0].heatmap
    beside = model(DetectionBatch.collate([other, frame])).groups[0].heatmap[1:]
    torch.testing.assert_close(shuffled, alone, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(beside, alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_relative_inputs_do_not_see_where_the_world_begins():
    """Moved by whole pillars, points give the same features in the moved pillars."""
    features = model_of().voxel_features.eval()
    points = torch.from_numpy(frame_of().points)
    points = points[(points[:, 0] < 11.9) & (points[:, 1] < 3.9)]
    moved = points + torch.tensor([4.0, 4.0, 0.0, 0.0])
    frames = torch.zeros(len(points), dtype=torch.int64)
    before, after = features(points, frames, 1), features(moved, frames, 1)
    assert torch.equal(after.coordinates, before.coordinates + torch.tensor([0, 8, 8, 0]))
    torch.testing.assert_close(after.features, before.features, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dims", [2, 3])
@torch.no_grad()
def test_places_embedded_once_are_those_embedded_voxel_by_voxel(dims):
    torch.manual_seed(0)
    shape = WindowShape((20, 20, 1 if dims == 2 else 4), (3, 4, 1 if dims == 2 else 2), (1, 2, 0), 5)
    cells = torch.cartesian_prod(*(torch.arange(n) for n in (1, *shape.grid))).int()
    partition = shape.partition(cells)
    embedding = PositionEmbedding(dims, 8, normalize=False).eval()
    embedding.norm.running_mean.normal_()
    table = embedding(partition)
    one_by_one = embedding._embed(partition.sets.place, shape.window)
    torch.testing.assert_close(table, one_by_one)
    assert len(table) == len(cells) > 3 * 4 * 2


def test_it_learns_a_frame_by_heart():
    torch.manual_seed(0)
    model = model_of()
    quick_statistics(model)
    batch = DetectionBatch.collate([frame_of()])
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(150):
        optimizer.zero_grad()
        loss = total(model.loss(batch))
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-5:]) < 0.15 * np.mean(losses[:5])
    found = model.eval().predict(batch)[0]
    for box, label in zip(BOXES, LABELS, strict=True):
        near = (found.boxes[:, :2] - torch.from_numpy(box[:2])).norm(dim=1) < 0.5
        assert found.labels[near].tolist()[:1] == [label]


# ---- pooling -----------------------------------------------------------------------------------------------


def test_cells_and_slots_by_hand():
    coordinates = torch.tensor([[0, 3, 0, 5], [0, 2, 1, 4], [1, 0, 0, 0], [0, 3, 1, 7]]).int()
    cells = cells_of(coordinates, (2, 2, 4))
    assert cells.coordinates.tolist() == [[0, 1, 0, 1], [1, 0, 0, 0]]
    assert cells.cell.tolist() == [0, 0, 1, 0]
    assert cells.slot.tolist() == [9, 4, 0, 15]  # (x % 2) * 8 + (y % 2) * 4 + z % 4
    volume = in_slots(torch.tensor([[1.0], [2.0], [3.0], [4.0]]), cells, 16)
    assert volume.sum(1).flatten().tolist() == [7.0, 3.0]
    assert volume[0, [9, 4, 15], 0].tolist() == [1.0, 2.0, 4.0]


def test_empty_slots_take_part_as_zeros():
    coordinates = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [0, 1, 0, 1]]).int()
    features = torch.tensor([[-1.0], [-2.0], [-3.0]])
    pooled = MaxPooling((1, 1, 2))(features, cells_of(coordinates, (1, 1, 2)))
    assert pooled.tolist() == [[0.0], [-2.0]]


# ---- sizes -------------------------------------------------------------------------------------------------


def layer_parameters(c: int, f: int) -> int:
    """Attention (q, k, v and out, with biases), the two maps of the feed-forward network, three norms."""
    return 4 * (c * c + c) + (c * f + f) + (f * c + c) + 3 * 2 * c


def block_parameters(c: int, f: int, dims: int) -> int:
    """Two layers, two embeddings (linear, norm, linear) and the norm of the residual."""
    embedding = (dims * c + c) + 2 * c + (c * c + c)
    return 2 * layer_parameters(c, f) + 2 * embedding + 2 * c


def pool_parameters(c: int, slots: int) -> int:
    return 4 * (c * c + c) + slots * c + 2 * c


BACKBONES = {
    "dsvt_waymo_pillar": (4 * block_parameters(192, 384, 2), 2_684_928),
    "dsvt_waymo_voxel": (
        3 * block_parameters(192, 384, 3)
        + block_parameters(192, 384, 2)
        + 2 * pool_parameters(192, 4)
        + pool_parameters(192, 2),
        3_133_824,
    ),
    "dsvt_nuscenes": (4 * block_parameters(128, 256, 2), 1_200_128),
}


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_have_the_parameters_of_the_published_configs(name):
    by_hand, in_figures = BACKBONES[name]
    config = load(DetectionConfig, name).model
    assert isinstance(config, DSVTConfig)
    model = DSVT(config)
    assert parameters(model.backbone) == by_hand == in_figures
    # 11 = x, y, z, intensity, elongation or time, offsets from mean and centre; half the channels, then all.
    c = config.backbone.channels[0]
    assert parameters(model.voxel_features) == 11 * c // 2 + c + c * c + 2 * c
    if name == "dsvt_nuscenes":
        assert model.grid.shape == (180, 180) and model.grid.cell == pytest.approx((0.6, 0.6))
        assert model.backbone.grids == [(360, 360, 1)]
        return
    assert model.grid.shape == (468, 468) and model.grid.cell == pytest.approx((0.32, 0.32))
    levels = (1,) if "pillar" in name else (32, 8, 2, 1)
    assert model.backbone.grids == [(468, 468, n) for n in levels]


def test_residual_bev_network_has_the_published_parameters():
    def conv_norm(cin: int, cout: int, kernel: int) -> int:
        return cin * cout * kernel**2 + 2 * cout

    def level(cin: int, cout: int, more: int) -> int:
        strided = conv_norm(cin, cout, 3) + conv_norm(cout, cout, 3) + conv_norm(cin, cout, 1)
        return strided + more * 2 * conv_norm(cout, cout, 3)

    up = conv_norm(128, 128, 1) + conv_norm(128, 128, 2) + conv_norm(256, 128, 4)
    by_hand = level(192, 128, 1) + level(128, 128, 2) + level(128, 256, 2) + up
    assert parameters(BevResBackbone(192, BevResBackboneConfig())) == by_hand


@pytest.mark.parametrize("name", ["dsvt_minidrive", "dsvt_kitti"])
def test_configs_of_the_small_ones_build(name):
    config = load(DetectionConfig, name).model
    assert isinstance(config, DSVTConfig)
    model = DSVT(config)
    assert model.backbone.grids[-1][2] == 1 and parameters(model) < 4e6


def test_configs_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match="one entry a stage"):
        DSVTBackboneConfig(blocks=(1, 1))
    with pytest.raises(ConfigError, match="heads do not divide"):
        DSVTBackboneConfig(heads=(5,))
    with pytest.raises(ConfigError, match="use pooling 'linear'"):
        replace(STAGES, channels=(16, 24))
    with pytest.raises(ConfigError, match="the backbone begins with 16"):
        replace(PILLARS, voxel_features=DynamicVoxelFeaturesConfig((8,)))


# ---- half precision ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_thousand_steps_in_bfloat16_stay_finite():
    """On a CPU, whose autocast knows bfloat16. Pillars learn where they are from one block of sets, whose
    attention and norms are where half precision could fail; frames differ in their numbers of sets."""
    config = VARIANTS["absolute"]
    model = model_of(replace(config, backbone=replace(config.backbone, blocks=(1,))))
    layers = nn.ModuleList([model.voxel_features, model.backbone, nn.Linear(16, 3)])
    head, parameters = layers[2], list(layers.parameters())
    optimizer = torch.optim.AdamW(parameters, 3e-3, fused=True)
    sizes = [20 + 37 * step % 200 for step in range(25)]
    frames = [frame_of(points=n, ground=n, seed=k) for k, n in enumerate(sizes)]
    batches = [DetectionBatch.collate([frame]) for frame in frames]
    losses = []
    for step in range(1000):
        batch = batches[step % len(batches)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            voxels = model.backbone.features(model.voxel_features(batch.points, batch.point_frame, 1))
            guess = head(voxels.features)
        loss = (guess.float() - voxels.coordinates[:, 1:] / 16).square().mean()
        optimizer.zero_grad()
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 10.0)
        assert loss.isfinite() and norm.isfinite(), step
        optimizer.step()
        losses.append(float(loss.detach()))
    assert np.mean(losses[-25:]) < 0.2 * np.mean(losses[:25])
    assert all(p.isfinite().all() for p in parameters)


def test_features_of_a_stage_are_those_of_its_blocks_in_bfloat16():
    """Autocast changes features by bfloat16's rounding alone; norms bring each layer back to order one."""
    model = model_of(VARIANTS["voxels"]).eval()
    batch = DetectionBatch.collate([frame_of()])
    voxels = model.voxel_features(batch.points, batch.point_frame, 1)
    with torch.no_grad():
        exact = model.backbone.features(SparseTensor.on(voxels.features, voxels.sites)).features
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rounded = model.backbone.features(voxels).features
    assert (rounded.float() - exact).abs().max() < 0.15
    assert (rounded.float() - exact).square().mean().sqrt() < 0.02
