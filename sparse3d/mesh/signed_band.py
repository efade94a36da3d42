"""A solid as signed distances on the lattice points near its surface, from a mesh and back to one.

Lattice point (x, y, z) lies at origin + voxel_size * (x, y, z). Distances are exact at the points
(`sparse3d.mesh.distance`) and negative inside. The side is asked once for all points that hang together: no
face passes between two neighbours whose distances together are more than the step between them.
"""

from dataclasses import dataclass

import numpy as np

from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.band_blocks import BandBlocks, blocks_near, default_origin
from sparse3d.mesh.distance import MeshDistance, nearest_colors
from sparse3d.mesh.lattice_blocks import surface_of
from sparse3d_ops.cpu import band_pieces

_AT_ONCE = 1 << 20  # points
_ROUNDING = 1 + 1e-5


@dataclass(frozen=True, eq=False)
class SignedBand:
    """`points` (N, 4) int32 distinct lattice points (batch 0, x, y, z), `distances` (N,) float32 metres,
    negative inside, `voxel_size` metres, `origin` (3,) float64 world of lattice point 0, `colors` (N, 3)
    uint8 sRGB of the nearest place of the surface, or None. ValueError for other shapes and distances that
    are not finite."""

    points: np.ndarray
    distances: np.ndarray
    voxel_size: float
    origin: np.ndarray
    colors: np.ndarray | None = None

    def __post_init__(self):
        points, distances = np.ascontiguousarray(self.points), np.ascontiguousarray(self.distances)
        if points.ndim != 2 or points.shape[1] != 4 or points.dtype != np.int32:
            raise ValueError(f"points are (N, 4) int32, these are {points.dtype} {points.shape}")
        if distances.shape != points.shape[:1] or distances.dtype != np.float32:
            raise ValueError(
                f"distances are ({len(points)},) float32, these are {distances.dtype} {distances.shape}"
            )
        if not np.isfinite(distances).all():
            raise ValueError(f"distances[{int((~np.isfinite(distances)).argmax())}] is not finite")
        origin = np.asarray(self.origin, dtype=np.float64)
        if origin.shape != (3,) or not np.isfinite(origin).all():
            raise ValueError(f"origin is a finite place (3,), this is {self.origin}")
        if not (np.isfinite(self.voxel_size) and self.voxel_size > 0):
            raise ValueError(f"voxel_size is {self.voxel_size}, expected metres above 0")
        if self.colors is not None:
            colors = np.ascontiguousarray(self.colors)
            if colors.shape != (len(points), 3) or colors.dtype != np.uint8:
                raise ValueError(
                    f"colors are ({len(points)}, 3) uint8, these are {colors.dtype} {colors.shape}"
                )
            object.__setattr__(self, "colors", colors)
        object.__setattr__(self, "points", points)
        object.__setattr__(self, "distances", distances)
        object.__setattr__(self, "origin", origin)
        object.__setattr__(self, "voxel_size", float(self.voxel_size))

    @property
    def places(self) -> np.ndarray:
        """(N, 3) float64 world."""
        return self.origin + self.voxel_size * self.points[:, 1:]


def band_from_mesh(
    mesh: Mesh, voxel_size: float, width: float = 3.0, origin: np.ndarray | None = None
) -> SignedBand:
    """The lattice points within `width` voxels of a mesh, in the order of their blocks.

    Inside is what the faces go around, in whichever sense; where a mesh is not closed, what they go more than
    half around. There, points of different sides with no surface between them are left out, so that the
    band's surface is open where the mesh is (`sparse3d.mesh.sparcubes` closes it). A width of 2 is enough for
    `band_to_mesh`. ValueError as `blocks_near`, and for a width below 2.
    """
    if not 2 <= width < np.inf:
        raise ValueError(f"width is {width}, expected at least 2 voxels, which hold the surface's voxels")
    distance = MeshDistance(mesh)
    origin = default_origin(mesh, voxel_size) if origin is None else np.asarray(origin, np.float64)
    band = blocks_near(distance, voxel_size, origin, width * voxel_size)
    chosen = np.isfinite(band.distances)
    if mesh.is_closed:
        inside = _inside_by_pieces(distance, band)
    else:
        inside = np.zeros(chosen.shape, bool)
        inside[chosen] = _inside(distance, band, chosen)
        torn = np.zeros(chosen.shape, bool)
        step = step_of(band)
        band_pieces.torn(np.where(chosen, band.distances, -step), inside, band.beside(), step, torn)
        chosen &= ~torn
    points = np.pad(band.points(chosen), ((0, 0), (1, 0)))
    values = band.distances[chosen]
    np.negative(values, out=values, where=inside[chosen])
    colors = nearest_colors(distance, band.places(points[:, 1:])) if mesh.has_paint else None
    return SignedBand(points, values, voxel_size, origin, colors)


def band_to_mesh(band: SignedBand) -> Mesh:
    """The surface where the distances are 0, by marching cubes over the voxels that have all their corners in
    the band: closed where the band is. Colours are those of the lattice points on both sides."""
    surface = surface_of(band.points, -band.distances)
    vertices = band.origin + band.voxel_size * surface.between(band.points[:, 1:])
    colors = None
    if band.colors is not None:
        colors = surface.between(band.colors).round().astype(np.uint8)
    return Mesh(vertices.astype(np.float32), surface.faces, colors)


def step_of(band: BandBlocks) -> np.float32:
    """The step between neighbours, a trifle longer, so that what is more in float32 is truly more."""
    return np.float32(band.voxel_size * _ROUNDING)


def _inside_by_pieces(distance: MeshDistance, band: BandBlocks) -> np.ndarray:
    """(B, 64) bool, for a closed mesh: the side of the point of each piece that is furthest from it."""
    parent = np.empty(band.distances.size, np.int32)
    band_pieces.pieces(band.distances, band.beside(), step_of(band), np.float32(0), parent)
    most = np.empty(len(parent), np.int32)
    band_pieces.farthest(band.distances.reshape(-1), parent, most)
    first = np.flatnonzero(most >= 0)
    asked = np.zeros(band.distances.shape, bool)
    asked.reshape(-1)[most[first]] = True
    # In the order of the points, in which neighbours are beside each other.
    sides = np.zeros(band.distances.size, bool)
    sides[np.flatnonzero(asked)] = _inside(distance, band, asked)
    return sides[most[parent]].reshape(band.distances.shape)


def _inside(distance: MeshDistance, band: BandBlocks, chosen: np.ndarray) -> np.ndarray:
    """(N,) bool, each point of (B, 64) bool asked by itself."""
    points = band.points(chosen)
    parts = [np.zeros(0, bool)]
    for begin in range(0, len(points), _AT_ONCE):
        parts.append(distance.inside(band.places(points[begin : begin + _AT_ONCE])))
    return np.concatenate(parts)
