"""Which edges of a lattice the faces of a mesh cross, and where.

The lattice edge (x, y, z, axis) goes from lattice point (x, y, z), at origin + voxel_size * (x, y, z), one
step along its axis. What only touches an edge crosses it as if the lattice lay a trifle further along each
axis, so that all faces agree: around a closed mesh each square of the lattice has an even number of crossings
on its sides.
"""

from dataclasses import dataclass

import numpy as np

from sparse3d.geometry.memory import check_room
from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.band_blocks import check_voxel_size
from sparse3d_ops.cpu import lattice_crossings as body
from sparse3d_ops.hashing import COORDINATE_LIMIT

_BYTES = 600  # of each crossing: itself, its voxels with their keys and forms


@dataclass(frozen=True)
class Crossings:
    """Of each crossing the edge (M, 4) int32, how far it is above the edge's lower end, `heights` (M,)
    float64 in (0, 1], in voxels; `sides` (M,) int8, 1 where the face's outside lies further along the axis,
    -1 where it lies before; and the face (M,) int32. In the order of the faces."""

    edges: np.ndarray
    heights: np.ndarray
    sides: np.ndarray
    faces: np.ndarray


def in_voxels(mesh: Mesh, voxel_size: float, origin: np.ndarray) -> np.ndarray:
    """(F, 3, 3) float64: the corners of the faces in voxel units.

    ValueError for a mesh without faces or that does not fit the lattice, and where the surface has more
    voxels than there is memory for.
    """
    check_voxel_size(voxel_size)
    if not len(mesh.faces):
        raise ValueError("a mesh without triangles crosses no lattice")
    vertices = (mesh.vertices.astype(np.float64) - origin) / voxel_size
    triangles = vertices[mesh.faces]
    reach = np.abs(triangles).max()
    if not reach < COORDINATE_LIMIT - 2:
        raise ValueError(
            f"a mesh whose lattice points go to {reach:.3g} from the origin does not fit a lattice of "
            f"{COORDINATE_LIMIT} on each side; use a voxel size of at least "
            f"{voxel_size * reach / (COORDINATE_LIMIT - 3):.3g}, or an origin within the mesh"
        )
    # A face crosses as many lines along an axis as its shadow has unit squares.
    normals = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    extent = float(np.ptp(triangles.reshape(-1, 3), axis=0).max())
    check_room(
        int(np.abs(normals).sum() / 2 * _BYTES),
        f"the surface at a voxel size of {voxel_size:g} ({extent:.0f} voxels along the mesh)",
        lambda part: f"a voxel size of {voxel_size / part**0.5:.3g} would fit",
    )
    return triangles


def crossings(triangles: np.ndarray) -> Crossings:
    """Of triangles (F, 3, 3) float64 in voxel units (`in_voxels`)."""
    counts = np.empty(len(triangles), np.int64)
    body.count_crossings(triangles, counts)
    starts = np.concatenate([[0], counts.cumsum()])
    total = int(starts[-1])
    found = Crossings(
        np.empty((total, 4), np.int32), np.empty(total), np.empty(total, np.int8), np.empty(total, np.int32)
    )
    body.crossings(triangles, starts, found.edges, found.heights, found.sides, found.faces)
    return found
