"""Where a table of voxels holds any at all, as one bit a block: rays pass what is empty without a look into
the table, whose slots lie all over memory.
"""

import numba
import numpy as np

from sparse3d_ops.cpu.hashing import HALF, fields

MOST_BITS = 1 << 22  # of the fine map: half a megabyte, which caches hold
COARSER = 2  # a block of the coarse map is 4 x 4 x 4 of the fine one


@numba.njit(cache=True, nogil=True)
def bounds(slot_keys):
    """The box of the voxels of batch 0: low (3,) and extent (3,) int64, extents of 0 where there are none."""
    low, high = np.full(3, np.int64(1 << 18)), np.full(3, np.int64(-1))
    for key in slot_keys:
        if key != 0:
            batch, x, y, z = fields(key)
            if batch == 0:
                low[0], low[1], low[2] = min(low[0], x), min(low[1], y), min(low[2], z)
                high[0], high[1], high[2] = max(high[0], x), max(high[1], y), max(high[2], z)
    if high[0] < 0:
        return np.zeros(3, np.int64), np.zeros(3, np.int64)
    return low - HALF, high - low + 1


@numba.njit(cache=True, nogil=True)
def blocks_along(extent, shift):
    """How many blocks of 2^shift voxels a side make up the box: (3,) int64."""
    return (extent + (1 << shift) - 1) >> shift


@numba.njit(cache=True, nogil=True)
def fine_shift(extent):
    """The smallest blocks whose bits are at most MOST_BITS, as the logarithm of their side."""
    shift = np.int64(0)
    while blocks_along(extent, shift).prod() > MOST_BITS:
        shift += 1
    return shift


@numba.njit(inline="always")
def _bit(x, y, z, shift, along_y, along_z):
    return ((x >> shift) * along_y + (y >> shift)) * along_z + (z >> shift)


@numba.njit(cache=True, nogil=True)
def mark(slot_keys, low, extent, shift):
    """A bit for each block of 2^shift voxels a side, which is set where it holds a voxel of batch 0: (words,)
    uint64."""
    along = blocks_along(extent, shift)
    bits = np.zeros((along.prod() + 63) >> 6, np.uint64)
    for key in slot_keys:
        if key != 0:
            batch, x, y, z = fields(key)
            if batch == 0:
                x, y, z = x - HALF - low[0], y - HALF - low[1], z - HALF - low[2]
                at = _bit(x, y, z, shift, along[1], along[2])
                bits[at >> 6] |= np.uint64(1) << np.uint64(at & 63)
    return bits


@numba.njit(inline="always")
def is_marked(bits, x, y, z, shift, along_y, along_z):
    """Whether the block of a voxel (x, y, z), counted from `low` of the box that it lies in, is set."""
    at = _bit(x, y, z, shift, along_y, along_z)
    return (bits[at >> 6] >> np.uint64(at & 63)) & np.uint64(1) != 0
