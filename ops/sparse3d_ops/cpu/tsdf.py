"""Numba bodies of averaging depth maps and rays into blocks of truncated distances.

Depth: 16 lattice points at a time, explicit vectors (`lanes`), because what a point reads of the depth map
depends on where it falls, which compilers do not vectorise by themselves beside stores.
"""

import math

import numba
import numpy as np

from sparse3d_ops.cpu.lanes import (
    LANES,
    any_lane,
    byte_of,
    gather,
    least,
    load,
    most,
    spread_number,
    store,
    where,
)
from sparse3d_ops.cpu.tsdf_blocks import followed, free_way, in_order, in_place, near_the_point, planes


@numba.njit(parallel=True, cache=True, nogil=True)
def pack_bytes(picture, packed):
    """(H, W, 3) uint8 -> packed (H, W) int32, an output: the three bytes of a pixel, red the lowest."""
    for row in numba.prange(len(picture)):
        for column in range(picture.shape[1]):
            r, g, b = picture[row, column]
            packed[row, column] = np.int32(r) | np.int32(g) << np.int32(8) | np.int32(b) << np.int32(16)


@numba.njit(parallel=True, cache=True, nogil=True)
def integrate_depth(
    values, weights, colors, rows, places, offsets, depth, seen, packed, numbers, weighted, tinted
):
    """values, weights (B, n) and colors (B, 3, n) are changed. Lattice points are at places (M, 3) + offsets
    (3, n) in the camera's frame. `seen` (H, W) are weights where `weighted`,
    packed (H, W) float32 the bits of `pack_bytes` where `tinted`."""
    fx, fy, cx, cy, truncation, near, far, limit = numbers
    height, width = np.float32(depth.shape[0]), np.float32(depth.shape[1])
    points, zero, one = offsets.shape[1], np.float32(0), np.float32(1)
    for m in numba.prange(len(rows)):
        row = rows[m]
        value, weight = values[row], weights[row]
        px, py, pz = places[m]
        for i in range(0, points, LANES):
            z = load(offsets[2], i) + pz  # pyright: ignore[reportCallIssue]
            inverse = one / z
            u = (load(offsets[0], i) + px) * inverse * fx + cx
            v = (load(offsets[1], i) + py) * inverse * fy + cy
            kept = (z > zero) & (u >= zero) & (u < width) & (v >= zero) & (v < height)
            if not any_lane(kept):
                continue
            d = gather(depth, v, u, kept)
            kept = kept & (d > zero) & (d >= near) & (d <= far)
            behind = (z - d) / truncation
            kept = kept & (behind <= one)
            w = spread_number(one)
            if weighted:
                w = gather(seen, v, u, kept)
                kept = kept & (w > zero)
            if not any_lane(kept):
                continue
            old, before = load(weight, i), load(value, i)
            total = old + w
            part = where(kept, w / total, spread_number(zero))
            # What is not kept may be NaN, and 0 * NaN is not 0.
            change = where(kept, most(behind, spread_number(-one)) - before, spread_number(zero))
            store(before + change * part, value, i)
            store(where(kept, least(total, spread_number(limit)), old), weight, i)
            if tinted:
                bits = gather(packed, v, u, kept)
                for k in range(3):
                    plane = colors[row, k]
                    was = load(plane, i)
                    seen_here = byte_of(bits, k)  # pyright: ignore[reportCallIssue]
                    store(was + (seen_here - was) * part, plane, i)


@numba.njit(parallel=True, cache=True, nogil=True)
def integrate_rays(
    values, weights, colors, rows, blocks, side, starts, rays, free_starts, free_rays, points, tints, numbers,
    tinted,
):  # fmt: skip
    """values, weights (B, n) and colors (B, 3, n) are changed."""
    for m in numba.prange(len(rows)):
        row, block = rows[m], blocks[m]
        measured = np.zeros(values.shape[1], np.bool_)
        for s in range(starts[m], starts[m + 1]):
            measure(
                values[row], weights[row], colors, row, block, side, rays[s], points, tints, numbers, tinted,
                measured,
            )  # fmt: skip
        for s in range(free_starts[m], free_starts[m + 1]):
            carve(values[row], weights[row], block, side, free_rays[s], points, numbers, measured)


