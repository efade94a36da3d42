"""Truncated signed distances in blocks of lattice points, averaged over what measured them.

`values` (B, S, S, S) are distances to the surface by the truncation, in [-1, 1], positive inside (behind the
surface as seen); `weights` (B, S, S, S) what they are averages over, 0 where nothing was seen; `colors`
(B, 3, S, S, S) averages in [0, 255], or (0, 3, S, S, S) where they are not kept. All float32, changed in
place; each block is worked on by one thread, so that results are the same bits for any number of threads.

    W <- min(W + w, max_weight),   V <- V + (v - V) w / (W + w)

Source: Curless & Levoy (SIGGRAPH 1996); projective distances as in KinectFusion (ISMAR 2011). Blocks and
cameras: `tsdf_blocks`.
"""

import math

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops.checks import check_range, check_starts, check_tensor
from sparse3d_ops.tsdf_blocks import (
    check_blocks_device,
    check_field,
    checked_intrinsics,
    checked_pose,
    ray_numbers,
)


@torch.library.custom_op(
    "sparse3d::integrate_depth", mutates_args=("values", "weights", "colors"), device_types="cpu"
)
def integrate_depth(
    values: Tensor,
    weights: Tensor,
    colors: Tensor,
    rows: Tensor,
    blocks: Tensor,
    depth: Tensor,
    picture: Tensor | None,
    pixel_weights: Tensor | None,
    intrinsics: list[float],
    camera_to_world: Tensor,
    voxel_size: float,
    truncation: float,
    near: float,
    far: float,
    max_weight: float,
) -> None:
    """Take a depth map (H, W) float32 into the blocks `rows` (M,) int64, distinct, which lie at `blocks`
    (M, 4) int32 (batch, x, y, z).

    A lattice point at (x, y, z) of the camera is seen in the pixel that it falls into; with the depth d there
    it gets max(-1, (z - d) / truncation) with the weight w of `pixel_weights` (H, W), 1 without them, unless
    it lies more than the truncation behind. picture (H, W, 3) uint8 is averaged in the same way. Depths
    outside of [near, far], and weights that are not above 0 (NaN too), are none. The place in the camera's
    frame is rounded to float32, and so is all that follows.
    """
    from sparse3d_ops.cpu import tsdf as body

    _check_frame(values, weights, colors, rows, blocks, depth, picture, pixel_weights)
    places, offsets, numbers = _view(
        values, blocks, intrinsics, camera_to_world, voxel_size, truncation, near, far, max_weight
    )
    packed = np.empty(depth.shape if picture is not None and len(colors) else (1, 1), np.float32)
    if picture is not None and len(colors):
        body.pack_bytes(picture.contiguous().numpy(), packed.view(np.int32))
    seen = depth if pixel_weights is None else pixel_weights
    count, side = len(values), values.shape[1]
    flat = values.numpy().reshape(count, side**3), weights.numpy().reshape(count, side**3)
    planes = colors.numpy().reshape(len(colors), 3, side**3)
    frame = depth.contiguous().numpy(), seen.contiguous().numpy(), packed
    flags = pixel_weights is not None, picture is not None and len(colors) > 0
    arrays = [*flat, planes, rows.numpy(), places, offsets, *frame, numbers, *flags]
    body.integrate_depth(*arrays)


@integrate_depth.register_kernel("cuda")
def _(
    values,
    weights,
    colors,
    rows,
    blocks,
    depth,
    picture,
    pixel_weights,
    intrinsics,
    camera_to_world,
    voxel_size,
    truncation,
    near,
    far,
    max_weight,
) -> None:
    from sparse3d_ops.gpu import tsdf as body

    _check_frame(values, weights, colors, rows, blocks, depth, picture, pixel_weights)
    view = _view(values, blocks, intrinsics, camera_to_world, voxel_size, truncation, near, far, max_weight)
    places, offsets, numbers = (torch.from_numpy(array).to(values.device) for array in view)
    picture = picture.contiguous() if picture is not None and len(colors) else None
    pixel_weights = None if pixel_weights is None else pixel_weights.contiguous()
    field = values, weights, colors, rows, places, offsets, numbers
    body.integrate_depth(*field, depth.contiguous(), picture, pixel_weights)


