"""Sparcubes: any mesh, with holes, sheets or walls inside of each other, as the outer surface of a solid
(Li et al., "Sparc3D: sparse representation and construction for high-resolution 3D shapes modeling", 2025).

Unsigned distances near the mesh; what can be reached from outside without coming near a face is outside, what
is closed off is inside, and its walls are not there. From both the sides grow up to the mesh, along lattice
edges that no face crosses. Where a lattice edge is crossed between two points outside there is a sheet, or a
plate thinner than a voxel: there both corners of the lattice are moved onto it and become inside, so that the
surface of the deformed cubes wraps the sheet. The result is closed, whatever came in.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import label
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from sparse3d.geometry.memory import check_room
from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.band_blocks import POINTS, BandBlocks, blocks_near, default_origin
from sparse3d.mesh.distance import MeshDistance, nearest_colors
from sparse3d.mesh.lattice_blocks import surface_of
from sparse3d.mesh.lattice_crossings import crossings, in_voxels
from sparse3d.mesh.signed_band import SignedBand, step_of
from sparse3d_ops.cpu import band_pieces

# Where two sides reach a point at once, the first takes it.
OUTSIDE, INSIDE, SHEET = 1, 2, 3
# Half the thickness of a wrapped sheet, voxels. A corner on the sheet is so deep inside; the surface then
# runs at this part of the way to the next corner.
_THIN = 0.05
_BYTES_A_POINT = 80  # the band's, crossed edges, labels and pieces


@dataclass(frozen=True, eq=False)
class DeformedBand:
    """A signed band whose lattice points are moved by `offsets` (N, 3) float32, voxels, less than one each;
    its distances hold at the moved points."""

    band: SignedBand
    offsets: np.ndarray


def mesh_to_sparcubes(
    mesh: Mesh, voxel_size: float, seal: float = 1.0, origin: np.ndarray | None = None
) -> DeformedBand:
    """`seal`: holes up to so many voxels wide do not let the outside in; they are closed over. At least 1,
    below which a lattice cannot tell; wider ones cost a wider band.

    ValueError for a `seal` below 1 or above 16, and as `blocks_near` and `in_voxels`.
    """
    if not 1 <= seal <= 16:
        raise ValueError(f"seal is {seal}, expected 1 to 16 voxels")
    distance = MeshDistance(mesh)
    origin = default_origin(mesh, voxel_size) if origin is None else np.asarray(origin, np.float64)
    band = blocks_near(distance, voxel_size, origin, (seal / 2 + 2.5) * voxel_size, _BYTES_A_POINT)
    crossed, beside = _crossed(mesh, band), band.beside()
    labels = _cores(band, beside, seal)
    fresh = np.empty_like(labels)
    while band_pieces.spread(labels, beside, crossed, fresh):
        labels, fresh = fresh, labels
    labels[labels == 0] = INSIDE  # pockets smaller than a voxel, walled in on all sides
    _mark_sheets(labels, band, crossed)
    # A cube with corners on both sides has none further away than this.
    chosen = band.distances <= (seal / 2 + 2.3) * voxel_size
    points, kind = np.pad(band.points(chosen), ((0, 0), (1, 0))), labels[chosen]
    values = band.distances[chosen]
    np.negative(values, out=values, where=kind == INSIDE)
    sheet = kind == SHEET
    values[sheet] = -_THIN * voxel_size
    offsets = np.zeros((len(points), 3), np.float32)
    if sheet.any():
        places = band.places(points[sheet, 1:])
        _, face, weights = distance.nearest(places)
        onto = (weights[:, :, None] * mesh.vertices[mesh.faces[face]].astype(np.float64)).sum(1)
        offsets[sheet] = (onto - places) / voxel_size
    colors = nearest_colors(distance, band.places(points[:, 1:])) if mesh.has_paint else None
    return DeformedBand(SignedBand(points, values, voxel_size, origin, colors), offsets)


def sparcubes_to_mesh(deformed: DeformedBand) -> Mesh:
    """Marching cubes on the deformed cubes: closed."""
    band = deformed.band
    surface = surface_of(band.points, -band.distances)
    lattice = surface.between(band.points[:, 1:] + deformed.offsets.astype(np.float64))
    colors = None
    if band.colors is not None:
        colors = surface.between(band.colors).round().astype(np.uint8)
    vertices = (band.origin + band.voxel_size * lattice).astype(np.float32)
    return Mesh(vertices, surface.faces, colors)


def _crossed(mesh: Mesh, band: BandBlocks) -> np.ndarray:
    """(B, 64, 3) bool: the lattice edges that begin at each point and are crossed by a face."""
    edges = crossings(in_voxels(mesh, band.voxel_size, band.origin)).edges
    rows = band.rows_of(edges[:, :3])
    assert (rows >= 0).all(), "a crossed edge's ends are within a voxel of the mesh"
    crossed = np.zeros((len(band.blocks) * POINTS, 3), bool)
    crossed[rows, edges[:, 3]] = True
    return crossed.reshape(-1, POINTS, 3)


def _cores(band: BandBlocks, beside: np.ndarray, seal: float) -> np.ndarray:
    """(B, 64) uint8: OUTSIDE or INSIDE for the points that are further from the mesh than half of `seal`,
    else 0."""
    least = np.float32(seal / 2 * float(step_of(band)))
    parent = np.empty(band.distances.size, np.int32)
    band_pieces.pieces(band.distances, beside, step_of(band), least, parent)
    core = band.distances.reshape(-1) >= least
    # The blocks that are not there are all far away from the mesh: regions of them join what they touch.
    low = band.blocks.min(0) - 1
    size = tuple((band.blocks.max(0) + 2 - low).tolist())
    check_room(
        int(np.prod(size, dtype=float)) * 6,
        f"the flood around a mesh of {' x '.join(str(4 * n) for n in size)} voxels",
        lambda part: f"a voxel size of {band.voxel_size / part ** (1 / 3):.3g} would fit",
    )
    empty = np.ones(size, bool)
    empty[tuple((band.blocks - low).T)] = False
    regions = np.empty(size, np.int32)
    count = int(label(empty, output=regions))  # pyright: ignore[reportArgumentType]
    roots, piece = np.unique(parent[core], return_inverse=True)
    of_point = np.full(len(parent), -1, np.int32)
    of_point[core] = piece
    links = []
    for side in range(6):
        block = np.flatnonzero(beside[:, side] < 0)
        step = np.zeros(3, np.int32)
        step[side % 3] = 1 if side < 3 else -1
        region = regions[tuple((band.blocks[block] - low + step).T)]
        # The first or last point along the axis: the whole side of the block is one piece.
        place = (3 if side < 3 else 0) * (16 >> (2 * (side % 3)))
        touching = of_point[POINTS * block + place]
        links.append(np.stack([touching, len(roots) + region - 1], 1)[touching >= 0])
    ends = np.concatenate(links)
    nodes = len(roots) + count
    graph = coo_array((np.ones(len(ends), np.int8), (ends[:, 0], ends[:, 1])), shape=(nodes, nodes))
    _, group = connected_components(graph, directed=False)
    outside = group[: len(roots)] == group[len(roots) + regions[0, 0, 0] - 1]
    labels = np.zeros(len(parent), np.uint8)
    labels[core] = np.where(outside[piece], OUTSIDE, INSIDE)
    return labels.reshape(-1, POINTS)


def _mark_sheets(labels: np.ndarray, band: BandBlocks, crossed: np.ndarray) -> None:
    """Both ends of each crossed edge that has both outside become SHEET. With one of them alone the wrapped
    sheet would have holes, where the nearer end changes sides."""
    flat = labels.reshape(-1)
    outer, found = flat == OUTSIDE, []
    for axis in range(3):
        first = np.flatnonzero(crossed.reshape(-1, 3)[:, axis])
        second = band.rows_of(_points(band, first) + np.eye(3, dtype=np.int32)[axis])
        there = outer[first] & outer[second]
        found += [first[there], second[there]]
    flat[np.concatenate(found)] = SHEET


def _points(band: BandBlocks, rows: np.ndarray) -> np.ndarray:
    """(N,) numbers 64 * block + place -> (N, 3) int32."""
    chosen = np.zeros(band.distances.shape, bool)
    chosen.reshape(-1)[rows] = True
    return band.points(chosen)  # rows are in order
