"""Pillars: voxels as high as the bounds, so that the points go straight onto a bird's-eye-view map.

    points -> point network, maximum over each pillar -> (B, C, X, Y)

Source: PointPillars (arXiv 1812.05784), section 2.1. Where we differ: a pillar takes all of its points, not
the first 32, and there is no limit on the number of pillars.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor, nn

from sparse3d.errors import ConfigError
from sparse3d.models.voxel_features import Bounds, VoxelFeatures, VoxelFeaturesConfig
from sparse3d.tensor import SparseTensor


@dataclass(frozen=True)
class PillarScatterConfig:
    """In place of a sparse 3D backbone: the features of each pillar become those of its cell."""

    kind: Literal["pillars"] = "pillars"

    @property
    def stride(self) -> int:
        """Pillars along one side of a BEV cell."""
        return 1


class PillarScatter(nn.Module):
    """SparseTensor of `shape` (X, Y, 1) -> (B, C, X, Y), zero where no pillar is."""

    def __init__(self, in_channels: int, shape: tuple[int, int, int]):
        super().__init__()
        if shape[2] != 1:
            raise ConfigError(
                f"voxel_size: pillars are as high as the bounds, these lie {shape[2]} above each other"
            )
        self.bev_size, self.out_channels = shape[:2], in_channels

    def forward(self, pillars: SparseTensor) -> Float[Tensor, "B C X Y"]:
        return pillars.dense()[..., 0]


class PillarFeatures(nn.Module):
    """Points (P, F), their frames (P,) -> (B, C, X, Y): a point network, then `PillarScatter`.

    A point is seen as itself, its offset from the mean of its pillar's points and from the pillar's centre.
    """

    def __init__(
        self,
        point_channels: int,
        voxel_size: tuple[float, float, float],
        bounds: Bounds,
        config: VoxelFeaturesConfig,
    ):
        super().__init__()
        self.encode = VoxelFeatures(point_channels, voxel_size, bounds, config, spare_z=0)
        self.scatter = PillarScatter(self.encode.out_channels, self.encode.shape)
        self.size, self.out_channels = self.scatter.bev_size, self.scatter.out_channels

    def forward(self, points: Tensor, point_frame: Tensor, batch_size: int) -> Float[Tensor, "B C X Y"]:
        return self.scatter(self.encode(points, point_frame, batch_size))