@numba.njit
def in_block(direction, origin, begin, end, first, side):
    """The first lattice plane of a block that a ray passes between two places on its way, and how many."""
    low, high = planes(origin, direction, begin, end)
    low, high = max(low, np.float64(first)), min(high, np.float64(first + side - 1))
    return low, np.int64(max(high - low + 1, 0.0))


@numba.njit
def measure(values, weights, colors, row, block, side, ray, points, tints, numbers, tinted, measured):
    """What a ray tells near its point, in one block: values, weights and `measured` (n,) are changed."""
    truncation, share, limit = numbers[3], numbers[7], numbers[8]
    x, y, z, length, axis = followed(points, ray, numbers)
    if length < 0:
        return
    va, vb, vc = in_order(x, y, z, axis)
    oa, ob, oc = in_order(numbers[0], numbers[1], numbers[2], axis)
    ba, bb, bc = in_order(block[1] * side, block[2] * side, block[3] * side, axis)
    begin, end = near_the_point(length, truncation)
    first, count = in_block(va, oa, begin, end, ba, side)
    for plane in range(count):
        a = first + plane
        t = (a - oa) / va
        b, c = ob + t * vb, oc + t * vc
        for corner in range(4):
            u, v = math.floor(b) + (corner >> 1), math.floor(c) + (corner & 1)
            if not (bb <= u < bb + side and bc <= v < bc + side):
                continue
            along = va * (a - oa) + vb * (u - ob) + vc * (v - oc)
            behind = (along - length) / truncation
            w = share * (1 - abs(b - u)) * (1 - abs(c - v))
            if not (behind <= 1 and w > 0):
                continue
            ix, iy, iz = in_place(np.int64(a) - ba, np.int64(u) - bb, np.int64(v) - bc, axis)
            at = (ix * side + iy) * side + iz
            part = add(values, weights, at, max(behind, -1.0), w, limit)
            measured[at] = True
            if tinted:
                for k in range(3):
                    was = np.float64(colors[row, k, at])
                    colors[row, k, at] = was + (np.float64(tints[ray, k]) - was) * part


@numba.njit
def add(values, weights, at, value, w, limit):
    """One more observation of a point; returns its part of the average."""
    old, before = np.float64(weights[at]), np.float64(values[at])
    part = w / (old + w)
    values[at] = before + (value - before) * part
    weights[at] = min(old + w, limit)
    return part


@numba.njit
def carve(values, weights, block, side, ray, points, numbers, measured):
    """What a ray tells of its free way, in one block: values and weights are changed."""
    share, limit = numbers[9], numbers[8]
    x, y, z, length, axis = followed(points, ray, numbers)
    if length < 0:
        return
    va, vb, vc = in_order(x, y, z, axis)
    oa, ob, oc = in_order(numbers[0], numbers[1], numbers[2], axis)
    ba, bb, bc = in_order(block[1] * side, block[2] * side, block[3] * side, axis)
    begin, end = free_way(length, numbers[3], numbers[4])
    first, count = in_block(va, oa, begin, end, ba, side)
    for plane in range(count):
        a = first + plane
        t = (a - oa) / va
        b, c = ob + t * vb, oc + t * vc
        value = 0.0  # at the ray, of the points that it may change
        for add_them in range(2):
            if add_them and value <= 0:
                break
            for corner in range(4):
                u, v = math.floor(b) + (corner >> 1), math.floor(c) + (corner & 1)
                if not (bb <= u < bb + side and bc <= v < bc + side):
                    continue
                w = (1 - abs(b - u)) * (1 - abs(c - v))
                ix, iy, iz = in_place(np.int64(a) - ba, np.int64(u) - bb, np.int64(v) - bc, axis)
                at = (ix * side + iy) * side + iz
                if measured[at] or weights[at] == 0 or not w > 0:
                    continue
                if add_them:
                    add(values, weights, at, -1.0, share * w, limit)
                else:
                    value += w * values[at]