@integrate_depth.register_fake
def _(*arguments) -> None:
    pass


def _check_frame(values, weights, colors, rows, blocks, depth, picture, pixel_weights) -> None:
    named = _check_field(values, weights, colors, rows, blocks)
    check_tensor("depth", depth, ("H", "W"), (torch.float32,))
    height, width = depth.shape
    if picture is not None:
        check_tensor("picture", picture, (height, width, 3), (torch.uint8,))
        named["picture"] = picture.contiguous()
    if pixel_weights is not None:
        check_tensor("pixel_weights", pixel_weights, (height, width), (torch.float32,))
        named["pixel_weights"] = pixel_weights.contiguous()
    check_blocks_device(*named.items(), ("depth", depth.contiguous()))


def _check_field(values, weights, colors, rows, blocks) -> dict[str, Tensor]:
    check_tensor("values", values, ("B", "S", "S", "S"), (torch.float32,))
    count, *sides = values.shape
    if len(set(sides)) > 1 or sides[0] not in (4, 8, 16, 32):
        raise ValueError(
            f"values has shape {tuple(values.shape)}, expected blocks of a side of 4, 8, 16 or 32"
        )
    check_tensor("weights", weights, tuple(values.shape), (torch.float32,))
    check_tensor("colors", colors, (count if len(colors) else 0, 3, *sides), (torch.float32,))
    check_tensor("rows", rows, ("M",), (torch.int64,))
    check_tensor("blocks", blocks, (len(rows), 4), (torch.int32,))
    check_range("rows", rows, 0, count)
    if len(rows):
        marks = torch.zeros(count, dtype=torch.bool, device=rows.device)
        marks[rows] = True
        if int(marks.count_nonzero()) != len(rows):
            raise ValueError("rows names a block twice; a block takes a frame once")
    return {"values": values, "weights": weights, "colors": colors, "rows": rows}


