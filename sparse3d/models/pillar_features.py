"""Pillars: voxels as high as the bounds, so that the points go straight onto a bird's-eye-view map.

    points -> point network, maximum over each pillar -> (B, C, X, Y)

Source: PointPillars (arXiv 1812.05784), section 2.1. Where we differ: a pillar takes all of its points, not
the first 32, and there is no limit on the number of pillars.
"""

from jaxtyping import Float
from torch import Tensor, nn

from sparse3d.errors import ConfigError
from sparse3d.models.voxel_features import Bounds, VoxelFeatures, VoxelFeaturesConfig
from sparse3d.tensor import SparseTensor


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
        self.encode = VoxelFeatures(point_channels, voxel_size, bounds, config)
        x, y, z = self.encode.shape
        if z != 2:  # VoxelFeatures adds one voxel in z
            raise ConfigError(
                f"voxel_size: pillars are as high as the bounds, {bounds[5] - bounds[2]:g} m, "
                f"got {voxel_size[2]:g}"
            )
        self.size, self.out_channels = (x, y), self.encode.out_channels

    def pillars(self, points: Tensor, point_frame: Tensor, batch_size: int) -> SparseTensor:
        """The pillars that hold a point, as voxels of a grid that is one high."""
        found = self.encode(points, point_frame, batch_size)
        return SparseTensor(found.features, found.coordinates, batch_size=batch_size, shape=(*self.size, 1))

    def forward(self, points: Tensor, point_frame: Tensor, batch_size: int) -> Float[Tensor, "B C X Y"]:
        return self.pillars(points, point_frame, batch_size).dense()[..., 0]
