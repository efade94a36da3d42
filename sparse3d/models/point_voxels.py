"""Points to the voxels of an unbounded grid and back, for networks that label every point.

A detector may drop points outside of its bounds; a segmenter owes each point a label. So the grid has no
bounds here (up to the 2^17 voxels each way that a key holds), and `point_voxel` leads from every point to its
voxel.
"""

from typing import Literal, NamedTuple

import torch
from torch import Tensor

from sparse3d.tensor import SparseTensor
from sparse3d_ops import hashing
from sparse3d_ops.segment import segment_mean

# mean: of the points' columns, metres and all. relative: the mean point's offset from the voxel's centre in
# half voxels, its height over 4 m, its distance over 50 m, and the other columns: all of order one, and equal
# for equal shapes wherever they stand.
PointInputs = Literal["mean", "relative"]
HEIGHT_SCALE, RANGE_SCALE = 4.0, 50.0


class PointVoxels(NamedTuple):
    """`voxels`: a row for each voxel with a point, sorted; `point_voxel` (P,) int64: each point's row."""

    voxels: SparseTensor
    point_voxel: Tensor


def input_channels(point_channels: int, inputs: PointInputs) -> int:
    """Channels of `point_voxels`' voxels."""
    return point_channels if inputs == "mean" else point_channels + 2


def point_voxels(
    points: Tensor, point_frame: Tensor, voxel_size: float, batch_size: int, inputs: PointInputs
) -> PointVoxels:
    """(P, 3 + F) finite points, (P,) frames -> their voxels of `voxel_size` metres, with features of
    `inputs`."""
    # float64: at 80 m float32 rounds by 4e-6 m, enough to change the cell of a point on a face.
    cell = (points[:, :3].double() / voxel_size).floor().int()
    coordinates, point_voxel = distinct_voxels(torch.cat([point_frame[:, None].int(), cell], dim=1))
    mean = segment_mean(points, point_voxel, len(coordinates))
    if inputs == "relative":
        centre = (coordinates[:, 1:] + 0.5) * voxel_size
        offset = (mean[:, :3] - centre) / (voxel_size / 2)
        distance = mean[:, :2].norm(dim=1, keepdim=True)
        columns = [offset, mean[:, 2:3] / HEIGHT_SCALE, distance / RANGE_SCALE, mean[:, 3:]]
        mean = torch.cat(columns, dim=1)
    return PointVoxels(SparseTensor(mean, coordinates, batch_size=batch_size), point_voxel)


def distinct_voxels(point_coordinates: Tensor) -> tuple[Tensor, Tensor]:
    """(P, 4) int32 (batch, x, y, z) of points -> the distinct rows, sorted, and each point's row in them."""
    keys, inverse, _ = hashing.unique(hashing.pack(point_coordinates))
    return hashing.unpack(keys), inverse
