"""Numba bodies of the kernel maps. `kernel`, `stride`, `padding`, `dilation` are int64 arrays of three.

Neither body looks into a hash table. Keys sort as (batch, x, y, z) do, and for one pair of taps on x and y
the keys that sorted outputs ask for only grow: two pointers walk both lists in step, through memory in order.
This is several times faster than a probe for each output and tap, and the map is the same.
"""

import numba
import numpy as np

from sparse3d_ops.cpu.hashing import HALF, in_range, pack_key

NONE = np.int64(-(1 << 62))  # this input has no output on the axis at this tap
FAR = NONE + np.int64(1)  # it has one that a key cannot hold
CHUNK = 1 << 10  # voxels that a thread takes at a time: their part of a table stays in cache


@numba.njit(cache=True, nogil=True)
def is_sorted(keys):
    for i in range(1, len(keys)):
        if keys[i] < keys[i - 1]:
            return False
    return True


@numba.njit(cache=True, nogil=True)
def table_keys(slot_keys, slot_rows, keys):
    """The keys of a hash table, in the order of their rows."""
    for slot in range(len(slot_keys)):
        if slot_keys[slot] != 0:
            keys[slot_rows[slot]] = slot_keys[slot]


@numba.njit(inline="always")
def _bisect(keys, key):
    """First position whose key is not smaller."""
    low, high = 0, len(keys) - 1
    while low < high:
        middle = (low + high) // 2
        if keys[middle] < key:
            low = middle + 1
        else:
            high = middle
    return low


@numba.njit(parallel=True, cache=True, nogil=True)
def neighbors(keys, out, kernel, stride, padding, dilation, mirrored, table, reverse):
    """table[o, v] = input row at stride * out[o] - padding + dilation * tap(v); reverse is its inverse per
    tap.

    `keys` are those of the inputs, sorted, and a 0, which is larger than any, at the end; `out` is sorted,
    too. Both tables come filled with -1. `mirrored` says that inputs and outputs are the same and the kernel
    is centred: then b is the neighbour of a at one tap when a is that of b at the opposite one, and half of
    the taps are enough. No two threads write different values.
    """
    chunks = (len(out) + CHUNK - 1) // CHUNK
    reach = dilation[2] * (kernel[2] - 1)
    columns, volume = kernel[0] * kernel[1], kernel[0] * kernel[1] * kernel[2]
    if mirrored:
        columns = columns // 2 + 1
    for chunk in numba.prange(chunks):
        begin, end = chunk * CHUNK, min(len(out), (chunk + 1) * CHUNK)
        for column in range(columns):
            i, j, first_tap = column // kernel[1], column % kernel[1], column * kernel[2]
            position = -1
            for o in range(begin, end):
                x = stride[0] * out[o, 1] - padding[0] + dilation[0] * i
                y = stride[1] * out[o, 2] - padding[1] + dilation[1] * j
                if not in_range(x, y, 0):
                    continue
                z = stride[2] * out[o, 3] - padding[2]
                if z >= HALF or z + reach < -HALF:
                    continue
                # A z beyond its bits would run over into y.
                low = max(z, -HALF)
                wanted = pack_key(out[o, 0], x, y, low)
                last = wanted - low + min(z + reach, HALF - 1)
                if position < 0:
                    position = _bisect(keys, wanted)
                while keys[position] < wanted:
                    position += 1
                at = position
                while keys[at] <= last:
                    distance = keys[at] - wanted + low - z
                    if distance % dilation[2] == 0:
                        v = first_tap + distance // dilation[2]
                        table[o, v] = at
                        reverse[at, v] = o
                        if mirrored:
                            table[at, volume - 1 - v] = o
                            reverse[o, volume - 1 - v] = at
                    at += 1


@numba.njit(parallel=True, cache=True, nogil=True)
def relabel(ordered, rows, values, table):
    """table[rows[n], v] = values[ordered[n, v]], -1 where there is none: from places in sorted lists to rows.
    An empty list stands for rows that are sorted already."""
    for n in numba.prange(len(ordered)):
        row = np.int64(rows[n]) if len(rows) else np.int64(n)
        for v in range(ordered.shape[1]):
            place = ordered[n, v]
            table[row, v] = values[place] if len(values) and place >= 0 else place


@numba.njit(inline="always")
def _reached(transposed, place, tap, axis, stride, padding, dilation):
    """Output (in + padding - dilation * tap) / stride of an input on one axis, and whether it is whole; of a
    transposed convolution stride * in - padding + dilation * tap."""
    place = np.int64(place)
    offset = padding[axis] - dilation[axis] * tap
    if transposed:
        out, whole = stride[axis] * place - offset, True
    else:
        out = (place + offset) // stride[axis]
        whole = out * stride[axis] == place + offset
    return out, whole


@numba.njit(parallel=True, cache=True, nogil=True)
def candidates(sites, transposed, kernel, stride, padding, dilation, shape, reach, found, counts, far):
    """Keys of the outputs that inputs reach, with repeats but for those that meet at once.

    Chunk c of CHUNK inputs, which reach at most `reach` outputs each, lists counts[c] keys from
    found[c * CHUNK * reach] on. far[c] is its first input with an output that a key cannot hold, else
    -1. `shape` has three entries, or none for an unbounded grid.
    """
    columns, volume = kernel[1] * kernel[2], kernel[0] * kernel[1] * kernel[2]
    for chunk in numba.prange(len(counts)):
        start = chunk * CHUNK * reach
        at = start
        far[chunk] = -1
        last = np.zeros(volume, np.int64)  # what each tap reached last: neighbours often reach the same
        outputs = np.empty((3, kernel.max()), np.int64)
        for n in range(chunk * CHUNK, min(len(sites), (chunk + 1) * CHUNK)):
            for axis in range(3):
                for tap in range(kernel[axis]):
                    out, whole = _reached(
                        transposed, sites[n, axis + 1], tap, axis, stride, padding, dilation
                    )
                    inside = len(shape) == 0 or 0 <= out < shape[axis]
                    outputs[axis, tap] = (out if in_range(out, 0, 0) else FAR) if whole and inside else NONE
            for i in range(kernel[0]):
                x = outputs[0, i]
                if x == NONE:
                    continue
                for j in range(kernel[1]):
                    y = outputs[1, j]
                    if y == NONE:
                        continue
                    for k in range(kernel[2]):
                        z = outputs[2, k]
                        if z == NONE:
                            continue
                        if x == FAR or y == FAR or z == FAR:
                            far[chunk] = n if far[chunk] < 0 else far[chunk]
                            continue
                        key = pack_key(sites[n, 0], x, y, z)
                        v = i * columns + j * kernel[2] + k
                        if key != last[v]:
                            last[v] = key
                            found[at] = key
                            at += 1
        counts[chunk] = at - start


@numba.njit(cache=True, nogil=True)
def drop_repeats(keys):
    """Move the distinct ones of sorted keys to the front; returns how many."""
    count = 0
    for i in range(len(keys)):
        if count == 0 or keys[i] != keys[count - 1]:
            keys[count] = keys[i]
            count += 1
    return count
