"""A solid as the voxels that are within it: from a signed band, and back to a surface.

Voxel (x, y, z) covers origin + voxel_size [i, i + 1). It counts as within where the mean distance of its
corners is negative, so half a voxel may be lost or won at the surface: 0.16 to 0.19 voxels on average.
"""

from dataclasses import dataclass

import numpy as np
import torch

from sparse3d.geometry.level_set import level_set
from sparse3d.geometry.memory import check_room
from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.signed_band import SignedBand
from sparse3d.mesh.smoothing import smoothed
from sparse3d_ops.hashing import build, look_up, pack, unique, unpack
from sparse3d_ops.visible_samples import lattice

_CORNERS = torch.cartesian_prod(*[torch.arange(2, dtype=torch.int32)] * 3)
_BYTES_A_VOXEL = 5  # what is known of it, and the row of its colour
_CALMING = 6  # steps: stairs of one voxel become slopes


@dataclass(frozen=True, eq=False)
class OccupiedVoxels:
    """`coordinates` (N, 4) int32 distinct (batch 0, x, y, z), `voxel_size` metres, `origin` (3,) float64
    world of the lowest corner of voxel 0, `colors` (N, 3) uint8 sRGB of the nearest surface, or None.
    ValueError for other shapes."""

    coordinates: np.ndarray
    voxel_size: float
    origin: np.ndarray
    colors: np.ndarray | None = None

    def __post_init__(self):
        coordinates = np.ascontiguousarray(self.coordinates)
        if coordinates.ndim != 2 or coordinates.shape[1] != 4 or coordinates.dtype != np.int32:
            raise ValueError(
                f"coordinates are (N, 4) int32, these are {coordinates.dtype} {coordinates.shape}"
            )
        origin = np.asarray(self.origin, dtype=np.float64)
        if origin.shape != (3,) or not np.isfinite(origin).all():
            raise ValueError(f"origin is a finite place (3,), this is {self.origin}")
        if not (np.isfinite(self.voxel_size) and self.voxel_size > 0):
            raise ValueError(f"voxel_size is {self.voxel_size}, expected metres above 0")
        if self.colors is not None and (
            self.colors.shape != (len(coordinates), 3) or self.colors.dtype != np.uint8
        ):
            raise ValueError(f"colors are ({len(coordinates)}, 3) uint8, these are {self.colors.shape}")
        object.__setattr__(self, "coordinates", coordinates)
        object.__setattr__(self, "origin", origin)
        object.__setattr__(self, "voxel_size", float(self.voxel_size))


def occupancy_of_band(band: SignedBand) -> OccupiedVoxels:
    """The voxels within the surface, those deep inside too: what lies between two voxels that are known to be
    within, along x, with nothing known between them, is within. ValueError where the box of the band would
    need more memory than there is, and where nothing is within."""
    points = torch.from_numpy(band.points)
    table = build(pack(points))
    total, whole, shade = torch.zeros(len(points)), torch.ones(len(points), dtype=torch.bool), None
    distances = torch.from_numpy(band.distances)
    for corner in _CORNERS:
        rows = look_up(*table, pack(points + torch.nn.functional.pad(corner, (1, 0)))).long()
        whole &= rows >= 0
        total += distances[rows.clamp(min=0)]
    known = whole.numpy()
    cells, within = band.points[known, 1:], (total < 0).numpy()[known]
    shade = None if band.colors is None else band.colors[known]
    if not within.any():
        raise ValueError("no voxel's middle lies within the surface: a finer voxel size, or a closed mesh")
    low = cells.min(0)
    size = cells.max(0) - low + 1
    check_room(
        int(np.prod(size.astype(np.int64))) * _BYTES_A_VOXEL,
        f"the box of {' x '.join(map(str, size))} voxels",
        lambda part: f"a voxel size of {band.voxel_size / part ** (1 / 3):.3g} would fit",
    )
    state = np.full(tuple(size), -1, dtype=np.int32)  # rows of voxels, -1 where nothing is known
    state[tuple((cells - low).T)] = np.arange(len(cells))
    found, rows = [], []
    for y in range(size[1]):
        plane = state[:, y]
        before = np.maximum.accumulate(np.where(plane >= 0, np.arange(size[0])[:, None], -1), axis=0)
        behind = np.where(plane >= 0, np.arange(size[0])[:, None], size[0])
        behind = np.minimum.accumulate(behind[::-1], axis=0)[::-1]
        columns = np.arange(size[2])[None]
        between = (before >= 0) & (behind < size[0])
        first = plane[np.maximum(before, 0), columns]
        last = plane[np.minimum(behind, size[0] - 1), columns]
        x, z = (between & within[first] & within[last]).nonzero()
        found.append(np.stack([np.zeros_like(x), x + low[0], np.full_like(x, y + low[1]), z + low[2]], 1))
        rows.append(first[x, z])
    coordinates = np.concatenate(found).astype(np.int32)
    colors = None if shade is None else shade[np.concatenate(rows)]
    return OccupiedVoxels(coordinates, band.voxel_size, band.origin, colors)


def occupancy_to_mesh(voxels: OccupiedVoxels, calming: int = _CALMING) -> Mesh:
    """The surface half way between the middles of voxels that are there and of neighbours that are not, by
    marching cubes, then `calming` steps of smoothing. Closed; colours are those of the voxels. ValueError for
    none."""
    if not len(voxels.coordinates):
        raise ValueError("no voxel is occupied: there is no surface")
    coordinates = torch.from_numpy(voxels.coordinates)
    table = build(pack(coordinates))
    border = torch.zeros(len(coordinates), dtype=torch.bool)
    for step in torch.cartesian_prod(*[torch.arange(-1, 2, dtype=torch.int32)] * 3):
        border |= look_up(*table, pack(coordinates + torch.nn.functional.pad(step, (1, 0)))) < 0
    # Cells between the middles of voxels: cell i has those of i and i + 1.
    cells = coordinates[border][:, None] - torch.nn.functional.pad(_CORNERS, (1, 0))
    points, corner_rows = lattice(unpack(unique(pack(cells.reshape(-1, 4)))[0]))
    rows = look_up(*table, pack(points)).long()
    surface = level_set(corner_rows, (rows >= 0).float(), 0.5)
    places = surface.positions(points).numpy().astype(np.float64) + 0.5
    colors = None
    if voxels.colors is not None:
        colors = voxels.colors[torch.maximum(rows[surface.low], rows[surface.high]).numpy()]
    mesh = Mesh(voxels.origin + voxels.voxel_size * places, surface.faces.numpy(), colors)
    return smoothed(mesh, calming)
