"""Where rays through a truncated distance field have to look: blocks by their place, cells and depths.

A place is inside where its interpolated value is above 0, so its cell has a corner above 0. Those cells are
marked, a bit each, once a picture; what has no mark is passed by in steps as large as a cube without one, and
tiles of pixels keep which depths have any. Notation: a block has a side of 1 << bits lattice points, an
octant 1 << OCTANT; `table` are the addresses of the directory and the pages of `page_table`, the first page
(3) and how many pages there are along each axis (3).
"""

import math

import numba
import numpy as np

TILE = 8  # pixels along a side
PAGE = 3  # a page of the table of blocks holds 1 << PAGE of them along a side
OCTANT = 2  # a word of marks holds 1 << OCTANT cells along a side
SLOTS = 64  # of depth, a bit each


@numba.njit
def place_of(table, a, b, c):
    """Where block (a, b, c) stands: the number of its page in the directory, -1 where that ends before; its
    number in the page."""
    x, y, z = (a >> PAGE) - table[2], (b >> PAGE) - table[3], (c >> PAGE) - table[4]
    inner = (1 << PAGE) - 1
    at = ((a & inner) << PAGE | (b & inner)) << PAGE | (c & inner)
    if x < 0 or y < 0 or z < 0 or x >= table[5] or y >= table[6] or z >= table[7]:
        return np.int64(-1), at
    return (x * table[6] + y) * table[7] + z, at


@numba.njit(cache=True, nogil=True)
def page_table(table, blocks, directory, pages):
    """Rows of blocks (N, 4) by their place: `directory` (D,) int32 numbers the pages, -1 where there is none;
    pages (P, 512) int32 hold rows, -1 where there is no block. Both are outputs and come in -1. Returns how
    many pages there are; `pages` may be empty, then they are only counted."""
    count = 0
    for n in range(len(blocks)):
        page, at = place_of(table, np.int64(blocks[n, 1]), np.int64(blocks[n, 2]), np.int64(blocks[n, 3]))
        if directory[page] < 0:
            directory[page] = count
            count += 1
        if len(pages):
            pages[directory[page], at] = n
    return count


@numba.njit(parallel=True, cache=True, nogil=True)
def points_inside(table, directory, pages, values, blocks, bits, around, words):
    """Outputs: around (N, 8) int32, the rows of the blocks at 4 dx + 2 dy + dz from each, -1 where there is
    none; words (N, W) uint64, a bit for each of the 4^3 points of an octant, whether its value is above 0.
    Octants and points stand in the order of their places, z last."""
    for n in numba.prange(len(blocks)):
        a, b, c = np.int64(blocks[n, 1]), np.int64(blocks[n, 2]), np.int64(blocks[n, 3])
        for k in range(8):
            page, at = place_of(table, a + (k >> 2), b + (k >> 1 & 1), c + (k & 1))
            there = page >= 0 and directory[page] >= 0
            around[n, k] = pages[directory[page], at] if there else -1
        for octant in range(words.shape[1]):
            x, y, z = octant_at(octant, bits)
            x, y, z = x << OCTANT, y << OCTANT, z << OCTANT
            word = np.uint64(0)
            for p in range(4):
                for q in range(4):
                    for r in range(4):
                        bit = np.uint64(values[n, x + p, y + q, z + r] > 0)
                        word |= bit << np.uint64(16 * p + 4 * q + r)
            words[n, octant] = word


@numba.njit
def octant_at(number, bits):
    """Which octant of a block this is along x, y and z."""
    each = bits - OCTANT
    last = (1 << each) - 1
    return number >> (2 * each), number >> each & last, number & last


@numba.njit
def joined(word, after, width, ends):
    """The bits of points or of those one further along an axis, `width` bits away: of those at the `ends` it
    is at the other end of the word `after`."""
    return word | (word >> np.uint64(width) & ~ends) | (after << np.uint64(3 * width) & ends)


