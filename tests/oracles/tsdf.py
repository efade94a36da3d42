"""Truncated signed distances, ray by ray and lattice point by lattice point."""

import math

import numpy as np
import torch

from tests.oracles.grid_sample import voxels_of_table

VALID = -(1 << 63)


def _key(block):
    x, y, z = (int(b) + (1 << 17) for b in block)
    return VALID | x << 36 | y << 18 | z


def depth_blocks(depth, intrinsics, camera_to_world, voxel_size, side, truncation, near, far):
    fx, fy, cx, cy = intrinsics
    pose, size = camera_to_world.cpu().numpy(), voxel_size * side
    keys = set()
    for row in range(depth.shape[0]):
        for column in range(depth.shape[1]):
            z = float(depth[row, column])
            if not (near <= z <= far and z > 0):
                continue
            way = np.array([(column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy, 1.0])
            ends = [pose[:3, :3] @ way * t + pose[:3, 3] for t in (max(z - truncation, 0.0), z + truncation)]
            begin, end = ends[0] / size, ends[1] / size
            # Where the way passes a face of the cubes; between two of these places it is in one cube.
            parts = {0.0, 1.0}
            for a, b in zip(begin, end, strict=True):
                for plane in range(math.ceil(min(a, b)), math.floor(max(a, b)) + 1):
                    if a != b:
                        parts.add((plane - a) / (b - a))
            parts = sorted(p for p in parts if 0 <= p <= 1)
            for low, high in zip(parts, parts[1:], strict=False):
                keys.add(_key(np.floor(begin + (low + high) / 2 * (end - begin))))
    return torch.tensor(sorted(keys), dtype=torch.int64)


def touched(point, origin, voxel_size, truncation, near, far, free=False):
    """Of one ray: (lattice point, how far along the ray, bilinear share) of all that it touches near its
    point, or on its free way, in voxels, plane by plane; its length."""
    if not np.isfinite(point).all():
        return [], 0.0
    o, way = np.array(origin) / voxel_size, (point - np.array(origin)) / voxel_size
    length = float(np.linalg.norm(way))
    if not (near <= length * voxel_size <= far and length > 0):
        return [], 0.0
    way, reach = way / length, truncation / voxel_size
    axis = int(np.argmax(np.abs(way)))
    others = [k for k in range(3) if k != axis]
    part = (max(length - reach, 0.0), length + reach)
    if free:
        part = (near / voxel_size, max(length - reach, near / voxel_size))
    ends = [o[axis] + t * way[axis] for t in part]
    found = []
    for plane in range(math.ceil(min(ends)), math.floor(max(ends)) + 1):
        place = o + (plane - o[axis]) / way[axis] * way
        for corner in range(4):
            lattice = np.zeros(3, dtype=np.int64)
            lattice[axis] = plane
            share = 1.0
            for k, upper in zip(others, (corner >> 1, corner & 1), strict=True):
                lattice[k] = math.floor(place[k]) + upper
                part = place[k] - math.floor(place[k])
                share *= part if upper else 1 - part
            found.append((lattice, float(way @ (lattice - o)), share))
    return found, length


def ray_blocks(points, origin, voxel_size, side, truncation, near, far):
    rays = {}
    for ray, point in enumerate(points.cpu().numpy()):
        for lattice, _, _ in touched(point, origin, voxel_size, truncation, near, far)[0]:
            rays.setdefault(_key(lattice // side), set()).add(ray)
    return _by_block(rays)


def _by_block(rays):
    keys = sorted(rays)
    starts = np.cumsum([0, *[len(rays[key]) for key in keys]])
    joined = [ray for key in keys for ray in sorted(rays[key])]
    return (
        torch.tensor(keys, dtype=torch.int64),
        torch.tensor(starts, dtype=torch.int64),
        torch.tensor(joined, dtype=torch.int32),
    )


def integrate_depth(
    values, weights, colors, rows, blocks, depth, picture, pixel_weights,
    intrinsics, camera_to_world, voxel_size, truncation, near, far, max_weight,
):  # fmt: skip
    values, weights, colors = (t.cpu().numpy().copy() for t in (values, weights, colors))
    side, (height, width) = values.shape[1], depth.shape
    f = np.float32
    fx, fy, cx, cy = map(f, intrinsics)
    pose = camera_to_world.cpu().numpy()
    turn = pose[:3, :3].T
    for row, block in zip(rows.tolist(), blocks[:, 1:].cpu().numpy().astype(np.float64), strict=True):
        corner = (turn @ (block * side * voxel_size - pose[:3, 3])).astype(f)
        for index in np.ndindex(side, side, side):
            # Which pixel a point falls into is decided by float32, in this order.
            x, y, z = (turn @ (voxel_size * np.array(index))).astype(f) + corner
            if not z > 0:
                continue
            inverse = f(1) / z
            u, v = x * inverse * fx + cx, y * inverse * fy + cy
            if not (0 <= u < width and 0 <= v < height):
                continue
            d = float(depth[int(v), int(u)])
            w = 1.0 if pixel_weights is None else float(pixel_weights[int(v), int(u)])
            if not (d > 0 and near <= d <= far and w > 0 and float(z) - d <= truncation):
                continue
            at = (row, *index)
            part = w / (weights[at] + w)
            values[at] += (max(-1.0, (float(z) - d) / truncation) - values[at]) * part
            weights[at] = min(weights[at] + w, max_weight)
            if picture is not None and len(colors):
                tint = picture[int(v), int(u)].cpu().numpy().astype(np.float64)
                colors[(row, slice(None), *index)] += (tint - colors[(row, slice(None), *index)]) * part
    return values, weights, colors


def free_blocks(points, origin, slot_keys, slot_rows, voxel_size, side, truncation, near, far):
    known, rays = {key for key in slot_keys.tolist() if key}, {}
    for ray, point in enumerate(points.cpu().numpy()):
        for lattice, _, _ in touched(point, origin, voxel_size, truncation, near, far, free=True)[0]:
            if _key(lattice // side) in known:
                rays.setdefault(_key(lattice // side), set()).add(ray)
    return _by_block(rays)


def integrate_rays(
    values, weights, colors, rows, blocks, starts, rays, free_starts, free_rays, points, point_colors,
    origin, voxel_size, truncation, near, far, weight, max_weight, free_weight,
):  # fmt: skip
    values, weights, colors = (t.cpu().numpy().copy() for t in (values, weights, colors))
    side = values.shape[1]
    for m, (row, block) in enumerate(zip(rows.tolist(), blocks[:, 1:].cpu().numpy(), strict=True)):
        measured = set()
        for ray in rays[int(starts[m]) : int(starts[m + 1])].tolist():
            point = points[ray].cpu().numpy()
            found, length = touched(point, origin, voxel_size, truncation, near, far)
            for lattice, along, share in found:
                index = lattice - block.astype(np.int64) * side
                behind = (along - length) * voxel_size / truncation
                w = weight * share
                if not ((index >= 0).all() and (index < side).all() and behind <= 1 and w > 0):
                    continue
                at = (row, *index.tolist())
                measured.add(at)
                part = w / (weights[at] + w)
                values[at] += (max(-1.0, behind) - values[at]) * part
                weights[at] = min(weights[at] + w, max_weight)
                if point_colors is not None and len(colors):
                    tint = point_colors[ray].cpu().numpy().astype(np.float64)
                    colors[(row, slice(None), *at[1:])] += (tint - colors[(row, slice(None), *at[1:])]) * part
        for ray in free_rays[int(free_starts[m]) : int(free_starts[m + 1])].tolist():
            point = points[ray].cpu().numpy()
            found, _ = touched(point, origin, voxel_size, truncation, near, far, free=True)
            for plane in (found[k : k + 4] for k in range(0, len(found), 4)):
                there = []
                for lattice, _, share in plane:
                    index = lattice - block.astype(np.int64) * side
                    at = (row, *index.tolist())
                    if (index >= 0).all() and (index < side).all() and at not in measured:
                        there += [(at, share)] if weights[at] > 0 and share > 0 else []
                if sum(share * values[at] for at, share in there) > 0:
                    for at, share in there:
                        w = free_weight * share
                        values[at] += (-1 - values[at]) * w / (weights[at] + w)
                        weights[at] = min(weights[at] + w, max_weight)
    return values, weights, colors


def cast_field(
    slot_keys, slot_rows, values, weights, colors, blocks, intrinsics, camera_to_world,
    width, height, voxel_size, near, far, min_weight,
):  # fmt: skip
    row_of = {tuple(block): row for (_, *block), row in voxels_of_table(slot_keys, slot_rows).items()}
    values, weights, colors = (t.double().cpu().numpy() for t in (values, weights, colors))
    side, pose = values.shape[1], camera_to_world.cpu().numpy()
    fx, fy, cx, cy = intrinsics
    depth, normals = np.zeros((height, width)), np.zeros((height, width, 3))
    seen = np.zeros((height, width, 3) if len(colors) else (0, 0, 3))

    def around(place):
        """Eight (row, index) with their share, and the share's slope along each axis; None if one is not
        known."""
        low, found = np.floor(place).astype(int), []
        for corner in np.ndindex(2, 2, 2):
            point = low + corner
            row = row_of.get(tuple((point // side).tolist()))
            at = (row, *(point % side).tolist())
            if row is None or not weights[at] >= min_weight:
                return None
            parts = np.where(corner, place - low, 1 - (place - low))
            signs = np.where(corner, 1.0, -1.0)
            slopes = [signs[k] * np.prod(np.delete(parts, k)) for k in range(3)]
            found.append((at, float(np.prod(parts)), np.array(slopes)))
        return found

    def value(place):
        found = around(place)
        return math.nan if found is None else sum(share * values[at] for at, share, _ in found)

    for row, column in np.ndindex(height, width):
        way = pose[:3, :3] @ np.array([(column + 0.5 - cx) / fx, (row + 0.5 - cy) / fy, 1.0]) / voxel_size
        begin, step = pose[:3, 3] / voxel_size, 1 / float(np.linalg.norm(way))
        k, before = math.ceil(near / step), math.nan
        while k * step <= far:
            f = value(begin + k * step * way)
            if before <= 0 < f:
                break
            before, k = f, k + 1
        else:
            continue
        low, high = ((k - 1) * step, before), (k * step, f)
        t = low[0] - low[1] / (high[1] - low[1]) * (high[0] - low[0])
        found, g = around(begin + t * way), value(begin + t * way)
        if found is not None:
            low, high = (low, (t, g)) if g > 0 else ((t, g), high)
            t = low[0] - low[1] / (high[1] - low[1]) * (high[0] - low[0])
        if t > far:
            continue
        depth[row, column] = t
        if found is None:
            continue
        slope = sum(slopes * values[at] for at, _, slopes in found)
        if np.linalg.norm(slope) > 0:
            normals[row, column] = -slope / np.linalg.norm(slope)
        if len(colors):
            seen[row, column] = sum(share * colors[at[0], :, at[1], at[2], at[3]] for at, share, _ in found)
    return depth, normals, seen
