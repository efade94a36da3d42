"""Numba bodies of finding the blocks that depth maps and rays touch.

A pixel's ray is followed from cube to cube (Amanatides & Woo, Eurographics 1987); which of a ray's three
planes comes next is worked out anew at each step, so that no error adds up.
"""

import math

import numba
import numpy as np

from sparse3d_ops.cpu.hashing import find, first_slot, in_range, pack_key

BANDS = 16  # parts of a depth map that are followed side by side, however many threads there are
# Blocks of one layer across a ray's axis: it leaves the layer after as many voxels across as along, and has
# its four points in three by three blocks of it at most. A key comes again within so many or not at all.
RECENT_OF_RAY = 9
RECENT = 1 << 12  # keys of a band that are remembered, so that most repeats are dropped at once


@numba.njit(inline="always")
def ahead(cell, last, begin, way):
    """At which part of the way from `begin` an axis leaves `cell`; infinite in the last one."""
    if cell == last:
        return math.inf
    return ((cell + 1 if last > cell else cell) - begin) / way


@numba.njit(parallel=True, cache=True, nogil=True)
def depth_blocks(depth, numbers, found, counts, bad):
    """found (bands, capacity), counts (bands,) and bad (bands,), the first pixel out of range, are outputs;
    `found` may hold a key more than once."""
    bands, (height, width) = len(found), depth.shape
    truncation, near, far = numbers[12], numbers[13], numbers[14]
    rows = (height + bands - 1) // max(bands, 1)
    for band in numba.prange(bands):
        recent = np.zeros(RECENT, np.int64)
        count, wrong = 0, np.int64(-1)
        ca = cb = cc = ea = eb = ec = np.int64(1 << 40)
        for row in range(band * rows, min((band + 1) * rows, height)):
            for column in range(width):
                z = np.float64(depth[row, column])
                if not (z >= near and z <= far and z > 0):
                    continue
                vx = numbers[3] * column + numbers[4] * row + numbers[5]
                vy = numbers[6] * column + numbers[7] * row + numbers[8]
                vz = numbers[9] * column + numbers[10] * row + numbers[11]
                begin, end = max(z - truncation, 0.0), z + truncation
                ax, ay, az = numbers[0] + begin * vx, numbers[1] + begin * vy, numbers[2] + begin * vz
                bx, by, bz = numbers[0] + end * vx, numbers[1] + end * vy, numbers[2] + end * vz
                fax, fay, faz = math.floor(ax), math.floor(ay), math.floor(az)
                fbx, fby, fbz = math.floor(bx), math.floor(by), math.floor(bz)
                if not (in_range(fax, fay, faz) and in_range(fbx, fby, fbz)):
                    if wrong < 0:
                        wrong = np.int64(row) * width + column
                    continue
                a, b, c = np.int64(fax), np.int64(fay), np.int64(faz)
                la, lb, lc = np.int64(fbx), np.int64(fby), np.int64(fbz)
                steps = abs(la - a) + abs(lb - b) + abs(lc - c)
                if steps <= 1:  # the way is given by its ends
                    if a == ca and b == cb and c == cc and la == ea and lb == eb and lc == ec:
                        continue
                    ca, cb, cc, ea, eb, ec = a, b, c, la, lb, lc
                for step in range(steps + 1):
                    key = pack_key(0, a, b, c)
                    slot = first_slot(key, RECENT - 1)
                    if recent[slot] != key:
                        recent[slot] = key
                        found[band, count] = key
                        count += 1
                    if step < steps:
                        tx = ahead(a, la, ax, bx - ax)
                        ty = ahead(b, lb, ay, by - ay)
                        tz = ahead(c, lc, az, bz - az)
                        if tx <= ty and tx <= tz:
                            a += 1 if la > a else -1
                        elif ty <= tz:
                            b += 1 if lb > b else -1
                        else:
                            c += 1 if lc > c else -1
        counts[band], bad[band] = count, wrong


