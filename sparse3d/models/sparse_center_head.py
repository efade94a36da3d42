"""The centre head on sparse cells: each occupied one tells a score for every class and the box of its object.

    features -> one small branch an output, for each group of classes

What `center_head` does with a dense map, by submanifold convolutions. The cell of an object is the occupied
one nearest to its centre; the offset from there may be longer than a cell. Chen et al.: "VoxelNeXt"
(arXiv 2303.11301), section 3.2. Where we differ from its code: distances run from the middle of a cell, not
from its lower corner.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparse3d import nn as snn
from sparse3d.models.center_code import BevGrid, encode
from sparse3d.models.center_head import HEATMAP_BIAS
from sparse3d.models.center_targets import gaussian_radius
from sparse3d.tensor import SparseTensor


@dataclass(frozen=True)
class SparseCenterHeadConfig:
    groups: tuple[
        tuple[str, ...], ...
    ] = ()  # class names that share box outputs; empty: one group of all classes
    kernel_size: int = 1  # of the first convolution of each branch; 3 sees the neighbours
    iou_branch: bool = False  # predict the IoU of each box with the truth, to correct its score
    velocity_branch: bool = False  # predict how each object moves; the data must know it
    biases: bool = True  # of convolutions before a norm: they change nothing, released checkpoints hold them


class CenterCells(NamedTuple):
    """Outputs of one group of K classes at N occupied cells; `code()` as in `center_code`."""

    heatmap: Float[Tensor, "N K"]  # logits
    center: Float[Tensor, "N 2"]
    z: Float[Tensor, "N 1"]
    dim: Float[Tensor, "N 3"]
    rot: Float[Tensor, "N 2"]
    iou: Float[Tensor, "N 1"] | None  # 2 * IoU - 1
    velocity: Float[Tensor, "N 2"] | None  # along x and y, m/s

    def code(self) -> Float[Tensor, "N 8"]:
        return torch.cat([self.center, self.z, self.dim, self.rot], dim=1)


class _Group(nn.Module):
    """The branches of one group of classes."""

    def __init__(self, channels: int, num_classes: int, config: SparseCenterHeadConfig):
        super().__init__()

        def branch(outputs: int) -> snn.Sequential:
            first = snn.SubMConv2d(channels, channels, config.kernel_size, bias=config.biases)
            hidden = snn.ConvBlock(first, channels, eps=1e-5, momentum=0.1)
            return snn.Sequential(hidden, snn.SubMConv2d(channels, outputs, 1))

        self.heatmap = branch(num_classes)
        nn.init.constant_(self.heatmap[-1].bias, HEATMAP_BIAS)  # pyright: ignore[reportArgumentType]
        self.center = branch(2)
        self.z = branch(1)
        self.dim = branch(3)
        self.rot = branch(2)
        self.iou = branch(1) if config.iou_branch else None
        self.velocity = branch(2) if config.velocity_branch else None

    def forward(self, x: SparseTensor) -> CenterCells:
        return CenterCells(
            heatmap=self.heatmap(x).features,
            center=self.center(x).features,
            z=self.z(x).features,
            dim=self.dim(x).features,
            rot=self.rot(x).features,
            iou=self.iou(x).features if self.iou is not None else None,
            velocity=self.velocity(x).features if self.velocity is not None else None,
        )


class SparseCenterHead(nn.Module):
    """SparseTensor of shape (X, Y, 1) -> CenterCells of each group; `group_sizes` are numbers of classes."""

    def __init__(self, channels: int, group_sizes: tuple[int, ...], config: SparseCenterHeadConfig):
        super().__init__()
        self.groups = nn.ModuleList(_Group(channels, size, config) for size in group_sizes)

    def forward(self, x: SparseTensor) -> tuple[CenterCells, ...]:
        return tuple(group(x) for group in self.groups)


class CellTargets(NamedTuple):
    """The heatmap over N cells, in [0, 1], and for each of M objects its row, cell, box code, box and
    velocity (m/s along x and y, NaN where unknown)."""

    heatmap: Float[Tensor, "N K"]
    row: Int[Tensor, "M"]
    cell: Int[Tensor, "M 2"]
    code: Float[Tensor, "M 8"]
    boxes: Float[Tensor, "M 7"]
    velocity: Float[Tensor, "M 2"]


@torch.no_grad()
def cell_targets(
    coordinates: Int[Tensor, "N 4"],
    boxes: Float[Tensor, "O 7"],
    labels: Int[Tensor, "O"],
    box_frame: Int[Tensor, "O"],
    classes: Sequence[int],
    grid: BevGrid,
    *,
    velocities: Float[Tensor, "O 2"] | None = None,
    overlap: float = 0.1,
    min_radius: int = 2,
) -> CellTargets:
    """Targets of one head group, whose channel k stands for label `classes[k]`, at occupied cells (batch, x,
    y, 0).

    The heatmap of an object falls off as exp(-d^2 / 2 sigma^2) around its centre and around the cell nearest
    to it, whichever is higher; sigma = (2 radius + 1) / 6. Ties: the first row. Left out: boxes of other
    classes, with a centre outside of the grid's bounds, with a size that is not positive, with a number that
    is not finite, and those of a frame without cells.
    """
    boxes = boxes.float()
    match = labels[:, None] == torch.tensor(list(classes), device=labels.device)
    usable = boxes.isfinite().all(dim=1) & (boxes[:, 3:6] > 0).all(dim=1)
    keep = match.any(dim=1) & usable & grid.contains(boxes)
    length, width = boxes[:, 3] / grid.cell[0], boxes[:, 4] / grid.cell[1]
    radius = gaussian_radius(length, width, overlap).long().clamp(min=min_radius)
    double_variance = 2 * ((2 * radius + 1).float() / 6).square()

    heatmap = boxes.new_zeros(len(coordinates), len(classes))
    rows, objects = [], []
    for frame in box_frame[keep].unique().tolist():
        here = (coordinates[:, 0] == frame).nonzero()[:, 0]
        mine = (keep & (box_frame == frame)).nonzero()[:, 0]
        if len(here) == 0:
            continue
        middle = coordinates[here, 1:3].float() + 0.5
        distance = _square_distances(grid.positions(boxes[mine]), middle)
        nearest = distance.argmin(dim=1)
        # The farther a cell, the lower its value: the nearer of the two origins counts.
        distance = torch.minimum(distance, _square_distances(middle[nearest], middle))
        value = torch.exp(-distance / double_variance[mine, None])
        for k in range(len(classes)):
            of_class = match[mine, k]
            if of_class.any():
                heatmap[here, k] = value[of_class].amax(dim=0)
        rows.append(here[nearest])
        objects.append(mine)
    none = torch.zeros(0, dtype=torch.long, device=boxes.device)
    row, chosen = torch.cat([none, *rows]), torch.cat([none, *objects])
    cell, boxes = coordinates[row, 1:3].long(), boxes[chosen]
    if velocities is None:
        velocity = torch.full_like(boxes[:, :2], float("nan"))
    else:
        velocity = velocities[chosen].float()
    return CellTargets(heatmap, row, cell, encode(boxes, cell, grid), boxes, velocity)


def _square_distances(a: Float[Tensor, "M 2"], b: Float[Tensor, "N 2"]) -> Float[Tensor, "M N"]:
    return (a[:, None] - b[None]).square().sum(dim=2)
