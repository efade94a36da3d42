"""Numba body of the samples that rays see."""

import math

import numba
import numpy as np

from sparse3d_ops.cpu.hashing import find, pack_key
from sparse3d_ops.cpu.occupied import COARSER, blocks_along, bounds, fine_shift, is_marked, mark
from sparse3d_ops.cpu.raymarch import slab

SLACK = 1e-9  # what rounding may move, of a distance and in steps


@numba.njit(inline="always")
def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@numba.njit(inline="always")
def _to_the_exit(p, v, per_unit, cell, side):
    """How far from p, along one axis with v voxels a unit of t (1 / v = per_unit), the block ends that begins
    at `cell` and is `side` wide; infinite for v = 0."""
    if v > 0:
        return (cell + side - p) * per_unit
    if v < 0:
        return (cell - p) * per_unit
    return math.inf


@numba.njit(parallel=True, cache=True, nogil=True)
def walk(
    slot_keys,
    slot_rows,
    corner_rows,
    values,
    origins,
    directions,
    spans,
    offsets,
    numbers,
    found_t,
    found_voxel,
    counts,
):
    """found_t, found_voxel (R, M) and counts (R,) are outputs. The walk is counted in float64, so that the
    number of a sample decides where it lies, whatever was skipped before it."""
    size, step, thin, stop = numbers[3], numbers[4], numbers[5], numbers[6]
    low, extent = bounds(slot_keys)
    high = low + extent
    fine = fine_shift(extent)
    coarse = fine + COARSER
    cells, blocks = mark(slot_keys, low, extent, fine), mark(slot_keys, low, extent, coarse)
    _, cells_y, cells_z = blocks_along(extent, fine)
    _, blocks_y, blocks_z = blocks_along(extent, coarse)
    for r in numba.prange(len(origins)):
        near, far, offset = np.float64(spans[r, 0]), np.float64(spans[r, 1]), np.float64(offsets[r])
        ox, oy, oz = origins[r, 0] - numbers[0], origins[r, 1] - numbers[1], origins[r, 2] - numbers[2]
        px, py, pz = ox / size, oy / size, oz / size
        vx, vy, vz = directions[r, 0] / size, directions[r, 1] / size, directions[r, 2] / size
        counts[r] = 0
        sane = math.isfinite(px + py + pz) and math.isfinite(vx + vy + vz)
        if not (sane and math.isfinite(near) and math.isfinite(far) and math.isfinite(offset)):
            continue
        enter, leave = slab(px, vx, low[0], high[0], near, far)
        enter, leave = slab(py, vy, low[1], high[1], enter, leave)
        enter, leave = slab(pz, vz, low[2], high[2], enter, leave)
        # What is rounded makes the way longer, never shorter.
        enter, leave = enter - SLACK * (1 + abs(enter)), leave + SLACK * (1 + abs(leave))
        if extent[0] == 0 or not enter < leave:
            continue
        far = min(far, leave)
        k = max(np.int64((enter - near) / step - offset) - 1, 0)
        per_x, per_y, per_z = _inverse(vx), _inverse(vy), _inverse(vz)
        found, light = 0, 1.0
        last_a, last_b, last_c, row = np.int64(1 << 40), np.int64(0), np.int64(0), np.int32(-1)
        while True:
            t = near + (k + offset) * step
            if not t < far:
                break
            x, y, z = px + t * vx, py + t * vy, pz + t * vz
            a, b, c = np.int64(math.floor(x)), np.int64(math.floor(y)), np.int64(math.floor(z))
            i, j, l = a - low[0], b - low[1], c - low[2]
            if not (0 <= i < extent[0] and 0 <= j < extent[1] and 0 <= l < extent[2]):
                k += 1
                continue
            empty = np.int64(-1)  # the logarithm of the side of the block around this sample that is empty
            if not is_marked(blocks, i, j, l, coarse, blocks_y, blocks_z):
                empty = coarse
            elif not is_marked(cells, i, j, l, fine, cells_y, cells_z):
                empty = fine
            else:
                if a != last_a or b != last_b or c != last_c:
                    row = find(slot_keys, slot_rows, pack_key(0, a, b, c))
                    last_a, last_b, last_c = a, b, c
                if row < 0:
                    empty = 0
            if empty >= 0:
                # No sample that lies surely within the block is looked at.
                side = np.int64(1) << empty
                rest = min(
                    _to_the_exit(x, vx, per_x, low[0] + (i >> empty << empty), side),
                    min(
                        _to_the_exit(y, vy, per_y, low[1] + (j >> empty << empty), side),
                        _to_the_exit(z, vz, per_z, low[2] + (l >> empty << empty), side),
                    ),
                )
                k += max(np.int64(min(rest, far - t) / step - SLACK), 1)
                continue
            fx, fy, fz = x - a, y - b, z - c
            value = 0.0
            for corner in range(8):
                wx = fx if corner & 4 else 1 - fx
                wy = fy if corner & 2 else 1 - fy
                wz = fz if corner & 1 else 1 - fz
                value += wx * wy * wz * values[corner_rows[row, corner]]
            depth = softplus(value) * step
            if depth >= thin:
                found_t[r, found] = t
                found_voxel[r, found] = row
                found += 1
                light *= math.exp(-depth)
                if light < stop:
                    break
            k += 1
        counts[r] = found


@numba.njit(inline="always")
def _inverse(v):
    return 1 / v if v != 0 else math.inf


@numba.njit(parallel=True, cache=True, nogil=True)
def join(t, voxel, counts, ends, packed_t, packed_voxel):
    for r in numba.prange(len(counts)):
        begin = ends[r] - counts[r]
        for k in range(counts[r]):
            packed_t[begin + k] = t[r, k]
            packed_voxel[begin + k] = voxel[r, k]
