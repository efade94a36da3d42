"""Sizes and parameters of the sparse backbones."""

import pytest
import torch

from sparse3d.errors import ConfigError
from sparse3d.models.voxel_backbone import VoxelBackbone, VoxelBackbone8xConfig, VoxelResBackbone8xConfig
from sparse3d.tensor import SparseTensor

KITTI = (1408, 1600, 41)


def parameters(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


def conv(cin: int, cout: int, taps: int = 27) -> int:
    """Weights of a convolution without bias and of the norm behind it."""
    return taps * cin * cout + 2 * cout


def test_parameter_count_of_second():
    want = (
        conv(4, 16)
        + conv(16, 16)
        + conv(16, 32)
        + 2 * conv(32, 32)
        + conv(32, 64)
        + 2 * conv(64, 64)
        + conv(64, 64)
        + 2 * conv(64, 64)
        + conv(64, 128, taps=3)
    )
    assert want == 711_872
    assert parameters(VoxelBackbone(4, KITTI, VoxelBackbone8xConfig())) == want


def test_parameter_count_of_the_residual_backbone():
    want = conv(4, 16) + 4 * conv(16, 16)
    for cin, cout in ((16, 32), (32, 64), (64, 128)):
        want += conv(cin, cout) + 4 * conv(cout, cout)
    want += conv(128, 128, taps=3)
    assert parameters(VoxelBackbone(4, KITTI, VoxelResBackbone8xConfig())) == want


@pytest.mark.parametrize("config", [VoxelBackbone8xConfig(), VoxelResBackbone8xConfig()])
def test_kitti_grid_becomes_a_map_of_176_by_200_with_256_channels(config):
    # z: 41 -> 21 -> 11 -> (11 - 3) // 2 + 1 = 5 -> (5 - 3) // 2 + 1 = 2
    assert config.bev_shape(KITTI) == (176, 200, 2)
    assert config.stride == 8
    assert VoxelBackbone(4, KITTI, config).out_channels == 256


SMALL = dict(
    channels=(4, 8, 8),
    layers=(1, 1, 1),
    strides=(1, 2, 2),
    z_strides=(1, 2, 2),
    z_paddings=(1, 1, 1),
    stem_channels=4,
    out_channels=8,
)


@pytest.mark.parametrize("kind", [VoxelBackbone8xConfig, VoxelResBackbone8xConfig])
@pytest.mark.parametrize("shape", [(16, 24, 17), (15, 23, 13)])
def test_small_backbone_of_stride_four(kind, shape):
    torch.manual_seed(0)
    model = VoxelBackbone(3, shape, kind(**SMALL))
    sites = torch.stack([torch.randint(0, n, (60,)) for n in (2, *shape)], dim=1).unique(dim=0).int()
    voxels = SparseTensor(torch.randn(len(sites), 3), sites, batch_size=2, shape=shape)
    bev = model(voxels)
    assert bev.shape == (2, model.out_channels, *model.bev_size)
    assert model.bev_size == (-(-shape[0] // 4), -(-shape[1] // 4))


def test_a_voxel_reaches_only_cells_near_it():
    """Axis 2 of the map is x, axis 3 is y, and cell (i, j) lies over voxels 4 i .. 4 i + 3."""
    torch.manual_seed(0)
    shape = (64, 48, 9)
    model = VoxelBackbone(1, shape, VoxelBackbone8xConfig(**SMALL)).eval()
    voxels = SparseTensor(torch.ones(1, 1), torch.tensor([[0, 41, 18, 4]]).int(), batch_size=1, shape=shape)
    x, y = model(voxels)[0].abs().amax(dim=0).nonzero().T
    # Two strided layers spread a site to at most 2 cells an axis; submanifold ones spread nothing.
    assert len(x) and (x - 10).abs().max() <= 1 and (y - 4).abs().max() <= 1


def test_a_stage_may_change_width_without_a_stride():
    config = VoxelBackbone8xConfig(**{**SMALL, "channels": (6, 8, 8)})
    voxels = SparseTensor(torch.ones(1, 2), torch.tensor([[0, 3, 3, 3]]).int(), batch_size=1, shape=(8, 8, 9))
    assert VoxelBackbone(2, (8, 8, 9), config)(voxels).shape[2:] == (2, 2)


def test_no_voxels_give_a_finite_map_in_training():
    model = VoxelBackbone(3, (16, 16, 17), VoxelResBackbone8xConfig(**SMALL)).train()
    voxels = SparseTensor(
        torch.zeros(0, 3), torch.zeros(0, 4, dtype=torch.int32), batch_size=2, shape=(16, 16, 17)
    )
    bev = model(voxels)
    bev.sum().backward()
    assert bev.shape == (2, model.out_channels, 4, 4) and bev.isfinite().all()
    assert all(b.isfinite().all() for b in model.buffers())


def test_grids_too_flat_are_refused():
    with pytest.raises(ConfigError, match=r"shrinks to .* use smaller voxels"):
        VoxelBackbone(4, (64, 64, 8), VoxelBackbone8xConfig())


def test_tuples_of_different_lengths_are_refused():
    with pytest.raises(ConfigError, match="one entry a stage"):
        VoxelBackbone8xConfig(channels=(16, 32))
