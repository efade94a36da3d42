"""Points to voxels by spconv's rules, for one to four axes.

The cell of a point is floor((p - min) / size) in the points' own precision (with min and size in float32),
the grid has round(extent / size) cells; axes of the result are reversed (z, y, x). Voxels are numbered by
their first point; beyond `max_voxels` they are dropped with their points. A voxel keeps its first
`max_points` points, and every point of a kept voxel has its number. Points outside of the grid, or not
finite, have number -1.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class PointVoxels(NamedTuple):
    """voxels (M, K, F) float32, zero padded; indices (M, n) int32; counts (M,) int32, at most K; point_voxel
    (P,) int64, -1 for none."""

    voxels: Tensor
    indices: Tensor
    counts: Tensor
    point_voxel: Tensor


class VoxelGrid:
    """Cells of `vsize_xyz` in `coors_range_xyz` (all minima, then all maxima), and how much of them is
    kept."""

    def __init__(
        self,
        vsize_xyz: Sequence[float],
        coors_range_xyz: Sequence[float],
        num_point_features: int,
        max_num_voxels: int,
        max_num_points_per_voxel: int,
    ):
        axes = len(vsize_xyz)
        if not 1 <= axes <= 4 or len(coors_range_xyz) != 2 * axes:
            raise ValueError(
                f"vsize_xyz has {axes} numbers and coors_range_xyz {len(coors_range_xyz)}, "
                "expected n and 2 n, n from one to four"
            )
        if num_point_features < axes or max_num_voxels < 1 or max_num_points_per_voxel < 1:
            raise ValueError(
                f"num_point_features is {num_point_features}, max_num_voxels {max_num_voxels} and "
                f"max_num_points_per_voxel {max_num_points_per_voxel}, expected {axes} or more, and 1"
            )
        self.ndim, self.num_point_features = axes, num_point_features
        self.max_num_voxels, self.max_num_points_per_voxel = max_num_voxels, max_num_points_per_voxel
        self._size = torch.tensor([float(v) for v in reversed(vsize_xyz)], dtype=torch.float32)
        self._low = torch.tensor([float(v) for v in reversed(coors_range_xyz[:axes])], dtype=torch.float32)
        self._high = torch.tensor([float(v) for v in reversed(coors_range_xyz[axes:])], dtype=torch.float32)
        cells = (self._high - self._low) / self._size
        if (
            not bool(torch.isfinite(cells).all())
            or bool((self._size <= 0).any())
            or bool((cells < 0.5).any())
        ):
            raise ValueError(
                f"vsize_xyz {list(vsize_xyz)} and coors_range_xyz {list(coors_range_xyz)} make no grid: "
                "sizes must be positive, and each maximum above its minimum"
            )
        # Halves round away from zero, as in C; torch.round takes them to the even neighbour.
        self.grid_size = [int(v) for v in (cells.double() + 0.5).floor()]
        self.vsize, self.coors_range = self._size.tolist(), torch.cat([self._low, self._high]).tolist()

    @property
    def grid_stride(self) -> list[int]:
        strides = [1]
        for size in reversed(self.grid_size[1:]):
            strides.insert(0, strides[0] * size)
        return strides

    @torch.no_grad()
    def voxelize(self, points: Tensor, empty_mean: bool = False) -> PointVoxels:
        """(P, F) float32 or float64 -> PointVoxels. `empty_mean` fills the free places of a voxel with its
        mean."""
        if points.dim() != 2 or points.shape[1] != self.num_point_features:
            raise ValueError(
                f"points have shape {tuple(points.shape)}, expected (P, {self.num_point_features})"
            )
        device, most = points.device, self.max_num_points_per_voxel
        xyz = points[:, : self.ndim].flip(1)
        cell = ((xyz - self._low.to(device)) / self._size.to(device)).floor()
        # Compared as floats: what is not finite fails here, where an integer of it would be anything.
        inside = ((cell >= 0) & (cell < torch.tensor(self.grid_size, device=device))).all(1)
        rows = inside.nonzero()[:, 0]
        cell = cell[rows].long()
        flat = (cell * torch.tensor(self.grid_stride, device=device)).sum(1)
        distinct, inverse = torch.unique(flat, return_inverse=True)
        first = rows.new_full((len(distinct),), len(points)).scatter_reduce(0, inverse, rows, "amin")
        by_first = first.argsort()
        number = torch.empty_like(by_first)
        number[by_first] = torch.arange(len(by_first), device=device)
        voxel = number[inverse]
        kept = voxel < self.max_num_voxels
        rows, cell, voxel = rows[kept], cell[kept], voxel[kept]
        count = min(len(distinct), self.max_num_voxels)

        point_voxel = torch.full((len(points),), -1, dtype=torch.int64, device=device)
        point_voxel[rows] = voxel
        indices = torch.zeros(count, self.ndim, dtype=torch.int32, device=device)
        indices[voxel] = cell.int()
        totals = torch.bincount(voxel, minlength=count)
        order = voxel.argsort(stable=True)
        place = torch.arange(len(order), device=device) - (totals.cumsum(0) - totals)[voxel[order]]
        stored = place < most
        order, place = order[stored], place[stored]
        voxels = torch.zeros(count, most, self.num_point_features, dtype=torch.float32, device=device)
        voxels[voxel[order], place] = points[rows[order]].float()
        counts = totals.clamp(max=most)
        if empty_mean:
            mean = voxels.sum(1, keepdim=True) / counts[:, None, None]
            free = torch.arange(most, device=device)[None, :] >= counts[:, None]
            voxels = torch.where(free[..., None], mean, voxels)
        return PointVoxels(voxels, indices, counts.int(), point_voxel)
