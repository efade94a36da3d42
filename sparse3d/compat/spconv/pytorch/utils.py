"""Points to voxels on torch tensors; the rules stand in `sparse3d.compat.points`."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sparse3d.compat.points import PointVoxels, VoxelGrid


class PointToVoxel(VoxelGrid):
    """Voxels of a point cloud (P, F), x, y, z first, on any device; `device` is accepted for spconv's
    sake."""

    def __init__(
        self,
        vsize_xyz: Sequence[float],
        coors_range_xyz: Sequence[float],
        num_point_features: int,
        max_num_voxels: int,
        max_num_points_per_voxel: int,
        device: torch.device | str = "cpu",
    ):
        super().__init__(
            vsize_xyz, coors_range_xyz, num_point_features, max_num_voxels, max_num_points_per_voxel
        )
        self.device = torch.device(device)

    def __call__(
        self, pc: Tensor, clear_voxels: bool = True, empty_mean: bool = False
    ) -> tuple[Tensor, Tensor, Tensor]:
        """voxels (M, K, F) float32, indices (M, n) int32 (z, y, x) and the number of points of each voxel
        (M,)."""
        return self.generate_voxel_with_id(pc, clear_voxels, empty_mean)[:3]

    def generate_voxel_with_id(
        self, pc: Tensor, clear_voxels: bool = True, empty_mean: bool = False
    ) -> PointVoxels:
        """As the call, with the voxel of each point (P,) int64, -1 for none.

        Free places are always zero: `clear_voxels=False`, which lets spconv leave an earlier cloud there, is
        ignored.
        """
        return self.voxelize(pc, empty_mean)


def gather_features_by_pc_voxel_id(
    seg_res_features: Tensor, pc_voxel_id: Tensor, invalid_value: float = 0
) -> Tensor:
    """Features of the voxels (M, ...) for each point (P, ...); points without a voxel get `invalid_value`."""
    ids = pc_voxel_id.to(seg_res_features.device)
    out = seg_res_features.new_full((len(ids), *seg_res_features.shape[1:]), invalid_value)
    found = ids >= 0
    out[found] = seg_res_features[ids[found]]
    return out