@numba.njit(parallel=True, cache=True, nogil=True)
def mark_cells(table, directory, pages, blocks, around, words, bits, cells):
    """cells (N, W) uint64, an output: as `words` of `points_inside`, whether a cell has one of the points at
    its corners inside. The row of a block without any becomes -2 - row in its page. Returns whether blocks
    have one, (N,) bool."""
    found = np.zeros(len(blocks), np.bool_)
    each = bits - OCTANT
    last = (1 << each) - 1
    for n in numba.prange(len(blocks)):
        line = np.empty(8, np.uint64)
        for octant in range(words.shape[1]):
            x, y, z = octant_at(octant, bits)
            for k in range(8):
                p, q, r = x + (k >> 2), y + (k >> 1 & 1), z + (k & 1)
                row = around[n, (p >> each) << 2 | (q >> each) << 1 | r >> each]
                at = ((p & last) << each | q & last) << each | r & last
                line[k] = words[row, at] if row >= 0 else np.uint64(0)
            for k in range(4):
                line[k] = joined(line[2 * k], line[2 * k + 1], 1, np.uint64(0x8888888888888888))
            for k in range(2):
                line[k] = joined(line[2 * k], line[2 * k + 1], 4, np.uint64(0xF000F000F000F000))
            cells[n, octant] = joined(line[0], line[1], 16, np.uint64(0xFFFF000000000000))
            found[n] |= cells[n, octant] != 0
        if not found[n]:
            page, at = place_of(table, np.int64(blocks[n, 1]), np.int64(blocks[n, 2]), np.int64(blocks[n, 3]))
            pages[directory[page], at] = -2 - n
    return found


@numba.njit(parallel=True, cache=True, nogil=True)
def views_of_blocks(blocks, wanted, side, numbers, width, height, tiles, depths):
    """What tiles of pixels can see each of the wanted blocks (N, 4), and how deep: tiles (N, 4) int32, first
    and last row, first and last column, the first row 1 beyond the last where none can; depths (N, 2)
    float64, least and most along the optical axis. Both are outputs."""
    rows, columns = (height + TILE - 1) // TILE, (width + TILE - 1) // TILE
    # Directions are ways @ (column, row, 1): (column, row, 1) z is its inverse @ (place - origin).
    ways = np.empty((3, 3))
    for i in range(9):
        ways[i // 3, i % 3] = numbers[3 + i]
    back = np.linalg.inv(ways)
    for n in numba.prange(len(blocks)):
        tiles[n, 0], tiles[n, 1] = 1, 0
        low, high = math.inf, -math.inf
        left = top = math.inf
        right = bottom = -math.inf
        if not wanted[n]:
            continue
        for corner in range(8):
            x = (blocks[n, 1] + (corner >> 2)) * side - numbers[0]
            y = (blocks[n, 2] + (corner >> 1 & 1)) * side - numbers[1]
            z = (blocks[n, 3] + (corner & 1)) * side - numbers[2]
            u = back[0, 0] * x + back[0, 1] * y + back[0, 2] * z
            v = back[1, 0] * x + back[1, 1] * y + back[1, 2] * z
            w = back[2, 0] * x + back[2, 1] * y + back[2, 2] * z
            low, high = min(low, w), max(high, w)
            if w > 1e-9:
                left, right = min(left, u / w), max(right, u / w)
                top, bottom = min(top, v / w), max(bottom, v / w)
        if high <= 0:
            continue
        if low <= 1e-9:  # the block reaches behind the camera: it may be anywhere in the picture
            low, left, top, right, bottom = 0.0, 0.0, 0.0, float(width), float(height)
        if right < -1 or bottom < -1 or left > width or top > height:
            continue
        left, top = max(left, 1.0), max(top, 1.0)
        right, bottom = min(right, float(width)), min(bottom, float(height))
        tiles[n, 0], tiles[n, 1] = np.int64(top - 1) // TILE, min(np.int64(bottom + 1) // TILE, rows - 1)
        tiles[n, 2], tiles[n, 3] = np.int64(left - 1) // TILE, min(np.int64(right + 1) // TILE, columns - 1)
        depths[n, 0], depths[n, 1] = low, high


@numba.njit(parallel=True, cache=True, nogil=True)
def fill_slots(tiles, depths, begin, thickness, slots):
    """slots (rows, columns) uint64, an output: in which of the slots of depth, each of a thickness, from
    `begin` on, tiles can see a block; tiles and depths of `views_of_blocks`."""
    for line in numba.prange(len(slots)):
        slots[line] = 0
        for n in range(len(tiles)):
            if tiles[n, 0] <= line <= tiles[n, 1]:
                # A little outwards, for what is lost by rounding.
                low = max((depths[n, 0] - begin) / thickness - 1e-3, 0.0)
                high = min((depths[n, 1] - begin) / thickness + 1e-3, SLOTS - 1.0)
                ones = ~np.uint64(0) >> np.uint64(SLOTS - 1 - np.int64(high)) & ~np.uint64(0) << np.uint64(
                    low
                )
                for column in range(tiles[n, 2], tiles[n, 3] + 1):
                    slots[line, column] |= ones
