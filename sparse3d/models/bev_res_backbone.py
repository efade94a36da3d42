"""The bird's-eye-view network of DSVT: levels of residual blocks where SECOND has plain convolutions.

A level is one strided block, whose shortcut is a 1x1 convolution, and `layers[i]` blocks more. Sources: He et
al., "Deep Residual Learning" (arXiv 1512.03385) for the block; DSVT (arXiv 2301.06051), section 4.1.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from sparse3d.models.bev_backbone import BevBackbone, BevBackboneConfig


@dataclass(frozen=True)
class BevResBackboneConfig(BevBackboneConfig):
    """The defaults are DSVT's for Waymo."""

    layers: tuple[int, ...] = (1, 2, 2)  # residual blocks after the strided one
    strides: tuple[int, ...] = (1, 2, 2)
    filters: tuple[int, ...] = (128, 128, 256)
    upsample_strides: tuple[float, ...] = (1, 2, 4)
    upsample_filters: tuple[int, ...] = (128, 128, 128)


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)


class BevResBlock(nn.Module):
    """Two 3x3 convolutions with norms, the input added before the last ReLU."""

    def __init__(self, cin: int, cout: int, stride: int = 1, project: bool = False):
        super().__init__()
        self.conv1 = nn.Conv2d(cin, cout, 3, stride, padding=1, bias=False)
        self.norm1 = _norm(cout)
        self.conv2 = nn.Conv2d(cout, cout, 3, padding=1, bias=False)
        self.norm2 = _norm(cout)
        shortcut = nn.Conv2d(cin, cout, 1, stride, bias=False)
        self.shortcut = nn.Sequential(shortcut, _norm(cout)) if project else nn.Identity()

    def forward(self, x: Float[Tensor, "B C X Y"]) -> Float[Tensor, "B D X2 Y2"]:
        out = self.norm2(self.conv2(self.norm1(self.conv1(x)).relu()))
        return (out + self.shortcut(x)).relu()


class BevResBackbone(BevBackbone):
    """As `BevBackbone`, with residual blocks."""

    def _level(self, cin: int, cout: int, i: int) -> list[nn.Module]:
        first = BevResBlock(cin, cout, self.config.strides[i], project=True)
        return [first, *(BevResBlock(cout, cout) for _ in range(self.config.layers[i]))]
