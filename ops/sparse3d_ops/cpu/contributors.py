"""Numba body of the strongest splats of each pixel; `surfel_blend` walks through a tile in the same way."""

import numba
import numpy as np

from sparse3d_ops.cpu.lanes import LANES, any_lane, exp2, least, load, spread_number, steps, store, where
from sparse3d_ops.cpu.pair_lists import take
from sparse3d_ops.cpu.splat_blend import LOOK, PIXELS, TILE, closed, open_tile, rows_between
from sparse3d_ops.cpu.surfel_blend import OPACITY, REACH, U_X, V_X, W_X, X, Y, meet


@numba.njit(parallel=True, cache=True, nogil=True)
def strongest(packed, starts, splats, limits, orthographic, threads, ids, weights):
    """ids and weights (H, W, K) are outputs. Returns False where a list is out of range."""
    height, width, count = ids.shape
    least_alpha, most_alpha, stop, near, low_pass = limits[0], limits[1], limits[2], limits[3], limits[4]
    across = (width + TILE - 1) // TILE
    tiles, taken, wrong = len(starts) - 1, np.zeros(1, np.int64), np.zeros(1, np.int64)
    for _ in numba.prange(threads):
        reaching, mine = np.empty(PIXELS, packed.dtype), np.empty(LANES, packed.dtype)
        tile = take(taken)
        while tile < tiles:
            top, left = tile // across * TILE, tile % across * TILE
            rows, columns = min(TILE, height - top), min(TILE, width - left)
            open_tile(reaching, rows, columns)
            ids[top : top + rows, left : left + columns] = -1
            weights[top : top + rows, left : left + columns] = 0
            begin, end = starts[tile], starts[tile + 1]
            if not 0 <= begin <= end <= len(splats):
                begin, end, wrong[0] = 0, 0, 1
            for k in range(begin, end):
                n = splats[k]
                if not 0 <= n < len(packed):
                    wrong[0] = 1
                    break
                splat = packed[n]
                if splat[OPACITY] == 0:
                    continue
                first, last = rows_between(splat[Y], splat[REACH], top, rows)
                x = steps(stop) + (left + np.float64(0.5) - splat[X])
                from_x_u, from_x_v, from_x_w = x * splat[U_X], x * splat[V_X], x * splat[W_X] + 1.0
                for row in range(first, last):
                    y = packed.dtype.type(top + row + np.float64(0.5) - splat[Y])
                    power = meet(splat, x, y, from_x_u, from_x_v, from_x_w, near, low_pass, orthographic)[0]
                    none = spread_number(packed.dtype.type(0))
                    alpha = least(exp2(none - power) * splat[OPACITY], spread_number(most_alpha))
                    light = load(reaching, row * TILE)
                    counts = (alpha >= least_alpha) & (light >= stop)
                    if any_lane(counts):
                        weight = where(counts, alpha * light, none)
                        store(light - weight, reaching, row * TILE)
                        store(weight, mine, 0)
                        for column in range(columns):
                            if mine[column] > weights[top + row, left + column, count - 1]:
                                _insert(
                                    ids[top + row, left + column],
                                    weights[top + row, left + column],
                                    n,
                                    mine[column],
                                )
                if (k - begin) % LOOK == LOOK - 1 and closed(reaching, stop):
                    break
            tile = take(taken)
    return wrong[0] == 0


@numba.njit(nogil=True)
def _insert(ids, weights, splat, weight):
    """In place of the last one, before those that are smaller."""
    place = len(ids) - 1
    while place > 0 and weight > weights[place - 1]:
        ids[place], weights[place] = ids[place - 1], weights[place - 1]
        place -= 1
    ids[place], weights[place] = splat, weight
