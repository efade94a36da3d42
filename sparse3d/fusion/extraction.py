"""The surface in the blocks of a truncated distance field, in pieces that fit together.

A vertex lies on an edge between two lattice points. Its number, ((rank of the block of its lower point) *
points of a block + point) * 3 + axis, is the same whichever blocks are looked at together, so that pieces are
joined by their numbers, and the whole has one order, whatever order blocks came in: vertices in that of the
numbers, faces in that of their cells.
"""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from sparse3d.fusion.blocks import SIDE, Blocks
from sparse3d.geometry.level_set import crossing
from sparse3d.geometry.mesh import Mesh
from sparse3d_ops import hashing
from sparse3d_ops.marching_cubes import extract_blocks

_POINTS = SIDE**3
LEAST = 1e-12  # a weight that says that something was seen
_FIELD = (1 << 18) - 1  # of a key: one coordinate


class Piece(NamedTuple):
    """Vertices between the lattice points `low` and `high` (V,), flat numbers in blocks whose keys are
    `members` (M,): `places` (V, 3) float32 in voxels, `colors` (V, 3) float32 in [0, 255] or None. `faces`
    (F, 3) int64 rows of them."""

    members: Tensor
    low: Tensor
    high: Tensor
    places: Tensor
    colors: Tensor | None
    faces: Tensor


def neighbour_keys(keys: Tensor, sign: int = 1) -> Tensor:
    """(N,) -> (N, 8): the keys at the offsets sign * (dx, dy, dz), column 4 dx + 2 dy + dz; 0, which is
    nobody's, beyond the end of what keys reach."""
    k = torch.arange(8, device=keys.device)
    steps = ((k >> 2) << 36) + ((k >> 1 & 1) << 18) + (k & 1)  # a step along an axis is a number
    moved = keys[:, None] + sign * steps
    for axis, shift in enumerate((36, 18, 0)):
        last = (keys >> shift & _FIELD) == (_FIELD if sign > 0 else 0)
        moved[last[:, None] & (k >> (2 - axis) & 1).bool()] = 0
    return moved


def extract(blocks: Blocks, keys: Tensor, min_weight: float) -> Piece:
    """The surface in the cells of the blocks `keys` (N,), sorted, all of them there; blocks beside them lend
    their points. Cells with a corner of less than `min_weight`, or that nobody saw, have none."""
    around = neighbour_keys(keys).flatten()
    neighbours = hashing.look_up(*hashing.build(keys), around).long()
    lent = torch.unique(around[neighbours < 0])
    lent = blocks.present(lent[lent != 0])
    members = torch.cat([keys, lent])
    if len(lent):
        around = neighbour_keys(members).flatten()
        neighbours = hashing.look_up(*hashing.build(members), around).long()
    neighbours = neighbours.view(-1, 8)
    neighbours[len(keys) :, 0] = -1
    rows = blocks.take(members, create=False)
    values, weights = blocks.values[rows], blocks.weights[rows]
    low, high, faces = extract_blocks(values, neighbours, 0.0, weights, max(min_weight, LEAST))
    flat = values.flatten()
    part = crossing(flat[low], flat[high])
    begin = _lattice(members, low)
    places = begin + part[:, None] * (_lattice(members, high) - begin)
    colors = _colors(blocks, rows, low, high, part) if blocks.has_colors else None
    return Piece(members, low, high, places, colors, faces)


def _lattice(members: Tensor, number: Tensor) -> Tensor:
    """(V, 3) float32 lattice coordinates."""
    corner = hashing.unpack(members)[:, 1:].float() * SIDE
    point = torch.cartesian_prod(*[torch.arange(SIDE, device=number.device)] * 3).float()
    return corner[torch.div(number, _POINTS, rounding_mode="floor")] + point[number % _POINTS]


def _colors(blocks: Blocks, rows: Tensor, low: Tensor, high: Tensor, part: Tensor) -> Tensor:
    """(V, 3) float32: those of the two ends, as the vertex lies between them."""
    flat = blocks.colors.view(-1, 3, _POINTS)
    ends = []
    for number in (low, high):
        row = rows[torch.div(number, _POINTS, rounding_mode="floor")]
        ends.append(flat[row, :, number % _POINTS])
    return ends[0] + part[:, None] * (ends[1] - ends[0])


class Surface(NamedTuple):
    """A piece by names that hold for good: of each vertex the `key` (V,) of the block of its lower lattice
    point and `edge` (V,), the number of that point there times 3 plus the axis."""

    key: Tensor
    edge: Tensor
    places: Tensor
    colors: Tensor | None
    faces: Tensor


