"""From points to features of voxels ("voxel feature encoder"): the plain mean, the mean's offset within the
voxel, or a small learned network.

Points outside of the bounds are dropped. The order of the points changes features by rounding only. Sources:
SECOND (Sensors 2018) for the mean; PointPillars (arXiv 1812.05784), section 2.1, and its dynamic form in
"End-to-End Multi-View Fusion" (arXiv 1910.06528) for the network.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sparse3d.errors import ConfigError
from sparse3d.nn import BatchNorm
from sparse3d.tensor import SparseTensor
from sparse3d_ops.segment import gather_rows, segment_max, segment_mean
from sparse3d_ops.voxelize import grid_shape, voxelize

Bounds = tuple[float, float, float, float, float, float]


@dataclass(frozen=True)
class MeanVoxelFeaturesConfig:
    """The mean of the points' columns."""

    kind: Literal["mean"] = "mean"


@dataclass(frozen=True)
class OffsetVoxelFeaturesConfig:
    """The mean point relative to its voxel, in half voxels; its height relative to the bounds, in half of
    their height; and the means of the other columns.

    All of order one, where `mean` has metres: tens of them along x, centimetres within a voxel, and a norm
    over both hides the latter for many epochs. Without absolute x and y, equal objects look equal everywhere.
    """

    kind: Literal["offset"] = "offset"


@dataclass(frozen=True)
class DynamicVoxelFeaturesConfig:
    """Points and their offsets from the voxel's mean and centre, through layers that end in a maximum."""

    channels: tuple[int, ...] = (32, 32)
    # "absolute": metres, x and y of the world among them, as in the papers. "relative": offsets in half
    # voxels and the height in half of the bounds', without absolute x and y, as in `offset`.
    inputs: Literal["absolute", "relative"] = "absolute"
    kind: Literal["dynamic"] = "dynamic"

    def __post_init__(self) -> None:
        if not self.channels or any(c % 2 for c in self.channels[:-1]):
            raise ConfigError(
                f"dynamic voxel features: all channels but the last must be even, got {self.channels}"
            )


VoxelFeaturesConfig = MeanVoxelFeaturesConfig | OffsetVoxelFeaturesConfig | DynamicVoxelFeaturesConfig


class PointLayer(nn.Module):
    """Linear, norm, ReLU on points, then the maximum over each voxel.

    The last layer returns the maximum. The others return it beside the point's own values, each with half of
    `channels`.
    """

    def __init__(self, in_channels: int, channels: int, last: bool):
        super().__init__()
        width = channels if last else channels // 2
        self.last = last
        self.linear = nn.Linear(in_channels, width, bias=False)
        self.norm = BatchNorm(width, eps=1e-3, momentum=0.01)  # of points; a lone one is legal

    def forward(self, points: Tensor, point_voxel: Tensor, num_voxels: int) -> Tensor:
        """(P, in_channels) -> (num_voxels, channels) from the last layer, (P, channels) from the others."""
        values = self.norm.normalize(self.linear(points)).relu()
        best, _ = segment_max(values, point_voxel, num_voxels)
        return best if self.last else torch.cat([values, gather_rows(best, point_voxel)], dim=1)


class VoxelFeatures(nn.Module):
    """Points (P, F), their frames (P,) -> SparseTensor of the voxels that hold a point.

    `shape` (X, Y, Z) is the number of voxels within the bounds, plus `spare_z` in z: SECOND has one, so 41
    for KITTI's 4 m at 0.1 m, which the backbone's strides then bring to 2. Pillars are voxels as high as the
    bounds, with none to spare.
    """

    def __init__(
        self,
        point_channels: int,
        voxel_size: tuple[float, float, float],
        bounds: Bounds,
        config: VoxelFeaturesConfig,
        spare_z: int = 1,
    ):
        super().__init__()
        self.voxel_size, self.bounds = list(voxel_size), list(bounds)
        x, y, z = grid_shape(self.voxel_size, self.bounds)
        self.shape = (x, y, z + spare_z)
        self.layers = nn.ModuleList()
        self.offsets = isinstance(config, OffsetVoxelFeaturesConfig)
        self.out_channels = point_channels + 1 if self.offsets else point_channels
        self.relative = False
        if isinstance(config, DynamicVoxelFeaturesConfig):
            self.relative = config.inputs == "relative"
            self.out_channels += 4 if self.relative else 6
            for i, channels in enumerate(config.channels):
                self.layers.append(PointLayer(self.out_channels, channels, i == len(config.channels) - 1))
                self.out_channels = channels

    def forward(self, points: Tensor, point_frame: Tensor, batch_size: int) -> SparseTensor:
        coordinates, point_voxel, _ = voxelize(points, point_frame, self.voxel_size, self.bounds)
        inside = point_voxel >= 0
        points, point_voxel = points[inside], point_voxel[inside]
        features = segment_mean(points, point_voxel, len(coordinates))
        if self.offsets:
            features = self._relative(features, coordinates)
        elif len(self.layers):
            features = self._learned(points, point_voxel, features, coordinates)
        return SparseTensor(features, coordinates, batch_size=batch_size, shape=self.shape)

    def _centres(self, coordinates: Tensor, like: Tensor) -> Tensor:
        """(M, 3) metres."""
        low, size = like.new_tensor(self.bounds[:3]), like.new_tensor(self.voxel_size)
        return (coordinates[:, 1:] + 0.5) * size + low

    def _relative(self, mean: Tensor, coordinates: Tensor) -> Tensor:
        offset = (mean[:, :3] - self._centres(coordinates, mean)) / (mean.new_tensor(self.voxel_size) / 2)
        low, high = self.bounds[2], self.bounds[5]
        height = (mean[:, 2:3] - (low + high) / 2) / ((high - low) / 2)
        return torch.cat([offset, height, mean[:, 3:]], dim=1)

    def _learned(self, points: Tensor, point_voxel: Tensor, mean: Tensor, coordinates: Tensor) -> Tensor:
        xyz, centre = points[:, :3], self._centres(coordinates, points)
        from_mean, from_centre = xyz - mean[point_voxel, :3], xyz - centre[point_voxel]
        values = torch.cat([points, from_mean, from_centre], dim=1)
        if self.relative:
            half, (low, high) = points.new_tensor(self.voxel_size) / 2, (self.bounds[2], self.bounds[5])
            height = (points[:, 2:3] - (low + high) / 2) / ((high - low) / 2)
            values = torch.cat([points[:, 3:], height, from_mean / half, from_centre / half], dim=1)
        for layer in self.layers:
            values = layer(values, point_voxel, len(coordinates))
        return values
