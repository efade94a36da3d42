"""Numba bodies of the kernel maps. `kernel`, `stride`, `padding`, `dilation` are int64 arrays of three."""

import numba
import numpy as np

from sparse3d_ops.cpu.hashing import find, first_slot, in_range, pack_key


@numba.njit(parallel=True, cache=True, nogil=True)
def neighbors(slot_keys, slot_rows, out, kernel, stride, padding, dilation, table, reverse):
    """table[o, v] = input row at stride * out[o] - padding + dilation * tap(v); reverse is its inverse per
    tap.

    `reverse` comes filled with -1. A tap joins an input to at most one output, so no two threads write one
    entry.
    """
    for o in numba.prange(len(out)):
        v = 0
        for i in range(kernel[0]):
            x = stride[0] * out[o, 1] - padding[0] + dilation[0] * i
            for j in range(kernel[1]):
                y = stride[1] * out[o, 2] - padding[1] + dilation[1] * j
                for k in range(kernel[2]):
                    z = stride[2] * out[o, 3] - padding[2] + dilation[2] * k
                    row = np.int32(-1)
                    if in_range(x, y, z):
                        row = find(slot_keys, slot_rows, pack_key(out[o, 0], x, y, z))
                    table[o, v] = row
                    if row >= 0:
                        reverse[row, v] = o
                    v += 1


@numba.njit(parallel=True, cache=True, nogil=True)
def symmetric_neighbors(slot_keys, slot_rows, sites, kernel, dilation, table):
    """Submanifold map of an odd kernel: row j is the neighbour of i at tap v exactly when i is that of j
    at the mirror tap, so half of the taps are looked up. `table` comes filled with -1."""
    volume = kernel[0] * kernel[1] * kernel[2]
    for row in numba.prange(len(sites)):
        table[row, volume // 2] = row
        for v in range(volume // 2):
            x = sites[row, 1] + dilation[0] * (v // (kernel[1] * kernel[2]) - kernel[0] // 2)
            y = sites[row, 2] + dilation[1] * (v // kernel[2] % kernel[1] - kernel[1] // 2)
            z = sites[row, 3] + dilation[2] * (v % kernel[2] - kernel[2] // 2)
            if in_range(x, y, z):
                other = find(slot_keys, slot_rows, pack_key(sites[row, 0], x, y, z))
                if other >= 0:
                    table[row, v] = other
                    table[other, volume - 1 - v] = row


@numba.njit(inline="always")
def _insert(key, slot_keys, found, count):
    """Add a key to the set `slot_keys`; new ones are appended to `found`. Returns the new count."""
    mask = len(slot_keys) - 1
    slot = first_slot(key, mask)
    while slot_keys[slot] != 0 and slot_keys[slot] != key:
        slot = (slot + 1) & mask
    if slot_keys[slot] == 0:
        slot_keys[slot] = key
        found[count] = key
        count += 1
    return count


@numba.njit(inline="always")
def _inside(x, y, z, shape):
    """In the bounded grid when `shape` has three entries; an unbounded grid (no entries) has all voxels."""
    if len(shape) == 0:
        return True
    return 0 <= x < shape[0] and 0 <= y < shape[1] and 0 <= z < shape[2]


@numba.njit(cache=True, nogil=True)
def strided_sites(sites, kernel, stride, padding, dilation, shape, slot_keys, found):
    """Keys of the outputs reached by any input, unsorted: o = (in + padding - dilation * tap) / stride where
    whole.

    Returns their count, or -1 - n when input n reaches beyond the key. The table must have room for every
    candidate.
    """
    slot_keys[:] = 0
    count = 0
    for n in range(len(sites)):
        for i in range(kernel[0]):
            x = sites[n, 1] + padding[0] - dilation[0] * i
            if x % stride[0] != 0:
                continue
            for j in range(kernel[1]):
                y = sites[n, 2] + padding[1] - dilation[1] * j
                if y % stride[1] != 0:
                    continue
                for k in range(kernel[2]):
                    z = sites[n, 3] + padding[2] - dilation[2] * k
                    if z % stride[2] != 0:
                        continue
                    ox, oy, oz = x // stride[0], y // stride[1], z // stride[2]
                    if _inside(ox, oy, oz, shape):
                        if not in_range(ox, oy, oz):
                            return -1 - n
                        count = _insert(pack_key(sites[n, 0], ox, oy, oz), slot_keys, found, count)
    return count


@numba.njit(cache=True, nogil=True)
def transposed_sites(sites, kernel, stride, padding, dilation, shape, slot_keys, found):
    """Keys of the outputs of a transposed convolution, unsorted: o = stride * in - padding + dilation * tap.

    Returns as `strided_sites` does.
    """
    slot_keys[:] = 0
    count = 0
    for n in range(len(sites)):
        for i in range(kernel[0]):
            x = stride[0] * sites[n, 1] - padding[0] + dilation[0] * i
            for j in range(kernel[1]):
                y = stride[1] * sites[n, 2] - padding[1] + dilation[1] * j
                for k in range(kernel[2]):
                    z = stride[2] * sites[n, 3] - padding[2] + dilation[2] * k
                    if _inside(x, y, z, shape):
                        if not in_range(x, y, z):
                            return -1 - n
                        count = _insert(pack_key(sites[n, 0], x, y, z), slot_keys, found, count)
    return count
