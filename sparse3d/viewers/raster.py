"""Numba bodies of a z-buffer: triangles and squares into a picture, the nearest wins, of equally near ones
the first. One thread; the same bits everywhere.

Camera axes: x right, y down, z forward; `lens` is fx, fy, cx, cy in pixels; a pixel's centre is at +0.5.
"""

import math

import numba


@numba.njit(nogil=True)
def _edge(ax, ay, bx, by, x, y):
    return (bx - ax) * (y - ay) - (by - ay) * (x - ax)


@numba.njit(nogil=True)
def _fill(a, b, c, lens, pixels, depth):
    """One triangle in front of the camera, of corners (x, y, z, red, green, blue). What runs evenly along it
    in a picture is 1 / z, and attribute / z."""
    height, width = depth.shape
    ax, ay = lens[0] * a[0] / a[2] + lens[2], lens[1] * a[1] / a[2] + lens[3]
    bx, by = lens[0] * b[0] / b[2] + lens[2], lens[1] * b[1] / b[2] + lens[3]
    cx, cy = lens[0] * c[0] / c[2] + lens[2], lens[1] * c[1] / c[2] + lens[3]
    area = _edge(ax, ay, bx, by, cx, cy)
    if not abs(area) > 1e-12:
        return
    left, right = max(math.floor(min(ax, bx, cx)), 0), min(math.ceil(max(ax, bx, cx)), width)
    top, bottom = max(math.floor(min(ay, by, cy)), 0), min(math.ceil(max(ay, by, cy)), height)
    for row in range(top, bottom):
        for column in range(left, right):
            x, y = column + 0.5, row + 0.5
            u = _edge(bx, by, cx, cy, x, y) / area
            v = _edge(cx, cy, ax, ay, x, y) / area
            w = 1.0 - u - v
            if u < 0 or v < 0 or w < 0:
                continue
            over = u / a[2] + v / b[2] + w / c[2]
            z = 1.0 / over
            if z < depth[row, column]:
                depth[row, column] = z
                for k in range(3):
                    value = (u * a[3 + k] / a[2] + v * b[3 + k] / b[2] + w * c[3 + k] / c[2]) * z
                    pixels[row, column, k] = value


@numba.njit(nogil=True)
def _cut(a, b, near):
    """The corner at which the way from a to b passes the near plane."""
    t = (near - a[2]) / (b[2] - a[2])
    return (
        a[0] + t * (b[0] - a[0]),
        a[1] + t * (b[1] - a[1]),
        near,
        a[3] + t * (b[3] - a[3]),
        a[4] + t * (b[4] - a[4]),
        a[5] + t * (b[5] - a[5]),
    )


@numba.njit(nogil=True)
def _corner(places, colors, n):
    return places[n, 0], places[n, 1], places[n, 2], colors[n, 0], colors[n, 1], colors[n, 2]


@numba.njit(cache=True, nogil=True)
def fill_triangles(places, colors, faces, lens, near, pixels, depth):
    """places (V, 3), colors (V, 3) any numbers; pixels (H, W, 3) and depth (H, W) are changed. What is nearer
    than `near` is cut off."""
    for f in range(len(faces)):
        a = _corner(places, colors, faces[f, 0])
        b = _corner(places, colors, faces[f, 1])
        c = _corner(places, colors, faces[f, 2])
        # Turned so that the corners before the near plane come first.
        for _ in range(2):
            if a[2] < near or (c[2] >= near and b[2] < near):
                a, b, c = b, c, a
        if a[2] < near:
            continue
        if b[2] < near:
            _fill(a, _cut(a, b, near), _cut(a, c, near), lens, pixels, depth)
        elif c[2] < near:
            d, e = _cut(b, c, near), _cut(a, c, near)
            _fill(a, b, d, lens, pixels, depth)
            _fill(a, d, e, lens, pixels, depth)
        else:
            _fill(a, b, c, lens, pixels, depth)


@numba.njit(cache=True, nogil=True)
def fill_squares(places, colors, size, lens, near, pixels, depth):
    """Squares of `size` metres that face the camera, and a pixel at least."""
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
