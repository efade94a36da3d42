"""Cylinder3D: an asymmetric residual U-Net on voxels of a cylinder around the LiDAR.

    points -> MLP 64-128-256-256 -> max over each cell (rho, phi, z) -> 16
    context 32 -> res 64 -+----------------------------------> up 64 -+--------+-> cat -> conv 3^3 -> classes
                  s 2,2,2 | res 128 -+-----------------> up 128       '-> DDCM -'
                             s 2,2,2 | res 256 -+-> up 256
                                        s 2,2,1 | res 512 -> s 2,2,1 -> up 512

Cells grow with the distance, as the gaps between a LiDAR's points do. Objects on a street are upright and
long or wide, so the 3^3 kernel is taken apart into A = (1, 3, 3) and B = (3, 1, 3), over (rho, phi, z). DDCM
(dimension-decomposition based context modelling) gates the last features by the sum of three rank-one
contexts. Every convolution is followed by LeakyReLU and then batch norm. Zhu et al.: "Cylindrical and
Asymmetrical 3D Convolution Networks for LiDAR Segmentation" (arXiv 2011.10033).

`separable` makes each submanifold convolution but the last a depthwise one and a 1^3 one, as "Less is More"
(arXiv 2303.11203) does; its filters are parameters here and are trained.

Where we differ from the released code: kernel maps follow from the geometry (there, layers of different
kernels could share a map by name), the norm that its context block computes and drops is applied, and
classes do not include "ignored". As there, phi is cut behind the LiDAR, and points outside of the cylinder
belong to its outermost cells.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sparse3d import nn as snn
from sparse3d.frames import SegmentationBatch
from sparse3d.models.point_voxels import distinct_voxels
from sparse3d.models.segmentation_losses import SegmentationLossConfig
from sparse3d.models.segmenter import Segmenter
from sparse3d.nn.conv import Size
from sparse3d.tensor import SparseTensor, cat
from sparse3d_ops.segment import gather_rows, segment_max

A, B = (1, 3, 3), (3, 1, 3)
RHO, PHI, Z = (3, 1, 1), (1, 3, 1), (1, 1, 3)
REFLECTIVITY_RANGE = 50.0  # metres at which intensity and reflectivity are equal


@dataclass(frozen=True)
class Cylinder3DConfig:
    """The defaults are the paper's for SemanticKITTI."""

    kind: Literal["cylinder3d"] = "cylinder3d"
    classes: tuple[str, ...] = ()  # labels are positions in this list
    point_channels: int = 4  # x, y, z, intensity
    grid: tuple[int, int, int] = (480, 360, 32)  # cells along rho, phi, z
    max_range: float = 50.0  # metres; rho begins at 0
    z_range: tuple[float, float] = (-4.0, 2.0)  # metres
    point_layers: tuple[int, ...] = (64, 128, 256, 256)
    voxel_channels: int = 16
    channels: int = 32  # of the first level; doubled at each of the four others
    reflectivity: bool = False  # one more input: intensity times (range / 50 m)^2
    separable: bool = False  # depthwise separable submanifold convolutions
    loss: SegmentationLossConfig = SegmentationLossConfig()

    def __post_init__(self):
        if min(self.grid) < 1 or self.max_range <= 0 or self.z_range[0] >= self.z_range[1]:
            raise ValueError(
                f"the cylinder is empty: {self.grid} cells, {self.max_range} m, z {self.z_range}"
            )
        if self.reflectivity and self.point_channels < 4:
            raise ValueError("reflectivity needs the intensity, the fourth column of the points")


def conv_block(cin: int, cout: int, kernel: Size, separable: bool) -> snn.Sequential:
    """Submanifold convolution, LeakyReLU, batch norm."""
    return snn.Sequential(*_submanifold(cin, cout, kernel, separable), snn.LeakyReLU(), snn.BatchNorm(cout))


def _submanifold(cin: int, cout: int, kernel: Size, separable: bool) -> list[nn.Module]:
    if not separable:
        return [snn.SubMConv3d(cin, cout, kernel, bias=False)]
    depthwise = snn.SubMConv3d(cin, cin, kernel, groups=cin, bias=False)
    return [depthwise, snn.SubMConv3d(cin, cout, 1, bias=False)]


