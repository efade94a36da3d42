"""Boxes as numbers at a cell of a bird's-eye-view (BEV) map, and back.

A map is (B, C, X, Y): axis 2 runs along x, axis 3 along y. Cell (i, j) covers x in [x_min + i * cell_x,
x_min + (i + 1) * cell_x) and y likewise. A box whose centre lies in cell (i, j) has the code

    dx, dy        centre minus the cell's lower corner, in cells, [0, 1)
    z             centre, metres
    log l, w, h   metres
    cos, sin      of yaw

Source: Yin et al., "Center-based 3D Object Detection and Tracking" (arXiv 2006.11275), section 4.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparse3d.models.bev_backbone import BevBackboneConfig

CODE_SIZE = 8

# exp(5) = 148 m and exp(-5) = 7 mm hold every object; beyond them exp makes infinities and vanishing boxes.
MAX_LOG_SIZE = 5.0


@dataclass(frozen=True)
class BevGrid:
    """Where the cells of a BEV map lie. Metres: `bounds` (minima of x, y, z, then maxima), `cell` (x, y)."""

    bounds: tuple[float, float, float, float, float, float]
    cell: tuple[float, float]
    shape: tuple[int, int]

    @staticmethod
    def over(
        bounds: tuple[float, float, float, float, float, float],
        voxel_size: tuple[float, float, float],
        stride: int,
        size: tuple[int, int],
        bev: BevBackboneConfig,
    ) -> "BevGrid":
        """The map that a 2D backbone `bev` makes of one of `size` (X, Y) cells, each `stride` voxels wide."""
        total = stride * bev.stride
        x, y = (bev.output_size(cells) for cells in size)
        return BevGrid(bounds, (voxel_size[0] * total, voxel_size[1] * total), (x, y))

    def contains(self, boxes: Float[Tensor, "M 7"]) -> Bool[Tensor, "M"]:
        """Whether min <= centre < max on each axis. A centre that is not finite lies outside."""
        low, high = boxes.new_tensor(self.bounds).view(2, 3)
        return ((boxes[:, :3] >= low) & (boxes[:, :3] < high)).all(dim=1)

    def positions(self, boxes: Float[Tensor, "M 7"]) -> Float[Tensor, "M 2"]:
        """Centres along x and y in cells; the floor is the index of the cell."""
        return (boxes[:, :2] - boxes.new_tensor(self.bounds[:2])) / boxes.new_tensor(self.cell)

    def middles(self, cells: Int[Tensor, "M 2"]) -> Float[Tensor, "M 2"]:
        """Where the middle of each cell lies along x and y, metres."""
        step, low = torch.tensor((self.cell, self.bounds[:2]), device=cells.device)
        return (cells + 0.5) * step + low

    def cells(self, boxes: Float[Tensor, "M 7"]) -> Int[Tensor, "M 2"]:
        """The cell of each centre. Centres must lie inside; the last cell takes what rounds up there."""
        last = torch.tensor(self.shape, device=boxes.device) - 1
        return torch.minimum(self.positions(boxes).floor().long().clamp(min=0), last)


def encode(boxes: Float[Tensor, "M 7"], cells: Int[Tensor, "M 2"], grid: BevGrid) -> Float[Tensor, "M 8"]:
    """The code of each box relative to its cell. Sizes must be positive; not checked."""
    offset = grid.positions(boxes) - cells
    yaw = boxes[:, 6:7]
    return torch.cat([offset, boxes[:, 2:3], boxes[:, 3:6].log(), yaw.cos(), yaw.sin()], dim=1)


def decode(code: Float[Tensor, "M 8"], cells: Int[Tensor, "M 2"], grid: BevGrid) -> Float[Tensor, "M 7"]:
    """The box of each code, differentiable; yaw in [-pi, pi). (cos, sin) need not have length one."""
    centre = (cells + code[:, :2]) * code.new_tensor(grid.cell) + code.new_tensor(grid.bounds[:2])
    size = code[:, 3:6].clamp(-MAX_LOG_SIZE, MAX_LOG_SIZE).exp()
    yaw = torch.atan2(code[:, 7:8], code[:, 6:7])
    yaw = torch.where(yaw >= math.pi, yaw - 2 * math.pi, yaw)
    return torch.cat([centre, code[:, 2:3], size, yaw], dim=1)
