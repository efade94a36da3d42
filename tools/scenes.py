"""LiDAR voxels that the benchmarks of the convolution share."""

import numpy as np
import torch
from torch import Tensor

from sparse3d.data.minidrive import simulate
from sparse3d_ops.voxelize import voxelize

BOUNDS, VOXEL = [-60.0, -60.0, -3.0, 60.0, 60.0, 3.0], [0.1, 0.1, 0.1]


def lidar_sites(count: int) -> Tensor:
    """(count, 4) int32 voxels, sorted, of as many generated scans as it takes, one a sample."""
    parts, total = [], 0
    while total < count:
        points = torch.from_numpy(np.ascontiguousarray(simulate(0, len(parts)).points))
        sites, _, _ = voxelize(points, torch.zeros(len(points), dtype=torch.int64), VOXEL, BOUNDS)
        sites[:, 0] = len(parts)
        parts.append(sites[: count - total])
        total += len(parts[-1])
    return torch.cat(parts)


def tap_pairs(table: Tensor) -> list[tuple[Tensor, Tensor]]:
    """The pairs (input rows, output rows) of each tap of a kernel map's table (N_out, V)."""
    return [(tap[tap >= 0].long(), (tap >= 0).nonzero()[:, 0]) for tap in table.T]
