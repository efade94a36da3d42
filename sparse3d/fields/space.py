"""Where a field lives: a box, or all of space around one."""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sparse3d.fields.contraction import contract
from sparse3d_ops.raymarch import ray_box

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class SpaceConfig:
    """A cube. With a contraction the field goes on outside of it, coarser with the distance."""

    low: Vector = (-0.75, -0.75, -0.75)  # metres, corner of the cube
    side: float = 1.5  # metres, of the cube
    contraction: Literal["none", "merf"] = "none"
    far: float = 1e3  # half sides, end of rays with a contraction

    def __post_init__(self):
        if not self.side > 0 or not all(math.isfinite(v) for v in self.low):
            raise ValueError(
                f"a cube needs a finite corner and a side above 0, got {self.low} and {self.side}"
            )
        if self.far <= 1:
            raise ValueError(f"far must be above 1, got {self.far}")

    @property
    def unbounded(self) -> bool:
        return self.contraction != "none"

    def corners(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest corner (3,) of the cube."""
        low = torch.tensor(self.low, dtype=like.dtype, device=like.device)
        return low, low + self.side

    def to_unit(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3) world -> positions (N, 3) in [-1, 1], and which (N,) points are in the field."""
        low, high = self.corners(points)
        scaled = (points - (low + high) / 2) / (self.side / 2)
        if self.unbounded:
            return contract(scaled) / 2, torch.ones_like(scaled[:, 0], dtype=torch.bool)
        return scaled, (scaled.abs() <= 1).all(1)

    def span(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Where rays are in the field, metres: near (R,), far (R,); both 0 for rays that never are."""
        if self.unbounded:
            near = torch.zeros_like(origins[:, 0])
            return near, near + self.far * self.side / 2
        near, far = ray_box(origins.detach(), directions.detach(), *self.corners(origins))
        met = near < far
        return near.where(met, 0.0), far.where(met, 0.0)

    def warp(self, t: Tensor) -> Tensor:
        """A distance along a ray in the measure that samples are spread evenly in: itself in a cube; with a
        contraction t / 2 up to half a side and 1 - 1 / (2 t) from there on, t in half sides."""
        if not self.unbounded:
            return t
        scaled = t / (self.side / 2)
        return torch.where(scaled < 1, scaled / 2, 1 - 0.5 / scaled.clamp(min=1))

    def unwarp(self, s: Tensor) -> Tensor:
        """The inverse of `warp`."""
        if not self.unbounded:
            return s
        return torch.where(s < 0.5, 2 * s, 0.5 / (1 - s.clamp(min=0.5))) * (self.side / 2)
