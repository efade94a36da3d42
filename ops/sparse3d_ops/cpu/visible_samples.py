"""Numba body of the samples that rays see."""

import math

import numba
import numpy as np

from sparse3d_ops.cpu.hashing import find, in_range, pack_key


@numba.njit(inline="always")
def softplus(x):
    return max(x, 0.0) + math.log1p(math.exp(-abs(x)))


@numba.njit(inline="always")
def to_the_exit(p, v, cell):
    """How far from p, along one axis with v voxels a unit of t, the voxel `cell` ends; infinite for v = 0."""
    if v > 0:
        return (cell + 1 - p) / v
    if v < 0:
        return (cell - p) / v
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
    for r in numba.prange(len(origins)):
        near, far, offset = np.float64(spans[r, 0]), np.float64(spans[r, 1]), np.float64(offsets[r])
        ox, oy, oz = origins[r, 0] - numbers[0], origins[r, 1] - numbers[1], origins[r, 2] - numbers[2]
        px, py, pz = ox / size, oy / size, oz / size
        vx, vy, vz = directions[r, 0] / size, directions[r, 1] / size, directions[r, 2] / size
        sane = math.isfinite(px + py + pz) and math.isfinite(vx + vy + vz)
        sane = sane and math.isfinite(near) and math.isfinite(far) and math.isfinite(offset)
        found, light, k = 0, 1.0, 0
        last_a, last_b, last_c, row = np.int64(-(1 << 40)), np.int64(0), np.int64(0), np.int32(-1)
        while sane:
            t = near + (k + offset) * step
            if not t < far:
                break
            x, y, z = px + t * vx, py + t * vy, pz + t * vz
            if not (abs(x) < 1e9 and abs(y) < 1e9 and abs(z) < 1e9):
                k += 1
                continue
            a, b, c = np.int64(math.floor(x)), np.int64(math.floor(y)), np.int64(math.floor(z))
            if a != last_a or b != last_b or c != last_c:
                row = find(slot_keys, slot_rows, pack_key(0, a, b, c)) if in_range(a, b, c) else np.int32(-1)
                last_a, last_b, last_c = a, b, c
            if row < 0:
                # No sample that lies surely within this voxel is looked at.
                rest = min(to_the_exit(x, vx, a), min(to_the_exit(y, vy, b), to_the_exit(z, vz, c)))
                ahead = math.floor(rest / step) if rest < far else (far - t) / step
                k += max(np.int64(ahead), 1)
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


@numba.njit(parallel=True, cache=True, nogil=True)
def join(t, voxel, counts, ends, packed_t, packed_voxel):
    for r in numba.prange(len(counts)):
        begin = ends[r] - counts[r]
        for k in range(counts[r]):
            packed_t[begin + k] = t[r, k]
            packed_voxel[begin + k] = voxel[r, k]
