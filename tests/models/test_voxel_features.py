"""Features of voxels: by hand, and unchanged by the order of points."""

import pytest
import torch

from sparse3d.errors import ConfigError
from sparse3d.models.voxel_features import (
    DynamicVoxelFeaturesConfig,
    MeanVoxelFeaturesConfig,
    OffsetVoxelFeaturesConfig,
    PointLayer,
    VoxelFeatures,
)

BOUNDS = (0.0, -2.0, -1.0, 8.0, 2.0, 1.0)
SIZE = (0.5, 0.5, 0.25)
CONFIGS = [MeanVoxelFeaturesConfig(), OffsetVoxelFeaturesConfig(), DynamicVoxelFeaturesConfig((8, 6))]


def encoder(config, seed=0) -> VoxelFeatures:
    torch.manual_seed(seed)
    return VoxelFeatures(4, SIZE, BOUNDS, config)


def random_points(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    scale = torch.tensor([9.0, 5.0, 2.5, 1.0])
    points = torch.rand(count, 4, generator=generator) * scale - torch.tensor([0.5, 2.5, 1.2, 0.0])
    return points, torch.randint(0, 2, (count,), generator=generator)


def test_mean_by_hand():
    points = torch.tensor(
        [[0.1, -1.9, 0.1, 0.2], [0.3, -1.7, 0.2, 0.6], [7.9, 1.9, -0.9, 1.0], [8.0, 0.0, 0.0, 1.0]]
    )
    voxels = encoder(MeanVoxelFeaturesConfig())(points, torch.tensor([1, 1, 0, 0]), 3)
    assert voxels.coordinates.tolist() == [[0, 15, 7, 0], [1, 0, 0, 4]]
    want = torch.tensor([[7.9, 1.9, -0.9, 1.0], [0.2, -1.8, 0.15, 0.4]])
    torch.testing.assert_close(voxels.features, want)
    assert voxels.batch_size == 3


def test_offsets_by_hand():
    # The voxel [0, 0.5) x [-2, -1.5) x [0, 0.25) has its centre at (0.25, -1.75, 0.125); the points' mean is
    # (0.2, -1.8, 0.15). Heights run from -1 to 1 m, so that they stand for themselves.
    points = torch.tensor([[0.1, -1.9, 0.1, 0.2], [0.3, -1.7, 0.2, 0.6]])
    voxels = encoder(OffsetVoxelFeaturesConfig())(points, torch.zeros(2, dtype=torch.long), 1)
    want = torch.tensor([[-0.05 / 0.25, -0.05 / 0.25, 0.025 / 0.125, 0.15, 0.4]])
    torch.testing.assert_close(voxels.features, want)
    # Shifted by whole voxels along x and y, the same features.
    moved = points + torch.tensor([4 * 0.5, 3 * 0.5, 0.0, 0.0])
    again = encoder(OffsetVoxelFeaturesConfig())(moved, torch.zeros(2, dtype=torch.long), 1)
    torch.testing.assert_close(again.features, want)


def test_grid_has_one_more_level_in_z():
    kitti = VoxelFeatures(
        4, (0.05, 0.05, 0.1), (0.0, -40.0, -3.0, 70.4, 40.0, 1.0), MeanVoxelFeaturesConfig()
    )
    assert kitti.shape == (1408, 1600, 41)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.kind)
def test_order_of_points_changes_rounding_only(config):
    model = encoder(config)
    points, frame = random_points(4000)
    order = torch.randperm(4000, generator=torch.Generator().manual_seed(5))
    one, other = model(points, frame, 2), model(points[order], frame[order], 2)
    assert torch.equal(one.coordinates, other.coordinates)
    torch.testing.assert_close(one.features, other.features, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.kind)
@pytest.mark.parametrize("count", [0, 1])
def test_hardly_any_points_are_fine_in_training(config, count):
    model = encoder(config).train()
    voxels = model(torch.full((count, 4), 0.1), torch.zeros(count, dtype=torch.long), 2)
    assert voxels.features.shape == (count, model.out_channels)
    assert voxels.features.isfinite().all()
    assert all(buffer.isfinite().all() for buffer in model.buffers())


def test_points_that_are_out_of_bounds_or_not_finite_change_nothing():
    model = encoder(DynamicVoxelFeaturesConfig((8, 6)))
    points, frame = random_points(300)
    bad = torch.tensor([[100.0, 0, 0, 0], [1.0, float("nan"), 0, 0]])
    one = model(points, frame, 2)
    other = model(torch.cat([points, bad]), torch.cat([frame, torch.zeros(2, dtype=torch.long)]), 2)
    assert torch.equal(one.features, other.features)


def test_learned_features_reach_every_parameter():
    model = encoder(DynamicVoxelFeaturesConfig((8, 6)))
    model(*random_points(500), 2).features.square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())


def test_point_layer_by_hand():
    layer = PointLayer(1, 2, last=False).eval()
    with torch.no_grad():
        layer.linear.weight.fill_(1.0)
    # eval: mean 0, variance 1, eps 1e-3; two voxels, {3, 1} and {-2}.
    got = layer(torch.tensor([[3.0], [1.0], [-2.0]]), torch.tensor([0, 0, 1]), 2)
    scale = 1.001**-0.5
    torch.testing.assert_close(got, torch.tensor([[3.0, 3.0], [1.0, 3.0], [0.0, 0.0]]) * scale)


def test_odd_channels_before_the_last_layer_are_refused():
    with pytest.raises(ConfigError, match="must be even"):
        DynamicVoxelFeaturesConfig((7, 6))
