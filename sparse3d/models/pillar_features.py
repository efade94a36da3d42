"""Pillars: voxels as high as the bounds, so that the points go straight onto a bird's-eye-view map.

    points -> point network, maximum over each pillar -> (B, C, X, Y)

Source: PointPillars (arXiv 1812.05784), section 2.1. Where we differ: a pillar takes all of its points, not
the first 32, and there is no limit on the number of pillars.
"""

from jaxtyping import Float
from torch import Tensor, nn

from sparse3d.errors import ConfigError
from sparse3d.models.voxel_features import Bounds, VoxelFeatures, VoxelFeaturesConfig


class PillarFeatures(nn.Module):
    """Points (P, F), their frames (P,) -> (B, C, X, Y), zero where no point is.

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
        x, y, z = self.encode.shape
        if z != 1:
            raise ConfigError(
                f"voxel_size: pillars are as high as the bounds, {bounds[5] - bounds[2]:g} m, "
                f"got {voxel_size[2]:g}"
            )
        self.size, self.out_channels = (x, y), self.encode.out_channels

    def forward(self, points: Tensor, point_frame: Tensor, batch_size: int) -> Float[Tensor, "B C X Y"]:
        return self.encode(points, point_frame, batch_size).dense()[..., 0]