class AsymmetricBlock(nn.Module):
    """Two branches that put A and B one after the other, in both orders, and their sum."""

    def __init__(self, cin: int, cout: int, order: tuple[Size, Size], separable: bool):
        super().__init__()
        first, second = order
        self.one = snn.Sequential(
            conv_block(cin, cout, first, separable), conv_block(cout, cout, second, separable)
        )
        self.other = snn.Sequential(
            conv_block(cin, cout, second, separable), conv_block(cout, cout, first, separable)
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        one = self.one(x)
        return one.replace(one.features + self.other(x).features)


class UpBlock(nn.Module):
    """3^3, the inverse of the level's strided convolution, plus the skip, then A, B, 3^3."""

    def __init__(self, cin: int, cout: int, separable: bool):
        super().__init__()
        self.before = conv_block(cin, cout, 3, separable)
        self.up = snn.SparseInverseConv3d(cout, cout, 3, bias=False)
        self.after = snn.Sequential(*(conv_block(cout, cout, kernel, separable) for kernel in (A, B, 3)))

    def forward(self, x: SparseTensor, skip: SparseTensor) -> SparseTensor:
        return self.after(skip.replace(self.up(self.before(x)).features + skip.features))


class ContextModelling(nn.Module):
    """DDCM: x times the sum of a sigmoid gate along each of rho, phi and z."""

    def __init__(self, channels: int, separable: bool):
        super().__init__()
        self.gates = nn.ModuleList(
            snn.Sequential(
                *_submanifold(channels, channels, kernel, separable), snn.BatchNorm(channels), snn.Sigmoid()
            )
            for kernel in (RHO, PHI, Z)
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        gates = torch.stack([gate(x).features for gate in self.gates])
        return x.replace(x.features * gates.sum(dim=0))


class AsymmetricUNet(nn.Module):
    """SparseTensor on the cylinder's cells -> SparseTensor of `classes` channels on the same cells."""

    def __init__(self, cin: int, classes: int, channels: int, separable: bool):
        super().__init__()
        widths = [channels << level for level in range(5)]  # 32, 64, 128, 256, 512
        self.context = AsymmetricBlock(cin, widths[0], (A, B), separable)
        self.encoder = nn.ModuleList(
            AsymmetricBlock(before, after, (B, A), separable)
            for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        strides = ((2, 2, 2), (2, 2, 2), (2, 2, 1), (2, 2, 1))
        self.down = nn.ModuleList(
            snn.SparseConv3d(width, width, 3, stride=stride, padding=1, bias=False)
            for width, stride in zip(widths[1:], strides, strict=True)
        )
        steps = (
            (widths[4], widths[4]),
            (widths[4], widths[3]),
            (widths[3], widths[2]),
            (widths[2], widths[1]),
        )
        self.decoder = nn.ModuleList(UpBlock(before, after, separable) for before, after in steps)
        self.ddcm = ContextModelling(widths[1], separable)
        self.head = snn.SubMConv3d(2 * widths[1], classes, 3)

    def forward(self, cells: SparseTensor) -> SparseTensor:
        x = self.context(cells)
        skips = []
        for encoder, down in zip(self.encoder, self.down, strict=True):
            skips.append(encoder(x))
            x = down(skips[-1])
        for decoder in self.decoder:
            x = decoder(x, skips.pop())
        return self.head(cat([self.ddcm(x), x]))


class PointMLP(nn.Module):
    """Norm; then Linear, norm, ReLU on every point, the last layer Linear alone; the maximum over each cell;
    Linear and ReLU on it. A lone point is legal in training."""

    def __init__(self, cin: int, layers: tuple[int, ...], cout: int):
        super().__init__()
        widths = [cin, *layers]
        self.linears = nn.ModuleList(
            nn.Linear(before, after) for before, after in zip(widths[:-1], widths[1:], strict=True)
        )
        self.norms = nn.ModuleList(snn.BatchNorm(width) for width in widths[:-1])
        self.compress = nn.Sequential(nn.Linear(widths[-1], cout), nn.ReLU())

    def forward(self, points: Tensor, point_cell: Tensor, cells: int) -> Tensor:
        """(P, cin), (P,) rows of cells -> (cells, cout)."""
        for i, (norm, linear) in enumerate(zip(self.norms, self.linears, strict=True)):
            assert isinstance(norm, (snn.BatchNorm, snn.SyncBatchNorm))
            points = norm.normalize(points)
            points = linear(points.relu() if i else points)
        return self.compress(segment_max(points, point_cell, cells)[0])


class Cylinder3D(Segmenter):
    """Points -> cells of the cylinder -> logits of cells -> logits of the points in them."""

    def __init__(self, config: Cylinder3DConfig):
        super().__init__(config.loss)
        self.config = config
        # Offset to the cell's centre, place in the cylinder, x, y, the points' other columns.
        inputs = 3 + 3 + 2 + config.point_channels - 3 + config.reflectivity
        self.points = PointMLP(inputs, config.point_layers, config.voxel_channels)
        self.network = AsymmetricUNet(
            config.voxel_channels, len(config.classes), config.channels, config.separable
        )

    def logits(self, batch: SegmentationBatch) -> Tensor:
        features, cell = self.cylinder(batch.points)
        coordinates, point_cell = distinct_voxels(torch.cat([batch.point_frame[:, None].int(), cell], dim=1))
        values = self.points(features, point_cell, len(coordinates))
        cells = SparseTensor(values, coordinates, batch_size=batch.batch_size, shape=self.config.grid)
        return gather_rows(self.network(cells).features, point_cell)

    def cylinder(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(P, 3 + F) -> the features of each point, and its cell (P, 3) int32 along rho, phi and z."""
        config = self.config
        x, y, z = points[:, :3].unbind(1)
        place = torch.stack([torch.hypot(x, y), torch.atan2(y, x), z], dim=1)
        low = points.new_tensor((0.0, -math.pi, config.z_range[0]))
        high = points.new_tensor((config.max_range, math.pi, config.z_range[1]))
        grid = points.new_tensor(config.grid)
        size = (high - low) / grid
        cell = ((place - low) / size).floor().clamp(min=torch.zeros_like(grid), max=grid - 1)
        columns = [place - ((cell + 0.5) * size + low), place, points[:, :2], points[:, 3:]]
        if config.reflectivity:
            distance = points[:, :3].norm(dim=1, keepdim=True)
            columns.append(points[:, 3:4] * (distance / REFLECTIVITY_RANGE).square())
        return torch.cat(columns, dim=1), cell.int()
