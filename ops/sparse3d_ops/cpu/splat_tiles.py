"""Numba bodies that list the splats of each tile, front to back.

Splats are sorted once by depth, and stripes of tiles are filled side by side: each walks all splats in that
order and takes those that reach it.
"""

import math

import numba
import numpy as np

from sparse3d_ops.cpu.radix import sort_cells


def by_depth(depths: np.ndarray, reach: np.ndarray) -> np.ndarray:
    """Rows of what is seen, nearest first; of two at one depth the lower row."""
    if depths.dtype == np.float64:
        rows = np.flatnonzero(reach[:, 0] > 0)
        return rows[np.argsort(depths[rows], kind="stable")].astype(np.int32)
    # Floats above 0 are in the order of their bits.
    cells = np.where(reach[:, 0] > 0, depths.view(np.int32).astype(np.int64), -1)
    return sort_cells(cells, 31)[1]


@numba.njit(nogil=True)
def _within(place, tiles):
    """Rounded down, into [0, tiles]; 0 for NaN."""
    if not place > 0:
        return 0
    return int(math.floor(place)) if place < tiles else tiles


@numba.njit(nogil=True)
def _span(middle, reach, tile, tiles):
    """First tile and the one behind the last that [middle - reach, middle + reach] meets."""
    first, last = _within((middle - reach) / tile, tiles), _within((middle + reach) / tile + 1, tiles)
    return first, max(first, last)


@numba.njit(parallel=True, cache=True, nogil=True)
def count(means2d, reach, depths, tile, across, down, boxes, offsets):
    """boxes (N, 4): first and last tile + 1, across and down; offsets (N + 1,): where the slots of a splat
    begin, one a tile of its box. Returns how many there are, -1 where one that is listed is not in front."""
    behind = 0
    for n in numba.prange(len(boxes)):
        boxes[n] = 0
        if reach[n, 0] > 0:
            behind += not depths[n] > 0
            boxes[n, 0], boxes[n, 1] = _span(means2d[n, 0], reach[n, 0], tile, across)
            boxes[n, 2], boxes[n, 3] = _span(means2d[n, 1], reach[n, 1], tile, down)
    slots = np.int64(0)
    for n in range(len(boxes)):
        offsets[n] = slots
        slots += np.int64(boxes[n, 1] - boxes[n, 0]) * (boxes[n, 3] - boxes[n, 2])
    offsets[len(boxes)] = slots
    return slots if behind == 0 else np.int64(-1)


@numba.njit(parallel=True, cache=True, nogil=True)
def fill(order, boxes, offsets, across, down, stripes, starts, splats, slots):
    """starts (tiles + 1,): where a tile's list begins; splats (M,) its splats front to back, and slots (M,)
    the place of each among those of its splat. The number of stripes changes nothing but the time."""
    for stripe in numba.prange(stripes):
        begin, end = stripe * down // stripes, (stripe + 1) * down // stripes
        starts[begin * across + 1 : end * across + 1] = 0
        for k in range(len(order)):
            n = order[k]
            for y in range(max(begin, boxes[n, 2]), min(end, boxes[n, 3])):
                for x in range(boxes[n, 0], boxes[n, 1]):
                    starts[y * across + x + 1] += 1
    starts[0] = 0
    for tile in range(across * down):
        starts[tile + 1] += starts[tile]
    for stripe in numba.prange(stripes):
        begin, end = stripe * down // stripes, (stripe + 1) * down // stripes
        free = starts[begin * across : end * across].copy()
        for k in range(len(order)):
            n = order[k]
            wide = boxes[n, 1] - boxes[n, 0]
            for y in range(max(begin, boxes[n, 2]), min(end, boxes[n, 3])):
                for x in range(boxes[n, 0], boxes[n, 1]):
                    tile = (y - begin) * across + x
                    splats[free[tile]] = n
                    slots[free[tile]] = offsets[n] + (y - boxes[n, 2]) * wide + x - boxes[n, 0]
                    free[tile] += 1
