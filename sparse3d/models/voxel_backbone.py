"""The sparse 3D networks that turn voxels into a bird's-eye-view (BEV) map, down-sampling 8 times.

    VoxelBackbone8x      conv 16 | [conv 16] | s2 32, conv, conv | s2 64, conv, conv | s2 64, conv, conv | z:
    s2 128 VoxelResBackbone8x   conv 16 | res, res  | s2 32, res, res   | s2 64, res, res   | s2 128, res, res
    | z: s2 128

`conv` is a submanifold 3x3x3 convolution, `res` a residual block of two, `s2` a strided 3x3x3 convolution
that also opens new sites; batch norm and ReLU follow each. The last layer shrinks z alone, and what remains
of z is folded into channels. Sources: SECOND (Sensors 2018) for the plain one; CenterPoint (arXiv 2006.11275)
for the residual one. Where we differ: no convolution has a bias before its norm, which would cancel it.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from sparse3d import nn as snn
from sparse3d.errors import ConfigError
from sparse3d.tensor import SparseTensor


@dataclass(frozen=True)
class _StagesConfig:
    """One entry a stage in each tuple. A stage without a stride opens no sites."""

    channels: tuple[int, ...] = (16, 32, 64, 64)
    layers: tuple[int, ...] = (1, 2, 2, 2)  # submanifold convolutions or residual blocks after a strided one
    strides: tuple[int, ...] = (1, 2, 2, 2)  # of x and y
    z_strides: tuple[int, ...] = (1, 2, 2, 2)
    z_paddings: tuple[int, ...] = (1, 1, 1, 0)
    stem_channels: int = 16
    out_channels: int = 128  # of the last layer, for each z that remains
    out_z_kernel: int = 3
    out_z_stride: int = 2

    def __post_init__(self) -> None:
        per_stage = (self.channels, self.layers, self.strides, self.z_strides, self.z_paddings)
        if len({len(t) for t in per_stage}) != 1 or not self.channels:
            raise ConfigError(f"voxel backbone: every tuple needs one entry a stage, got {self}")

    @property
    def stride(self) -> int:
        """Voxels along one side of a BEV cell."""
        total = 1
        for stride in self.strides:
            total *= stride
        return total

    def strided(self, stage: int) -> bool:
        """Whether a stage begins with a strided convolution."""
        return self.strides[stage] > 1 or self.z_strides[stage] > 1

    def bev_shape(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """(X, Y, Z) of the voxel grid -> (X, Y) of the BEV map and the z levels folded into its channels."""
        x, y, z = shape
        for i in range(len(self.channels)):
            if self.strided(i):
                x, y = (_conv_size(n, 3, self.strides[i], 1) for n in (x, y))
                z = _conv_size(z, 3, self.z_strides[i], self.z_paddings[i])
        z = _conv_size(z, self.out_z_kernel, self.out_z_stride, 0)
        if min(x, y, z) < 1:
            raise ConfigError(
                f"voxel backbone: a grid of {shape} voxels shrinks to {(x, y, z)}; use smaller voxels,"
                f" larger bounds or smaller strides"
            )
        return x, y, z


@dataclass(frozen=True)
class VoxelBackbone8xConfig(_StagesConfig):
    kind: Literal["voxel_8x"] = "voxel_8x"


@dataclass(frozen=True)
class VoxelResBackbone8xConfig(_StagesConfig):
    channels: tuple[int, ...] = (16, 32, 64, 128)
    layers: tuple[int, ...] = (2, 2, 2, 2)
    kind: Literal["voxel_res_8x"] = "voxel_res_8x"


VoxelBackboneConfig = VoxelBackbone8xConfig | VoxelResBackbone8xConfig


def _conv_size(n: int, kernel: int, stride: int, padding: int) -> int:
    """Sites along one axis after a convolution, as torch counts them."""
    return (n + 2 * padding - kernel) // stride + 1


def _submanifold(cin: int, cout: int) -> nn.Module:
    return snn.ConvBlock(snn.SubMConv3d(cin, cout, 3, bias=False), cout)


class VoxelBackbone(nn.Module):
    """SparseTensor of `shape` (X, Y, Z), `in_channels` features -> (B, out_channels * Z', X', Y')."""

    def __init__(self, in_channels: int, shape: tuple[int, int, int], config: VoxelBackboneConfig):
        super().__init__()
        self.config = config
        size_x, size_y, size_z = config.bev_shape(shape)
        self.bev_size = (size_x, size_y)
        self.out_channels = config.out_channels * size_z

        self.stem = _submanifold(in_channels, config.stem_channels)
        self.stages = nn.ModuleList(self._stage(i) for i in range(len(config.channels)))
        squeeze = snn.SparseConv3d(
            config.channels[-1],
            config.out_channels,
            kernel_size=(1, 1, config.out_z_kernel),
            stride=(1, 1, config.out_z_stride),
            bias=False,
        )
        self.squeeze_z = snn.ConvBlock(squeeze, config.out_channels)
        self.to_bev = snn.ToBEV()

    def _stage(self, i: int) -> nn.Module:
        config = self.config
        before = config.channels[i - 1] if i else config.stem_channels
        channels = config.channels[i]
        layers: list[nn.Module] = []
        if config.strided(i):
            stride = (config.strides[i], config.strides[i], config.z_strides[i])
            padding = (1, 1, config.z_paddings[i])
            down = snn.SparseConv3d(before, channels, 3, stride=stride, padding=padding, bias=False)
            layers.append(snn.ConvBlock(down, channels))
        elif before != channels:
            layers.append(_submanifold(before, channels))
        for _ in range(config.layers[i]):
            residual = isinstance(config, VoxelResBackbone8xConfig)
            layers.append(snn.ResidualBlock(channels) if residual else _submanifold(channels, channels))
        return snn.Sequential(*layers)

    def stages_of(self, voxels: SparseTensor) -> list[SparseTensor]:
        """What each stage gives, finest first."""
        x, outputs = self.stem(voxels), []
        for stage in self.stages:
            x = stage(x)
            outputs.append(x)
        return outputs

    def forward(self, voxels: SparseTensor) -> Float[Tensor, "B C X Y"]:
        return self.to_bev(self.squeeze_z(self.stages_of(voxels)[-1]))


class VoxelBackboneWithStages(VoxelBackbone):
    """The same network; what each stage gives, finest first, comes with the map."""

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, voxels: SparseTensor
    ) -> tuple[list[SparseTensor], Float[Tensor, "B C X Y"]]:
        stages = self.stages_of(voxels)
        return stages, self.to_bev(self.squeeze_z(stages[-1]))
