"""The surface where values on a sparse lattice pass a level: marching cubes over those voxels that there are.

Voxel (x, y, z) covers [i, i + 1) in voxel units, its corner k = 4 dx + 2 dy + dz is lattice point i + (dx,
dy, dz), and values live on lattice points (`sparse3d_ops.visible_samples.lattice`). Inside is where a value
is above the level, so normals point to smaller values: negate signed distances.

Why functions of torch and no op with two bodies: one pass gathers eight values a voxel, the rest is about
the voxels that the surface passes, and both are bound by memory in torch too. Each vertex belongs to one edge
of the lattice, so that a mark for each edge and a running sum number them in a defined order without sort or
atomics, with the same bits on every device and for any number of threads; and positions are differentiable in
the values for nothing. Table and topology: `sparse3d_ops.marching_cubes_table`.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from sparse3d_ops import marching_cubes_table
from sparse3d_ops.hashing import build, look_up, pack, unique, unpack
from sparse3d_ops.visible_samples import lattice

_AT_ONCE = 1 << 20  # voxels
# Vertices keep this part of an edge away from its ends: there, up to six of them would be one point, and
# programs that merge equal points would tear the surface.
_MARGIN = 1e-3

Sample = Callable[[Tensor], Tensor]


class LevelSet(NamedTuple):
    """V vertices on lattice edges, from lattice point `low` (V,) to its neighbour `high` (V,), rows of the
    lattice's points, at the part `fraction` (V,) in (0, 1) of the way; triangles `faces` (F, 3) int64,
    counter-clockwise as seen from outside. Vertices are in the order of (low, axis), faces of their voxels.
    """

    low: Tensor
    high: Tensor
    fraction: Tensor
    faces: Tensor

    def positions(self, points: Tensor) -> Tensor:
        """(V, 3) in voxel units, for the lattice's points (P, 4)."""
        low, high = (points[rows, 1:].to(self.fraction) for rows in (self.low, self.high))
        return low + self.fraction[:, None] * (high - low)


def level_set(corner_rows: Tensor, values: Tensor, level: float = 0.0) -> LevelSet:
    """(N, 8) int32, (P,) -> the surface between the values above `level` and the others.

    Voxels with a corner that is NaN are unknown and have none. The surface is closed wherever it does not
    leave the voxels; each edge of it has two faces, or one where it leaves them. Differentiable in `values`.
    """
    device = values.device
    table, base, axis, tip = _tables(device)
    case = corner_cases(corner_rows, values.detach(), level)
    voxel = ((case > 0) & (case < 255)).nonzero()[:, 0]
    edges = table[case[voxel].long()]  # (A, most, 3)
    there = edges[..., 0] >= 0
    voxel = voxel[:, None].expand(there.shape)[there]
    edges = edges[there]  # (F, 3), of the cube
    corners = corner_rows[voxel]
    low = corners.gather(1, base[edges]).long()
    high = corners.gather(1, tip[edges])
    number = 3 * low + axis[edges]
    marks = torch.zeros(3 * len(values), dtype=torch.bool, device=device)
    marks[number.flatten()] = True
    vertex = marks.cumsum(0) - 1
    found = marks.nonzero()[:, 0]
    ends = torch.empty(len(found), dtype=torch.int64, device=device)
    faces = vertex[number]
    ends[faces.flatten()] = high.flatten().long()  # the same from each voxel around an edge
    starts = torch.div(found, 3, rounding_mode="floor")
    fraction = crossing(values[starts] - level, values[ends] - level)
    return LevelSet(starts, ends, fraction, faces)


