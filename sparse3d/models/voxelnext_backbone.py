"""VoxelNeXt's sparse backbone: voxels to sparse bird's-eye-view cells, never a dense map.

    conv 16 | res, res | s2 32, res, res | s2 64, res, res | s2 128, res, res   (stride 8)
                                                               | s2 128, res, res   (16)
                                                               | s2 128, res, res   (32)
    the last three on the cells of stride 8, heights and levels summed -> conv 128 -> submanifold conv 128

The two coarse levels give objects that are larger than what a stride of 8 sees a wide enough view. `conv`
opens the neighbours of each cell, so that a hollow object has cells near its centre. Chen et al.: "VoxelNeXt"
(arXiv 2303.11301), section 3.
"""

from dataclasses import dataclass
from math import prod

import torch
from torch import nn

from sparse3d import nn as snn
from sparse3d.errors import ConfigError
from sparse3d.tensor import SparseTensor


@dataclass(frozen=True)
class VoxelNeXtBackboneConfig:
    """One entry a stage in each tuple. The first stage keeps the voxels."""

    channels: tuple[int, ...] = (16, 32, 64, 128, 128, 128)
    layers: tuple[int, ...] = (2, 2, 2, 2, 2, 2)  # residual blocks
    kernels: tuple[int, ...] = (3, 3, 3, 3, 3, 3)  # of the strided convolution that begins a stage; odd
    strides: tuple[int, ...] = (1, 2, 2, 2, 2, 2)  # of x and y
    z_strides: tuple[int, ...] = (1, 2, 2, 2, 2, 2)
    merged: int = 3  # last stages, summed on the cells of the first of them
    out_channels: int = 128
    # Convolutions before a norm have a bias: it changes nothing, but released checkpoints hold it.
    biases: bool = True

    def __post_init__(self) -> None:
        per_stage = (self.channels, self.layers, self.kernels, self.strides, self.z_strides)
        if len({len(t) for t in per_stage}) != 1 or not self.channels:
            raise ConfigError(f"VoxelNeXt backbone: every tuple needs one entry a stage, got {self}")
        if not 1 <= self.merged <= len(self.channels):
            raise ConfigError(f"merged is {self.merged}, expected 1 to {len(self.channels)} stages")
        if len(set(self.channels[-self.merged :])) != 1:
            raise ConfigError(f"the merged stages need equal channels, got {self.channels[-self.merged :]}")
        if any(kernel % 2 == 0 for kernel in self.kernels):
            raise ConfigError(f"kernels are {self.kernels}, expected odd ones")
        if self.strides[0] != 1 or self.z_strides[0] != 1:
            raise ConfigError("the first stage has no convolution that could stride")

    @property
    def first_merged(self) -> int:
        return len(self.channels) - self.merged

    @property
    def stride(self) -> int:
        """Voxels along one side of an output cell."""
        return prod(self.strides[: self.first_merged + 1])

    def cells(self, size: int) -> int:
        """Output cells along x or y of a grid with `size` voxels there."""
        stages = range(1, self.first_merged + 1)
        for kernel, stride in ((self.kernels[i], self.strides[i]) for i in stages):
            size = (size + 2 * (kernel // 2) - kernel) // stride + 1
        return size


class VoxelNeXtBackbone(nn.Module):
    """SparseTensor of shape (X, Y, Z) -> SparseTensor of shape (X', Y', 1), `out_channels` features."""

    def __init__(self, in_channels: int, shape: tuple[int, int, int], config: VoxelNeXtBackboneConfig):
        super().__init__()
        self.config = config
        self.bev_size = (config.cells(shape[0]), config.cells(shape[1]))
        first, out, merged = config.channels[0], config.out_channels, config.channels[-1]
        self.stem = snn.ConvBlock(snn.SubMConv3d(in_channels, first, 3, bias=False), first)
        self.stages = nn.ModuleList(self._stage(i) for i in range(len(config.channels)))
        self.spread = snn.ConvBlock(snn.SparseConv2d(merged, out, 3, padding=1, bias=False), out)
        self.shared = snn.ConvBlock(
            snn.SubMConv2d(out, out, 3, bias=config.biases), out, eps=1e-5, momentum=0.1
        )

    def _stage(self, i: int) -> nn.Module:
        config = self.config
        layers: list[nn.Module] = []
        if i:
            before, channels, kernel = config.channels[i - 1], config.channels[i], config.kernels[i]
            stride = (config.strides[i], config.strides[i], config.z_strides[i])
            down = snn.SparseConv3d(before, channels, kernel, stride=stride, padding=kernel // 2, bias=False)
            layers.append(snn.ConvBlock(down, channels))
        blocks = (snn.ResidualBlock(config.channels[i], bias=config.biases) for _ in range(config.layers[i]))
        return snn.Sequential(*layers, *blocks)

    def forward(self, voxels: SparseTensor) -> SparseTensor:
        x, levels = self.stem(voxels), []
        for stage in self.stages:
            x = stage(x)
            levels.append(x)
        return self.shared(self.spread(self._flatten(levels[self.config.first_merged :])))

    def _flatten(self, levels: list[SparseTensor]) -> SparseTensor:
        """The levels summed on the cells of the first one, all heights of a cell together."""
        finest = levels[0].stride[0]
        cells = []
        for level in levels:
            coordinates = level.coordinates.clone()
            coordinates[:, 1:3] *= level.stride[0] // finest
            coordinates[:, 3] = 0
            cells.append(coordinates)
        return SparseTensor.merge_duplicates(
            torch.cat([level.features for level in levels]),
            torch.cat(cells),
            reduce="sum",
            batch_size=levels[0].batch_size,
            shape=(*self.bev_size, 1),
        )
