"""Voxel RoI pooling: what the sparse backbone saw around a grid of points within each RoI.

    RoI -> 6 x 6 x 6 points -> of each backbone stage: the voxels near each point -> small network, maximum

The network is the accelerated PointNet: features go through their linear map once a voxel, before they are
gathered, and only the three numbers of the way from point to voxel once a pair. A point without a voxel near
it gets what a voxel of zero features at its place would give.

Source: Deng et al., "Voxel R-CNN" (arXiv 2012.15712), sections 3.3 and 3.4. Where we differ: the nearest
voxels are sampled, by Manhattan distance, not the first that a scan meets.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from sparse3d.errors import ConfigError
from sparse3d.models.roi_head import RowNorm
from sparse3d.models.rois import Rois, grid_points
from sparse3d.models.voxel_features import Bounds
from sparse3d.tensor import SparseTensor
from sparse3d_ops.segment import gather_rows, segment_max
from sparse3d_ops.voxel_query import voxel_query


@dataclass(frozen=True)
class PoolLevelConfig:
    """One stage of the sparse backbone, counted from 0."""

    stage: int
    radius: float  # metres
    reach: tuple[int, int, int] = (4, 4, 4)  # voxels of that stage along x, y, z
    samples: int = 16  # voxels a point
    channels: tuple[int, int] = (32, 32)  # before and after the maximum


@dataclass(frozen=True)
class VoxelRoiPoolConfig:
    grid: int = 6  # points along each side of a RoI
    levels: tuple[PoolLevelConfig, ...] = (
        PoolLevelConfig(1, 0.4),
        PoolLevelConfig(2, 0.8),
        PoolLevelConfig(3, 1.6),
    )

    def __post_init__(self) -> None:
        if self.grid < 1 or not self.levels:
            raise ConfigError(f"RoI pooling needs a grid of at least 1 and at least one level, got {self}")

    @property
    def out_channels(self) -> int:
        """Features of a RoI: of each point in turn those of each level."""
        return self.grid**3 * sum(level.channels[1] for level in self.levels)


class VoxelPooling(nn.Module):
    """Points (Q, 3) in metres, their frames (Q,), voxels of one stage -> (Q, channels[1])."""

    def __init__(
        self,
        in_channels: int,
        voxel_size: tuple[float, float, float],
        bounds: Bounds,
        config: PoolLevelConfig,
    ):
        super().__init__()
        self.config, self.voxel_size, self.low = config, voxel_size, bounds[:3]
        middle, out = config.channels
        self.feature = nn.Sequential(nn.Linear(in_channels, middle, bias=False), RowNorm(middle))
        self.way = nn.Sequential(nn.Linear(3, middle, bias=False), RowNorm(middle))
        self.out = nn.Sequential(nn.Linear(middle, out, bias=False), RowNorm(out), nn.ReLU())

    def forward(
        self, points: Float[Tensor, "Q 3"], frame: Int[Tensor, "Q"], voxels: SparseTensor
    ) -> Float[Tensor, "Q D"]:
        size = [length * stride for length, stride in zip(self.voxel_size, voxels.stride, strict=True)]
        low, step = points.new_tensor(self.low), points.new_tensor(size)
        config = self.config
        table = voxels.sites.hash_table()
        rows = voxel_query(
            *table, (points - low) / step, frame, size, list(config.reach), config.radius, config.samples
        )
        there = rows >= 0
        there[:, 0] = True  # so that every point has a pair, if only with no voxel
        point, place = there.nonzero().unbind(1)
        row = rows[point, place].long()

        centre = (voxels.coordinates[:, 1:] + 0.5) * step + low
        centre = torch.cat([centre, centre.new_zeros(1, 3)])  # row -1
        way = torch.where(row[:, None] >= 0, centre[row] - points[point], 0.0)
        feature = gather_rows(self.feature(voxels.features), row)
        seen = (feature + self.way(way.to(voxels.dtype))).relu()
        return self.out(segment_max(seen, point, len(points))[0])


class VoxelRoiPool(nn.Module):
    """RoIs and the stages of a sparse backbone, `channels` of each -> (R, config.out_channels)."""

    def __init__(
        self,
        channels: Sequence[int],
        voxel_size: tuple[float, float, float],
        bounds: Bounds,
        config: VoxelRoiPoolConfig,
    ):
        super().__init__()
        stages = [level.stage for level in config.levels]
        if not all(0 <= stage < len(channels) for stage in stages):
            raise ConfigError(f"RoI pooling from stages {stages}, the backbone has {len(channels)}")
        self.config = config
        self.levels = nn.ModuleList(
            VoxelPooling(channels[level.stage], voxel_size, bounds, level) for level in config.levels
        )

    def forward(self, rois: Rois, stages: Sequence[SparseTensor]) -> Float[Tensor, "R C"]:
        points = grid_points(rois.boxes, self.config.grid)
        flat, frame = points.reshape(-1, 3), rois.frame.repeat_interleave(points.shape[1])
        pooled = [
            level(flat, frame, stages[config.stage])
            for level, config in zip(self.levels, self.config.levels, strict=True)
        ]
        return torch.cat(pooled, dim=1).reshape(len(rois.boxes), self.config.out_channels)
