"""Numba bodies of blending Gaussians front to back, a tile of 16 x 16 pixels at a time.

A row of a tile is one vector of 16 lanes. Forward and backward walk a tile's list from the front and see the
same bits of transmittance: the way back needs no state of the pixels, only what they came to. What lies
behind a splat is what the pixel came to without what was seen up to it.

A tile belongs to one thread; which one does not matter. Backward writes a row for each splat of each tile to
a place of its own, and `sum_slots` adds those of a splat in the order of its tiles.
"""

import math

import numba
import numpy as np

from sparse3d_ops.cpu.lanes import (
    any_lane,
    exp2,
    largest,
    least,
    load,
    magnitude,
    multiply_add,
    spread_number,
    steps,
    store,
    total,
    where,
)
from sparse3d_ops.cpu.pair_lists import take
from sparse3d_ops.splat_blend import GRADIENTS
from sparse3d_ops.splat_tiles import TILE as TILE

PIXELS = TILE * TILE
LOG2_E = math.log2(math.e)
# Splats of a tile between two looks at whether light still gets through one of its pixels.
LOOK = 16
SPARE = 0.01  # px
# Columns of a packed splat before its features: mean, the form's three coefficients, opacity and how far it
# reaches up and down.
X, Y, XX, XY, YY, OPACITY, REACH, FEATURES = range(8)


@numba.njit(parallel=True, cache=True, nogil=True)
def pack(means2d, conics, opacities, features, limits, out):
    """out (N, FEATURES + C): everything of a splat side by side, its form in powers of two; of one that
    cannot be seen zeros instead, and its features."""
    least_alpha = np.float64(limits[0])
    for n in numba.prange(len(out)):
        # In double the determinant of a float32 conic is exact: that of a needle cancels.
        a, b, c = np.float64(conics[n, 0]), np.float64(conics[n, 1]), np.float64(conics[n, 2])
        x, y, opacity = means2d[n, 0], means2d[n, 1], np.float64(opacities[n])
        determinant = a * c - b * b
        ellipse = a > 0 and determinant > 0 and determinant < math.inf
        for k in range(FEATURES):
            out[n, k] = 0
        if ellipse and opacity > least_alpha and abs(x) < math.inf and abs(y) < math.inf:
            out[n, X], out[n, Y], out[n, OPACITY] = x, y, opacities[n]
            out[n, XX], out[n, XY], out[n, YY] = -0.5 * LOG2_E * a, -LOG2_E * b, -0.5 * LOG2_E * c
            # Where the opacity falls to least_alpha: the ellipse's box, which no pixel that counts is outside
            # of.
            reach = math.sqrt(2 * math.log(opacity / least_alpha) * a / determinant)
            out[n, REACH] = min(reach, 1e9)
        for k in range(features.shape[1]):
            out[n, FEATURES + k] = features[n, k]


@numba.njit(nogil=True)
def rows_between(middle, reach, top, height):
    """The rows of a tile whose pixels' middles a splat reaches, with a little to spare for rounding."""
    middle, reach = middle - top - 0.5, reach + SPARE
    first, last = math.ceil(middle - reach), math.floor(middle + reach) + 1.0
    return int(min(max(first, 0.0), height)), int(max(min(last, height), 0.0))


@numba.njit(nogil=True)
def open_tile(reaching, rows, columns):
    """Light gets through the pixels of the image, and none through those outside of it."""
    for row in range(TILE):
        for column in range(TILE):
            reaching[row * TILE + column] = 1.0 if row < rows and column < columns else 0.0


@numba.njit(nogil=True)
def closed(reaching, stop):
    """Whether less than `stop` gets through every pixel."""
    most = largest(load(reaching, 0))  # pyright: ignore[reportCallIssue]
    for row in range(1, TILE):
        most = max(most, largest(load(reaching, row * TILE)))
    return most < stop