@numba.njit(inline="always")
def followed(points, i, numbers):
    """Ray i in voxels: its direction (3) of length 1, its length (negative: there is none), the axis along
    which it runs most."""
    x = points[i, 0] / numbers[6] - numbers[0]
    y = points[i, 1] / numbers[6] - numbers[1]
    z = points[i, 2] / numbers[6] - numbers[2]
    length = math.sqrt(x * x + y * y + z * z)
    if not (length >= numbers[4] and length <= numbers[5] and length > 0):
        return 0.0, 0.0, 1.0, -1.0, 2
    x, y, z = x / length, y / length, z / length
    axis = 0 if abs(x) >= abs(y) and abs(x) >= abs(z) else (1 if abs(y) >= abs(z) else 2)
    return x, y, z, length, axis


@numba.njit(inline="always")
def in_order(x, y, z, axis):
    """Three numbers with that of `axis` first, the others in their order."""
    if axis == 0:
        return x, y, z
    if axis == 1:
        return y, x, z
    return z, x, y


@numba.njit(inline="always")
def in_place(a, b, c, axis):
    """What `in_order` does, undone."""
    if axis == 0:
        return a, b, c
    if axis == 1:
        return b, a, c
    return b, c, a


@numba.njit(inline="always")
def planes(origin, direction, begin, end):
    """The first and the last lattice plane that a ray passes between two places on its way."""
    p, q = origin + begin * direction, origin + end * direction
    return math.ceil(min(p, q)), math.floor(max(p, q))


@numba.njit(inline="always")
def near_the_point(length, truncation):
    """Where the part of a ray begins and ends that tells of the surface."""
    return max(length - truncation, 0.0), length + truncation


@numba.njit(inline="always")
def free_way(length, truncation, near):
    """Where the part of a ray begins and ends that tells of free space: before what tells of the surface."""
    return near, max(length - truncation, near)


@numba.njit(parallel=True, cache=True, nogil=True)
def ray_blocks(points, numbers, side, free, found, counts):
    """found (N, most) and counts (N,) are outputs; -1 for a ray that leads too far. free: of the free way of
    rays, not of what is near their points."""
    for i in numba.prange(len(points)):
        x, y, z, length, axis = followed(points, i, numbers)
        if length < 0:
            continue
        va, vb, vc = in_order(x, y, z, axis)
        oa, ob, oc = in_order(numbers[0], numbers[1], numbers[2], axis)
        begin, end = free_way(length, numbers[3], numbers[4]) if free else near_the_point(length, numbers[3])
        first, last = planes(oa, va, begin, end)
        count = 0
        for plane in range(np.int64(last - first) + 1):
            a = first + plane
            t = (a - oa) / va
            b, c = math.floor(ob + t * vb), math.floor(oc + t * vc)
            for corner in range(4):
                u, v = b + (corner >> 1), c + (corner & 1)
                ba, bb, bc = math.floor(a / side), math.floor(u / side), math.floor(v / side)
                if not in_range(ba, bb, bc):
                    count = -1
                    break
                ix, iy, iz = in_place(np.int64(ba), np.int64(bb), np.int64(bc), axis)
                key = pack_key(0, ix, iy, iz)
                new = True
                for k in range(min(count, RECENT_OF_RAY)):
                    if found[i, count - 1 - k] == key:
                        new = False
                        break
                if new:
                    found[i, count] = key
                    count += 1
            if count < 0:
                break
        counts[i] = count


@numba.njit(parallel=True, cache=True, nogil=True)
def keep_known(slot_keys, slot_rows, found, counts):
    """Leave of the keys in each row of `found` those that the table has, in their order."""
    for i in numba.prange(len(counts)):
        kept = 0
        for k in range(counts[i]):
            if find(slot_keys, slot_rows, found[i, k]) >= 0:
                found[i, kept] = found[i, k]
                kept += 1
        counts[i] = kept


@numba.njit(parallel=True, cache=True, nogil=True)
def join(found, counts, ends, keys, rays):
    """Rows of `found` (N, most), counts[i] of each, one after the other: keys (S,) and rays (S,)."""
    for i in numba.prange(len(counts)):
        begin = ends[i] - counts[i]
        for k in range(counts[i]):
            keys[begin + k], rays[begin + k] = found[i, k], i
