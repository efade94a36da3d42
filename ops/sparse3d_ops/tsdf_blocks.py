"""Which blocks of a truncated distance field a depth map, or the rays of a LiDAR, touch.

Lattice point i lies at i * voxel_size in the world. Block b holds the `side`^3 lattice points from b * side
on; the key of a block (`hashing.pack`, batch 0) is made of b. Truncation is the distance before and behind a
measured surface within which the field is kept. Source: voxel hashing (Niessner et al., ACM TOG 2013).
"""

import math

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops.checks import check_same_device, check_tensor
from sparse3d_ops.hashing import COORDINATE_LIMIT, check_table, sorted_rows, unique
from sparse3d_ops.memory import empty

MOST_ENTRIES = 1 << 30  # keys that are held at once before equal ones are merged
MOST_AT_ONCE = 1 << 22  # keys of free ways, most of which name no block


@torch.library.custom_op("sparse3d::depth_blocks", mutates_args=(), device_types="cpu")
def depth_blocks(
    depth: Tensor,
    intrinsics: list[float],
    camera_to_world: Tensor,
    voxel_size: float,
    side: int,
    truncation: float,
    near: float,
    far: float,
) -> Tensor:
    """The blocks whose cubes are met by the part of a pixel's ray from z = depth - truncation (0 where that
    is behind the camera) to depth + truncation: (H, W) float32 metres along the optical axis -> (M,) int64
    sorted keys.

    intrinsics: fx, fy, cx, cy in pixels, whose centres are at +0.5; camera_to_world (4, 4) float64; the cube
    of block b is [b, b + 1) * side * voxel_size. A depth that does not lie in [near, far], or is 0, negative
    or NaN, is none. ValueError for a pixel that sees further than keys reach.
    """
    from sparse3d_ops.cpu import tsdf_blocks as body

    numbers = _depth_numbers(depth, intrinsics, camera_to_world, voxel_size, side, truncation, near, far)
    array = depth.contiguous().numpy()
    most = _most_blocks(array.shape, numbers)
    bands = min(body.BANDS, len(array))
    capacity = -(-len(array) // max(bands, 1)) * array.shape[1] * most
    found, counts = np.empty((bands, capacity), np.int64), np.zeros(bands, np.int64)
    bad = np.full(bands, -1, np.int64)
    body.depth_blocks(array, numbers, found, counts, bad)
    if len(bad) and bad.max() >= 0:
        _refuse_far(int(bad[bad >= 0].min()), array.shape[1])
    merged = np.concatenate([band[:count] for band, count in zip(found, counts, strict=True)] or [bad])
    return unique(torch.from_numpy(merged))[0]


@depth_blocks.register_kernel("cuda")
def _(depth, intrinsics, camera_to_world, voxel_size, side, truncation, near, far) -> Tensor:
    from sparse3d_ops.gpu import tsdf_blocks as body

    numbers = _depth_numbers(depth, intrinsics, camera_to_world, voxel_size, side, truncation, near, far)
    _most_blocks(tuple(depth.shape), numbers)
    counts = torch.zeros(depth.numel() + 1, dtype=torch.int64, device=depth.device)
    given = torch.from_numpy(numbers).to(depth.device)
    body.count(depth.contiguous(), given, counts[1:])
    if counts.numel() > 1 and int(counts.min()) < 0:
        _refuse_far(int((counts[1:] < 0).nonzero()[0]), depth.shape[1])
    torch.cumsum(counts.clone(), 0, out=counts)
    keys = counts.new_empty(int(counts[-1]))
    body.fill(depth.contiguous(), given, counts, keys)
    return unique(keys)[0]


@depth_blocks.register_fake
def _(depth, intrinsics, camera_to_world, voxel_size, side, truncation, near, far) -> Tensor:
    return depth.new_empty(torch.library.get_ctx().new_dynamic_size(), dtype=torch.int64)


def _depth_numbers(depth, intrinsics, camera_to_world, voxel_size, side, truncation, near, far) -> np.ndarray:
    """(15,) float64: origin (3) and, row by row, the matrix (3, 3) that makes directions of (column, row, 1),
    both in blocks; truncation, near, far."""
    check_tensor("depth", depth, ("H", "W"), (torch.float32,))
    check_field(voxel_size, side, truncation)
    fx, fy, cx, cy = checked_intrinsics(intrinsics)
    pose = checked_pose(camera_to_world)
    if not (math.isfinite(far) and 0 <= near <= far):
        raise ValueError(f"depth counts from {near} to {far} m, expected finite numbers that do not fall")
    # A pixel's centre is at +0.5.
    to_ray = np.array([[1 / fx, 0, (0.5 - cx) / fx], [0, 1 / fy, (0.5 - cy) / fy], [0, 0, 1]])
    size = voxel_size * side
    return np.array([*pose[:3, 3] / size, *(pose[:3, :3] @ to_ray / size).ravel(), truncation, near, far])


def _most_blocks(shape: tuple[int, ...], numbers: np.ndarray) -> int:
    """The most blocks that one pixel's ray can touch: it passes from block to block through one face."""
    corners = np.array([[c, r, 1] for c in (0, shape[1]) for r in (0, shape[0])], dtype=np.float64)
    reach = np.abs(corners @ numbers[3:12].reshape(3, 3).T).sum(1).max()
    most = 2 * numbers[12] * reach + 4
    if most * math.prod(shape) > MOST_ENTRIES:
        raise ValueError(
            f"{shape[1]} x {shape[0]} pixels touch up to {most:.3g} blocks each at a truncation of "
            f"{numbers[12]:g} m; use larger voxels or a shorter truncation"
        )
    return int(most)


def _refuse_far(pixel: int, width: int) -> None:
    raise ValueError(
        f"depth[{pixel // width}, {pixel % width}] is further away than blocks have keys (block coordinates "
        f"in [{-COORDINATE_LIMIT}, {COORDINATE_LIMIT})); use larger voxels or shift the origin"
    )


@torch.library.custom_op("sparse3d::ray_blocks", mutates_args=(), device_types="cpu")
def ray_blocks(
    points: Tensor,
    origin: list[float],
    voxel_size: float,
    side: int,
    truncation: float,
    near: float,
    far: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """The blocks that rays touch, and the rays of each: points (N, 3) float64 in the world, seen from
    `origin` -> keys (M,) int64 sorted, starts (M + 1,) int64, rays (S,) int32.

    A ray touches, in each plane of lattice points across the axis along which it runs most (the first of
    equal ones), the four lattice points around it, from `truncation` before its point (not behind the origin)
    to `truncation` behind. rays[starts[m] : starts[m + 1]] are those with such a point in block m, in rising
    order. A point that is not finite, or not in [near, far] from the origin, is none. ValueError for a ray
    that leads further than keys reach.
    """
    from sparse3d_ops.cpu import tsdf_blocks as body

    numbers = ray_numbers(points, origin, voxel_size, truncation, near, far)
    most = _most_ray_blocks(len(points), truncation / voxel_size, side)
    found = np.empty((len(points), most), np.int64)
    counts = np.zeros(len(points), np.int64)
    body.ray_blocks(points.contiguous().numpy(), numbers, side, False, found, counts)
    if len(counts) and counts.min() < 0:
        _refuse_ray(int((counts < 0).argmax()))
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(ends) else 0
    keys, rays = empty((total,), torch.int64), np.empty(total, np.int32)
    body.join(found, counts, ends, keys.numpy(), rays)
    return _by_block(keys, rays)


@ray_blocks.register_kernel("cuda")
def _(points, origin, voxel_size, side, truncation, near, far):
    from sparse3d_ops.gpu import tsdf_blocks as body

    numbers = torch.from_numpy(ray_numbers(points, origin, voxel_size, truncation, near, far))
    numbers = numbers.to(points.device)
    planes = math.floor(2 * truncation / voxel_size) + 2
    _most_ray_blocks(len(points), truncation / voxel_size, side)
    found = points.new_zeros(len(points), 4 * planes, dtype=torch.int64)
    bad = points.new_zeros(len(points), dtype=torch.int32)
    body.ray_blocks(points.contiguous(), numbers, side, found, bad)
    if len(bad) and int(bad.max()):
        _refuse_ray(int(bad.nonzero()[0]))
    ray, column = found.nonzero(as_tuple=True)
    return _once_by_block(found[ray, column], ray)


@ray_blocks.register_fake
def _(points, origin, voxel_size, side, truncation, near, far):
    context = torch.library.get_ctx()
    blocks, pairs = context.new_dynamic_size(), context.new_dynamic_size()
    keys = points.new_empty(blocks, dtype=torch.int64)
    return keys, keys.new_empty(blocks + 1), points.new_empty(pairs, dtype=torch.int32)


@torch.library.custom_op("sparse3d::free_blocks", mutates_args=(), device_types="cpu")
def free_blocks(
    points: Tensor,
    origin: list[float],
    slot_keys: Tensor,
    slot_rows: Tensor,
    voxel_size: float,
    side: int,
    truncation: float,
    near: float,
    far: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Those blocks of a table (`hashing.build`) that rays pass on their free way, from `near` to `truncation`
    before their point, and the rays of each: as `ray_blocks` does for what is near points.
    """
    from sparse3d_ops.cpu import tsdf_blocks as body

    numbers = ray_numbers(points, origin, voxel_size, truncation, near, far)
    check_table(slot_keys, slot_rows)
    check_same_device(("points", points), ("slots", slot_keys))
    table = slot_keys.contiguous().numpy(), slot_rows.contiguous().numpy()
    most = _most_free_blocks(points, numbers, side)
    places, parts = points.contiguous().numpy(), []
    step = max(1, MOST_AT_ONCE // most)
    for begin in range(0, len(places), step):
        part = places[begin : begin + step]
        found, counts = np.empty((len(part), most), np.int64), np.zeros(len(part), np.int64)
        body.ray_blocks(part, numbers, side, True, found, counts)
        if counts.min() < 0:
            _refuse_ray(begin + int((counts < 0).argmax()))
        body.keep_known(*table, found, counts)
        ends = np.cumsum(counts)
        keys, rays = np.empty(ends[-1], np.int64), np.empty(ends[-1], np.int32)
        body.join(found, counts, ends, keys, rays)
        parts.append((keys, rays + np.int32(begin)))
    keys = np.concatenate([keys for keys, _ in parts] or [np.empty(0, np.int64)])
    rays = np.concatenate([rays for _, rays in parts] or [np.empty(0, np.int32)])
    return _by_block(torch.from_numpy(keys), rays)


@free_blocks.register_kernel("cuda")
def _(points, origin, slot_keys, slot_rows, voxel_size, side, truncation, near, far):
    from sparse3d_ops.gpu import tsdf_blocks as body

    numbers = ray_numbers(points, origin, voxel_size, truncation, near, far)
    check_table(slot_keys, slot_rows)
    check_same_device(("points", points), ("slots", slot_keys))
    _most_free_blocks(points, numbers, side)
    given = torch.from_numpy(numbers).to(points.device)
    table = slot_keys.contiguous(), slot_rows.contiguous()
    counts = torch.zeros(len(points) + 1, dtype=torch.int64, device=points.device)
    body.count_free(points.contiguous(), given, side, *table, counts[1:])
    if int(counts.min()) < 0:
        _refuse_ray(int((counts[1:] < 0).nonzero()[0]))
    torch.cumsum(counts.clone(), 0, out=counts)
    keys, rays = counts.new_empty(int(counts[-1])), counts.new_empty(int(counts[-1]))
    body.fill_free(points.contiguous(), given, side, *table, counts, keys, rays)
    return _once_by_block(keys, rays)


@free_blocks.register_fake
def _(points, origin, slot_keys, slot_rows, voxel_size, side, truncation, near, far):
    context = torch.library.get_ctx()
    blocks, pairs = context.new_dynamic_size(), context.new_dynamic_size()
    keys = points.new_empty(blocks, dtype=torch.int64)
    return keys, keys.new_empty(blocks + 1), points.new_empty(pairs, dtype=torch.int32)


def _by_block(keys: Tensor, rays: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
    """Distinct keys, where the rays of each begin, and these, of keys (S,) with their rays (S,)."""
    distinct, _, sizes = unique(keys)
    starts = torch.zeros(len(distinct) + 1, dtype=torch.int64)
    torch.cumsum(sizes, 0, out=starts[1:])
    return distinct, starts, torch.from_numpy(rays[sorted_rows(keys.numpy())])


def _once_by_block(keys: Tensor, rays: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """`_by_block` for keys that a ray may have more than once; rays do not fall."""
    keys, order = torch.sort(keys, stable=True)
    rays = rays[order]
    first = torch.ones_like(rays, dtype=torch.bool)
    first[1:] = (keys[1:] != keys[:-1]) | (rays[1:] != rays[:-1])
    distinct, _, sizes = unique(keys[first])
    starts = sizes.new_zeros(len(distinct) + 1)
    torch.cumsum(sizes, 0, out=starts[1:])
    return distinct, starts, rays[first].to(torch.int32)


def _most_free_blocks(points: Tensor, numbers: np.ndarray, side: int) -> int:
    """The most blocks that the lattice points around the free way of one of these rays lie in."""
    origin = torch.from_numpy(numbers[:3]).to(points.device)
    lengths = (points / numbers[6] - origin).norm(dim=1)
    lengths = lengths[(lengths >= numbers[4]) & (lengths <= numbers[5])]
    along = math.ceil(float(lengths.max()) / side) + 2 if len(lengths) else 1
    most = 4 * (3 * along + 2)
    if most > MOST_AT_ONCE:
        raise ValueError(
            f"a ray of {along * side} voxels passes up to {most} blocks; use larger voxels or a nearer `far`"
        )
    return most


def ray_numbers(points, origin, voxel_size, truncation, near, far) -> np.ndarray:
    """(7,) float64: origin (3), truncation, near and far, in voxels; voxel size."""
    check_tensor("points", points, ("N", 3), (torch.float64,))
    check_field(voxel_size, 1, truncation)
    if len(origin) != 3 or not all(map(math.isfinite, origin)):
        raise ValueError(f"origin is {origin}, expected three finite numbers (x, y, z)")
    if not (math.isfinite(far) and 0 <= near <= far):
        raise ValueError(f"points count from {near} to {far} m, expected finite numbers that do not fall")
    return np.array(
        [*[o / voxel_size for o in origin], *[x / voxel_size for x in (truncation, near, far)], voxel_size]
    )


def _most_ray_blocks(rays: int, truncation: float, side: int) -> int:
    """The most blocks that the lattice points around one ray lie in: along it, one more at each end, and up
    to twice as many across each of two axes."""
    check_field(1.0, side, truncation)
    along = math.floor(2 * truncation / side) + 2
    most = 4 * (3 * along + 2)
    if most * rays > MOST_ENTRIES:
        raise ValueError(
            f"{rays} rays touch up to {most} blocks each at a truncation of {truncation:g} voxels; "
            "give fewer rays at once, or use larger voxels or a shorter truncation"
        )
    return most


def _refuse_ray(ray: int) -> None:
    raise ValueError(
        f"points[{ray}] is further away than blocks have keys (block coordinates in "
        f"[{-COORDINATE_LIMIT}, {COORDINATE_LIMIT})); use larger voxels or shift the origin"
    )


def check_field(voxel_size: float, side: int, truncation: float) -> None:
    """Raise a ValueError for lengths or a block's side that no field has."""
    if not (0 < voxel_size < math.inf and 0 < truncation < math.inf):
        raise ValueError(f"voxel_size is {voxel_size} and truncation {truncation}, expected positive lengths")
    if side < 1:
        raise ValueError(f"a block has a side of {side} voxels, expected at least 1")


def checked_intrinsics(intrinsics: list[float]) -> tuple[float, float, float, float]:
    """fx, fy, cx, cy; a ValueError where they are not those of a pinhole camera."""
    if len(intrinsics) != 4 or not all(map(math.isfinite, intrinsics)) or min(intrinsics[:2]) <= 0:
        raise ValueError(f"intrinsics are {list(intrinsics)}, expected fx, fy > 0, cx, cy: finite pixels")
    fx, fy, cx, cy = map(float, intrinsics)
    return fx, fy, cx, cy


def checked_pose(camera_to_world: Tensor) -> np.ndarray:
    """(4, 4) float64; a ValueError for a matrix that is not finite, or turns by more than a rotation does."""
    check_tensor("camera_to_world", camera_to_world, (4, 4), (torch.float64,))
    pose = camera_to_world.detach().cpu().numpy()
    if not np.isfinite(pose).all():
        raise ValueError("camera_to_world is not finite")
    turn = pose[:3, :3]
    if np.abs(turn @ turn.T - np.eye(3)).max() > 1e-3 or np.linalg.det(turn) < 0:
        raise ValueError(f"camera_to_world is no rotation and translation: {pose[:3].round(4).tolist()}")
    return pose


def check_blocks_device(*named: tuple[str, Tensor]) -> None:
    """`check_same_device` and that what is written to in place is contiguous."""
    check_same_device(*named)
    for name, tensor in named:
        if not tensor.is_contiguous():
            raise ValueError(f"{name} is not contiguous; it is read and written in place")