@numba.njit(parallel=True, cache=True, nogil=True)
def blend(packed, starts, splats, limits, threads, image, through):
    """image (H, W, C) = sum of weights times features, through (H, W) what passes all splats.

    packed (N, FEATURES + C), starts (tiles + 1,), splats (M,): what lies in a tile, front to back. limits:
    least alpha, largest alpha, the transmittance to stop at. Returns False where a list is out of range.
    """
    height, width, channels = image.shape
    least_alpha, most_alpha, stop = limits[0], limits[1], limits[2]
    across = (width + TILE - 1) // TILE
    tiles, taken, wrong = len(starts) - 1, np.zeros(1, np.int64), np.zeros(1, np.int64)
    for _ in numba.prange(threads):
        reaching = np.empty(PIXELS, packed.dtype)
        sums = np.empty(PIXELS * max(channels, 1), packed.dtype)
        tile = take(taken)
        while tile < tiles:
            top, left = tile // across * TILE, tile % across * TILE
            rows, columns = min(TILE, height - top), min(TILE, width - left)
            open_tile(reaching, rows, columns)
            sums[:] = 0
            begin, end = starts[tile], starts[tile + 1]
            if not 0 <= begin <= end <= len(splats):
                begin, end, wrong[0] = 0, 0, 1
            for k in range(begin, end):
                n = splats[k]
                if not 0 <= n < len(packed):
                    wrong[0] = 1
                    break
                splat = packed[n]
                middle, of_yy, opacity = splat[Y], splat[YY], splat[OPACITY]
                if opacity == 0:
                    continue
                first, last = rows_between(middle, splat[REACH], top, rows)
                x = steps(stop) + (left + np.float64(0.5) - splat[X])
                from_x, of_xx = x * splat[XY], x * x * splat[XX]
                for row in range(first, last):
                    y = packed.dtype.type(top + row + np.float64(0.5) - middle)
                    power = multiply_add(from_x, spread_number(y), of_xx) + y * y * of_yy
                    alpha = least(exp2(power) * opacity, spread_number(most_alpha))
                    light = load(reaching, row * TILE)
                    counts = (alpha >= least_alpha) & (light >= stop)
                    if any_lane(counts):
                        weight = where(counts, alpha * light, spread_number(packed.dtype.type(0)))
                        store(light - weight, reaching, row * TILE)
                        for c in range(channels):
                            place = c * PIXELS + row * TILE
                            feature = spread_number(splat[FEATURES + c])
                            store(multiply_add(weight, feature, load(sums, place)), sums, place)
                if (k - begin) % LOOK == LOOK - 1 and closed(reaching, stop):
                    break
            for row in range(rows):
                for column in range(columns):
                    through[top + row, left + column] = reaching[row * TILE + column]
                    for c in range(channels):
                        image[top + row, left + column, c] = sums[c * PIXELS + row * TILE + column]
            tile = take(taken)
    return wrong[0] == 0


