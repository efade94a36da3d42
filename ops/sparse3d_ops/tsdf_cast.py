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
    depth, normals = empty((height, width), torch.float32), empty((height, width, 3), torch.float32)
    seen = empty((height, width, 3) if len(colors) else (0, 0, 3), torch.float32)
    places, bits = blocks.contiguous().numpy(), values.shape[1].bit_length() - 1
    table, directory, pages = _page_table(places)
    found, cells, around = _marks(table, directory, pages, values.numpy(), places, bits)
    slots, reach = _slots(places, found, 1 << bits, numbers, width, height)
    field = values.numpy().ravel(), weights.numpy().ravel(), colors.numpy().ravel()
    # Threads take parts in turn: near parts of a picture take longer than far ones.
    order = np.argsort(np.arange(len(slots)) % numba.get_num_threads(), kind="stable")
    views = depth.numpy(), normals.numpy(), seen.numpy()
    body.cast(table, cells, around, *field, bits, numbers, slots, reach, order, *views)
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


def _page_table(blocks: np.ndarray) -> tuple[tuple[int, ...], np.ndarray, np.ndarray]:
    """What the body finds rows of blocks (N, 4) with, faster than by their hash: its `table`, the directory
    and the pages. ValueError for blocks that are too far from each other."""
    from sparse3d_ops.cpu import tsdf_marks as body

    low, size = [0, 0, 0], [0, 0, 0]
    if len(blocks):
        ends = [blocks[:, 1:].min(0), blocks[:, 1:].max(0)]
        low, high = (end.astype(np.int64) >> body.PAGE for end in ends)
        low, size = low.tolist(), (high - low + 1).tolist()
    if math.prod(size) > MOST_PAGES:
        raise ValueError(
            f"blocks lie up to {max(size) << body.PAGE} blocks apart; look at fewer at once, or use "
            "larger voxels"
        )
    directory = np.full(math.prod(size), -1, np.int32)
    pages = np.empty((0, 1), np.int32)
    count = body.page_table((0, 0, *low, *size), blocks, directory, pages)
    pages = np.full((count, 1 << 3 * body.PAGE), -1, np.int32)
    table = directory.ctypes.data, pages.ctypes.data, *low, *size
    body.page_table(table, blocks, directory, pages)
    return table, directory, pages


def _marks(
    table: tuple[int, ...], directory: np.ndarray, pages: np.ndarray, values: np.ndarray, blocks: np.ndarray,
    bits: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:  # fmt: skip
    """Of blocks (N, 4): whether they can be inside anywhere (N,), their cells that can, and the rows of the
    blocks around them; see `mark_cells` and `points_inside`."""
    from sparse3d_ops.cpu import tsdf_marks as body

    words = np.empty((2, len(blocks), 1 << 3 * (bits - body.OCTANT)), np.uint64)
    around = np.empty((len(blocks), 8), np.int32)
    body.points_inside(table, directory, pages, values, blocks, bits, around, words[0])
    found = body.mark_cells(table, directory, pages, blocks, around, words[0], bits, words[1])
    return found, words[1], around


def _slots(
    blocks: np.ndarray, wanted: np.ndarray, side: int, numbers: np.ndarray, width: int, height: int
) -> tuple[np.ndarray, tuple[float, float]]:
    """How deep tiles of pixels can see wanted blocks: `fill_slots`, where slots begin and how thick they
    are."""
    from sparse3d_ops.cpu import tsdf_marks as body

    tiles, depths = np.empty((len(blocks), 4), np.int32), np.zeros((len(blocks), 2))
    body.views_of_blocks(blocks, wanted, side, numbers, width, height, tiles, depths)
    seen = depths[tiles[:, 0] <= tiles[:, 1]]
    begin, end = (seen[:, 0].min(), seen[:, 1].max()) if len(seen) else (0.0, 1.0)
    slots = np.empty((-(-height // body.TILE), -(-width // body.TILE)), np.uint64)
    reach = float(begin), float(end - begin) / body.SLOTS * (1 + 1e-9)
    body.fill_slots(tiles, depths, *reach, slots)
    return slots, reach


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
    if sides[0] < 4 or sides[0] & (sides[0] - 1):
        raise ValueError(f"blocks of {sides[0]}^3 points; rays go through sides of 4, 8, 16, ...")
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
