"""Where a field lives: a box, all of space around one, or what lies before a viewer."""

import math
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor

from sparse3d.fields.contraction import contract, uncontract
from sparse3d.fields.frustum import FrustumConfig
from sparse3d.fields.pieces import Pieces, through_frustum, through_regions
from sparse3d_ops.raymarch import ray_box

Vector = tuple[float, float, float]


@dataclass(frozen=True)
class SpaceConfig:
    """A cube. With the contraction "merf" the field goes on outside of it, coarser with the distance; with
    "frustum" it fills what a viewer sees in its place, finer before than behind, and the cube only says where
    a surface is looked for and what lengths are compared with."""

    low: Vector = (-0.75, -0.75, -0.75)  # metres, corner of the cube
    side: float = 1.5  # metres, of the cube
    contraction: Literal["none", "merf", "frustum"] = "none"
    far: float = 1e3  # half sides, end of rays with the contraction "merf"
    frustum: FrustumConfig = FrustumConfig()

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

    @property
    def bounded(self) -> "SpaceConfig":
        """The cube alone."""
        return replace(self, contraction="none")

    def corners(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """Lowest and highest corner (3,) of the cube."""
        low = torch.tensor(self.low, dtype=like.dtype, device=like.device)
        return low, low + self.side

    # ---- its own coordinates -----------------------------------------------------------------------------

    @property
    def own_low(self) -> Vector:
        """The corner of the cube that the field fills in its own coordinates: metres without a contraction;
        else [-2, 2]^3 or, of a frustum, [-1, 1]^3."""
        return {"none": self.low, "merf": (-2.0,) * 3, "frustum": (-1.0,) * 3}[self.contraction]

    @property
    def own_side(self) -> float:
        """The side of that cube."""
        return {"none": self.side, "merf": 4.0, "frustum": 2.0}[self.contraction]

    def to_own(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3) world -> (N, 3) in own coordinates, and which (N,) points are in the field."""
        if self.contraction == "merf":
            return contract(self._scaled(points)), torch.ones_like(points[:, 0], dtype=torch.bool)
        if self.contraction == "frustum":
            matrix = self.frustum.matrix(points)
            value = points @ matrix[:, :3].T + matrix[:, 3]
            before = value[:, 3] > 0.5 * self.frustum.near
            own = value[:, :3] / value[:, 3:].where(before[:, None], 1.0)
            return own, before & (own.abs() <= 1).all(1)
        return points, (self._scaled(points).abs() <= 1).all(1)

    def from_own(self, own: Tensor) -> Tensor:
        """The inverse of `to_own`; what lies beyond `far` comes to there."""
        if self.contraction == "none":
            return own
        if self.contraction == "merf":
            low, high = self.corners(own)
            nearest = 2 - 1 / self.far
            return (low + high) / 2 + uncontract(own.clamp(-nearest, nearest)) * (self.side / 2)
        inverse = torch.linalg.inv(self.frustum.matrix(own.double())).to(own)
        world = own @ inverse[:, :3].T + inverse[:, 3]
        return world[:, :3] / world[:, 3:]

    def stretch(self, points: Tensor) -> Tensor:
        """(N, 3) world -> (N,): how far one comes in own coordinates a metre farther away from the middle, or
        from the viewer."""
        if self.contraction == "none":
            return torch.ones_like(points[:, 0])
        if self.contraction == "merf":
            scaled = self._scaled(points)
            m = scaled.abs().amax(1).clamp(min=1)
            outside = 1 / (m * scaled.norm(dim=1).clamp(min=1e-9))
            return outside.where(m > 1, 1.0) / (self.side / 2)
        frustum = self.frustum
        away = points - torch.tensor(frustum.origin).to(points)
        z = (points @ frustum.matrix(points)[3, :3] + frustum.matrix(points)[3, 3]).clamp(min=frustum.near)
        return 2 / (1 / frustum.near - 1 / frustum.far) / (z * away.norm(dim=1).clamp(min=frustum.near))

    def pieces(self, origins: Tensor, directions: Tensor) -> Pieces:
        """Rays (R, 3), cut into pieces that are straight in own coordinates; for a space with a contraction.
        No gradients."""
        origins, directions = origins.detach(), directions.detach()
        near, far = self.span(origins, directions)
        if self.contraction == "frustum":
            return through_frustum(origins, directions, near, far, self.frustum.matrix(origins))
        half = self.side / 2
        found = through_regions(self._scaled(origins), directions, far / half)
        # Metres: the maps' slopes are those of a half side.
        return replace(
            found,
            begin=found.begin * half,
            length=found.length * half,
            slope=found.slope / half,
            fall=found.fall / half,
        )

    # ---- rays --------------------------------------------------------------------------------------------

    def to_unit(self, points: Tensor) -> tuple[Tensor, Tensor]:
        """(N, 3) world -> positions (N, 3) in [-1, 1], and which (N,) points are in the field."""
        if self.contraction == "none":
            scaled = self._scaled(points)
            return scaled, (scaled.abs() <= 1).all(1)
        own, inside = self.to_own(points)
        return (own / 2 if self.contraction == "merf" else own), inside

    def span(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Where rays are in the field, metres: near (R,), far (R,); both 0 for rays that never are."""
        if self.contraction == "merf":
            near = torch.zeros_like(origins[:, 0])
            return near, near + self.far * self.side / 2
        if self.contraction == "frustum":
            near, far = self._span_of_frustum(origins.detach(), directions.detach())
        else:
            near, far = ray_box(origins.detach(), directions.detach(), *self.corners(origins))
        met = near < far
        return near.where(met, 0.0), far.where(met, 0.0)

    def warp(self, t: Tensor) -> Tensor:
        """A distance along a ray in the measure that samples are spread evenly in: itself in a cube; around
        one t / 2 up to half a side and 1 - 1 / (2 t) from there on, t in half sides; in a frustum its
        disparity, 1 - near / t."""
        if self.contraction == "none":
            return t
        if self.contraction == "frustum":
            return 1 - self.frustum.near / t.clamp(min=1e-3 * self.frustum.near)
        scaled = t / (self.side / 2)
        return torch.where(scaled < 1, scaled / 2, 1 - 0.5 / scaled.clamp(min=1))

    def unwarp(self, s: Tensor) -> Tensor:
        """The inverse of `warp`."""
        if self.contraction == "none":
            return s
        if self.contraction == "frustum":
            return self.frustum.near / (1 - s)
        return torch.where(s < 0.5, 2 * s, 0.5 / (1 - s.clamp(min=0.5))) * (self.side / 2)

    def _scaled(self, points: Tensor) -> Tensor:
        low, high = self.corners(points)
        return (points - (low + high) / 2) / (self.side / 2)

    def _span_of_frustum(self, origins: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        """Between six planes: |x| <= z, |y| <= z, |u| <= z of the homogeneous coordinates."""
        matrix = self.frustum.matrix(origins)
        value, slope = origins @ matrix[:, :3].T + matrix[:, 3], directions @ matrix[:, :3].T
        sides = torch.cat([value[:, 3:] - value[:, :3], value[:, 3:] + value[:, :3]], 1)
        rates = torch.cat([slope[:, 3:] - slope[:, :3], slope[:, 3:] + slope[:, :3]], 1)
        crossed = -sides / rates
        # A ray along a plane crosses it nowhere: it is in or out all the way.
        enters = crossed.where(rates > 0, torch.where((rates == 0) & (sides < 0), torch.inf, 0.0))
        leaves = crossed.where(rates < 0, torch.inf)
        return enters.amax(1).clamp(min=0), leaves.amin(1)
