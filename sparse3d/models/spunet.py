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

from sparse3d.models.minkunet import LAYERS_34, PLANES_34C
from sparse3d.models.point_voxels import PointInputs
from sparse3d.models.segmentation_losses import SegmentationLossConfig
from sparse3d.models.unet import Norm, SparseUNet, check_levels


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


class SpUNet(SparseUNet):
    """SparseTensor of `in_channels` -> SparseTensor of `classes` channels on the same voxels."""

    NORM = Norm(eps=1e-3, momentum=0.01)

    def level_down(self, width: int, channels: int, layers: int) -> tuple[nn.Module, nn.Module]:
        return self.strided(width, channels), self.residual_level(channels, channels, layers)
