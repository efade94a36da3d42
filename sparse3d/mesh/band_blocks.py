"""The part of a lattice that is near a mesh, found from coarse to fine, as blocks of 4^3 lattice points.

Lattice point (x, y, z) lies at origin + voxel_size * (x, y, z), block b holds the points 4 b to 4 b + 3 along
each axis, point (i, j, k) of it at 16 i + 4 j + k. A block of twice the side is kept while its middle is no
further from the mesh than its half diagonal and the band's width; so the whole lattice is never there, and a
resolution of 1024^3 costs what its surface does.
"""

from dataclasses import dataclass

import numpy as np
import torch

from sparse3d.geometry.memory import check_room
from sparse3d.geometry.mesh import Mesh
from sparse3d.mesh.distance import MeshDistance
from sparse3d_ops.cpu.band_pieces import SIDE
from sparse3d_ops.hashing import COORDINATE_LIMIT, build, look_up, pack

POINTS = SIDE**3
# The points of a block, as steps from its first.
STEPS = np.stack(np.meshgrid(*[np.arange(SIDE)] * 3, indexing="ij"), -1).reshape(-1, 3)
_CHILDREN = np.stack(np.meshgrid(*[np.arange(2)] * 3, indexing="ij"), -1).reshape(-1, 3)
_SHIFT = np.array([0.41, 0.37, 0.29])
_AT_ONCE = 1 << 14  # blocks whose points are asked at a time
# A point of a block: its distance, number of its piece and place in a list, and the band's point with its
# keys while they are sorted.
_BYTES_A_POINT = 40


@dataclass(frozen=True)
class BandBlocks:
    """`blocks` (B, 3) int32, distinct, neighbours mostly beside each other; `distances` (B, 64) float32 from
    the mesh, metres, inf beyond `reach` metres. Points that are in no block are further away than that too.
    """

    blocks: np.ndarray
    distances: np.ndarray
    voxel_size: float
    origin: np.ndarray
    reach: float

    def points(self, chosen: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(N, 3) int32 lattice points: those of (B, 64) bool, or those of the blocks of a slice, all."""
        if isinstance(chosen, slice):
            return (SIDE * self.blocks[chosen][:, None] + STEPS.astype(np.int32)).reshape(-1, 3)
        block, place = chosen.nonzero()
        return SIDE * self.blocks[block] + STEPS.astype(np.int32)[place]

    def places(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) lattice points -> (N, 3) float64 world."""
        return self.origin + self.voxel_size * points

    def beside(self) -> np.ndarray:
        """(B, 6) int32: rows of the blocks that follow along x, y, z, then of those that come before; -1 for
        none."""
        first = torch.from_numpy(np.pad(self.blocks, ((0, 0), (1, 0))))
        table = build(pack(first))
        found = np.empty((len(first), 6), np.int32)
        for side in range(6):
            moved = first.clone()
            moved[:, 1 + side % 3] += 1 if side < 3 else -1
            found[:, side] = look_up(*table, pack(moved)).numpy()
        return found

    def rows_of(self, points: np.ndarray) -> np.ndarray:
        """(N, 3) int32 lattice points -> (N,) int64 their numbers, 64 * block + place; -1 where in none."""
        table = build(pack(torch.from_numpy(np.pad(self.blocks, ((0, 0), (1, 0))))))
        home, place = np.divmod(points, SIDE)
        block = look_up(*table, pack(torch.from_numpy(np.pad(home, ((0, 0), (1, 0)))))).numpy()
        numbers = POINTS * block.astype(np.int64) + place @ np.array([16, 4, 1])
        return np.where(block < 0, -1, numbers)


def default_origin(mesh: Mesh, voxel_size: float) -> np.ndarray:
    """(3,) float64: at the low corner of a mesh, up to whole voxels the same for all meshes. Not at whole
    multiples of the voxel, where designed shapes have their faces: a face in a plane of the lattice touches
    its edges instead of crossing them."""
    check_voxel_size(voxel_size)
    used = mesh.vertices[np.unique(mesh.faces)].astype(np.float64)
    low = used.min(0) if len(used) else np.zeros(3)
    return (np.floor(low / voxel_size) - _SHIFT) * voxel_size


def check_voxel_size(voxel_size: float) -> None:
    if not (np.isfinite(voxel_size) and voxel_size > 0):
        raise ValueError(f"voxel_size is {voxel_size}, expected metres above 0")


def blocks_near(
    distance: MeshDistance,
    voxel_size: float,
    origin: np.ndarray,
    reach: float,
    bytes_a_point: int = _BYTES_A_POINT,
) -> BandBlocks:
    """All blocks with a point within `reach` metres of a mesh, and their distances.

    ValueError for a voxel size that is not above 0, one so small that the mesh does not fit the lattice, or
    that needs more memory than there is, `bytes_a_point` for each point of the blocks: it says how much, and
    which voxel size would do.
    """
    check_voxel_size(voxel_size)
    vertices = distance.mesh.vertices[np.unique(distance.mesh.faces)].astype(np.float64)
    low = np.floor((vertices.min(0) - origin - reach) / voxel_size)
    high = np.ceil((vertices.max(0) - origin + reach) / voxel_size)
    if (low < -COORDINATE_LIMIT + SIDE).any() or (high >= COORDINATE_LIMIT - SIDE).any():
        fits = voxel_size * max(np.abs(low).max(), np.abs(high).max()) / (COORDINATE_LIMIT - 2 * SIDE)
        raise ValueError(
            f"a mesh that goes from {vertices.min(0).tolist()} to {vertices.max(0).tolist()} does not fit a "
            f"lattice of {2 * COORDINATE_LIMIT} points along an axis at a voxel size of {voxel_size:g}; use "
            f"at least {fits:.3g}, or an origin within the mesh"
        )
    side, levels = SIDE, 0
    while (high - low).max() > 8 * side:
        side, levels = 2 * side, levels + 1
    first, last = (low // side).astype(np.int32), (high // side).astype(np.int32)
    axes = [np.arange(a, b + 1, dtype=np.int32) for a, b in zip(first, last, strict=True)]
    blocks = np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 3)
    while True:
        half = (side - 1) / 2
        limit = np.sqrt(3) * half * voxel_size + reach
        near = [np.zeros(0, bool)]
        for begin in range(0, len(blocks), POINTS * _AT_ONCE):
            middles = side * blocks[begin : begin + POINTS * _AT_ONCE] + half
            near.append(np.isfinite(distance.unsigned(origin + voxel_size * middles, limit)))
        blocks = blocks[np.concatenate(near)]
        # A surface has four times the blocks at half their side; a thick band less.
        extent = float(np.ptp(vertices, axis=0).max())
        check_room(
            len(blocks) * 3**levels * POINTS * bytes_a_point,
            f"the band at a voxel size of {voxel_size:g} ({extent / voxel_size:.0f} voxels along the mesh)",
            lambda part: f"a voxel size of {voxel_size / part**0.5:.3g} would fit",
        )
        if levels == 0:
            break
        side, levels = side // 2, levels - 1
        blocks = (2 * blocks[:, None] + _CHILDREN.astype(np.int32)).reshape(-1, 3)
    distances = np.empty((len(blocks), POINTS), np.float32)
    found = BandBlocks(blocks, distances, float(voxel_size), np.asarray(origin, np.float64), float(reach))
    for begin in range(0, len(blocks), _AT_ONCE):
        part = slice(begin, begin + _AT_ONCE)
        places = found.places(found.points(part))
        distances[part] = distance.unsigned(places, reach).reshape(-1, POINTS)
    return found
