"""Surfaces that follow gradients: dual marching cubes with flexible vertices on sparse voxels (FlexiCubes;
Shen et al., "Flexible isosurface extraction for gradient-based mesh optimization", 2023; on sparse voxels:
He et al., "SparseFlex", 2025, arXiv 2503.21732).

Voxel (x, y, z) covers [i, i + 1) in voxel units, its corner k = 4 dx + 2 dy + dz is a lattice point with a
value s, negative inside, and a place x. Of each edge of a voxel with ends of different sides

    u_e = (s_i a_i x_j - s_j a_j x_i) / (s_i a_i - s_j a_j)

is its crossing, a the voxel's weight `alpha` of the corner; of each piece of the surface within a voxel

    v = sum_e b_e u_e / sum_e b_e

over the edges that the piece crosses is its vertex, b the voxel's weight `beta` of the edge. Around each
lattice edge with ends of different sides and four voxels the four vertices make a quadrilateral; where a
voxel is not there, there is none, and the surface is open. So an open surface is one whose voxels were left
out. Which pieces a voxel has is said by the loops of the table of marching cubes, which cuts off inside
corners on a face's diagonal from each other, as the voxel behind the face does.
"""

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import sigmoid

from sparse3d_ops import marching_cubes_table as table
from sparse3d_ops.checks import check_range, check_same_device, check_tensor
from sparse3d_ops.hashing import pack, unique
from sparse3d_ops.segment import segment_sum

_RANGE = 0.99  # alpha and beta stay within 1 -+ this, so that no weight is 0
_LEAST_GAMMA = 0.005


class FlexibleWeights(NamedTuple):
    """What a network or a fit gives of N voxels: `alpha` (N, 8) of their corners, `beta` (N, 12) of their
    edges, in the table's order, `gamma` (N,) of their part in a split; any numbers, 0 is neutral."""

    alpha: Tensor
    beta: Tensor
    gamma: Tensor

    @staticmethod
    def neutral(count: int, like: Tensor) -> "FlexibleWeights":
        return FlexibleWeights(like.new_zeros(count, 8), like.new_zeros(count, 12), like.new_zeros(count))

    def activated(self) -> "FlexibleWeights":
        """alpha and beta in (0.01, 1.99), gamma in (0.005, 0.995)."""
        return FlexibleWeights(
            _RANGE * self.alpha.tanh() + 1,
            _RANGE * self.beta.tanh() + 1,
            _RANGE * sigmoid(self.gamma) + _LEAST_GAMMA,
        )


class FlexibleSurface(NamedTuple):
    """`vertices` (V, 3) in voxel units, `faces` (F, 3) int64, counter-clockwise as seen from outside, and
    `deviation`, a number: the mean over the pieces' crossings of how far |v - u_e| is from its mean over the
    piece (L_dev). Differentiable in values, offsets and weights."""

    vertices: Tensor
    faces: Tensor
    deviation: Tensor


def flexible_surface(
    voxels: Tensor,
    corner_rows: Tensor,
    points: Tensor,
    values: Tensor,
    offsets: Tensor | None = None,
    weights: FlexibleWeights | None = None,
    centres: bool = False,
) -> FlexibleSurface:
    """The surface between values below 0 and the others, over voxels.

    `voxels` (N, 4) int32, distinct, of batches below 170; `corner_rows` (N, 8) rows of `points` (P, 4) int32
    (as `lattice` gives them), with `values` (P,) negative inside and `offsets` (P, 3) in voxels, which move
    the points by half a tanh of them, so that no voxel turns inside out.

    Quadrilaterals are cut along the diagonal whose ends have the larger product of gamma; with `centres`,
    which is for training, into four triangles around a centre between both diagonals' middles, weighted by
    these products: so gamma has a gradient, and no cut flips. ValueError for shapes that do not fit, and for
    values that are not finite.
    """
    _check(voxels, corner_rows, points, values, offsets, weights)
    weights = (weights or FlexibleWeights.neutral(len(voxels), values)).activated()
    places = points[:, 1:].to(values.dtype)
    if offsets is not None:
        places = places + offsets.tanh() / 2 * (1 - 1e-8)
    inside = values.detach() < 0
    powers = 2 ** torch.arange(8, device=values.device)
    case = (inside[corner_rows.long()] * powers).sum(1)
    active = ((case > 0) & (case < 255)).nonzero()[:, 0]
    pieces = _pieces(values.device)[case[active]]  # (A, 12): the piece that crosses each edge, -1 for none
    counts = pieces.amax(1) + 1
    first = counts.cumsum(0) - counts
    crossing = (pieces >= 0).nonzero()
    row, edge = active[crossing[:, 0]], crossing[:, 1]
    vertex = first[crossing[:, 0]] + pieces[crossing[:, 0], edge]
    u = _crossings(corner_rows[row], edge, places, values, weights.alpha[row])
    total = int(counts.sum())
    share = weights.beta[row, edge]
    sums = segment_sum(torch.cat([share[:, None] * u, share[:, None]], 1), vertex, total)
    vertices = sums[:, :3] / sums[:, 3:]
    of_vertex = active.repeat_interleave(counts)
    deviation = _deviation(vertices, u, vertex, total)
    quads = _quads(voxels, corner_rows, inside, row, edge, vertex)
    return FlexibleSurface(*_cut(vertices, quads, weights.gamma[of_vertex], centres), deviation)


