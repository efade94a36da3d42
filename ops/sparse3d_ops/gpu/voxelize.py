"""Triton body of the voxelisation: the cell of every point. Sorting and counting are torch's."""

import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 256


@triton.jit
def axis_cell(points, limits, size, inside, AXIS: tl.constexpr):
    """Index on one axis, in float64 whatever the points are, and whether the point lies within the bounds;
    NaN fails both comparisons."""
    value = tl.load(points + AXIS, mask=inside, other=0).to(tl.float64)
    low, high, step = tl.load(limits + AXIS), tl.load(limits + 3 + AXIS), tl.load(limits + 6 + AXIS)
    inside = inside & (value >= low) & (value < high)
    index = tl.floor((tl.where(inside, value, low) - low) / step).to(tl.int64)
    return tl.minimum(index, size - 1), inside


@triton.jit(do_not_specialize=["items", "columns", "nx", "ny", "nz"])
def cells_kernel(points, frame, limits, nx, ny, nz, outside, cell, columns, items, BLOCK: tl.constexpr):
    """cell (P,) is an output: ((frame * nx + x) * ny + y) * nz + z, or the number `outside`."""
    p = lanes(BLOCK)
    inside = p < items
    at = points + p * columns
    x, on_x = axis_cell(at, limits, nx, inside, 0)
    y, on_y = axis_cell(at, limits, ny, inside, 1)
    z, on_z = axis_cell(at, limits, nz, inside, 2)
    f = tl.load(frame + p, mask=inside, other=0).to(tl.int64)
    key = tl.where(on_x & on_y & on_z, ((f * nx + x) * ny + y) * nz + z, tl.load(outside))
    tl.store(cell + p, key.to(cell.dtype.element_ty), mask=inside)


def cells(
    points: Tensor, frame: Tensor, limits: Tensor, shape: tuple[int, int, int], outside: Tensor, cell: Tensor
) -> None:
    """limits (9,) float64: lower bounds, upper bounds, cell sizes; outside (1,) int64."""
    launch(cells_kernel, len(cell), BLOCK, points, frame, limits, *shape, outside, cell, points.shape[1])
