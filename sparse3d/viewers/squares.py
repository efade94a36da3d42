"""Numba body of a z-buffer of squares: points into a picture, the nearest wins, of equally near ones
the first. One thread; the same bits everywhere.

Camera axes: x right, y down, z forward; `lens` is fx, fy, cx, cy in pixels; a pixel's centre is at +0.5.
"""

import math

import numba


@numba.njit(cache=True, nogil=True)
def fill_squares(places, colors, size, lens, near, pixels, depth):
    """Squares of `size` metres that face the camera, and a pixel at least, around places (N, 3) in camera
    axes with colors (N, 3); pixels (H, W, 3) and depth (H, W) are changed."""
    height, width = depth.shape
    for n in range(len(places)):
        z = places[n, 2]
        if not z >= near:
            continue
        x, y = lens[0] * places[n, 0] / z + lens[2], lens[1] * places[n, 1] / z + lens[3]
        reach = max(lens[0] * size / z / 2, 0.5)
        if not (x + reach > 0 and x - reach < width and y + reach > 0 and y - reach < height):
            continue
        left, right = max(math.ceil(x - reach - 0.5), 0), min(math.ceil(x + reach - 0.5), width)
        top, bottom = max(math.ceil(y - reach - 0.5), 0), min(math.ceil(y + reach - 0.5), height)
        for row in range(top, bottom):
            for column in range(left, right):
                if z < depth[row, column]:
                    depth[row, column] = z
                    for k in range(3):
                        pixels[row, column, k] = colors[n, k]
