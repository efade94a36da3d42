"""Marching cubes over blocks of lattice points: the triangles between values above a level and the others.

A block holds the values of X x Y x Z lattice points; a dense grid is one block without neighbours, the blocks
of a truncated distance volume name those that touch them. Lattice point (b, x, y, z) is number ((b X + x) Y +
y) Z + z. The cell of a point has it for its corner 0; corner k = 4 dx + 2 dy + dz is the point at (x + dx, y
+ dy, z + dz), which may lie in the next block. Inside is where a value is above the level. A cell with a
corner that is not known has no triangles: NaN, a weight below the least, no block.

What comes out are whole numbers: vertices are edges of the lattice, each once however many cells share it, in
the order of (low, axis), faces in the order of their cells. So it is the same bits on every device and for
any number of threads; where a vertex lies on its edge is left to who knows the values
(`sparse3d.geometry.level_set.crossing`), and is differentiable there. The table of triangles:
`sparse3d_ops.marching_cubes_table`.
"""

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops import marching_cubes_table, memory
from sparse3d_ops.checks import check_range, check_same_device, check_tensor

EXACT = (torch.float32, torch.float64)
# A vertex's number within its row of points is kept in 16 bits.
LONGEST_ROW = 65535 // 3


@torch.library.custom_op("sparse3d::extract_blocks", mutates_args=(), device_types="cpu")
def extract_blocks(
    values: Tensor, neighbours: Tensor, level: float, weights: Tensor | None = None, min_weight: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    """(B, X, Y, Z) float, (B, 8) int64 -> low (V,), high (V,) and faces (F, 3), int64.

    neighbours[b, 4 dx + 2 dy + dz] is the row of the block at that offset from b, -1 where there is none, and
    b itself in column 0, or -1 there for a block that only lends its points to the cells of others. A vertex
    lies between the lattice points `low` and `high`; triangles are counter-clockwise as seen from outside.
    `weights` (B, X, Y, Z): points with less than `min_weight` are not known. ValueError for rows that are not
    there and for a Z above 21845.
    """
    from sparse3d_ops.cpu import marching_cubes as body

    _check(values, neighbours, weights)
    array, blocks = values.detach().contiguous().numpy(), neighbours.contiguous().numpy()
    seen = np.empty(0, array.dtype) if weights is None else weights.contiguous().numpy().ravel()
    table, counts, edges, crossed = body_tables()
    size = tuple(array.shape[1:])
    flags = body.flag(array.ravel(), seen, level, min_weight)
    case, marks, triangles = body.find_cases(flags, blocks, size, counts, edges, crossed)
    places = body.count_marks(marks, size[2])
    vertex, face = (np.concatenate([[0], x.cumsum()]) for x in (places, triangles))
    low, high = (memory.empty((int(vertex[-1]),), torch.int64) for _ in range(2))
    rank = np.empty(array.size, np.uint16)
    body.number_vertices(marks, blocks, size, vertex, rank, low.numpy(), high.numpy())
    faces = memory.empty((int(face[-1]), 3), torch.int64)
    ends = vertex, rank, marks
    body.write_faces(case, ends, blocks, size, face, table, counts, faces.numpy())
    return low, high, faces


@extract_blocks.register_kernel("cuda")
def _(
    values: Tensor, neighbours: Tensor, level: float, weights: Tensor | None = None, min_weight: float = 0.0
) -> tuple[Tensor, Tensor, Tensor]:
    from sparse3d_ops.gpu import marching_cubes as body

    _check(values, neighbours, weights)
    tables = [torch.from_numpy(x).to(values.device) for x in body_tables()]
    seen = None if weights is None else weights.contiguous()
    return body.extract(
        values.detach().contiguous(), neighbours.contiguous(), level, seen, min_weight, tables
    )


@extract_blocks.register_fake
def _(values, neighbours, level, weights=None, min_weight=0.0):
    vertices, faces = (torch.library.get_ctx().new_dynamic_size() for _ in range(2))
    ends = (values.new_empty(vertices, dtype=torch.int64) for _ in range(2))
    return *ends, values.new_empty(faces, 3, dtype=torch.int64)


def dense_neighbours(device: torch.device | str = "cpu") -> Tensor:
    """(1, 8): those of a dense grid, which has none."""
    return torch.tensor([[0, *[-1] * 7]], device=device)


@lru_cache(maxsize=1)
def body_tables() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """For each of the 256 cases its triangles (256, most, 3) int64, 4 times the corner that an edge begins at
    plus its axis (-1 beyond the last), and how many there are (256,); the edges (12,) in the same way, and
    which of them the surface crosses, as bits (256,)."""
    t = marching_cubes_table
    edges = 4 * t.BASE + t.AXIS
    case = np.arange(256)[:, None]
    crossed = (case >> t.BASE & 1) != (case >> t.TIP & 1)
    table = t.triangles()
    coded = np.where(table < 0, -1, edges[table])
    return coded, (table[..., 0] >= 0).sum(1), edges, (crossed << np.arange(12)).sum(1)


def _check(values: Tensor, neighbours: Tensor, weights: Tensor | None) -> None:
    check_tensor("values", values, ("B", "X", "Y", "Z"), EXACT)
    check_tensor("neighbours", neighbours, (values.shape[0], 8), (torch.int64,))
    check_same_device(("values", values), ("neighbours", neighbours))
    if weights is not None:
        check_tensor("weights", weights, tuple(values.shape), EXACT)
        check_same_device(("values", values), ("weights", weights))
    check_range("neighbours", neighbours, -1, len(values))
    own = torch.arange(len(values), device=values.device)
    if bool(((neighbours[:, 0] != own) & (neighbours[:, 0] != -1)).any()):
        raise ValueError("column 0 of neighbours must name each block itself, 0, 1, 2, ..., or be -1")
    if values.shape[3] > LONGEST_ROW:
        raise ValueError(f"rows of {values.shape[3]} points; at most {LONGEST_ROW} along z")
