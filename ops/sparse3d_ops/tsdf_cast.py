"""What a camera sees of the surface in blocks of truncated signed distances (`tsdf`).

A ray is looked at every voxel of its length, from the camera on: sample k of a pixel lies at z = k * step
along the optical axis, step being voxel_size by the length of the pixel's ray at z = 1. Values between
lattice points are interpolated, and known where all eight points around are: in a block that is there, with
enough weight. The surface is where the first known value above 0 (inside) follows a known one that is not:
first on the line between both, then once more on the line between the value there and the one on the other
side of 0. Normals and colours are those of the first of these two places.
"""

import math

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops.checks import check_same_device, check_tensor
from sparse3d_ops.hashing import check_table
from sparse3d_ops.memory import empty
from sparse3d_ops.tsdf_blocks import check_field, checked_intrinsics, checked_pose

MOST_SAMPLES = 1 << 24  # of one ray
MOST_PAGES = 1 << 27  # of 8^3 blocks


@torch.library.custom_op("sparse3d::cast_field", mutates_args=(), device_types="cpu")
def cast_field(
    slot_keys: Tensor,
    slot_rows: Tensor,
    values: Tensor,
    weights: Tensor,
    colors: Tensor,
    blocks: Tensor,
    intrinsics: list[float],
    camera_to_world: Tensor,
    width: int,
    height: int,
    voxel_size: float,
    near: float,
    far: float,
    min_weight: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """slot_keys, slot_rows: the table (`hashing.build`) of the blocks (N, 4) int32; row r of it has row r of
    values and weights (B, S, S, S) and colors (B, 3, S, S, S) or (0, ...), B >= N, float32.

    -> depth (height, width) float32 metres; normals (height, width, 3) float32 of unit length in the world,
    to the outside, those of the interpolated values; colors (height, width, 3) float32, or (0, 0, 3). Zeros
    where nothing is seen between near and far.
    """
    import numba

    from sparse3d_ops.cpu import tsdf_cast as body

    numbers = _checked(
        slot_keys, slot_rows, values, weights, colors, blocks, intrinsics, camera_to_world, width, height,
        voxel_size, near, far, min_weight,
    )  # fmt: skip
    side = values.shape[1]
    depth, normals = empty((height, width), torch.float32), empty((height, width, 3), torch.float32)
    seen = empty((height, width, 3) if len(colors) else (0, 0, 3), torch.float32)
    places = blocks.contiguous().numpy()
    low, size, directory, pages = _page_table(places)
    table = directory.ctypes.data, pages.ctypes.data, *low, *size
    inside = body.octants_with_inside(table, values.numpy(), places)
    ranges = body.tile_ranges(places, inside, side, numbers, width, height)
    field = [array.numpy().ravel() for array in (values, weights, colors)]
    views = [view.numpy() for view in (depth, normals, seen)]
    # Threads take parts in turn: near parts of a picture take longer than far ones.
    order = np.argsort(np.arange(len(ranges)) % numba.get_num_threads(), kind="stable")
    how = [inside, side.bit_length() - 1, numbers, ranges, order]
    body.cast(table, *field, *how, *views)
    return depth, normals, seen


@cast_field.register_kernel("cuda")
def _(
    slot_keys,
    slot_rows,
    values,
    weights,
    colors,
    blocks,
    intrinsics,
    camera_to_world,
    width,
    height,
    voxel_size,
    near,
    far,
    min_weight,
):
    from sparse3d_ops.gpu import tsdf_cast as body

    numbers = _checked(
        slot_keys, slot_rows, values, weights, colors, blocks, intrinsics, camera_to_world, width, height,
        voxel_size, near, far, min_weight,
    )  # fmt: skip
    given = torch.from_numpy(numbers).to(values.device)
    depth = values.new_zeros(height, width)
    normals = values.new_zeros(height, width, 3)
    seen = values.new_zeros((height, width, 3) if len(colors) else (0, 0, 3))
    table = slot_keys.contiguous(), slot_rows.contiguous()
    body.cast(*table, values, weights, colors, given, depth, normals, seen)
    return depth, normals, seen


@cast_field.register_fake
def _(
    slot_keys,
    slot_rows,
    values,
    weights,
    colors,
    blocks,
    intrinsics,
    camera_to_world,
    width,
    height,
    voxel_size,
    near,
    far,
    min_weight,
):
    seen = values.new_empty((height, width, 3) if len(colors) else (0, 0, 3))
    return values.new_empty(height, width), values.new_empty(height, width, 3), seen


def _page_table(blocks: np.ndarray) -> tuple[list[int], list[int], np.ndarray, np.ndarray]:
    """What the body finds rows of blocks (N, 4) with, faster than by their hash: the first page, how many
    there are along x, y and z, and both tables. ValueError for blocks that are too far from each other."""
    from sparse3d_ops.cpu import tsdf_cast as body

    if not len(blocks):
        return [0, 0, 0], [0, 0, 0], np.empty(0, np.int32), np.empty((0, 1), np.int32)
    low = blocks[:, 1:].min(0).astype(np.int64) >> body.PAGE
    size = (blocks[:, 1:].max(0).astype(np.int64) >> body.PAGE) - low + 1
    if math.prod(size.tolist()) > MOST_PAGES:
        raise ValueError(
            f"blocks lie up to {(size << body.PAGE).max()} blocks apart; look at fewer at once, or use "
            "larger voxels"
        )
    directory = np.full(math.prod(size.tolist()), -1, np.int32)
    none = np.empty((0, 1), np.int32)
    pages = np.full((body.page_table(blocks, low, size, directory, none), 1 << 3 * body.PAGE), -1, np.int32)
    body.page_table(blocks, low, size, directory, pages)
    return low.tolist(), size.tolist(), directory, pages


def _checked(
    slot_keys, slot_rows, values, weights, colors, blocks, intrinsics, camera_to_world, width, height,
    voxel_size, near, far, min_weight,
) -> np.ndarray:  # fmt: skip
    """(24,) float64: origin (3) and, row by row, the matrix (3, 3) that makes directions of (column, row, 1),
    both in voxels; the rotation (3, 3) from the camera to the world; near and far as z, and min_weight."""
    check_tensor("values", values, ("B", "S", "S", "S"), (torch.float32,))
    count, *sides = values.shape
    if len(set(sides)) > 1:
        raise ValueError(f"values has shape {tuple(values.shape)}, expected blocks of equal sides")
    check_tensor("weights", weights, tuple(values.shape), (torch.float32,))
    check_tensor("colors", colors, (count if len(colors) else 0, 3, *sides), (torch.float32,))
    check_tensor("blocks", blocks, ("N", 4), (torch.int32,))
    check_table(slot_keys, slot_rows, count)
    check_same_device(
        ("values", values), ("weights", weights), ("colors", colors), ("blocks", blocks), ("slots", slot_keys)
    )
    if not (values.is_contiguous() and weights.is_contiguous() and colors.is_contiguous()):
        raise ValueError("values, weights and colors must be contiguous")
    if len(blocks) > count:
        raise ValueError(f"{len(blocks)} blocks have only {count} rows of values")
    check_field(voxel_size, sides[0], 1.0)
    if sides[0] < 2 or sides[0] & (sides[0] - 1):
        raise ValueError(f"blocks of {sides[0]}^3 points; rays go through those whose side is a power of two")
    fx, fy, cx, cy = checked_intrinsics(intrinsics)
    pose = checked_pose(camera_to_world)
    if width < 1 or height < 1:
        raise ValueError(f"an image of {width} x {height} pixels")
    if not (math.isfinite(far) and 0 <= near <= far):
        raise ValueError(f"rays go from {near} to {far} m, expected finite numbers that do not fall")
    if far / voxel_size > MOST_SAMPLES:
        raise ValueError(
            f"{far:g} m hold {far / voxel_size:.3g} voxels, at most {MOST_SAMPLES} are looked at"
        )
    if not min_weight > 0:
        raise ValueError(f"min_weight is {min_weight}, expected a number above 0: 0 was not seen at all")
    to_ray = np.array([[1 / fx, 0, (0.5 - cx) / fx], [0, 1 / fy, (0.5 - cy) / fy], [0, 0, 1]])
    turn = pose[:3, :3]
    ways = turn @ to_ray / voxel_size
    return np.array([*pose[:3, 3] / voxel_size, *ways.ravel(), *turn.ravel(), near, far, min_weight])
