"""The centre head: from a bird's-eye-view feature map to a heatmap of object centres and the boxes there.

    features -> shared 3x3 -> one small branch an output, for each group of classes

Classes that share a group share their box maps. Source: CenterPoint (arXiv 2006.11275), section 4.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

# sigmoid(-2.19) = 0.1: an untrained head is fairly sure of background, and the first focal losses stay small.
HEATMAP_BIAS = -2.19


@dataclass(frozen=True)
class CenterHeadConfig:
    shared_channels: int = 64
    branch_channels: int = 64
    groups: tuple[
        tuple[str, ...], ...
    ] = ()  # class names that share box maps; empty: one group of all classes
    iou_branch: bool = True  # predict the IoU of each box with the truth, to correct its score
    velocity_branch: bool = False  # predict how each object moves; the data must know it
    norm_eps: float = 1e-5  # of the batch norms
    norm_momentum: float = 0.1
    kind: Literal["center"] = "center"


class CenterMaps(NamedTuple):
    """Outputs of one group of K classes at every cell; `code()` has the meaning given in `center_code`."""

    heatmap: Float[Tensor, "B K X Y"]  # logits
    center: Float[Tensor, "B 2 X Y"]
    z: Float[Tensor, "B 1 X Y"]
    dim: Float[Tensor, "B 3 X Y"]
    rot: Float[Tensor, "B 2 X Y"]
    iou: Float[Tensor, "B 1 X Y"] | None  # 2 * IoU - 1
    velocity: Float[Tensor, "B 2 X Y"] | None = None  # along x and y, m/s

    def code(self) -> Float[Tensor, "B 8 X Y"]:
        return torch.cat([self.center, self.z, self.dim, self.rot], dim=1)


class CenterHeadOutput(NamedTuple):
    """The maps of each group, in the order of the config."""

    groups: tuple[CenterMaps, ...]


def _conv3_norm_relu(cin: int, cout: int, config: CenterHeadConfig) -> list[nn.Module]:
    norm = nn.BatchNorm2d(cout, config.norm_eps, config.norm_momentum)
    return [nn.Conv2d(cin, cout, 3, padding=1, bias=False), norm, nn.ReLU(inplace=True)]


class _Branch(nn.Sequential):
    """Two 3x3 convolutions with a norm between them."""

    def __init__(self, config: CenterHeadConfig, outputs: int, bias: float = 0.0):
        last = nn.Conv2d(config.branch_channels, outputs, 3, padding=1)
        nn.init.constant_(last.bias, bias)  # pyright: ignore[reportArgumentType]
        super().__init__(*_conv3_norm_relu(config.shared_channels, config.branch_channels, config), last)


class _Group(nn.Module):
    """The branches of one group of classes."""

    def __init__(self, num_classes: int, config: CenterHeadConfig):
        super().__init__()

        def branch(outputs: int, bias: float = 0.0) -> _Branch:
            return _Branch(config, outputs, bias)

        self.heatmap = branch(num_classes, HEATMAP_BIAS)
        self.center = branch(2)
        self.z = branch(1)
        self.dim = branch(3)
        self.rot = branch(2)
        self.iou = branch(1) if config.iou_branch else None
        self.velocity = branch(2) if config.velocity_branch else None

    def forward(self, shared: Float[Tensor, "B C X Y"]) -> CenterMaps:
        return CenterMaps(
            heatmap=self.heatmap(shared),
            center=self.center(shared),
            z=self.z(shared),
            dim=self.dim(shared),
            rot=self.rot(shared),
            iou=self.iou(shared) if self.iou is not None else None,
            velocity=self.velocity(shared) if self.velocity is not None else None,
        )


class CenterHead(nn.Module):
    """(B, in_channels, X, Y) -> CenterHeadOutput, same X and Y; `group_sizes` are the numbers of classes."""

    def __init__(self, in_channels: int, group_sizes: tuple[int, ...], config: CenterHeadConfig):
        super().__init__()
        self.shared = nn.Sequential(*_conv3_norm_relu(in_channels, config.shared_channels, config))
        self.groups = nn.ModuleList(_Group(size, config) for size in group_sizes)

    def forward(self, bev: Float[Tensor, "B C X Y"]) -> CenterHeadOutput:
        shared = self.shared(bev)
        return CenterHeadOutput(tuple(group(shared) for group in self.groups))