def corner_cases(corner_rows: Tensor, values: Tensor, level: float) -> Tensor:
    """(N,) uint8: the sum of 2^k over the corners k of each voxel that are above the level; 0 where one is
    NaN."""
    inside, unknown = values > level, values.isnan()
    powers = (2 ** torch.arange(8, device=values.device)).to(torch.uint8)
    parts = []
    for rows in corner_rows.split(_AT_ONCE):
        rows = rows.long()
        case = (inside[rows] * powers).sum(1, dtype=torch.uint8)
        parts.append(case.masked_fill(unknown[rows].any(1), 0))
    return torch.cat(parts) if parts else torch.zeros(0, dtype=torch.uint8, device=values.device)


def crossing(low: Tensor, high: Tensor) -> Tensor:
    """Where, as a part of the way, a line from `low` to `high`, of different signs, passes 0; an infinite end
    counts as far away."""
    limit = torch.finfo(low.dtype).max / 4
    low, high = low.clamp(-limit, limit), high.clamp(-limit, limit)
    return (low / (low - high)).clamp(_MARGIN, 1 - _MARGIN)


class Lattice(NamedTuple):
    """Voxels (N, 4) int32, their corners (N, 8) int32 as rows of `points` (P, 4) int32, and the values
    (P,)."""

    voxels: Tensor
    corner_rows: Tensor
    points: Tensor
    values: Tensor


def follow(sample: Sample, seeds: Tensor, level: float, low: Tensor, high: Tensor) -> Lattice:
    """The voxels that a level set passes, found from some of them: (N, 4) int32 voxels to begin with, any.

    `sample` gives the values (P,) of lattice points (P, 4) int32. Wherever the surface leaves a voxel through
    a face, the voxel behind that face is taken in too, until there is none; voxels outside of [low, high),
    (3,) int32, are not, and the surface ends there. So it has no cracks, whatever the seeds missed; a piece
    of it that no seed touches is not found.
    """
    within = ((seeds[:, 1:] >= low) & (seeds[:, 1:] < high)).all(1)
    fresh = unique(pack(seeds[within].contiguous()))[0]
    seen, kept = fresh, []
    point_keys, values = fresh[:0], None
    while len(fresh):
        points, corner_rows = lattice(unpack(fresh))
        keys = pack(points)
        known = look_up(*build(point_keys), keys).long()
        new = known < 0
        found = sample(points[new])
        values = found if values is None else torch.cat([values, found])
        rows = torch.empty_like(known)
        rows[~new] = known[~new]
        rows[new] = torch.arange(int(new.sum()), device=keys.device) + len(point_keys)
        point_keys = torch.cat([point_keys, keys[new]])
        case = corner_cases(corner_rows, values[rows], level)
        active = (case > 0) & (case < 255)
        kept.append(fresh[active])
        fresh = _behind_faces(unpack(fresh[active]), case[active].long(), low, high)
        fresh = fresh[look_up(*build(seen), fresh) < 0]
        seen = torch.cat([seen, fresh])
    voxels = unpack(unique(torch.cat(kept))[0]) if kept else seeds[:0]
    points, corner_rows = lattice(voxels)
    rows = look_up(*build(point_keys), pack(points)).long()
    return Lattice(voxels, corner_rows, points, seeds.new_empty(0) if values is None else values[rows])


def _behind_faces(voxels: Tensor, case: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Keys of the voxels behind those faces that have corners inside and outside, each once."""
    parts = []
    for number, face in enumerate(marching_cubes_table.FACES):
        mask = sum(1 << corner for corner in face)
        crossed = ((case & mask) != 0) & ((case & mask) != mask)
        moved = voxels[crossed]
        moved[:, 1 + number // 2] += 1 if number % 2 else -1
        parts.append(moved[((moved[:, 1:] >= low) & (moved[:, 1:] < high)).all(1)])
    return unique(pack(torch.cat(parts)))[0]


@lru_cache(maxsize=4)
def _tables(device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    source = marching_cubes_table
    tables = (source.triangles(), source.BASE, source.AXIS, source.TIP)
    table, base, axis, tip = (torch.from_numpy(array).to(device) for array in tables)
    return table, base, axis, tip
