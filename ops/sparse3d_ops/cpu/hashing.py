"""Numba bodies of packing, hashing and sorting of voxel keys.

A key is 1 valid bit | 9 bits batch | 3 x 18 bits of x, y, z, each stored with an offset of 2^17. The valid
bit is the sign of the int64: every key is negative, 0 marks a free slot, and keys sort as (batch, x, y, z)
do.
"""

import numba
import numpy as np

HALF = 1 << 17  # coordinates lie in [-HALF, HALF)
BATCHES = 1 << 9
VALID = np.int64(-(1 << 63))


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
    field = np.int64((1 << 18) - 1)
    for i in numba.prange(len(keys)):
        coordinates[i, 0] = (keys[i] >> np.int64(54)) & np.int64(BATCHES - 1)
        coordinates[i, 1] = ((keys[i] >> np.int64(36)) & field) - HALF
        coordinates[i, 2] = ((keys[i] >> np.int64(18)) & field) - HALF
        coordinates[i, 3] = (keys[i] & field) - HALF


@numba.njit(cache=True, nogil=True)
def build(keys, slot_keys, slot_rows):
    """Fill an open-addressing table in row order. Returns (first row, repeating row) of a duplicate, else
    (-1, -1)."""
    slot_keys[:] = 0
    mask = len(slot_keys) - 1
    for i in range(len(keys)):
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


@numba.njit(cache=True, nogil=True)
def distinct(keys, slot_keys, slot_rows, inverse, found):
    """Number the distinct keys in order of first appearance: found[id] = key, inverse[i] = id. Returns how
    many."""
    slot_keys[:] = 0
    mask = len(slot_keys) - 1
    count = 0
    for i in range(len(keys)):
        key = keys[i]
        slot = first_slot(key, mask)
        while slot_keys[slot] != 0 and slot_keys[slot] != key:
            slot = (slot + 1) & mask
        if slot_keys[slot] == 0:
            slot_keys[slot] = key
            slot_rows[slot] = count
            found[count] = key
            count += 1
        inverse[i] = slot_rows[slot]
    return count


@numba.njit(cache=True, nogil=True)
def renumber(inverse, rank, counts):
    """Replace ids by their rank in sorted order and count each."""
    counts[:] = 0
    for i in range(len(inverse)):
        inverse[i] = rank[inverse[i]]
        counts[inverse[i]] += 1
