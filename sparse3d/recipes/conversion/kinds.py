"""The representations that are converted into each other, and which of them a value is."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from sparse3d.fields.build import Field
from sparse3d.fields.voxel_field import VoxelField
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.geometry.mesh import Mesh
from sparse3d.geometry.painted_points import PaintedPoints
from sparse3d.mesh.occupancy import OccupiedVoxels
from sparse3d.mesh.signed_band import SignedBand

Thing = Mesh | SignedBand | OccupiedVoxels | Field | GaussianCloud | PaintedPoints


class Kind(StrEnum):
    """What people call them on the command line."""

    MESH = "mesh"
    BAND = "band"  # signed distances on lattice points near the surface
    OCCUPANCY = "occupancy"  # voxels that are within
    VOXELS = "voxels"  # radiance voxels
    FIELD = "field"  # another radiance field: hash, NeRF, VolSDF
    GAUSSIANS = "gaussians"
    SURFELS = "surfels"
    POINTS = "points"


@dataclass(frozen=True)
class ConversionConfig:
    """How fine what is made is. ValueError for numbers that make no sense."""

    resolution: int = 128  # voxels along the longest side
    voxel_size: float | None = None  # metres, in place of `resolution`
    count: int | None = None  # Gaussians, surfels or points; as many as voxels on the surface
    refine: int = 300  # steps in which what shows pictures is fitted to those of what it came from
    views: int = 24  # pictures to fit to
    view_size: int | None = None  # pixels a side of them; a voxel or less a pixel
    sh_degree: int = 2  # at most, of colours that are fitted
    seed: int = 0

    def __post_init__(self):
        if not 8 <= self.resolution <= 4096:
            raise ValueError(f"resolution must lie in 8 to 4096, got {self.resolution}")
        if self.voxel_size is not None and not (np.isfinite(self.voxel_size) and self.voxel_size > 0):
            raise ValueError(f"voxel_size must be above 0 metres, got {self.voxel_size}")
        if self.count is not None and self.count < 1:
            raise ValueError(f"count must be at least 1, got {self.count}")
        if self.refine < 0 or self.views < 1 or not 16 <= self.pixels <= 4096:
            raise ValueError(f"refine is at least 0, views at least 1, view_size 16 to 4096: {self}")
        if not 0 <= self.sh_degree <= 3:
            raise ValueError(f"sh_degree must lie in 0 to 3, got {self.sh_degree}")

    @property
    def pixels(self) -> int:
        """Of a picture's side. Things fill somewhat more than half of it."""
        return self.view_size or min(max(2 * self.resolution, 64), 512)

    def voxel(self, extent: float) -> float:
        """Metres, for a thing that is so long."""
        return self.voxel_size or max(extent, 1e-12) / self.resolution


def kind_of(thing: Thing) -> Kind:
    """See `Kind`."""
    if isinstance(thing, GaussianCloud):
        return Kind.SURFELS if thing.surfels else Kind.GAUSSIANS
    kinds = {
        Mesh: Kind.MESH,
        SignedBand: Kind.BAND,
        OccupiedVoxels: Kind.OCCUPANCY,
        VoxelField: Kind.VOXELS,
        PaintedPoints: Kind.POINTS,
    }
    return kinds.get(type(thing), Kind.FIELD)


def described(thing: Thing) -> str:
    """How much there is of it, for people."""
    if isinstance(thing, Mesh):
        closed = "closed" if thing.is_closed else "open"
        return f"{len(thing.faces)} triangles, {closed}"
    if isinstance(thing, SignedBand):
        return f"{len(thing.points)} distances, voxels of {thing.voxel_size:.4g} m"
    if isinstance(thing, OccupiedVoxels):
        return f"{len(thing.coordinates)} voxels of {thing.voxel_size:.4g} m"
    if isinstance(thing, VoxelField):
        return f"{len(thing.coordinates)} voxels of {thing.lattice.resolution}^3"
    if isinstance(thing, GaussianCloud):
        return f"{len(thing)} {'surfels' if thing.surfels else 'Gaussians'}, SH degree {thing.sh_degree}"
    if isinstance(thing, PaintedPoints):
        return f"{len(thing)} points"
    return type(thing).__name__
