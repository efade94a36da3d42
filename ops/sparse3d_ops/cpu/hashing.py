"""Numba bodies of packing and hashing voxel keys, and of their sorted set.

A key is 1 valid bit | 9 bits batch | 3 x 18 bits of x, y, z, each stored with an offset of 2^17. The valid
bit is the sign of the int64: every key is negative, 0 marks a free slot, and keys sort as (batch, x, y, z)
do.
"""

import numba
import numpy as np

from sparse3d_ops.cpu.microkernel import prefetch

HALF = 1 << 17  # coordinates lie in [-HALF, HALF)
BATCHES = 1 << 9
VALID = np.int64(-(1 << 63))
AHEAD = 12  # keys whose slots are fetched before they are needed
MOST_CHUNKS = 64  # parts that are looked at side by side, however many threads there are


@numba.njit(inline="always")
def pack_key(b, x, y, z):
    """Key of one voxel; the caller has checked the range."""
    return (
        VALID
        | (np.int64(b) << np.int64(54))
        | ((np.int64(x) + HALF) << np.int64(36))
        | ((np.int64(y) + HALF) << np.int64(18))
        | (np.int64(z) + HALF)
    )


@numba.njit(inline="always")
def fields(key):
    """Batch and x, y, z of a key, these three with their offset."""
    field = np.int64((1 << 18) - 1)
    batch = (key >> np.int64(54)) & np.int64(BATCHES - 1)
    return batch, (key >> np.int64(36)) & field, (key >> np.int64(18)) & field, key & field


@numba.njit(inline="always")
def in_range(x, y, z):
    return -HALF <= x < HALF and -HALF <= y < HALF and -HALF <= z < HALF


@numba.njit(inline="always")
def first_slot(key, mask):
    """Splitmix64's finaliser: every bit of the key moves every bit of the slot."""
    h = np.uint64(key)
    h = (h ^ (h >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    h = (h ^ (h >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.int64((h ^ (h >> np.uint64(31))) & np.uint64(mask))


@numba.njit(inline="always")
def find(slot_keys, slot_rows, key):
    """Row stored under the key, -1 when there is none."""
    mask = len(slot_keys) - 1
    slot = first_slot(key, mask)
    while True:
        stored = slot_keys[slot]
        if stored == 0:  # first, so that 0, which is no voxel's key, is never found in a free slot
            return np.int32(-1)
        if stored == key:
            return slot_rows[slot]
        slot = (slot + 1) & mask


@numba.njit(cache=True, nogil=True)
def first_bad_row(coordinates):
    """First row that does not fit the key, -1 when all do."""
    for i in range(len(coordinates)):
        b, x, y, z = coordinates[i]
        if not (0 <= b < BATCHES and in_range(x, y, z)):
            return i
    return -1


@numba.njit(parallel=True, cache=True, nogil=True)
def pack(coordinates, keys):
    for i in numba.prange(len(coordinates)):
        keys[i] = pack_key(coordinates[i, 0], coordinates[i, 1], coordinates[i, 2], coordinates[i, 3])


@numba.njit(parallel=True, cache=True, nogil=True)
def unpack(keys, coordinates):
    for i in numba.prange(len(keys)):
        b, x, y, z = fields(keys[i])
        coordinates[i, 0] = b
        coordinates[i, 1], coordinates[i, 2], coordinates[i, 3] = x - HALF, y - HALF, z - HALF


@numba.njit(cache=True, nogil=True)
def build(keys, slot_keys, slot_rows):
    """Fill an open-addressing table in row order. Returns (first row, repeating row) of a duplicate, else
    (-1, -1)."""
    slot_keys[:], slot_rows[:] = 0, 0
    mask = len(slot_keys) - 1
    keys_at, rows_at = np.int64(slot_keys.ctypes.data), np.int64(slot_rows.ctypes.data)
    for i in range(len(keys)):
        if i + AHEAD < len(keys):
            slot = first_slot(keys[i + AHEAD], mask)
            prefetch(keys_at + 8 * slot)  # pyright: ignore[reportCallIssue]
            prefetch(rows_at + 4 * slot)  # pyright: ignore[reportCallIssue]
        key = keys[i]
        slot = first_slot(key, mask)
        while slot_keys[slot] != 0:
            if slot_keys[slot] == key:
                return slot_rows[slot], i
            slot = (slot + 1) & mask
        slot_keys[slot] = key
        slot_rows[slot] = i
    return -1, -1


@numba.njit(parallel=True, cache=True, nogil=True)
def look_up(slot_keys, slot_rows, keys, rows):
    for i in numba.prange(len(keys)):
        rows[i] = find(slot_keys, slot_rows, keys[i])


@numba.njit(parallel=True, cache=True, nogil=True)
def field_ranges(keys):
    """Smallest batch, x, y, z of the keys, and how many values each field spans: two int64 (4,)."""
    chunks = min(MOST_CHUNKS, len(keys) // (1 << 14) + 1)
    length = (len(keys) + chunks - 1) // chunks
    low, high = np.empty((chunks, 4), np.int64), np.empty((chunks, 4), np.int64)
    for c in numba.prange(chunks):
        b0 = x0 = y0 = z0 = np.int64(1 << 18)
        b1 = x1 = y1 = z1 = np.int64(0)
        for i in range(c * length, min((c + 1) * length, len(keys))):
            b, x, y, z = fields(keys[i])
            b0, x0, y0, z0 = min(b0, b), min(x0, x), min(y0, y), min(z0, z)
            b1, x1, y1, z1 = max(b1, b), max(x1, x), max(y1, y), max(z1, z)
        low[c, 0], low[c, 1], low[c, 2], low[c, 3] = b0, x0, y0, z0
        high[c, 0], high[c, 1], high[c, 2], high[c, 3] = b1, x1, y1, z1
    for c in range(1, chunks):
        for k in range(4):
            low[0, k], high[0, k] = min(low[0, k], low[c, k]), max(high[0, k], high[c, k])
    extent = np.empty(4, np.int64)
    for k in range(4):
        extent[k] = max(1, high[0, k] - low[0, k] + 1)
    return low[0], extent


@numba.njit(parallel=True, cache=True, nogil=True)
def cells(keys, low, extent, cell):
    """Keys as indices into the box that holds them, in the same order; at most 9 + 54 bits. cell (N,) int64
    is an output."""
    for i in numba.prange(len(keys)):
        b, x, y, z = fields(keys[i])
        column = ((b - low[0]) * extent[1] + (x - low[1])) * extent[2] + (y - low[2])
        cell[i] = column * extent[3] + (z - low[3])


@numba.njit(parallel=True, cache=True, nogil=True)
def distinct(keys, cell, row, first, found, inverse, offsets):
    """Of sorted cells and their rows: found (M,) the distinct keys, inverse (N,) which of them a row has, and
    offsets (M + 1,) the places where the rows of each begin. `first` (chunks,) comes from `count_runs`."""
    chunks = len(first)
    length = (len(cell) + chunks - 1) // chunks
    for c in numba.prange(chunks):
        at = first[c] - 1
        for k in range(c * length, min((c + 1) * length, len(cell))):
            if k == 0 or cell[k] != cell[k - 1]:
                at += 1
                offsets[at] = k
                found[at] = keys[row[k]]
            inverse[row[k]] = at
    offsets[len(offsets) - 1] = len(cell)