def _check(voxels, corner_rows, points, values, offsets, weights) -> None:
    count, exact = len(voxels), (torch.float32, torch.float64)
    check_tensor("voxels", voxels, (count, 4), (torch.int32,))
    check_tensor("corner_rows", corner_rows, (count, 8), (torch.int32, torch.int64))
    check_tensor("points", points, ("P", 4), (torch.int32,))
    check_tensor("values", values, (len(points),), exact)
    named = [("voxels", voxels), ("corner_rows", corner_rows), ("points", points), ("values", values)]
    if offsets is not None:
        check_tensor("offsets", offsets, (len(points), 3), (values.dtype,))
        named.append(("offsets", offsets))
    if weights is not None:
        for (name, part), shape in zip(weights._asdict().items(), ((8,), (12,), ()), strict=True):
            check_tensor(name, part, (count, *shape), (values.dtype,))
            named.append((name, part))
    check_same_device(*named)
    check_range("corner_rows", corner_rows, 0, len(points))
    if not bool(values.isfinite().all()):
        raise ValueError(f"values[{int((~values.isfinite()).nonzero()[0])}] is not finite")


def _crossings(corners: Tensor, edge: Tensor, places: Tensor, values: Tensor, alpha: Tensor) -> Tensor:
    """(C, 3) where edges (C,) of voxels with corners (C, 8) and weights (C, 8) are crossed."""
    base, tip = (torch.from_numpy(ends).to(edge.device)[edge][:, None] for ends in (table.BASE, table.TIP))
    low, high = corners.gather(1, base)[:, 0].long(), corners.gather(1, tip)[:, 0].long()
    s_low, s_high = values[low] * alpha.gather(1, base)[:, 0], values[high] * alpha.gather(1, tip)[:, 0]
    part = (s_low / (s_low - s_high))[:, None]
    return places[low] + part * (places[high] - places[low])


def _deviation(vertices: Tensor, u: Tensor, vertex: Tensor, total: int) -> Tensor:
    if not len(u):
        return u.sum()
    # The root of 0 has no gradient: a vertex on its crossing is given one of 0.
    way = ((vertices[vertex] - u).square().sum(1) + torch.finfo(u.dtype).tiny).sqrt()
    sums = segment_sum(torch.stack([way, torch.ones_like(way)], 1), vertex, total)
    return (way - (sums[:, 0] / sums[:, 1])[vertex]).abs().mean()


def _quads(
    voxels: Tensor, corner_rows: Tensor, inside: Tensor, row: Tensor, edge: Tensor, vertex: Tensor
) -> Tensor:
    """(Q, 4) vertices around each crossed lattice edge that has four voxels, counter-clockwise as seen from
    outside, in the order of the edges."""
    base, axis = (torch.from_numpy(part).to(edge.device)[edge] for part in (table.BASE, table.AXIS))
    start = voxels[row].clone()
    for k in range(3):
        start[:, 1 + k] += (base >> (2 - k)) & 1
    # The axis in the batch's place: an edge of the lattice is a site of its own, three of them to a batch.
    start[:, 0] = 3 * start[:, 0] + axis.to(start.dtype)
    keys, of_edge, counts = unique(pack(start))
    whole = counts == 4
    # Where around its edge a voxel lies: its corner along both other axes.
    b = (base >> (2 - (axis + 1) % 3)) & 1
    c = (base >> (2 - (axis + 2) % 3)) & 1
    turn = torch.tensor([[0, 3], [1, 2]], device=edge.device)[b, c]  # a voxel whose low corner is at (-b, -c)
    around = torch.full((len(keys), 4), -1, device=edge.device)
    around[of_edge, turn] = vertex
    first = torch.full((len(keys),), -1, device=edge.device)
    first[of_edge] = corner_rows[row].gather(1, base[:, None])[:, 0].long()
    around = torch.where(inside[first][:, None], around, around.flip(1))
    return around[whole]


def _cut(vertices: Tensor, quads: Tensor, gamma: Tensor, centres: bool) -> tuple[Tensor, Tensor]:
    g = gamma[quads]
    straight, other = g[:, 0] * g[:, 2], g[:, 1] * g[:, 3]
    if not centres:
        ways = torch.tensor([[0, 1, 2, 0, 2, 3], [1, 2, 3, 1, 3, 0]], device=quads.device)
        way = ways[(other > straight).long()]
        return vertices, quads.gather(1, way).reshape(-1, 3)
    a, b, c, d = vertices[quads].unbind(1)
    middle = (straight[:, None] * (a + c) + other[:, None] * (b + d)) / (2 * (straight + other)[:, None])
    centre = len(vertices) + torch.arange(len(quads), device=quads.device)
    sides = torch.stack([quads, quads.roll(-1, 1), centre[:, None].expand(-1, 4)], 2)
    return torch.cat([vertices, middle]), sides.reshape(-1, 3)


@lru_cache(maxsize=4)
def _pieces(device: torch.device) -> Tensor:
    """(256, 12) int64: the piece of the surface that crosses each edge in each case, -1 for none; corners of
    a case's bits are inside."""
    piece = np.full((256, 12), -1)
    for case in range(256):
        for number, loop in enumerate(table.loops(case)):
            piece[case, loop] = number
    return torch.from_numpy(piece).to(device)
