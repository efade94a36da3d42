"""A part of a large map that is trained: the Gaussians in view, exchanged as the view moves.

After GS-LIVO (arXiv 2501.08672): the map lies in main memory, found through a voxel hash; the window is a
contiguous array of the Gaussians near the sensor. When it moves, only the difference is touched: what left is
written back into the map, what entered is appended, the rest stays with the optimiser's memory.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.model import PARAMETERS, SplatModel


class Moved(NamedTuple):
    """Rows of the map, rising: which `entered` the window and which `left` it."""

    entered: Tensor
    left: Tensor


class SlidingWindow:
    """A window over a map; `rows` (W,) int64 are the map's rows of the model's Gaussians, in their order.

    `map` holds what was written back: it lags behind for rows in the window until `write_back`.
    """

    def __init__(self, cloud: GaussianCloud, scene_scale: float = 1.0, seed: int = 0):
        self.map = GaussianCloud.of({k: v.detach().clone() for k, v in cloud.parameters().items()})
        self.rows = torch.zeros(0, dtype=torch.int64, device=cloud.means.device)
        self.model = SplatModel(cloud[:0], scene_scale, seed)

    def move(self, rows: Tensor, optimizer: torch.optim.Optimizer | None = None) -> Moved:
        """Let the window hold these rows of the map (distinct, any order): `VoxelIndex.in_frustum` or
        `in_box` name them. Those that stay come first, in the order they had; new ones follow, rising, with
        zero moments. ValueError for a row that is not in the map or comes twice."""
        wanted = torch.zeros(len(self.map), dtype=torch.bool, device=self.rows.device)
        if len(rows) and not (0 <= int(rows.min()) and int(rows.max()) < len(self.map)):
            raise ValueError(f"rows must lie in [0, {len(self.map)}), the map's")
        wanted[rows] = True
        if int(wanted.sum()) != len(rows):
            raise ValueError("a row comes twice")
        inside = torch.zeros_like(wanted)
        inside[self.rows] = True
        stays = wanted[self.rows]
        moved = Moved((wanted & ~inside).nonzero()[:, 0], (inside & ~wanted).nonzero()[:, 0])
        if len(moved.left):
            self._write(~stays)
        if len(moved.entered) or len(moved.left):
            self.model.exchange(optimizer, stays, self.map[moved.entered])
            self.rows = torch.cat([self.rows[stays], moved.entered])
        return moved

    def write_back(self) -> GaussianCloud:
        """The map with what the window learnt."""
        self._write(torch.ones_like(self.rows, dtype=torch.bool))
        return self.map

    @torch.no_grad()
    def _write(self, chosen: Tensor) -> None:
        for name in PARAMETERS:
            getattr(self.map, name)[self.rows[chosen]] = getattr(self.model, name).detach()[chosen]
