"""A list of lattice points as dense blocks, which is how surfaces are extracted from them.

Block (x, y, z) holds the points 8 x to 8 x + 7 along each axis. What is not in the list is NaN: not known, so
that a surface ends there.
"""

from dataclasses import dataclass

import numpy as np
import torch

from sparse3d.geometry.level_set import crossing
from sparse3d_ops.hashing import build, look_up, pack, unique, unpack
from sparse3d_ops.marching_cubes import extract_blocks

SIDE = 8
_AT_ONCE = 1 << 22  # points


@dataclass(frozen=True)
class LatticeBlocks:
    """`blocks` (B, 4) int32 in order, `numbers` (N,) int64 of the list's points within all blocks, and
    `neighbours` (B, 8) as `extract_blocks` takes them."""

    blocks: np.ndarray
    numbers: np.ndarray
    neighbours: torch.Tensor

    @staticmethod
    def of_points(points: np.ndarray) -> "LatticeBlocks":
        """Of (N, 4) int32 distinct points, batch 0. ValueError where some are given twice."""
        parts = [torch.empty(0, dtype=torch.int64)]
        for begin in range(0, len(points), _AT_ONCE):
            home = _homes(points[begin : begin + _AT_ONCE])
            parts.append(unique(pack(home))[0])
        keys = unique(torch.cat(parts))[0]
        table, blocks = build(keys), unpack(keys)
        numbers = np.empty(len(points), np.int64)
        for begin in range(0, len(points), _AT_ONCE):
            part = points[begin : begin + _AT_ONCE]
            home = look_up(*table, pack(_homes(part))).numpy().astype(np.int64)
            x, y, z = (part[:, k] % SIDE for k in (1, 2, 3))
            numbers[begin : begin + len(part)] = home * SIDE**3 + (x * SIDE + y) * SIDE + z
        taken = np.zeros(len(blocks) * SIDE**3, bool)
        taken[numbers] = True
        if np.count_nonzero(taken) < len(points):
            _, first, counts = np.unique(numbers, return_index=True, return_counts=True)
            row = int(first[counts > 1][0])
            raise ValueError(f"lattice point {tuple(points[row, 1:].tolist())} is given more than once")
        neighbours = torch.empty(len(blocks), 8, dtype=torch.int64)
        for k in range(8):
            step = torch.tensor([0, k >> 2, k >> 1 & 1, k & 1], dtype=torch.int32)
            neighbours[:, k] = look_up(*table, pack(blocks + step))
        return LatticeBlocks(blocks.numpy(), numbers, neighbours)

    def spread(self, values: np.ndarray) -> torch.Tensor:
        """(N,) float -> (B, 8, 8, 8), NaN elsewhere."""
        found = np.full(len(self.blocks) * SIDE**3, np.nan, values.dtype)
        found[self.numbers] = values
        return torch.from_numpy(found).view(-1, SIDE, SIDE, SIDE)


@dataclass(frozen=True)
class Surface:
    """V vertices on lattice edges, at the part `fraction` (V,) of the way from point `low` to `high`, which
    are rows (V,) of the list; `faces` (F, 3) int32, counter-clockwise as seen from where values are less."""

    low: np.ndarray
    high: np.ndarray
    fraction: np.ndarray
    faces: np.ndarray

    def between(self, values: np.ndarray) -> np.ndarray:
        """(N, C) values of the points -> (V, C) float64 at the vertices."""
        low, high = (values[rows].astype(np.float64) for rows in (self.low, self.high))
        return low + self.fraction[:, None] * (high - low)


def surface_of(points: np.ndarray, values: np.ndarray) -> Surface:
    """Where values (N,) of lattice points (N, 4) pass 0, over the voxels that have all their corners in the
    list."""
    blocks = LatticeBlocks.of_points(points)
    spread = blocks.spread(values)
    low, high, faces = extract_blocks(spread, blocks.neighbours, 0.0)
    fraction = crossing(spread.view(-1)[low], spread.view(-1)[high])
    rows = np.empty(spread.numel(), np.int32)
    del spread
    rows[blocks.numbers] = np.arange(len(points), dtype=np.int32)
    ends = rows[low.numpy()], rows[high.numpy()]
    del rows, blocks, low, high  # at fine resolutions each is as large as the surface
    return Surface(*ends, fraction.numpy(), faces.int().numpy())


def _homes(points: np.ndarray) -> torch.Tensor:
    homes = points // SIDE
    homes[:, 0] = points[:, 0]
    return torch.from_numpy(homes)
