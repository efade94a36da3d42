"""Where the Gaussians of a cloud are: their means in the cells of a grid, found through the voxel hash.

Voxel (i, j, k) holds the means with floor((mean - origin) / voxel_size) = (i, j, k), in float64. Means that
are not finite, or further from the origin than the key reaches (131072 voxels), lie in no voxel. Everything
is the same bits for any number of threads and on every device; rows come in their order, ties go to the
lowest row.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from sparse3d_ops import hashing
from sparse3d_ops.hashing import COORDINATE_LIMIT
from sparse3d_ops.nearest import nearest_around
from sparse3d_ops.voxel_query import REACH_LIMIT, voxel_query


class VoxelIndex:
    """N means in M voxels, which are sorted by (x, y, z).

    `coordinates` (M, 4) int32 with a batch of 0; `counts` (M,) int64 Gaussians of each; `voxel` (N,) int64
    that of each Gaussian, -1 for none; `order` (K,) int64 the Gaussians that have one, voxel by voxel;
    `starts` (M + 1,) where those of a voxel begin in it.
    """

    def __init__(self, means: Tensor, voxel_size: float, origin: Sequence[float] = (0.0, 0.0, 0.0)):
        if not (voxel_size > 0 and math.isfinite(voxel_size)):
            raise ValueError(f"voxel_size must be finite and above 0, got {voxel_size}")
        self.means, self.voxel_size = means.detach(), float(voxel_size)
        self.origin = torch.tensor(list(origin), dtype=torch.float64, device=means.device)
        cells, inside = self._cells(self.means)
        rows = inside.nonzero()[:, 0]
        keys, of_rows, self.counts = hashing.unique(hashing.pack(cells[rows]))
        self.coordinates = hashing.unpack(keys)
        self._table = hashing.build(keys)
        self.voxel = torch.full((len(means),), -1, dtype=torch.int64, device=means.device)
        self.voxel[rows] = of_rows
        self.order = rows[torch.sort(of_rows, stable=True).indices]
        self.starts = torch.cat([self.counts.new_zeros(1), self.counts.cumsum(0)])

    def __len__(self) -> int:
        return len(self.coordinates)

    def find(self, points: Tensor) -> Tensor:
        """(Q, 3) world -> (Q,) int64 the voxel of each, -1 where there is none."""
        cells, inside = self._cells(points)
        keys = hashing.pack(cells)
        return hashing.look_up(*self._table, keys).long().where(inside, -1)

    def rows_of(self, voxels: Tensor) -> Tensor:
        """(V,) -> the rows of all Gaussians in these voxels, voxel by voxel."""
        return self.order[_ranges(self.starts[voxels], self.counts[voxels])]

    def centres(self, voxels: Tensor | None = None) -> Tensor:
        """(V, 3) float64 world, of all voxels where none are named."""
        cells = self.coordinates if voxels is None else self.coordinates[voxels]
        return self.origin + (cells[:, 1:].double() + 0.5) * self.voxel_size

    # ---- neighbours --------------------------------------------------------------------------------------

    def crowd(self, reach: int = 1) -> Tensor:
        """(N,) int64: how many Gaussians lie in the (2 reach + 1)^3 voxels around each one's, itself among
        them; 0 for a Gaussian without a voxel."""
        around = self._around(self.centres(), reach)
        counts = torch.cat([self.counts, self.counts.new_zeros(1)])
        total = counts[around].sum(1)  # -1 is the last, of no Gaussian
        return torch.cat([total, total.new_zeros(1)])[self.voxel]

    def crowded(self, least: int, reach: int = 1) -> Tensor:
        """(N,) bool: those that have `least` Gaussians around them, themselves among them: floaters have
        not."""
        return self.crowd(reach) >= least

    def thinned(self, most: int, priority: Tensor) -> Tensor:
        """(N,) bool: of each voxel the `most` Gaussians of the highest priority (N,), of equal ones the first
        rows. Those without a voxel stay."""
        by_priority = torch.sort(priority[self.order], descending=True, stable=True).indices
        voxel = self.voxel[self.order]
        place = by_priority[torch.sort(voxel[by_priority], stable=True).indices]
        rank = torch.arange(len(place), device=place.device) - self.starts[voxel[place]]
        kept = self.voxel < 0
        kept[self.order[place[rank < most]]] = True
        return kept

    def nearest(self, points: Tensor, count: int, within: float = math.inf) -> tuple[Tensor, Tensor]:
        """The `count` Gaussians with the nearest means: (Q, 3) world -> rows (Q, count) int64 and distances
        (Q, count) float64, nearest first; -1 and inf where there are no more. Beyond `within` metres it may
        stop to look.

        Exact. Fast where a few Gaussians share a voxel: of queries whose neighbours are further away than a
        voxel the search goes on in voxels twice as large.
        """
        shape = len(points), count
        rows = torch.full(shape, -1, dtype=torch.int64, device=points.device)
        distances = torch.full(shape, math.inf, dtype=torch.float64, device=points.device)
        waiting = torch.isfinite(points).all(1).nonzero()[:, 0]
        index = self
        while len(waiting):
            found, way = index._nearest_around(points[waiting], count)
            everything = self._all_within(points[waiting], index.voxel_size)
            # A mean beyond the voxels around is at least a voxel's side away.
            done = (way[:, -1] <= index.voxel_size) | everything | (index.voxel_size >= within)
            rows[waiting[done]], distances[waiting[done]] = found[done], way[done]
            waiting = waiting[~done]
            if len(waiting):
                index = VoxelIndex(self.means, 2 * index.voxel_size, self.origin.tolist())
        return rows, distances

    def _all_within(self, points: Tensor, reach: float) -> bool:
        """Whether no mean is further than `reach` from any of the points along an axis."""
        if not len(self.order):
            return True
        means = self.means[self.order]
        low, high = torch.aminmax(torch.cat([means, points]), dim=0)
        return bool(((high - low).double() <= reach).all())

    def _nearest_around(self, points: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """`nearest` among those in the 27 voxels around."""
        cells, inside = self._cells(points)
        cells[:, 0] = torch.where(inside, cells[:, 0], -1)
        rows, squares = nearest_around(
            *self._table, self.starts, self.order, self.means, points.detach(), cells, count
        )
        return rows, squares.sqrt()

    # ---- windows -----------------------------------------------------------------------------------------

    def in_box(self, low: Sequence[float], high: Sequence[float]) -> Tensor:
        """Rows, rising, of the Gaussians in voxels that touch a box (world, metres)."""
        ends = torch.tensor([list(low), list(high)], dtype=torch.float64, device=self.means.device)
        middle = self.centres()
        near = (middle + self.voxel_size / 2 >= ends[0]) & (middle - self.voxel_size / 2 <= ends[1])
        return self._rows_where(near.all(1))

    def in_frustum(
        self,
        world_to_camera: Tensor,
        intrinsics: Sequence[float],
        size: tuple[int, int],
        near: float = 0.0,
        far: float = math.inf,
    ) -> Tensor:
        """Rows, rising, of the Gaussians in voxels that may be seen by a pinhole camera: (4, 4), (fx, fy, cx,
        cy) and (width, height) in pixels, depths in metres. A voxel counts as the ball around it."""
        pose = world_to_camera.double().to(self.means.device)
        x, y, z = (self.centres() @ pose[:3, :3].T + pose[:3, 3]).unbind(1)
        ball = self.voxel_size * math.sqrt(3) / 2
        (fx, fy, cx, cy), (width, height) = intrinsics, size
        seen = (z + ball > near) & (z - ball < far)
        # Signed distances from the four planes through the camera, (a, c) with a x + c z >= 0 inside.
        for a, c, along in ((fx, cx, x), (-fx, width - cx, x), (fy, cy, y), (-fy, height - cy, y)):
            seen &= a * along + c * z > -ball * math.hypot(a, c)
        return self._rows_where(seen)

    def _rows_where(self, voxels: Tensor) -> Tensor:
        chosen = torch.cat([voxels, voxels.new_zeros(1)])[self.voxel]
        return chosen.nonzero()[:, 0]

    # ---- parts -------------------------------------------------------------------------------------------

    def _cells(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(Q, 4) int32, zeros where (Q,) is false: the point lies in no voxel."""
        cells = ((points.detach().double() - self.origin) / self.voxel_size).floor()
        inside = ((cells >= -COORDINATE_LIMIT) & (cells < COORDINATE_LIMIT)).all(1)  # NaN is not
        cells = cells.where(inside[:, None], 0.0).to(torch.int32)
        return torch.nn.functional.pad(cells, (1, 0)), inside

    def _around(self, points: Tensor, reach: int) -> Tensor:
        """(Q, (2 reach + 1)^3) int64: voxels around each point, -1 where there is none."""
        if not 0 <= reach <= REACH_LIMIT:
            raise ValueError(f"reach is {reach}, expected 0 to {REACH_LIMIT} voxels")
        positions = (points.double() - self.origin) / self.voxel_size
        batch = torch.zeros(len(points), dtype=torch.int32, device=points.device)
        radius = 2.0 * (reach + 1)  # voxels; beyond every centre that is looked at
        size, cube = [1.0, 1.0, 1.0], (2 * reach + 1) ** 3
        return voxel_query(*self._table, positions, batch, size, [reach] * 3, radius, cube).long()


def _ranges(starts: Tensor, counts: Tensor) -> Tensor:
    """starts[0] .. starts[0] + counts[0] - 1, then those of the next, and so on."""
    total = counts.cumsum(0)
    shift = torch.repeat_interleave(starts - total + counts, counts)
    return shift + torch.arange(len(shift), device=shift.device)
