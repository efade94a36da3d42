"""Numba bodies of blending surfels front to back, a tile of 16 x 16 pixels at a time.

Form and order are those of `splat_blend`: a row of a tile is one vector of 16 lanes, forward and backward
walk a tile's list from the front, and backward writes a row for each splat of each tile to a place of its
own. What the pixels' outputs come to in a splat's weight and depth is one number, with t = 1 / z:

    g . f_i + g_depth z_i + g_nearness t_i + g_distortion (S_2 + S_0 (t_i - mean of t)^2)

as the distortion is S_0 S_2 for the sums S_0 of weights and S_2 of weights times squares of t - mean of t.
"""

import math

import numba
import numpy as np

from sparse3d_ops.cpu.lanes import (
    any_lane,
    exp2,
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
from sparse3d_ops.cpu.splat_blend import LOG2_E, LOOK, PIXELS, TILE, closed, open_tile, rows_between
from sparse3d_ops.cpu.splat_blend import sum_slots as sum_slots
from sparse3d_ops.cpu.surfel_projection import reach_of
from sparse3d_ops.surfel_blend import GRADIENTS

# Columns of a packed surfel before its features: centre, slopes, depth of the centre and its inverse,
# opacity, and how far it reaches up and down. u and v are scaled so that u^2 + v^2 is the exponent in powers
# of two.
X, Y, U_X, U_Y, V_X, V_Y, W_X, W_Y, DEPTH, NEARNESS, OPACITY, REACH, FEATURES = range(13)
SCALE = math.sqrt(LOG2_E / 2)


@numba.njit(parallel=True, cache=True, nogil=True)
def pack(means2d, slopes, depths, opacities, features, limits, orthographic, out):
    """out (N, FEATURES + C): everything of a surfel side by side; of one that cannot be seen zeros, and its
    features."""
    least_alpha, low_pass = limits[0], limits[4]
    for n in numba.prange(len(out)):
        x, y, s, depth, opacity = means2d[n, 0], means2d[n, 1], slopes[n], depths[n], opacities[n]
        area = np.float64(s[0, 0]) * s[1, 1] - np.float64(s[0, 1]) * s[1, 0]
        shown = abs(x) < np.inf and abs(y) < np.inf and 0 < abs(area) < np.inf and 0 < depth < np.inf
        shown = shown and abs(s[2, 0]) < np.inf and abs(s[2, 1]) < np.inf
        for k in range(FEATURES):
            out[n, k] = 0
        if shown and least_alpha < opacity < np.inf:
            out[n, X], out[n, Y] = x, y
            for k in range(2):
                out[n, U_X + k], out[n, V_X + k], out[n, W_X + k] = SCALE * s[0, k], SCALE * s[1, k], s[2, k]
            out[n, DEPTH], out[n, NEARNESS], out[n, OPACITY] = depth, 1 / depth, opacity
            square = 2 * math.log(np.float64(opacity / least_alpha))
            high = reach_of(s, square, orthographic)[1]
            out[n, REACH] = min(max(high, math.sqrt(square / low_pass)), 1e9)
        for k in range(features.shape[1]):
            out[n, FEATURES + k] = features[n, k]


@numba.njit(nogil=True)
def meet(splat, x, y, from_x_u, from_x_v, from_x_w, near, low_pass, orthographic):
    """Where the rays of a row meet a surfel: the exponent (to subtract, in powers of two), whether they meet
    it (rather than its low-pass), and there u, v, the share of them in S_0 . d and S_1 . d, which is 1 / w or
    1, and the depth and its inverse over those of the centre: 0, 0, 1, 1 and 1 where they do not."""
    none, one = x * 0.0, x * 0.0 + 1.0
    w = from_x_w + y * splat[W_Y]
    inverse = 1.0 / w
    share, deep, close = inverse, inverse, w
    if orthographic:
        share, deep, close = one, w, inverse
    u, v = (from_x_u + y * splat[U_Y]) * share, (from_x_v + y * splat[V_Y]) * share
    square = multiply_add(u, u, v * v)  # pyright: ignore[reportCallIssue]
    blurred = (x * x + y * y) * (low_pass * splat.dtype.type(SCALE * SCALE))
    # False too for NaN: 0 / 0 at the horizon.
    met = (deep * splat[DEPTH] >= near) & (square <= blurred)
    return (
        where(met, square, blurred),
        met,
        where(met, u, none),
        where(met, v, none),
        where(met, share, one),
        where(met, deep, one),
        where(met, close, one),
    )


@numba.njit(parallel=True, cache=True, nogil=True)
def blend(
    packed,
    starts,
    splats,
    limits,
    orthographic,
    threads,
    image,
    through,
    depth,
    nearness,
    median,
    distortion,
    which,
):
    """The seven outputs of the op. packed (N, FEATURES + C), starts (tiles + 1,), splats (M,): what lies in a
    tile, front to back. limits: least alpha, largest alpha, the transmittance to stop at, near,
    low-pass. Returns False where a list is out of range.

    The distortion is S_0 S_2 - S_1^2 of t less the t that the pixel met first: without that it would be a
    small difference of large numbers.
    """
    height, width, channels = image.shape
    least_alpha, most_alpha, stop, near, low_pass = limits[0], limits[1], limits[2], limits[3], limits[4]
    across = (width + TILE - 1) // TILE
    tiles, taken, wrong = len(starts) - 1, np.zeros(1, np.int64), np.zeros(1, np.int64)
    for _ in numba.prange(threads):
        reaching = np.empty(PIXELS, packed.dtype)
        sums = np.empty(PIXELS * max(channels, 1), packed.dtype)
        deep, close = np.empty(PIXELS, packed.dtype), np.empty(PIXELS, packed.dtype)
        origin = np.empty(PIXELS, packed.dtype)
        once, twice = np.empty(PIXELS, packed.dtype), np.empty(PIXELS, packed.dtype)
        middle, entry = np.empty(PIXELS, packed.dtype), np.empty(PIXELS, packed.dtype)
        tile = take(taken)
        while tile < tiles:
            top, left = tile // across * TILE, tile % across * TILE
            rows, columns = min(TILE, height - top), min(TILE, width - left)
            open_tile(reaching, rows, columns)
            sums[:] = 0
            deep[:] = 0
            close[:] = 0
            origin[:] = -1
            once[:] = 0
            twice[:] = 0
            middle[:] = 0
            entry[:] = -1
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
                    here = meet(splat, x, y, from_x_u, from_x_v, from_x_w, near, low_pass, orthographic)
                    power, deeper, closer = here[0], here[5], here[6]
                    none = spread_number(packed.dtype.type(0))
                    alpha = least(exp2(none - power) * splat[OPACITY], spread_number(most_alpha))
                    light, p = load(reaching, row * TILE), row * TILE
                    counts = (alpha >= least_alpha) & (light >= stop)
                    if any_lane(counts):
                        weight = where(counts, alpha * light, none)
                        left_over = light - weight
                        store(left_over, reaching, p)
                        for c in range(channels):
                            feature = spread_number(splat[FEATURES + c])
                            place = c * PIXELS + p
                            store(multiply_add(weight, feature, load(sums, place)), sums, place)
                        z, t = deeper * splat[DEPTH], closer * splat[NEARNESS]
                        store(multiply_add(weight, z, load(deep, p)), deep, p)
                        store(multiply_add(weight, t, load(close, p)), close, p)
                        known = load(origin, p)
                        known = where(counts & (known < 0.0), t, known)
                        store(known, origin, p)
                        apart = t - known
                        moved = weight * apart
                        store(load(once, p) + moved, once, p)
                        store(multiply_add(moved, apart, load(twice, p)), twice, p)
                        passes = (light > 0.5) & (left_over <= 0.5)
                        store(where(passes, z, load(middle, p)), middle, p)
                        number = spread_number(packed.dtype.type(k - begin))
                        store(where(passes, number, load(entry, p)), entry, p)
                if (k - begin) % LOOK == LOOK - 1 and closed(reaching, stop):
                    break
            for row in range(rows):
                for column in range(columns):
                    i, j, p = top + row, left + column, row * TILE + column
                    through[i, j], depth[i, j], nearness[i, j] = reaching[p], deep[p], close[p]
                    median[i, j] = middle[p]
                    which[i, j] = splats[begin + np.int64(entry[p])] if entry[p] >= 0 else -1
                    spread = (1 - reaching[p]) * twice[p] - once[p] * once[p]
                    distortion[i, j] = max(spread, packed.dtype.type(0))
                    for c in range(channels):
                        image[i, j, c] = sums[c * PIXELS + p]
            tile = take(taken)
    return wrong[0] == 0


@numba.njit(parallel=True, cache=True, nogil=True)
def blend_backward(
    packed,
    slopes,
    starts,
    splats,
    slots,
    limits,
    orthographic,
    threads,
    image,
    through,
    depth,
    nearness,
    distortion,
    of_image,
    of_through,
    of_depth,
    of_nearness,
    of_median,
    of_distortion,
    wants_absolute,
    out,
):
    """out (M, GRADIENTS + C): what each surfel of each tile gets from its pixels, at the rows `slots` (M,).
    Returns False where a list is out of range.

    As x is the same in all rows, sums over a tile of what is multiplied by x are taken once, at its end.
    """
    height, width, channels = image.shape
    least_alpha, most_alpha, stop, near, low_pass = limits[0], limits[1], limits[2], limits[3], limits[4]
    across = (width + TILE - 1) // TILE
    tiles, taken, wrong = len(starts) - 1, np.zeros(1, np.int64), np.zeros(1, np.int64)
    for _ in numba.prange(threads):
        reaching, behind = np.empty(PIXELS, packed.dtype), np.empty(PIXELS, packed.dtype)
        wanted = np.empty(PIXELS * max(channels, 1), packed.dtype)
        of_features = np.empty(TILE * max(channels, 1), packed.dtype)
        # Of each pixel: gradients in depth, nearness and median; the mean of t, and what the distortion's
        # gradient in a weight is made of: square * (t - mean)^2 + constant.
        of_deep, of_close = np.empty(PIXELS, packed.dtype), np.empty(PIXELS, packed.dtype)
        of_middle, mean = np.empty(PIXELS, packed.dtype), np.empty(PIXELS, packed.dtype)
        square, constant = np.empty(PIXELS, packed.dtype), np.empty(PIXELS, packed.dtype)
        tile = take(taken)
        while tile < tiles:
            top, left = tile // across * TILE, tile % across * TILE
            rows, columns = min(TILE, height - top), min(TILE, width - left)
            open_tile(reaching, rows, columns)
            wanted[:] = 0
            behind[:] = 0
            of_deep[:] = 0
            of_close[:] = 0
            of_middle[:] = 0
            mean[:] = 0
            square[:] = 0
            constant[:] = 0
            for row in range(rows):
                for column in range(columns):
                    i, j, p = top + row, left + column, row * TILE + column
                    come_to = of_through[i, j] * through[i, j]
                    for c in range(channels):
                        wanted[c * PIXELS + p] = of_image[i, j, c]
                        come_to += of_image[i, j, c] * image[i, j, c]
                    come_to += of_depth[i, j] * depth[i, j] + of_nearness[i, j] * nearness[i, j]
                    behind[p] = come_to + 2 * of_distortion[i, j] * distortion[i, j]
                    of_deep[p], of_close[p] = of_depth[i, j], of_nearness[i, j]
                    of_middle[p] = of_median[i, j]
                    opacity = 1 - through[i, j]
                    if opacity > 0:
                        mean[p] = nearness[i, j] / opacity
                        square[p] = of_distortion[i, j] * opacity
                        constant[p] = of_distortion[i, j] * distortion[i, j] / opacity
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
                if splat[OPACITY] == 0:
                    out[slots[k]] = 0
                    continue
                first, last = rows_between(splat[Y], splat[REACH], top, rows)
                x = steps(stop) + (left + np.float64(0.5) - splat[X])
                from_x_u, from_x_v, from_x_w = x * splat[U_X], x * splat[V_X], x * splat[W_X] + 1.0
                none = spread_number(packed.dtype.type(0))
                sum_u, sum_uy, sum_v, sum_vy = none, none, none, none
                sum_w, sum_wy, sum_low, sum_low_y = none, none, none, none
                sum_1, sum_deep = none, none
                absolute_x, absolute_y = none, none
                a, b, c_w = slopes[n, 0], slopes[n, 1], slopes[n, 2]
                of_features[:] = 0
                for row in range(first, last):
                    y = packed.dtype.type(top + row + np.float64(0.5) - splat[Y])
                    power, met, u, v, share, deeper, closer = meet(
                        splat, x, y, from_x_u, from_x_v, from_x_w, near, low_pass, orthographic
                    )
                    bare = exp2(none - power) * splat[OPACITY]
                    alpha = least(bare, spread_number(most_alpha))
                    light, p = load(reaching, row * TILE), row * TILE
                    counts = (alpha >= least_alpha) & (light >= stop)
                    if any_lane(counts):
                        weight = where(counts, alpha * light, none)
                        left_over = light - weight
                        store(left_over, reaching, p)
                        z, t = deeper * splat[DEPTH], closer * splat[NEARNESS]
                        apart = t - load(mean, p)
                        spread = load(square, p) * apart
                        shown = multiply_add(spread, apart, load(constant, p))
                        shown = multiply_add(load(of_deep, p), z, shown)
                        shown = multiply_add(load(of_close, p), t, shown)
                        for c in range(channels):
                            of_pixel = load(wanted, c * PIXELS + p)
                            shown = multiply_add(of_pixel, spread_number(splat[FEATURES + c]), shown)
                            mine = load(of_features, c * TILE)
                            store(multiply_add(weight, of_pixel, mine), of_features, c * TILE)
                        rest = load(behind, p) - weight * shown
                        store(rest, behind, p)
                        of_alpha = light * shown - rest / (1.0 - alpha)
                        # Where alpha is held down it depends on nothing.
                        of_power = where(counts & (bare <= most_alpha), of_alpha * alpha, none)
                        passes = (light > 0.5) & (left_over <= 0.5)
                        of_z = multiply_add(weight, load(of_deep, p), where(passes, load(of_middle, p), none))
                        of_t = weight * (load(of_close, p) + spread * 2.0)
                        # Of z times z less that of t times t: what the logarithm of z gets.
                        of_log = of_z * z - of_t * t
                        of_u, of_v = of_power * u * share, of_power * v * share
                        pulled = multiply_add(of_u, u, of_v * v) * packed.dtype.type(1 / (SCALE * SCALE))
                        of_w = pulled - of_log * deeper
                        if orthographic:
                            of_w = of_log * closer
                        of_w = where(met, of_w, none)
                        of_low = where(met, none, of_power)
                        sum_1 = sum_1 + of_power
                        sum_deep = sum_deep + of_log
                        sum_u, sum_uy = sum_u + of_u, sum_uy + of_u * y
                        sum_v, sum_vy = sum_v + of_v, sum_vy + of_v * y
                        sum_w, sum_wy = sum_w + of_w, sum_wy + of_w * y
                        sum_low, sum_low_y = sum_low + of_low, sum_low_y + of_low * y
                        if wants_absolute:
                            scaled_u, scaled_v = of_u * (1 / SCALE), of_v * (1 / SCALE)
                            of_x = scaled_u * a[0] + scaled_v * b[0] - of_w * c_w[0] + of_low * x * low_pass
                            of_y = scaled_u * a[1] + scaled_v * b[1] - of_w * c_w[1] + of_low * (y * low_pass)
                            absolute_x = absolute_x + magnitude(of_x)
                            absolute_y = absolute_y + magnitude(of_y)
                row_of = out[slots[k]]
                u_all, v_all, w_all = -total(sum_u) / SCALE, -total(sum_v) / SCALE, total(sum_w)
                row_of[0] = low_pass * total(x * sum_low) - (a[0] * u_all + b[0] * v_all + c_w[0] * w_all)
                row_of[1] = low_pass * total(sum_low_y) - (a[1] * u_all + b[1] * v_all + c_w[1] * w_all)
                row_of[2], row_of[3] = -total(x * sum_u) / SCALE, -total(sum_uy) / SCALE
                row_of[4], row_of[5] = -total(x * sum_v) / SCALE, -total(sum_vy) / SCALE
                row_of[6], row_of[7] = total(x * sum_w), total(sum_wy)
                row_of[8] = total(sum_deep) * splat[NEARNESS]
                row_of[9] = total(sum_1) / splat[OPACITY]
                row_of[10], row_of[11] = total(absolute_x), total(absolute_y)
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
