"""MinkUNet: a residual U-Net on sparse voxels.

    conv 5^3 32 -+------------------------------------------------------------> cat, res 96 -> 1^3 -> classes
                 | s2, res 32 -+-----------------------------> cat, res 96 -> up
                               | s2, res 64 -+---> cat, res 128 -> up
                                             | s2, res 128 -+-> cat, res 128 -> up
                                                            | s2, res 256 -> up

`s2` is a strided convolution (2^3, stride 2) that keeps its channels, `res` residual blocks of two 3^3
submanifold convolutions, the first of which changes the channels; `up` the inverse of the strided convolution
of that level. Batch norm and ReLU follow every convolution but the last. Choy, Gwak, Savarese: "4D
Spatio-Temporal ConvNets: Minkowski Convolutional Neural Networks" (arXiv 1904.08755); widths and depths of
MinkUNet18A and MinkUNet34C in its released code. Where we differ: kernels of strided convolutions begin at
the voxel, so that 2^3 voxels become one.
"""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from sparse3d import nn as snn
from sparse3d.models.point_voxels import PointInputs
from sparse3d.models.segmentation_losses import SegmentationLossConfig
from sparse3d.tensor import SparseTensor, cat

# Encoder levels from fine to coarse, then decoder levels from coarse to fine.
PLANES_A = (32, 64, 128, 256, 128, 128, 96, 96)
PLANES_34C = (32, 64, 128, 256, 256, 128, 96, 96)
LAYERS_18 = (2, 2, 2, 2, 2, 2, 2, 2)
LAYERS_34 = (2, 3, 4, 6, 2, 2, 2, 2)


@dataclass(frozen=True)
class MinkUNetConfig:
    """The defaults are MinkUNet18A on 5 cm voxels."""

    kind: Literal["minkunet"] = "minkunet"
    classes: tuple[str, ...] = ()  # labels are positions in this list
    point_channels: int = 4  # x, y, z, intensity
    voxel_size: float = 0.05  # metres
    inputs: PointInputs = "mean"
    stem_channels: int = 32
    stem_kernel: int = 5
    channels: tuple[int, ...] = PLANES_A  # one entry a level, down and then up
    layers: tuple[int, ...] = LAYERS_18  # residual blocks of each level
    loss: SegmentationLossConfig = SegmentationLossConfig()

    def __post_init__(self):
        check_levels(self.channels, self.layers)


def check_levels(channels: tuple[int, ...], layers: tuple[int, ...]) -> None:
    """ValueError unless there is one entry for each level down and for each level up."""
    if len(channels) != len(layers) or not channels or len(channels) % 2 or min(*channels, *layers) < 1:
        raise ValueError(
            f"channels {channels} and layers {layers} need one entry above 0 for each level, down and up"
        )


class MinkUNet(nn.Module):
    """SparseTensor of `in_channels` -> SparseTensor of `classes` channels on the same voxels."""

    def __init__(self, in_channels: int, classes: int, config: MinkUNetConfig):
        super().__init__()
        levels = len(config.channels) // 2
        norm = {"eps": 1e-5, "momentum": 0.1}
        width = config.stem_channels
        stem = snn.SubMConv3d(in_channels, width, config.stem_kernel, bias=False)
        self.stem = snn.ConvBlock(stem, width, **norm)
        self.down, self.encoder = nn.ModuleList(), nn.ModuleList()
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        skips = [width]
        for channels, layers in zip(config.channels[:levels], config.layers[:levels], strict=True):
            down = snn.SparseConv3d(width, width, 2, stride=2, bias=False)
            self.down.append(snn.ConvBlock(down, width, **norm))
            self.encoder.append(residual_level(width, channels, layers, **norm))
            width = channels
            skips.append(width)
        for channels, layers, skip in zip(
            config.channels[levels:], config.layers[levels:], skips[-2::-1], strict=True
        ):
            up = snn.SparseInverseConv3d(width, channels, 2, bias=False)
            self.up.append(snn.ConvBlock(up, channels, **norm))
            self.decoder.append(residual_level(channels + skip, channels, layers, **norm))
            width = channels
        self.head = snn.SubMConv3d(width, classes, 1)

    def forward(self, voxels: SparseTensor) -> SparseTensor:
        x = self.stem(voxels)
        skips = []
        for down, encoder in zip(self.down, self.encoder, strict=True):
            skips.append(x)
            x = encoder(down(x))
        for up, decoder in zip(self.up, self.decoder, strict=True):
            x = decoder(cat([up(x), skips.pop()]))
        return self.head(x)


def residual_level(
    in_channels: int, channels: int, layers: int, eps: float, momentum: float
) -> snn.Sequential:
    """`layers` residual blocks, the first from `in_channels` to `channels`."""
    blocks = [snn.ResidualBlock(in_channels, channels, eps=eps, momentum=momentum)]
    blocks += [snn.ResidualBlock(channels, eps=eps, momentum=momentum) for _ in range(layers - 1)]
    return snn.Sequential(*blocks)
