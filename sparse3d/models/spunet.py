"""SpUNet: the residual U-Net on sparse voxels that most point-cloud networks are compared with.

    conv 5^3 32 -+---------------------------------------------------------> cat, res 96 -> 1^3 -> classes
                 | s2 32, res -+--------------------------> cat, res 96 -> up
                               | s2 64, res -+-> cat, res 128 -> up
                                             | s2 128, res -+-> cat, res 256 -> up
                                                            | s2 256, res -> up

As MinkUNet34, but the strided convolution (2^3, stride 2) itself changes the channels, so that no residual
block of the encoder needs a shortcut; batch norms are slower (momentum 0.01, eps 1e-3). Widths and depths are
those of SpUNet-v1m1 in Pointcept (Pointcept Contributors, 2023), itself after "3D Semantic Segmentation with
Submanifold Sparse Convolutional Networks" (arXiv 1711.10275). Where we differ: weights begin as torch's
convolutions do, not from a normal of deviation 0.02.
"""

from dataclasses import dataclass
from typing import Literal

from torch import nn

from sparse3d import nn as snn
from sparse3d.models.minkunet import LAYERS_34, PLANES_34C, check_levels, residual_level
from sparse3d.models.point_voxels import PointInputs
from sparse3d.models.segmentation_losses import SegmentationLossConfig
from sparse3d.tensor import SparseTensor, cat


@dataclass(frozen=True)
class SpUNetConfig:
    """The defaults are SpUNet-v1m1 on 5 cm voxels."""

    kind: Literal["spunet"] = "spunet"
    classes: tuple[str, ...] = ()  # labels are positions in this list
    point_channels: int = 4  # x, y, z, intensity
    voxel_size: float = 0.05  # metres
    inputs: PointInputs = "mean"
    stem_channels: int = 32
    stem_kernel: int = 5
    channels: tuple[int, ...] = PLANES_34C  # one entry a level, down and then up
    layers: tuple[int, ...] = LAYERS_34  # residual blocks of each level
    loss: SegmentationLossConfig = SegmentationLossConfig()

    def __post_init__(self):
        check_levels(self.channels, self.layers)


class SpUNet(nn.Module):
    """SparseTensor of `in_channels` -> SparseTensor of `classes` channels on the same voxels."""

    def __init__(self, in_channels: int, classes: int, config: SpUNetConfig):
        super().__init__()
        levels = len(config.channels) // 2
        norm = {"eps": 1e-3, "momentum": 0.01}
        width = config.stem_channels
        stem = snn.SubMConv3d(in_channels, width, config.stem_kernel, bias=False)
        self.stem = snn.ConvBlock(stem, width, **norm)
        self.down, self.encoder = nn.ModuleList(), nn.ModuleList()
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        skips = [width]
        for channels, layers in zip(config.channels[:levels], config.layers[:levels], strict=True):
            down = snn.SparseConv3d(width, channels, 2, stride=2, bias=False)
            self.down.append(snn.ConvBlock(down, channels, **norm))
            self.encoder.append(residual_level(channels, channels, layers, **norm))
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
