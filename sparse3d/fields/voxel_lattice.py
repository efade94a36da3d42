"""The shape of a sparse voxel field: which voxels there are, the lattice points at their corners that hold
the values, and how both change when voxels are split or dropped.

Voxel (x, y, z) of a cube of `resolution`^3 covers [i, i + 1) in voxel units; corner k = 4 dx + 2 dy + dz is
lattice point (x + dx, y + dy, z + dz). Values live on lattice points and are interpolated within voxels, so
neighbouring voxels agree on their faces, and a split changes nothing of the field.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sparse3d_ops.grid_sample import trilinear_gather
from sparse3d_ops.hashing import build, look_up, pack
from sparse3d_ops.visible_samples import lattice


@dataclass(frozen=True, eq=False)
class VoxelLattice:
    """`coordinates` (N, 4) int32 of the voxels, batch 0, within [0, resolution)."""

    coordinates: Tensor
    resolution: int

    @classmethod
    def full(cls, resolution: int, device: torch.device | str = "cpu") -> "VoxelLattice":
        """All voxels of the cube."""
        axis = torch.arange(resolution, dtype=torch.int32, device=device)
        cube = torch.cartesian_prod(axis, axis, axis)
        return cls(torch.cat([torch.zeros_like(cube[:, :1]), cube], 1), resolution)

    @cached_property
    def _corners(self) -> tuple[Tensor, Tensor]:
        return lattice(self.coordinates)

    @property
    def points(self) -> Tensor:
        """(P, 4) int32: the lattice points, each once."""
        return self._corners[0]

    @property
    def corner_rows(self) -> Tensor:
        """(N, 8) int32: the rows of `points` at the corners of each voxel."""
        return self._corners[1]

    @cached_property
    def table(self) -> tuple[Tensor, Tensor]:
        """The voxels' hash table."""
        return build(pack(self.coordinates))

    @cached_property
    def edges(self) -> Tensor:
        """(2, E) int64: lattice points that are neighbours along an axis and corners of one voxel."""
        pairs = [(k, k | bit) for bit in (4, 2, 1) for k in range(8) if not k & bit]
        first, second = (self.corner_rows[:, [pair[end] for pair in pairs]].long() for end in (0, 1))
        count = len(self.points)
        numbers = torch.unique(first.flatten() * count + second.flatten())
        return torch.stack([numbers // count, numbers % count])

    def find(self, positions: Tensor) -> Tensor:
        """Rows of the voxels that hold positions (Q, 3) in voxel units: (Q,) int64, -1 for none."""
        inside = ((positions >= 0) & (positions < self.resolution)).all(1)  # false for NaN
        voxels = positions.detach().where(inside[:, None], 0.0).floor().to(torch.int32)
        rows = look_up(*self.table, pack(torch.cat([torch.zeros_like(voxels[:, :1]), voxels], 1)))
        return rows.long().where(inside, -1)

    def weights(self, positions: Tensor, voxel: Tensor) -> Tensor:
        """(Q, 8): the parts of the corners at positions (Q, 3) within the voxels (Q,); differentiable."""
        # A position that was rounded onto a face belongs to the voxel that it is said to be in.
        upper = (positions - self.coordinates[voxel, 1:].to(positions.dtype)).clamp(0, 1)
        (x, y, z), (u, v, w) = (1 - upper).unbind(1), upper.unbind(1)
        faces = torch.stack([y * z, y * w, v * z, v * w], 1)
        return torch.cat([x[:, None] * faces, u[:, None] * faces], 1)

    def split(self) -> tuple["VoxelLattice", Tensor, Tensor]:
        """Eight voxels for each: the new lattice, and where its points take their values from, corner rows
        (P', 8) int32 of the old points, and weights (P', 8) float32."""
        bits = torch.cartesian_prod(*[torch.arange(2, dtype=torch.int32)] * 3).to(self.coordinates.device)
        children = self.coordinates[:, None].repeat(1, 8, 1)
        children[..., 1:] = 2 * children[..., 1:] + bits
        fine = VoxelLattice(children.flatten(0, 1), 2 * self.resolution)
        # Each new point lies in up to eight old voxels, which agree on its value: the last one found counts.
        source = torch.zeros(len(fine.points), dtype=torch.int64, device=bits.device)
        place = torch.zeros(len(fine.points), 3, device=bits.device)
        for corner in bits:
            base = torch.div(fine.points[:, 1:] - corner, 2, rounding_mode="floor")
            row = look_up(*self.table, pack(torch.cat([fine.points[:, :1], base.int()], 1))).long()
            there = row >= 0
            source[there] = row[there]
            place[there] = fine.points[there, 1:] / 2 - base[there]
        upper = torch.stack((1 - place, place), 2)
        weights = torch.einsum("qi,qj,qk->qijk", *upper.unbind(1)).flatten(1)
        return fine, self.corner_rows[source], weights

    def keep(self, kept: Tensor) -> tuple["VoxelLattice", Tensor]:
        """The voxels of (N,) bool: the new lattice, and the old rows of its points (P',) int64."""
        fewer = VoxelLattice(self.coordinates[kept].contiguous(), self.resolution)
        rows = look_up(*build(pack(self.points)), pack(fewer.points))
        return fewer, rows.long()

    def dilate(self, chosen: Tensor) -> Tensor:
        """(N,) bool: the chosen voxels and those of the 26 around each that there are."""
        around = chosen.clone()
        for step in torch.cartesian_prod(*[torch.arange(-1, 2, dtype=torch.int32)] * 3):
            moved = self.coordinates.clone()
            moved[:, 1:] += step.to(moved.device)
            rows = look_up(*self.table, pack(moved)).long()
            around |= (rows >= 0) & chosen[rows.clamp(min=0)]
        return around


def interpolate(values: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
    """(P, C) at the lattice points, (Q, 8) int32, (Q, 8) -> (Q, C)."""
    return trilinear_gather(values, corners, weights)
