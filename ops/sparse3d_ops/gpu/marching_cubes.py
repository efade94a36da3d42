"""Triton bodies of marching cubes over blocks: a lane owns a cell, and then a triangle."""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import lanes, launch
from sparse3d_ops.gpu.splat_tiles import starts_of

BLOCK = 256


@triton.jit
def point_at(neighbours, X, Y, Z, p, corner, inside):
    """Number of the point at a corner of the cell of point p, -1 where there is no block."""
    z, y, x = p % Z + (corner & 1), p // Z % Y + (corner >> 1 & 1), p // Z // Y % X + (corner >> 2)
    own = p // Z // Y // X
    over = tl.where(x == X, 4, 0) + tl.where(y == Y, 2, 0) + tl.where(z == Z, 1, 0)
    x, y, z = tl.where(x == X, 0, x), tl.where(y == Y, 0, y), tl.where(z == Z, 0, z)
    b = tl.load(neighbours + 8 * own + over, mask=inside & (over > 0), other=-1)
    b = tl.where(inside & (over == 0), own, b)
    return tl.where(b >= 0, ((b * X + x) * Y + y) * Z + z, -1)


@triton.jit(do_not_specialize=["X", "Y", "Z", "items"])
def case_kernel(
    values,
    weights,
    neighbours,
    limits,
    edges,
    crossed,
    counts,
    X,
    Y,
    Z,
    case,
    marks,
    triangles,
    items,
    WEIGHED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """limits: the level and the least weight, of the values' type; marks (N, 3) come in 0."""
    p = lanes(BLOCK)
    inside = p < items
    level, least = tl.load(limits), tl.load(limits + 1)
    found = tl.zeros((BLOCK,), tl.int32)
    known = inside & (tl.load(neighbours + 8 * (p // Z // Y // X), mask=inside, other=-1) >= 0)
    for corner in tl.static_range(8):
        at = point_at(neighbours, X, Y, Z, p, corner, inside)
        there = at >= 0
        value = tl.load(values + at, mask=there, other=float("nan"))
        known = known & (value == value)
        if WEIGHED:
            known = known & (tl.load(weights + at, mask=there, other=float("nan")) >= least)
        found += tl.where(value > level, 1 << corner, 0)
    found = tl.where(known, found, 0)
    tl.store(case + p, found, mask=inside)
    tl.store(triangles + p, tl.load(counts + found, mask=inside, other=0), mask=inside)
    bits = tl.load(crossed + found, mask=inside, other=0)
    e = 0
    while e < 12:
        edge = tl.load(edges + e)
        here = inside & ((bits >> e & 1) > 0)
        at = point_at(neighbours, X, Y, Z, p, edge >> 2, here)
        tl.store(marks + 3 * at + (edge & 3), tl.full((BLOCK,), 1, tl.uint8), mask=here)
        e += 1


@triton.jit(do_not_specialize=["X", "Y", "Z", "items"])
def vertex_kernel(edge, neighbours, X, Y, Z, low, high, items, BLOCK: tl.constexpr):
    """edge (V,): 3 times the point plus the axis."""
    n = lanes(BLOCK)
    inside = n < items
    number = tl.load(edge + n, mask=inside, other=0)
    p = number // 3
    tl.store(low + n, p, mask=inside)
    tl.store(high + n, point_at(neighbours, X, Y, Z, p, 4 >> (number % 3), inside), mask=inside)


@triton.jit(do_not_specialize=["X", "Y", "Z", "items", "most"])
def face_kernel(
    cells,
    case,
    face,
    vertex,
    neighbours,
    table,
    counts,
    X,
    Y,
    Z,
    most,
    faces,
    items,
    BLOCK: tl.constexpr,
):
    """A lane a triangle of the `most` of each cell listed in `cells`."""
    lane = lanes(BLOCK)
    inside = lane < items
    p = tl.load(cells + lane // most, mask=inside, other=0)
    t = lane % most
    c = tl.load(case + p, mask=inside, other=0)
    here = inside & (t < tl.load(counts + c, mask=inside, other=0))
    at = tl.load(face + p, mask=here, other=0) + t
    for k in tl.static_range(3):
        edge = tl.load(table + 3 * (c * most + t) + k, mask=here, other=0)
        end = point_at(neighbours, X, Y, Z, p, edge >> 2, here)
        number = tl.load(vertex + 3 * end + (edge & 3), mask=here, other=0)
        tl.store(faces + 3 * at + k, number, mask=here)


def extract(
    values: Tensor,
    neighbours: Tensor,
    level: float,
    weights: Tensor | None,
    min_weight: float,
    tables: Sequence[Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    table, counts, edges, crossed = tables
    size, points = tuple(values.shape[1:]), values.numel()
    limits = values.new_tensor([level, min_weight])
    case = torch.empty(points, dtype=torch.int32, device=values.device)
    marks = torch.zeros(3 * points, dtype=torch.uint8, device=values.device)
    triangles = torch.empty(points, dtype=torch.int64, device=values.device)
    seen = values if weights is None else weights.to(values)
    arguments = values, seen, neighbours, limits, edges, crossed, counts, *size, case, marks, triangles
    launch(case_kernel, points, BLOCK, *arguments, WEIGHED=weights is not None)
    vertex = marks.cumsum(0, dtype=torch.int64) - 1
    edge = marks.nonzero()[:, 0]
    low, high = torch.empty_like(edge), torch.empty_like(edge)
    launch(vertex_kernel, len(edge), BLOCK, edge, neighbours, *size, low, high)
    face, cells = starts_of(triangles), triangles.nonzero()[:, 0]
    faces = torch.empty(int(face[-1]), 3, dtype=torch.int64, device=values.device)
    most = table.shape[1]
    begin = cells, case, face, vertex, neighbours, table, counts, *size, most, faces
    launch(face_kernel, len(cells) * most, BLOCK, *begin)
    return low, high, faces
