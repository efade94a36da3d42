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

from sparse3d.models.point_voxels import PointInputs
from sparse3d.models.segmentation_losses import SegmentationLossConfig
from sparse3d.models.unet import Norm, SparseUNet, check_levels

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


class MinkUNet(SparseUNet):
    """SparseTensor of `in_channels` -> SparseTensor of `classes` channels on the same voxels."""

    NORM = Norm(eps=1e-5, momentum=0.1)

    def level_down(self, width: int, channels: int, layers: int) -> tuple[nn.Module, nn.Module]:
        return self.strided(width, width), self.residual_level(width, channels, layers)
