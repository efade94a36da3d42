"""Which inputs meet which outputs within a part of a kernel map, for the bodies of the convolutions.

Few of the taps of an output have a neighbour. Where a word holds a bit for each tap, only those are walked;
without branches else, one tap after the other. Entries are looked at on the way: they must lie in [-1,
inputs).
"""

import numba
import numpy as np

from sparse3d_ops.cpu.microkernel import at_least, lowest_bit, outside, prefetch, take_number

MOST_TAPS = 62  # bits of a word that can be shifted without a thought for its sign
SPARE = 16  # places behind each list: register tiles are filled up with rows that are thrown away


@numba.njit(inline="always")
def take(taken):
    """The number of the next tile that nobody works on, counted in taken (1,). Tiles differ: near a LiDAR
    voxels have four times the neighbours of those far away, so of equal shares one would keep all waiting."""
    return take_number(np.int64(taken.ctypes.data))  # pyright: ignore[reportCallIssue]


@numba.njit(inline="always")
def present(table, output, begin, end, inputs):
    """Bit t tells whether an output has a neighbour at tap `begin` + t; -1 where an entry is not in [-1,
    inputs). For at most MOST_TAPS taps."""
    row, taps = np.int64(table.ctypes.data) + 4 * (output * table.shape[1] + begin), end - begin
    bits, wrong = np.int64(0), np.int64(0)
    if taps < 16:
        for tap in range(taps):
            entry = table[output, begin + tap]
            bits |= np.int64(entry >= 0) << tap
            wrong |= np.int64(entry < -1) | np.int64(entry >= inputs)
        return np.int64(-1) if wrong else bits
    for first in range(0, taps, 16):
        tap = min(first, taps - 16)  # the last sixteen may overlap those before
        bits |= at_least(row + 4 * tap, 0) << tap  # pyright: ignore[reportCallIssue]
        wrong |= outside(row + 4 * tap, inputs)  # pyright: ignore[reportCallIssue]
    return np.int64(-1) if wrong else bits


@numba.njit(inline="always")
def fetch(rows, begin, end, stride):
    """Ask for the listed rows, `stride` bytes each."""
    for p in range(begin, end):
        for line in range(0, stride, 64):
            prefetch(rows[p] + line)  # pyright: ignore[reportCallIssue]


@numba.njit(inline="always")
def list_pairs(table, begin, end, x, x_stride, wanted, out_base, out_stride, x_rows, out_rows, counts):
    """Append the row addresses of the pairs of each tap of a range of outputs; x_rows and out_rows (V,
    places) and counts (V,) are outputs. The first `wanted` bytes of each row of x are asked for, so that
    they are on their way into the cache. Returns False where an entry is not in [-1, len(x))."""
    volume, inputs, x_base = table.shape[1], len(x), np.int64(x.ctypes.data)
    if 16 <= volume <= MOST_TAPS:
        for o in range(begin, end):
            bits, out_row = present(table, o, 0, volume, inputs), out_base + np.int64(o) * out_stride
            if bits < 0:
                return False
            while bits:
                # Indices without a sign: numba looks at each that has one, whether it counts from the end.
                tap = np.uint64(lowest_bit(bits))  # pyright: ignore[reportCallIssue]
                bits &= bits - 1
                count = np.uint64(counts[tap])
                x_row = x_base + np.int64(table[np.uint64(o), tap]) * x_stride
                for line in range(0, wanted, 64):
                    prefetch(x_row + line)  # pyright: ignore[reportCallIssue]
                x_rows[tap, count] = x_row
                out_rows[tap, count] = out_row
                counts[tap] = np.int64(count) + 1
        return True
    wrong = 0
    for tap in range(volume):
        count = counts[tap]
        for o in range(begin, end):
            row = table[o, tap]
            x_rows[tap, count] = x_base + np.int64(row) * x_stride
            out_rows[tap, count] = out_base + np.int64(o) * out_stride
            count += 1 if row >= 0 else 0
            wrong += row < -1 or row >= inputs
        fetch(x_rows[tap], counts[tap], count, wanted)
        counts[tap] = count
    return wrong == 0


@numba.njit(inline="always")
def list_runs(table, first, last, every, length, x, x_stride, out_base, out_stride, x_rows, out_rows, counts):
    """As `list_pairs`, of the outputs of runs `first`, `first` + `every`, .. before `last`, `length` outputs
    each, into lists that begin anew. Nothing is listed where an entry is wrong."""
    counts[:] = 0
    right = True
    for run in range(first, last, every):
        begin, end = run * length, min(len(table), (run + 1) * length)
        if not list_pairs(table, begin, end, x, x_stride, 0, out_base, out_stride, x_rows, out_rows, counts):
            right = False
            counts[:] = 0
    return right
