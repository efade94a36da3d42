"""Points to voxels as spconv's C++ classes do it, without torch in the interface; see
`sparse3d.compat.points`."""

from contextlib import nullcontext as nullcontext
from typing import Any, ClassVar

import torch
from torch import Tensor

from sparse3d.compat.points import VoxelGrid


class _Point2Voxel(VoxelGrid):
    axes: ClassVar[int]

    def __init__(self, vsize_xyz: Any, *arguments: Any, **named: Any):
        if len(vsize_xyz) != self.axes:
            raise ValueError(
                f"vsize_xyz has {len(vsize_xyz)} numbers, {type(self).__name__} takes {self.axes}"
            )
        super().__init__(vsize_xyz, *arguments, **named)

    def point_to_voxel(self, points: Any, clear_voxels: bool = True) -> tuple[Tensor, Tensor, Tensor]:
        """voxels (M, K, F), indices (M, n) (z, y, x) and counts (M,); `.numpy()` makes arrays of them."""
        return self.voxelize(torch.as_tensor(points))[:3]

    def point_to_voxel_empty_mean(
        self, points: Any, clear_voxels: bool = True
    ) -> tuple[Tensor, Tensor, Tensor]:
        """As `point_to_voxel`, free places filled with the mean of the voxel."""
        return self.voxelize(torch.as_tensor(points), empty_mean=True)[:3]

    def point_to_voxel_hash(
        self, points: Any, clear_voxels: bool = True, empty_mean: bool = False, stream_int: int = 0
    ) -> tuple[Tensor, Tensor, Tensor]:
        """The name of `point_to_voxel` in spconv's GPU classes."""
        return self.voxelize(torch.as_tensor(points), empty_mean)[:3]


class Point2VoxelCPU1d(_Point2Voxel):
    """Voxels along one axis."""

    axes = 1


class Point2VoxelCPU2d(_Point2Voxel):
    """Pillars: voxels in two axes."""

    axes = 2


class Point2VoxelCPU3d(_Point2Voxel):
    """Voxels in three axes."""

    axes = 3


class Point2VoxelCPU4d(_Point2Voxel):
    """Voxels in four axes."""

    axes = 4


# The same rules wherever the points are; spconv's own GPU classes number voxels in no defined order.
Point2VoxelGPU1d, Point2VoxelGPU2d = Point2VoxelCPU1d, Point2VoxelCPU2d
Point2VoxelGPU3d, Point2VoxelGPU4d = Point2VoxelCPU3d, Point2VoxelCPU4d