def named(piece: Piece) -> Surface:
    axis = (_lattice(piece.members, piece.high) - _lattice(piece.members, piece.low)).argmax(1)
    block = torch.div(piece.low, _POINTS, rounding_mode="floor")
    edge = 3 * (piece.low % _POINTS) + axis
    return Surface(piece.members[block], edge, piece.places, piece.colors, piece.faces)


def join(surfaces: Iterable[Surface], all_keys: Tensor) -> Surface:
    """Surfaces of different cells as one, without vertices that have no faces; all_keys (B,) are the blocks
    that there are, sorted. Vertices that two of them name are one, and are the same in both."""
    surfaces = list(surfaces)
    key = torch.cat([s.key for s in surfaces])
    edge = torch.cat([s.edge for s in surfaces])
    places = torch.cat([s.places for s in surfaces])
    begins = torch.tensor([0, *[len(s.key) for s in surfaces]]).cumsum(0).tolist()
    faces = torch.cat([s.faces + begin for s, begin in zip(surfaces, begins, strict=False)])
    number = torch.searchsorted(all_keys, key) * (3 * _POINTS) + edge
    used = torch.zeros(len(key), dtype=torch.bool, device=key.device)
    used[faces.flatten()] = True
    used = used.nonzero()[:, 0]
    order = torch.argsort(number[used], stable=True)
    chosen = used[order]
    first = torch.ones(len(chosen), dtype=torch.bool, device=key.device)
    first[1:] = number[chosen[1:]] != number[chosen[:-1]]
    rows = torch.empty(len(key), dtype=torch.int64, device=key.device)
    rows[chosen] = first.cumsum(0) - 1
    kept = chosen[first]
    colors = [s.colors for s in surfaces if s.colors is not None]
    tints = torch.cat(colors)[kept] if colors else None
    return Surface(key[kept], edge[kept], places[kept], tints, rows[faces])


class Cache:
    """The surface as it was extracted last, of which only what changed is extracted anew.

    A face is filed under the block of the componentwise least of its edges' lower points. That is the block
    of its cell, but for flat triangles in a cell's upper side, which may be filed one block further along
    one axis.
    """

    def __init__(self, blocks: Blocks, min_weight: float):
        self.min_weight = min_weight
        self._surface: Surface | None = None
        self._files = blocks.all_keys[:0]

    def update(self, blocks: Blocks) -> Surface:
        """The whole surface now. Vertices in the order of `extract`, faces in no particular one."""
        changed, all_keys = blocks.take_changed(), blocks.all_keys
        if self._surface is None:
            changed = all_keys
        cells = _union(neighbour_keys(changed, -1))  # those with a corner that changed
        # Where their faces may be filed, and the cells that may file there.
        files = _union(neighbour_keys(cells)[:, [0, 1, 2, 4]])
        cells = blocks.present(_union(neighbour_keys(files, -1)[:, [0, 1, 2, 4]]))
        parts = [named(extract(blocks, part, self.min_weight)) for part in cells.split(blocks.at_once // 8)]
        parts, kept = [p for p in parts if len(p.faces)], []
        for part in parts:
            kept.append(part._replace(faces=part.faces[torch.isin(_files_of(part), files)]))
        if self._surface is not None:
            old = ~torch.isin(self._files, files)
            kept.append(self._surface._replace(faces=self._surface.faces[old]))
        if kept:
            self._surface = join(kept, all_keys)
            self._files = _files_of(self._surface)
        return self._surface or _nothing(blocks)


def _files_of(surface: Surface) -> Tensor:
    """(F,) the keys that faces are filed under."""
    point = torch.div(surface.edge, 3, rounding_mode="floor")
    lower = hashing.unpack(surface.key)[:, 1:] * SIDE
    lower += torch.stack([point // SIDE**2, point // SIDE % SIDE, point % SIDE], 1).to(lower.dtype)
    least = torch.div(lower[surface.faces].amin(1), SIDE, rounding_mode="floor")
    return hashing.pack(torch.cat([torch.zeros_like(least[:, :1]), least], 1))


def _union(keys: Tensor) -> Tensor:
    keys = torch.unique(keys)
    return keys[keys != 0]


def _nothing(blocks: Blocks) -> Surface:
    none = blocks.all_keys[:0]
    colors = none.float().view(0, 3) if blocks.has_colors else None
    return Surface(none, none, none.float().view(0, 3), colors, none.view(0, 3))


def as_mesh(piece: Piece | Surface, voxel_size: float) -> Mesh:
    """Metres, colours of 8 bits."""
    colors = None if piece.colors is None else piece.colors.round().clamp(0, 255).to(torch.uint8)
    vertices, faces = piece.places * voxel_size, piece.faces.to(torch.int32)
    tints = None if colors is None else colors.cpu().numpy()
    return Mesh(vertices.cpu().numpy(), faces.cpu().numpy(), tints)
