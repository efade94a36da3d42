"""Whole networks under torch.compile and torch.export: one graph for frames of any number of voxels.

The backend is aot_eager, which traces forward and backward through the fakes and needs no C++ compiler.
"""

import pytest
import torch
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

from sparse3d.models.minkunet import MinkUNet, MinkUNetConfig
from sparse3d.models.spunet import SpUNet, SpUNetConfig
from sparse3d.models.voxel_backbone import VoxelBackbone, VoxelBackbone8xConfig, VoxelResBackbone8xConfig
from sparse3d.tensor import SparseTensor

SHAPE = (48, 40, 17)


class FromRows(nn.Module):
    """A network of tensors: what export and a data loader know."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, features: torch.Tensor, coordinates: torch.Tensor) -> torch.Tensor:
        return self.network(SparseTensor(features, coordinates, batch_size=2, shape=SHAPE))


def plain_backbone() -> nn.Module:
    return VoxelBackbone(
        4, SHAPE, VoxelBackbone8xConfig(z_paddings=(1, 1, 1, 1), out_z_kernel=1, out_z_stride=1)
    )


def residual_backbone() -> nn.Module:
    config = VoxelResBackbone8xConfig(z_paddings=(1, 1, 1, 1), out_z_kernel=1, out_z_stride=1)
    return VoxelBackbone(4, SHAPE, config)


class Rows(nn.Module):
    """A segmenter's network: the features of what it gives."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, x: SparseTensor) -> torch.Tensor:
        return self.network(x).features


def minkunet() -> nn.Module:
    config = MinkUNetConfig(channels=(8, 12, 8, 8), layers=(1, 1, 1, 1), stem_channels=8, stem_kernel=3)
    return Rows(MinkUNet(4, 5, config))


def spunet() -> nn.Module:
    config = SpUNetConfig(channels=(12, 8), layers=(1, 1), stem_channels=8, stem_kernel=3)
    return Rows(SpUNet(4, 5, config))


NETWORKS = [plain_backbone, residual_backbone, minkunet, spunet]


def frame(seed: int, points: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    columns = [torch.randint(0, size, (points,), generator=generator) for size in (2, *SHAPE)]
    coordinates = torch.unique(torch.stack(columns, 1), dim=0).int()
    return torch.randn(len(coordinates), 4, generator=generator), coordinates


@pytest.mark.slow
@pytest.mark.parametrize("make", NETWORKS)
def test_a_new_frame_does_not_compile_again(make):
    torch._dynamo.reset()
    torch.manual_seed(0)
    network = FromRows(make())
    counter = CompileCounterWithBackend("aot_eager")
    compiled = torch.compile(network, fullgraph=True, backend=counter, dynamic=True)
    for seed, points in enumerate((300, 500, 150, 420)):
        features, coordinates = frame(seed, points)
        got = compiled(features, coordinates)
        network.zero_grad()
        got.square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    assert counter.frame_count == 1
    network.eval()
    compiled = torch.compile(network, fullgraph=True, backend="aot_eager", dynamic=True)
    with torch.no_grad():
        torch.testing.assert_close(compiled(features, coordinates), network(features, coordinates))


@pytest.mark.slow
@pytest.mark.parametrize("make", NETWORKS)
def test_an_exported_network_takes_any_frame(make, tmp_path):
    torch.manual_seed(0)
    network = FromRows(make()).eval()
    voxels = torch.export.Dim("voxels", min=2)
    program = torch.export.export(network, frame(0, 300), dynamic_shapes=({0: voxels}, {0: voxels}))
    torch.export.save(program, tmp_path / "network.pt2")
    loaded = torch.export.load(tmp_path / "network.pt2").module()
    for seed, points in ((1, 500), (2, 120)):
        with torch.no_grad():
            torch.testing.assert_close(loaded(*frame(seed, points)), network(*frame(seed, points)))
