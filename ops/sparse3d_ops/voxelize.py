"""Points to voxels: which cell of a bounded grid each point falls in, every cell at most once, in a defined
order.

`points` are (P, F) with x, y, z in metres first; `point_frame` (P,) is the scan of each point, in [0, 512).
`voxel_size` is (3,) metres and `bounds` (x_min, y_min, z_min, x_max, y_max, z_max) metres. A point is inside
when min <= p < max on each axis; its cell is floor((p - min) / size), computed in float64 whatever the points
are, and never beyond the last cell. Points outside of the bounds and points that are not finite belong to no
voxel. Voxels are sorted by (batch, x, y, z); all results are the same bits for any number of threads.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops.checks import FLOATS, INDICES, check_range, check_same_device, check_tensor, working
from sparse3d_ops.memory import empty
from sparse3d_ops.segment import gather_rows, segment_mean

MAX_FRAMES = 1 << 9  # what the batch and the signed 18-bit axes of a voxel key hold
MAX_CELLS = 1 << 17


class Voxels(NamedTuple):
    """coordinates (M, 4) int32 sorted rows; point_voxel (P,) int64, -1 for no voxel; counts (M,) int64
    points.
    """

    coordinates: Tensor
    point_voxel: Tensor
    counts: Tensor


class FirstVoxels(NamedTuple):
    """voxels (M, K, F), zero padded; coordinates (M, 4) int32 sorted rows; counts (M,) int64 points, at most
    K.
    """

    voxels: Tensor
    coordinates: Tensor
    counts: Tensor


def grid_shape(voxel_size: list[float], bounds: list[float]) -> tuple[int, int, int]:
    """Cells on each axis: extent / size, rounded up unless it is within 1/1000 of a whole number.

    Raises ValueError for bounds that are empty or not finite, sizes that are not positive, and more than 2^17
    cells.
    """
    if len(voxel_size) != 3 or len(bounds) != 6:
        raise ValueError(
            f"voxel_size has {len(voxel_size)} numbers and bounds has {len(bounds)}, "
            "expected 3 (x, y, z) and 6 (x_min, y_min, z_min, x_max, y_max, z_max)"
        )
    shape = []
    for axis, (size, low, high) in enumerate(zip(voxel_size, bounds[:3], bounds[3:], strict=True)):
        if not (size > 0 and math.isfinite(size) and low < high and math.isfinite(high - low)):
            raise ValueError(
                f"axis {'xyz'[axis]} has voxel size {size} and bounds [{low}, {high}), "
                "expected a positive size and finite bounds with min < max"
            )
        cells = (high - low) / size
        cells = max(1, round(cells) if abs(cells - round(cells)) < 1e-3 else math.ceil(cells))
        if cells > MAX_CELLS:
            raise ValueError(
                f"axis {'xyz'[axis]} has {cells} cells, a voxel key holds {MAX_CELLS}; "
                "use larger voxels or tighter bounds"
            )
        shape.append(cells)
    return shape[0], shape[1], shape[2]


def _sorted_voxels(
    points: Tensor, point_frame: Tensor, voxel_size: list[float], bounds: list[float], point_voxel: Tensor
):
    """coordinates, offsets (M+1,) int64 and row (inside points,) int32: voxel v holds
    row[offsets[v]:offsets[v+1]]. point_voxel (P,) int64 is filled, unless it is empty.
    """
    from sparse3d_ops.cpu import radix
    from sparse3d_ops.cpu import voxelize as body

    shape, frames = _checked_grid(points, point_frame, voxel_size, bounds)
    work = working(points)
    cell = np.empty(len(points), np.int64)
    low, high, size = (
        torch.tensor(v, dtype=torch.float64).numpy() for v in (bounds[:3], bounds[3:], voxel_size)
    )
    grid = torch.tensor(shape).numpy()
    body.cells(work.numpy(), point_frame.contiguous().numpy(), low, high, size, grid, cell)

    bits = (frames * math.prod(shape) - 1).bit_length()
    cell, row, chunks = radix.sort_cells(cell, bits)
    first_voxel = np.empty(chunks, np.int64)
    count = radix.count_runs(cell, first_voxel)
    coordinates = empty((count, 4), torch.int32)
    offsets = empty((count + 1,), torch.int64)
    body.voxels(cell, row, first_voxel, grid, coordinates.numpy(), point_voxel.numpy(), offsets.numpy())
    return coordinates, offsets, row


def _checked_grid(points: Tensor, point_frame: Tensor, voxel_size: list[float], bounds: list[float]):
    """The cells on each axis and the number of frames, after all checks."""
    check_tensor("points", points, ("P", "F"), FLOATS)
    check_tensor("point_frame", point_frame, (points.shape[0],), INDICES)
    check_same_device(("points", points), ("point_frame", point_frame))
    if points.shape[1] < 3:
        raise ValueError(f"points has shape {tuple(points.shape)}, expected at least the columns x, y, z")
    if len(points) >= 1 << 31:
        raise ValueError(f"points has {len(points)} rows, at most 2^31 - 1 are handled at once")
    shape = grid_shape(voxel_size, bounds)
    check_range("point_frame", point_frame, 0, MAX_FRAMES)
    return shape, int(point_frame.max()) + 1 if len(points) else 1


def _cuda_sorted_voxels(points: Tensor, point_frame: Tensor, voxel_size: list[float], bounds: list[float]):
    """coordinates, point_voxel, offsets and row of `_sorted_voxels` on a GPU; row lists the points outside
    too, after all others. It waits for the largest frame and for the number of voxels."""
    from sparse3d_ops.gpu import voxelize as body

    shape, frames = _checked_grid(points, point_frame, voxel_size, bounds)
    cells = frames * math.prod(shape)  # also the number that stands for no cell, so that it comes last
    grid = torch.tensor([*bounds, *voxel_size], dtype=torch.float64, device=points.device)
    # A sort of half as many bits takes half as many passes.
    cell = points.new_empty(len(points), dtype=torch.int32 if cells < 1 << 31 else torch.int64)
    outside = cell.new_full((1,), cells, dtype=torch.int64)
    body.cells(working(points), point_frame.contiguous(), grid, shape, outside, cell)
    cell, row = torch.sort(cell, stable=True)
    found, voxel, counts = torch.unique_consecutive(cell, return_inverse=True, return_counts=True)
    found = found.long()
    count = int((found < cells).sum())
    point_voxel = torch.empty_like(voxel)
    point_voxel[row] = torch.where(voxel < count, voxel, -1)
    found, offsets = found[:count], torch.zeros(count + 1, dtype=torch.int64, device=points.device)
    torch.cumsum(counts[:count], 0, out=offsets[1:])
    x_size, y_size, z_size = shape
    column, plane = found // z_size, found // (y_size * z_size)
    axes = (plane // x_size, plane % x_size, column % y_size, found % z_size)
    return torch.stack(axes, 1).int(), point_voxel, offsets, row


@torch.library.custom_op("sparse3d::voxelize", mutates_args=(), device_types="cpu")
def _voxelize(
    points: Tensor, point_frame: Tensor, voxel_size: list[float], bounds: list[float]
) -> tuple[Tensor, Tensor, Tensor]:
    point_voxel = empty((len(points),), torch.int64).fill_(-1)
    coordinates, offsets, _ = _sorted_voxels(points, point_frame, voxel_size, bounds, point_voxel)
    return coordinates, point_voxel, offsets.diff()


@_voxelize.register_kernel("cuda")
def _(points, point_frame, voxel_size, bounds):
    coordinates, point_voxel, offsets, _ = _cuda_sorted_voxels(points, point_frame, voxel_size, bounds)
    return coordinates, point_voxel, offsets.diff()


@_voxelize.register_fake
def _(points, point_frame, voxel_size, bounds):
    count = torch.library.get_ctx().new_dynamic_size()
    return (
        points.new_empty(count, 4, dtype=torch.int32),
        points.new_empty(points.shape[0], dtype=torch.int64),
        points.new_empty(count, dtype=torch.int64),
    )


def voxelize(points: Tensor, point_frame: Tensor, voxel_size: list[float], bounds: list[float]) -> Voxels:
    """Every voxel with a point in it, and the voxel of every point ("dynamic" voxelisation: nothing is
    dropped).

    (P, F) float, (P,) int32 or int64 -> Voxels. Raises ValueError naming the row for a frame outside of [0,
    512).
    """
    return Voxels(*_voxelize(points, point_frame, list(voxel_size), list(bounds)))


def voxelize_mean(
    points: Tensor, point_frame: Tensor, voxel_size: list[float], bounds: list[float]
) -> tuple[Tensor, Tensor]:
    """Mean of all columns of the points of each voxel: -> features (M, F), coordinates (M, 4) int32.

    Differentiable with respect to `points` (through the mean; the choice of the voxel has no gradient).
    """
    coordinates, point_voxel, counts = voxelize(points, point_frame, voxel_size, bounds)
    # Points without a voxel go to one more segment, which is cut off: sizes stay independent of how many they
    # are.
    segment = torch.where(point_voxel < 0, len(counts), point_voxel)
    return segment_mean(points, segment, len(counts) + 1)[: len(counts)], coordinates


@torch.library.custom_op("sparse3d::voxelize_first_rows", mutates_args=(), device_types="cpu")
def voxelize_first_rows(
    points: Tensor,
    point_frame: Tensor,
    voxel_size: list[float],
    bounds: list[float],
    max_points: int,
    max_voxels: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """`voxelize_first`, but with the rows of the points: -> rows (M, K) int64 (-1: none), coordinates,
    counts.
    """
    from sparse3d_ops.cpu import voxelize as body

    _check_limits(max_points, max_voxels)
    nobody = torch.empty(0, dtype=torch.int64)
    coordinates, offsets, row = _sorted_voxels(points, point_frame, voxel_size, bounds, nobody)
    sites, starts = coordinates.numpy(), offsets.numpy()
    count, keep = len(sites), np.ones(len(sites), np.bool_)
    if count > max_voxels:  # else no frame has too many
        begun, seen = np.full(len(points), -1, np.int32), np.zeros(MAX_FRAMES, np.int64)
        count = body.first_voxels(sites, row, starts, max_voxels, begun, seen, keep)
    rows_out = empty((count, max_points), torch.int64)
    coordinates_out = empty((count, 4), torch.int32)
    counts_out = torch.empty(count, dtype=torch.int64)
    body.first_rows(sites, row, starts, keep, rows_out.numpy(), coordinates_out.numpy(), counts_out.numpy())
    return rows_out, coordinates_out, counts_out


def _check_limits(max_points: int, max_voxels: int) -> None:
    if max_points < 1 or max_voxels < 1:
        raise ValueError(
            f"max_points is {max_points} and max_voxels is {max_voxels}, expected at least 1 of each"
        )


@voxelize_first_rows.register_kernel("cuda")
def _(points, point_frame, voxel_size, bounds, max_points, max_voxels):
    _check_limits(max_points, max_voxels)
    coordinates, _, offsets, row = _cuda_sorted_voxels(points, point_frame, voxel_size, bounds)
    # Voxels by frame, and within a frame by their first point: their rank decides which are kept.
    frame = coordinates[:, 0].long()
    order = torch.argsort(frame * len(points) + row[offsets[:-1]])
    begins = torch.searchsorted(frame, frame)  # voxels are sorted by frame already
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order), device=order.device)
    kept = (rank - begins < max_voxels).nonzero()[:, 0]
    counts = offsets.diff()[kept].clamp_max(max_points)
    nth = torch.arange(max_points, device=row.device)
    # Row -1 is put at the end, where every place that a voxel does not fill points to.
    places = torch.where(nth < counts[:, None], offsets[kept][:, None] + nth, len(row))
    rows = torch.cat([row, row.new_full((1,), -1)])[places]
    return rows, coordinates[kept], counts


@voxelize_first_rows.register_fake
def _(points, point_frame, voxel_size, bounds, max_points, max_voxels):
    count = torch.library.get_ctx().new_dynamic_size()
    return (
        points.new_empty(count, max_points, dtype=torch.int64),
        points.new_empty(count, 4, dtype=torch.int32),
        points.new_empty(count, dtype=torch.int64),
    )


def voxelize_first(
    points: Tensor,
    point_frame: Tensor,
    voxel_size: list[float],
    bounds: list[float],
    max_points: int,
    max_voxels: int,
) -> FirstVoxels:
    """The first K = `max_points` points of each voxel, in input order ("hard" voxelisation; SECOND, Yan
    2018).

    Of a frame with more than `max_voxels` voxels those are kept whose first point comes first. Differentiable
    with respect to `points`. Raises ValueError as `voxelize`, and for limits below 1.
    """
    rows, coordinates, counts = voxelize_first_rows(
        points, point_frame, list(voxel_size), list(bounds), max_points, max_voxels
    )
    voxels = gather_rows(points, rows.flatten()).unflatten(0, rows.shape)
    return FirstVoxels(voxels, coordinates, counts)
