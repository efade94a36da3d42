"""The surface of a field as a triangle mesh, with the colours that one sees from outside.

A signed distance has its surface at 0. A density has none: what is opaque in the photos became a ramp, one to
two voxels wide, and the question is which point of it to take. Not the one where half of the light has gone
seen straight on, which lies 0.2 voxels too deep: a surface is held in place by the rays that graze it, whose
way through the ramp is many times longer. They lose their light at a density that has nothing to do with the
voxels but with how large things are. Measured on three spheres of 0.18 to 0.35 m, in a cube of 1.5 m: the
level without bias is 7.9 / m on 32^3 voxels, 8.2 on 64^3 and 8.7 on 96^3. So it is given for the cube's side:
`DEPTH_OF_SIDE`. Between half and double of it surfaces move by 2 to 3 mm there.

The search goes from coarse to fine: the cells that hold the level are cut into eight, and those that hold it
are taken; at each size the surface is followed to its end (`sparse3d.geometry.level_set.follow`), so that it
has no cracks. Vertices are then moved along their edges to where the field itself passes the level. A surface
that leaves the field's cube ends there, open.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sparse3d.fields.build import Field
from sparse3d.fields.volsdf import VolSDF
from sparse3d.fields.voxel_field import VoxelField
from sparse3d.fields.voxel_lattice import VoxelLattice
from sparse3d.geometry.level_set import follow, level_set
from sparse3d.geometry.mesh import Mesh

DEPTH_OF_SIDE = 12.0  # optical depth of the default level across the whole cube
_AT_ONCE = 1 << 18  # points
_SCAN = 64  # cells along a side, at most, of the first look at a field that does not know where it is empty
_HALVINGS = 7  # of an edge: vertices lie within 1/256 of a cell of the level
_INSIDE = 1e-4  # cells: how far from its border the field is asked, rounding may put a point outside


@dataclass(frozen=True)
class MeshConfig:
    """How a surface is cut out of a field."""

    level: float | None = None  # density in 1 / metre, or distance in metres; `default_level`
    resolution: int | None = None  # cells along a side, at least; 128, or twice a voxel field's own
    min_faces: int = 100  # pieces of fewer triangles are left out, but not the largest

    def __post_init__(self):
        if self.resolution is not None and not 2 <= self.resolution <= 1 << 14:
            raise ValueError(f"resolution must lie in 2 to {1 << 14}, got {self.resolution}")
        if self.level is not None and not math.isfinite(self.level):
            raise ValueError(f"level must be a number, got {self.level}")


class _Grid:
    """A field on lattice points of the cube at `resolution` cells a side: above 0 inside."""

    def __init__(self, field: Field, level: float, resolution: int):
        self.field, self.level, self.resolution = field, level, resolution
        self.low, self.cell = field.config.space.low, field.config.space.side / resolution

    def places(self, positions: Tensor) -> Tensor:
        """(N, 3) in cells -> (N, 3) world."""
        positions = positions.float().clamp(_INSIDE, self.resolution - _INSIDE)
        return positions * self.cell + torch.tensor(self.low, device=positions.device)

    def at(self, positions: Tensor) -> Tensor:
        """(N, 3) in cells -> (N,)."""
        depth: Callable[[Tensor], Tensor] = self.field.density
        sign = 1.0
        if isinstance(self.field, VolSDF):
            depth, sign = self.field.distance, -1.0
        parts = [sign * (depth(self.places(part)) - self.level) for part in positions.split(_AT_ONCE)]
        return torch.cat(parts) if parts else positions.new_zeros(0, dtype=torch.float32)

    def follow(self, cells: Tensor):
        """`level_set.follow` within the cube."""
        low = torch.zeros(3, dtype=torch.int32, device=cells.device)
        return follow(lambda points: self.at(points[:, 1:]), cells, 0.0, low, low + self.resolution)


@torch.no_grad()
def field_mesh(field: Field, config: MeshConfig = MeshConfig()) -> Mesh:
    """The surface of a field, in world coordinates, metres; normals point outside, to less density.

    Pieces smaller than a cell of the first look (a 64th of the cube's side; a voxel of a voxel field) may be
    missed, and so may what lies outside of the cube of a field with a contraction. Vertices have the colour
    that the field shows along the inward normal. ValueError where the field passes the level nowhere.
    """
    cells, resolution = _first_look(field, config)
    level = default_level(field) if config.level is None else config.level
    wanted = config.resolution or max(2 * resolution, 2 * _SCAN if resolution >= _SCAN else 0)
    while True:
        grid = _Grid(field, level, resolution)
        found = grid.follow(cells)
        if resolution >= wanted or not len(found.voxels):
            break
        cells, resolution = _eighths(found.voxels), 2 * resolution
    if not len(found.voxels):
        raise ValueError(
            f"the field passes the level {level:g} nowhere, so there is no surface; {_range(field, cells)}"
        )
    surface = level_set(found.corner_rows, found.values)
    ends = found.points[surface.low, 1:].float(), found.points[surface.high, 1:].float()
    positions = _refined(grid, *ends, found.values[surface.low] > 0)
    mesh = Mesh(grid.places(positions).cpu().numpy(), surface.faces.cpu().numpy())
    mesh = mesh.without_cavities().without_small_pieces(config.min_faces)
    colors = seen_on_surface(field, mesh.vertices, mesh.vertex_normals)
    return mesh.with_colors(np.rint(colors * 255).astype(np.uint8))


def default_level(field: Field) -> float:
    """0 of a signed distance, metres; of a density DEPTH_OF_SIDE over the cube's side, 1 / metre."""
    return 0.0 if isinstance(field, VolSDF) else DEPTH_OF_SIDE / field.config.space.side


def _first_look(field: Field, config: MeshConfig) -> tuple[Tensor, int]:
    """Cells (N, 4) that are looked at, and how many there are along a side."""
    if isinstance(field, VoxelField) and not field.config.space.unbounded:
        return field.coordinates, field.lattice.resolution
    device = next(field.parameters()).device
    resolution = config.resolution or 2 * _SCAN
    while resolution > _SCAN:
        resolution = (resolution + 1) // 2
    return VoxelLattice.full(resolution, device).coordinates, resolution


def _eighths(cells: Tensor) -> Tensor:
    bits = torch.cartesian_prod(*[torch.arange(2, dtype=torch.int32, device=cells.device)] * 3)
    fine = cells[:, None].repeat(1, 8, 1)
    fine[..., 1:] = 2 * fine[..., 1:] + bits
    return fine.flatten(0, 1)


def _refined(grid: _Grid, low: Tensor, high: Tensor, low_inside: Tensor) -> Tensor:
    """(V, 3) in cells: where the field passes the level between `low` and `high` (V, 3), by halving."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        same = ((grid.at(middle) > 0) == low_inside)[:, None]
        low, high = middle.where(same, low), high.where(same, middle)
    return (low + high) / 2


@torch.no_grad()
def seen_on_surface(field: Field, places: np.ndarray, normals: np.ndarray) -> np.ndarray:
    """(N, 3) world, (N, 3) unit normals -> (N, 3) float32 in [0, 1]: what the field shows there to one who
    looks straight on the surface."""
    device = next(field.parameters()).device
    inward = torch.from_numpy(-normals).to(device, torch.float32)
    pairs = zip(
        torch.from_numpy(places).to(device, torch.float32).split(_AT_ONCE),
        inward.split(_AT_ONCE),
        strict=True,
    )
    return torch.cat([field.color(*pair) for pair in pairs]).clamp(0, 1).nan_to_num().cpu().numpy()


def _range(field: Field, cells: Tensor) -> str:
    grid = _Grid(field, 0.0, _SCAN)
    values = grid.at(_SCAN * torch.rand(_AT_ONCE // 8, 3, device=cells.device))
    return (
        f"its values there go from about {float(values.min()):.3g} to {float(values.max()):.3g}: set --level"
    )
