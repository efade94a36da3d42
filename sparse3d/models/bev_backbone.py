"""The 2D network on a bird's-eye-view map that SECOND introduced and most LiDAR detectors kept.

    map -> level 1 (stride 1) -> level 2 (stride 2) -> ...
               |                     |
            upsample              upsample          to one common stride, concatenated

Maps are (B, C, X, Y). Source: Yan et al., "SECOND: Sparsely Embedded Convolutional Detection" (Sensors 2018),
section 3.1.3.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sparse3d.errors import ConfigError


@dataclass(frozen=True)
class BevBackboneConfig:
    """One entry a level in each tuple. A level is one strided 3x3 convolution and then `layers[i]` more."""

    layers: tuple[int, ...] = (5, 5)
    strides: tuple[int, ...] = (1, 2)  # relative to the level before
    filters: tuple[int, ...] = (128, 256)
    upsample_strides: tuple[float, ...] = (1, 2)  # below 1: a strided convolution, 0.5 halves the map
    upsample_filters: tuple[int, ...] = (256, 256)
    memory_format: Literal["contiguous", "channels_last"] = "channels_last"  # of activations

    def __post_init__(self) -> None:
        sizes = {len(t) for t in (self.layers, self.strides, self.filters, self.upsample_strides)}
        if sizes != {len(self.upsample_filters)} or not self.layers:
            raise ConfigError(f"BEV backbone: every tuple needs one entry a level, got {self}")
        total, common = 1, set()
        for stride, up in zip(self.strides, self.upsample_strides, strict=True):
            total *= stride
            if stride < 1 or up <= 0 or (up >= 1 and up != int(up)) or (up < 1 and 1 / up != round(1 / up)):
                raise ConfigError(f"BEV backbone: stride {stride} and upsampling {up} must be n and n or 1/n")
            common.add(total / up)
        if len(common) != 1:
            raise ConfigError(
                f"BEV backbone: the levels end at different strides {sorted(common)}; each product of strides"
                f" divided by its upsample stride must be the same"
            )

    @property
    def stride(self) -> float:
        """Cells of the input along one side of a cell of the output; below 1 when the output is finer."""
        return self.strides[0] / self.upsample_strides[0]

    def output_size(self, size: int) -> int:
        """Cells of the output along an axis of `size` cells."""
        return math.ceil(size / self.stride)

    @property
    def out_channels(self) -> int:
        return sum(self.upsample_filters)


def _norm_relu(channels: int) -> list[nn.Module]:
    return [nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01), nn.ReLU(inplace=True)]


def _conv3(cin: int, cout: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(cin, cout, 3, stride, padding=1, bias=False), *_norm_relu(cout)]


def _resample(cin: int, cout: int, up: float) -> nn.Sequential:
    if up < 1:
        down = round(1 / up)
        return nn.Sequential(nn.Conv2d(cin, cout, down, down, bias=False), *_norm_relu(cout))
    return nn.Sequential(nn.ConvTranspose2d(cin, cout, int(up), int(up), bias=False), *_norm_relu(cout))


class BevBackbone(nn.Module):
    """(B, in_channels, X, Y) -> (B, sum(upsample_filters), ceil(X / stride), ceil(Y / stride)); any X and Y.

    A level that comes back larger than that (a map of odd size, halved and doubled) is cut at its far end,
    where the padding was.
    """

    def __init__(self, in_channels: int, config: BevBackboneConfig):
        super().__init__()
        self.config = config
        self.levels = nn.ModuleList()
        self.resamplers = nn.ModuleList()
        channels = in_channels
        for i, filters in enumerate(config.filters):
            self.levels.append(nn.Sequential(*self._level(channels, filters, i)))
            self.resamplers.append(_resample(filters, config.upsample_filters[i], config.upsample_strides[i]))
            channels = filters
        if config.memory_format == "channels_last":
            self.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]

    def _level(self, cin: int, cout: int, i: int) -> list[nn.Module]:
        layers = _conv3(cin, cout, self.config.strides[i])
        for _ in range(self.config.layers[i]):
            layers += _conv3(cout, cout)
        return layers

    def forward(self, bev: Float[Tensor, "B C X Y"]) -> Float[Tensor, "B D X2 Y2"]:
        if self.config.memory_format == "channels_last":
            bev = bev.contiguous(memory_format=torch.channels_last)
        size_x, size_y = (self.config.output_size(size) for size in bev.shape[2:])
        outputs = []
        for level, resample, up in zip(
            self.levels, self.resamplers, self.config.upsample_strides, strict=True
        ):
            bev = level(bev)
            source = bev
            if up < 1:
                down = round(1 / up)
                source = F.pad(bev, (0, size_y * down - bev.shape[3], 0, size_x * down - bev.shape[2]))
            outputs.append(resample(source)[:, :, :size_x, :size_y])
        return torch.cat(outputs, dim=1)