def _view(
    values, blocks, intrinsics, camera_to_world, voxel_size, truncation, near, far, max_weight
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the first lattice points of the blocks are in the camera's frame (M, 3) float32, where all others
    are from it (3, S^3) float32, and (8,) float32: fx, fy, cx, cy, truncation, near, far, max_weight."""
    side = values.shape[1]
    check_field(voxel_size, side, truncation)
    _check_limits(near, far, max_weight)
    pose = checked_pose(camera_to_world)
    world_to_camera = pose[:3, :3].T
    corners = blocks[:, 1:].cpu().numpy().astype(np.float64) * (side * voxel_size)
    places = (corners - pose[:3, 3]) @ world_to_camera.T
    numbers = [*checked_intrinsics(intrinsics), truncation, near, far, max_weight]
    steps = voxel_size * np.stack(np.meshgrid(*[np.arange(side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    offsets = np.ascontiguousarray((steps @ world_to_camera.T).T.astype(np.float32))
    return places.astype(np.float32), offsets, np.array(numbers, np.float32)


def _check_limits(near: float, far: float, max_weight: float) -> None:
    if not (math.isfinite(far) and 0 <= near <= far):
        raise ValueError(f"depth counts from {near} to {far} m, expected finite numbers that do not fall")
    if not max_weight > 0:
        raise ValueError(f"max_weight is {max_weight}, expected a number above 0")


@torch.library.custom_op(
    "sparse3d::integrate_rays", mutates_args=("values", "weights", "colors"), device_types="cpu"
)
def integrate_rays(
    values: Tensor,
    weights: Tensor,
    colors: Tensor,
    rows: Tensor,
    blocks: Tensor,
    starts: Tensor,
    rays: Tensor,
    free_starts: Tensor,
    free_rays: Tensor,
    points: Tensor,
    point_colors: Tensor | None,
    origin: list[float],
    voxel_size: float,
    truncation: float,
    near: float,
    far: float,
    weight: float,
    max_weight: float,
    free_weight: float,
) -> None:
    """Take the rays of a sweep into the blocks `rows` (M,) int64, distinct, at `blocks` (M, 4) int32; starts,
    rays, points and origin as `tsdf_blocks.ray_blocks` gives and takes them, free_starts (M + 1,) and
    free_rays as `tsdf_blocks.free_blocks` does.

    The lattice points that a ray touches get max(-1, (t - r) / truncation), t being how far along the ray
    they are and r how long it is, unless t is more than the truncation behind. Of the four in each plane,
    each weighs `weight` times what it does in the bilinear interpolation at the ray. point_colors (N, 3)
    uint8 are averaged in the same way. The rays of a block are taken in the order of their numbers.

    After that, each of free_rays carves its block: where it runs, in a plane of lattice points, through what
    is inside (the bilinear interpolation of the points in the block is above 0), these points get -1, each
    with `free_weight` times its share. A point that was never seen, or that this sweep measures, is neither
    looked at nor changed: a ray that grazes a surface passes closer to it than a voxel.
    """
    from sparse3d_ops.cpu import tsdf as body

    numbers = _check_sweep(
        values, weights, colors, rows, blocks, starts, rays, free_starts, free_rays, points, point_colors,
        origin, voxel_size, truncation, near, far, weight, max_weight, free_weight,
    )  # fmt: skip
    count, side = len(values), values.shape[1]
    tint = np.zeros((1, 3), np.uint8) if point_colors is None else point_colors.contiguous().numpy()
    body.integrate_rays(
        values.numpy().reshape(count, side**3),
        weights.numpy().reshape(count, side**3),
        colors.numpy().reshape(len(colors), 3, side**3),
        rows.numpy(),
        blocks.contiguous().numpy(),
        side,
        starts.contiguous().numpy(),
        rays.contiguous().numpy(),
        free_starts.contiguous().numpy(),
        free_rays.contiguous().numpy(),
        points.contiguous().numpy(),
        tint,
        numbers,
        point_colors is not None and len(colors) > 0,
    )


@integrate_rays.register_kernel("cuda")
def _(
    values,
    weights,
    colors,
    rows,
    blocks,
    starts,
    rays,
    free_starts,
    free_rays,
    points,
    point_colors,
    origin,
    voxel_size,
    truncation,
    near,
    far,
    weight,
    max_weight,
    free_weight,
) -> None:
    from sparse3d_ops.gpu import tsdf as body

    numbers = _check_sweep(
        values, weights, colors, rows, blocks, starts, rays, free_starts, free_rays, points, point_colors,
        origin, voxel_size, truncation, near, far, weight, max_weight, free_weight,
    )  # fmt: skip
    given = torch.from_numpy(numbers).to(values.device)
    tint = point_colors.contiguous() if point_colors is not None and len(colors) else None
    places = rows.contiguous(), blocks.contiguous()
    pairs = starts, rays, free_starts, free_rays  # contiguous, as was checked
    body.integrate_rays(values, weights, colors, *places, *pairs, points.contiguous(), tint, given)


@integrate_rays.register_fake
def _(*arguments) -> None:
    pass


def _check_sweep(
    values, weights, colors, rows, blocks, starts, rays, free_starts, free_rays, points, point_colors,
    origin, voxel_size, truncation, near, far, weight, max_weight, free_weight,
) -> np.ndarray:  # fmt: skip
    """(10,) float64: those of `tsdf_blocks`, weight, max_weight, free_weight."""
    named = _check_field(values, weights, colors, rows, blocks)
    for name, begins, found in (("", starts, rays), ("free_", free_starts, free_rays)):
        check_tensor(f"{name}starts", begins, (len(rows) + 1,), (torch.int64,))
        check_tensor(f"{name}rays", found, ("S",), (torch.int32,))
        check_starts(f"{name}starts", begins, len(found))
        check_range(f"{name}rays", found, 0, len(points))
        named |= {f"{name}starts": begins, f"{name}rays": found}
    if point_colors is not None:
        check_tensor("point_colors", point_colors, (len(points), 3), (torch.uint8,))
        named["point_colors"] = point_colors.contiguous()
    check_blocks_device(*named.items(), ("points", points.contiguous()))
    _check_limits(near, far, max_weight)
    if not (0 < weight < math.inf and 0 < free_weight < math.inf):
        raise ValueError(f"weight is {weight}, free_weight {free_weight}, expected numbers above 0")
    numbers = ray_numbers(points, origin, voxel_size, truncation, near, far)
    return np.array([*numbers, weight, max_weight, free_weight])
