"""The U that sparse networks for segmentation share.

    conv -+----------------------------------------> cat, res -> 1^3 -> classes
          | s2, res -+-----------------> cat, res -> up
                     | ... -> res -> up

`s2` and the first `res` of each level down are the network's own (`level_down`); `res` are residual blocks of
two 3^3 submanifold convolutions, `up` the inverse of the strided convolution of that level. Batch norm and
ReLU follow every convolution but the last.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Protocol, TypedDict

from torch import nn

from sparse3d import nn as snn
from sparse3d.tensor import SparseTensor, cat


class Norm(TypedDict):
    """Of every batch norm of a network."""

    eps: float
    momentum: float


class LevelsConfig(Protocol):
    """Sizes of a U: of its first convolution, and of each level, from fine to coarse and back."""

    @property
    def stem_channels(self) -> int: ...
    @property
    def stem_kernel(self) -> int: ...
    @property
    def channels(self) -> tuple[int, ...]: ...
    @property
    def layers(self) -> tuple[int, ...]: ...


def check_levels(channels: tuple[int, ...], layers: tuple[int, ...]) -> None:
    """ValueError unless there is one entry for each level down and for each level up."""
    if len(channels) != len(layers) or not channels or len(channels) % 2 or min(*channels, *layers) < 1:
        raise ValueError(
            f"channels {channels} and layers {layers} need one entry above 0 for each level, down and up"
        )


class SparseUNet(nn.Module, ABC):
    """SparseTensor of `in_channels` -> SparseTensor of `classes` channels on the same voxels."""

    NORM: ClassVar[Norm]

    def __init__(self, in_channels: int, classes: int, config: LevelsConfig):
        super().__init__()
        levels = len(config.channels) // 2
        width = config.stem_channels
        stem = snn.SubMConv3d(in_channels, width, config.stem_kernel, bias=False)
        self.stem = snn.ConvBlock(stem, width, **self.NORM)
        self.down, self.encoder = nn.ModuleList(), nn.ModuleList()
        self.up, self.decoder = nn.ModuleList(), nn.ModuleList()
        skips = [width]
        for channels, layers in zip(config.channels[:levels], config.layers[:levels], strict=True):
            down, encoder = self.level_down(width, channels, layers)
            self.down.append(down)
            self.encoder.append(encoder)
            width = channels
            skips.append(width)
        for channels, layers, skip in zip(
            config.channels[levels:], config.layers[levels:], skips[-2::-1], strict=True
        ):
            up = snn.SparseInverseConv3d(width, channels, 2, bias=False)
            self.up.append(snn.ConvBlock(up, channels, **self.NORM))
            self.decoder.append(self.residual_level(channels + skip, channels, layers))
            width = channels
        self.head = snn.SubMConv3d(width, classes, 1)

    @abstractmethod
    def level_down(self, width: int, channels: int, layers: int) -> tuple[nn.Module, nn.Module]:
        """What halves the resolution of `width` channels, and the blocks after it, which give `channels`."""

    def strided(self, width: int, channels: int) -> snn.ConvBlock:
        """2^3 voxels become one."""
        convolution = snn.SparseConv3d(width, channels, 2, stride=2, bias=False)
        return snn.ConvBlock(convolution, channels, **self.NORM)

    def residual_level(self, width: int, channels: int, layers: int) -> snn.Sequential:
        """`layers` residual blocks, the first from `width` to `channels`."""
        blocks = [snn.ResidualBlock(width, channels, **self.NORM)]
        blocks += [snn.ResidualBlock(channels, **self.NORM) for _ in range(layers - 1)]
        return snn.Sequential(*blocks)

    def forward(self, voxels: SparseTensor) -> SparseTensor:
        x = self.stem(voxels)
        skips = []
        for down, encoder in zip(self.down, self.encoder, strict=True):
            skips.append(x)
            x = encoder(down(x))
        for up, decoder in zip(self.up, self.decoder, strict=True):
            x = decoder(cat([up(x), skips.pop()]))
        return self.head(x)