@numba.njit(parallel=True, cache=True, nogil=True)
def blend_backward(
    packed,
    conics,
    starts,
    splats,
    slots,
    limits,
    threads,
    image,
    through,
    of_image,
    of_through,
    wants_absolute,
    out,
):
    """out (M, GRADIENTS + C): what each splat of each tile gets from its pixels, at the rows `slots` (M,).

    With `behind` what a pixel shows behind splat i, of the gradient g in what it shows and with the gradient
    in what gets through: dL/dalpha_i = T_i g . f_i - behind / (1 - alpha_i). Returns False where a list is
    out of range.
    """
    height, width, channels = image.shape
    least_alpha, most_alpha, stop = limits[0], limits[1], limits[2]
    across = (width + TILE - 1) // TILE
    tiles, taken, wrong = len(starts) - 1, np.zeros(1, np.int64), np.zeros(1, np.int64)
    for _ in numba.prange(threads):
        reaching = np.empty(PIXELS, packed.dtype)
        behind = np.empty(PIXELS, packed.dtype)
        wanted = np.empty(PIXELS * max(channels, 1), packed.dtype)
        of_features = np.empty(TILE * max(channels, 1), packed.dtype)
        tile = take(taken)
        while tile < tiles:
            top, left = tile // across * TILE, tile % across * TILE
            rows, columns = min(TILE, height - top), min(TILE, width - left)
            open_tile(reaching, rows, columns)
            wanted[:] = 0
            behind[:] = 0
            for row in range(rows):
                for column in range(columns):
                    y, x, p = top + row, left + column, row * TILE + column
                    shown = of_through[y, x] * through[y, x]
                    for c in range(channels):
                        wanted[c * PIXELS + p] = of_image[y, x, c]
                        shown += of_image[y, x, c] * image[y, x, c]
                    behind[p] = shown
            begin, end = starts[tile], starts[tile + 1]
            if not 0 <= begin <= end <= len(splats):
                begin, end, wrong[0] = 0, 0, 1
            done = end
            for k in range(begin, end):
                n = splats[k]
                if not (0 <= n < len(packed) and 0 <= slots[k] < len(out)):
                    wrong[0] = 1
                    break
                splat = packed[n]
                middle, of_yy, opacity = splat[Y], splat[YY], splat[OPACITY]
                if opacity == 0:
                    out[slots[k]] = 0
                    continue
                first, last = rows_between(middle, splat[REACH], top, rows)
                x = steps(stop) + (left + np.float64(0.5) - splat[X])
                from_x, of_xx = x * splat[XY], x * x * splat[XX]
                none = spread_number(packed.dtype.type(0))
                sum_1, sum_y, sum_yy = none, none, none
                absolute_x, absolute_y = none, none
                a, b, c2 = conics[n, 0], conics[n, 1], conics[n, 2]
                of_features[:] = 0
                for row in range(first, last):
                    y = packed.dtype.type(top + row + np.float64(0.5) - middle)
                    power = multiply_add(from_x, spread_number(y), of_xx) + y * y * of_yy
                    bare = exp2(power) * opacity
                    alpha = least(bare, spread_number(most_alpha))
                    light = load(reaching, row * TILE)
                    counts = (alpha >= least_alpha) & (light >= stop)
                    if any_lane(counts):
                        weight = where(counts, alpha * light, none)
                        store(light - weight, reaching, row * TILE)
                        shown = none
                        for c in range(channels):
                            of_pixel = load(wanted, c * PIXELS + row * TILE)
                            shown = multiply_add(of_pixel, spread_number(splat[FEATURES + c]), shown)
                            mine = load(of_features, c * TILE)
                            store(multiply_add(weight, of_pixel, mine), of_features, c * TILE)
                        rest = load(behind, row * TILE) - weight * shown
                        store(rest, behind, row * TILE)
                        of_alpha = light * shown - rest / (1.0 - alpha)
                        # Where alpha is held down it depends on nothing.
                        of_power = where(counts & (bare <= most_alpha), of_alpha * alpha, none)
                        sum_1 = sum_1 + of_power
                        sum_y = multiply_add(of_power, spread_number(y), sum_y)
                        sum_yy = multiply_add(of_power, spread_number(y * y), sum_yy)
                        if wants_absolute:
                            along = of_power * x
                            of_x = along * a + of_power * (b * y)
                            of_y = along * b + of_power * (c2 * y)
                            absolute_x = absolute_x + magnitude(of_x)
                            absolute_y = absolute_y + magnitude(of_y)
                row_of = out[slots[k]]
                sum_x = sum_1 * x  # x is the same in all rows
                moved_x, moved_y = total(sum_x), total(sum_y)
                row_of[0] = a * moved_x + b * moved_y
                row_of[1] = b * moved_x + c2 * moved_y
                row_of[2] = -0.5 * total(sum_x * x)
                row_of[3] = -total(sum_y * x)
                row_of[4] = -0.5 * total(sum_yy)
                row_of[5] = total(sum_1) / opacity
                row_of[6], row_of[7] = total(absolute_x), total(absolute_y)
                for c in range(channels):
                    row_of[GRADIENTS + c] = total(load(of_features, c * TILE))
                if (k - begin) % LOOK == LOOK - 1 and closed(reaching, stop):
                    done = k + 1
                    break
            for k in range(done, end):
                if 0 <= slots[k] < len(out):
                    out[slots[k]] = 0
                else:
                    wrong[0] = 1
            tile = take(taken)
    return wrong[0] == 0


@numba.njit(parallel=True, cache=True, nogil=True)
def sum_slots(of_slots, offsets, out):
    """out (N, C) = sums of the rows offsets[n] to offsets[n + 1], in order. Returns False where these are out
    of range."""
    wrong = 0
    for n in numba.prange(len(out)):
        out[n] = 0
        if not 0 <= offsets[n] <= offsets[n + 1] <= len(of_slots):
            wrong += 1
            continue
        for slot in range(offsets[n], offsets[n + 1]):
            for c in range(out.shape[1]):
                out[n, c] += of_slots[slot, c]
    return wrong == 0
