"""Numba bodies of the projection of surfels: one lane of work a surfel, camera gradients in slices.

Notation, all in the camera's frame: p the centre, a and b the first two axes, n = a x b, z = p_z. The ray
through the image's point d away from that of p has direction p / z + D with D = (d_x / fx, d_y / fy, 0), and
meets the plane at

    u = (b x p) . D / (s_u w'),   v = (p x a) . D / (s_v w'),   w' = n . p / z + n . D,   depth = n . p / w'

so the slopes are those of b x p, p x a and n times k / f, k = z / (n . p). Of an orthographic camera the ray
is p + D + t e, with e the third axis, so e takes the place of p:

    u = (b x e) . D / (s_u n . e),   v = (e x a) . D / (s_v n . e),   depth = z - n . D / (n . e)

that is, with k = 1 / (n . e), slopes of b x e, e x a and -n / z times k / f. All of these hold for any linear
part of world_to_camera, be it a rotation or not.
"""

import math

import numba
import numpy as np

from sparse3d_ops.cpu.splat_projection import SLICE as SLICE
from sparse3d_ops.cpu.splat_projection import in_camera, quaternion_gradient, rotation
from sparse3d_ops.surfel_projection import EDGE, NOWHERE


@numba.njit(nogil=True)
def cross(a, b):
    return a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]


@numba.njit(nogil=True)
def _turned(world, r, k):
    """Column k of the rotation r, in the camera's frame."""
    x, y, z = r[0][k], r[1][k], r[2][k]
    return (
        world[0, 0] * x + world[0, 1] * y + world[0, 2] * z,
        world[1, 0] * x + world[1, 1] * y + world[1, 2] * z,
        world[2, 0] * x + world[2, 1] * y + world[2, 2] * z,
    )


@numba.njit(nogil=True)
def reach_of(slopes, square, orthographic):
    """Half of the box around the centre's image that holds what has u^2 + v^2 <= square: infinite where that
    does not lie in front of the camera as a whole, which makes its outline no ellipse.

    The outline is |A d|^2 = square (1 + c . d)^2, with A and c the slopes; c is 0 where rays are parallel. In
    double: A of a thin ellipse is nearly singular.
    """
    a0, a1, b0, b1 = np.float64(slopes[0, 0]), np.float64(slopes[0, 1]), slopes[1, 0], slopes[1, 1]
    c0, c1 = np.float64(slopes[2, 0]), np.float64(slopes[2, 1])
    if orthographic:
        c0, c1 = 0.0, 0.0
    xx = a0 * a0 + b0 * b0 - square * c0 * c0
    xy = a0 * a1 + b0 * b1 - square * c0 * c1
    yy = a1 * a1 + b1 * b1 - square * c1 * c1
    determinant = xx * yy - xy * xy
    if not (xx > 0 and determinant > 0):
        return np.inf, np.inf
    x, y = square * (yy * c0 - xy * c1) / determinant, square * (xx * c1 - xy * c0) / determinant
    widest = square + square * (c0 * x + c1 * y)
    reach_x = abs(x) + math.sqrt(widest * yy / determinant)
    reach_y = abs(y) + math.sqrt(widest * xx / determinant)
    return reach_x, reach_y


@numba.njit(nogil=True)
def _dot(a, b):
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


@numba.njit(nogil=True)
def _edge_on(g, n, ray):
    """Whether n . ray = g is too small to part the plane from the ray."""
    return not g * g > EDGE * EDGE * (_dot(n, n) * _dot(ray, ray))


@numba.njit(nogil=True)
def _ray(p, one, orthographic):
    """Along the ray through the centre p; `one` is 1 of the numbers' type."""
    return (one - one, one - one, one) if orthographic else p


@numba.njit(parallel=True, cache=True, nogil=True)
def project(
    means,
    quats,
    scales,
    opacities,
    world,
    lens,
    limits,
    orthographic,
    means2d,
    slopes,
    depths,
    normals,
    reach,
):
    """Limits: width, height, near, least alpha, low-pass. Outputs of what is not seen are 0."""
    width, height, near, least_alpha, low_pass = limits[0], limits[1], limits[2], limits[3], limits[4]
    for i in numba.prange(len(means)):
        means2d[i] = 0
        slopes[i] = 0
        depths[i] = 0
        normals[i] = 0
        reach[i] = 0
        p = in_camera(means, i, world)
        if not (
            p[2] >= near and least_alpha < opacities[i] < np.inf and scales[i, 0] > 0 and scales[i, 1] > 0
        ):
            continue
        r, _, length = rotation(quats, i)
        if not length > 0:
            continue
        a, b = _turned(world, r, 0), _turned(world, r, 1)
        n = cross(a, b)
        ray = _ray(p, means.dtype.type(1), orthographic)
        g, over = _dot(n, ray), ray[2]
        found = slopes[i]
        if _edge_on(g, n, ray):
            found[0, 0], found[1, 1] = NOWHERE, NOWHERE
        else:
            k = over / g
            rise = -k / p[2] if orthographic else k
            first, second = cross(b, ray), cross(ray, a)
            for j in range(2):
                found[0, j] = k * first[j] / (lens[j] * scales[i, 0])
                found[1, j] = k * second[j] / (lens[j] * scales[i, 1])
                found[2, j] = rise * n[j] / lens[j]
        square = 2 * math.log(np.float64(opacities[i] / least_alpha))
        wide, high = reach_of(found, square, orthographic)
        dot = math.sqrt(square / low_pass)
        u, v = lens[0] * p[0] / over + lens[2], lens[1] * p[1] / over + lens[3]
        # What reaches farther than the image is kept finite: any box that holds the image will do.
        wide = min(max(wide, dot), abs(u) + width + 1)
        high = min(max(high, dot), abs(v) + height + 1)
        # Also false for NaN and infinite values.
        if not (u + wide > 0 and u - wide < width and v + high > 0 and v - high < height and abs(g) < np.inf):
            found[:] = 0
            continue
        means2d[i, 0], means2d[i, 1] = u, v
        depths[i] = p[2]
        side = -1 if g > 0 else 1
        normals[i, 0], normals[i, 1], normals[i, 2] = side * r[0][2], side * r[1][2], side * r[2][2]
        reach[i, 0], reach[i, 1] = wide, high


@numba.njit(parallel=True, cache=True, nogil=True)
def project_backward(
    means,
    quats,
    scales,
    world,
    lens,
    reach,
    orthographic,
    of_means2d,
    of_slopes,
    of_depths,
    of_normals,
    of_means,
    of_quats,
    of_scales,
    of_camera,
):
    """of_camera (slices, 16): gradients in the 12 numbers of world (row after row) and the four of the
    lens."""
    count = len(means)
    for part in numba.prange(len(of_camera)):
        camera, of_r = np.zeros(16), np.empty((3, 3), means.dtype)
        for i in range(part * SLICE, min((part + 1) * SLICE, count)):
            of_means[i] = 0
            of_quats[i] = 0
            of_scales[i] = 0
            if not reach[i, 0] > 0:
                continue
            p = in_camera(means, i, world)
            r, q, length = rotation(quats, i)
            a, b = _turned(world, r, 0), _turned(world, r, 1)
            n = cross(a, b)
            ray = _ray(p, means.dtype.type(1), orthographic)
            g, over = _dot(n, ray), ray[2]
            fx, fy, z, none = lens[0], lens[1], p[2], means.dtype.type(0)
            of_u, of_v, of_s = of_means2d[i, 0], of_means2d[i, 1], of_slopes[i]
            of_a, of_b, of_ray = (none, none, none), (none, none, none), (none, none, none)
            of_x, of_y, of_z = of_u * fx / over, of_v * fy / over, of_depths[i]
            if not orthographic:
                of_z -= (of_x * p[0] + of_y * p[1]) / z
            camera[12] += of_u * p[0] / over
            camera[13] += of_v * p[1] / over
            camera[14] += of_u
            camera[15] += of_v
            if not _edge_on(g, n, ray):
                k = over / g
                first, second = cross(b, ray), cross(ray, a)
                # Gradients in b x ray, ray x a and n without k, whose third components are 0.
                s_u, s_v, rise = scales[i, 0], scales[i, 1], means.dtype.type(1)
                if orthographic:
                    rise = -rise / z
                g_u = (of_s[0, 0] / (fx * s_u), of_s[0, 1] / (fy * s_u), none)
                g_v = (of_s[1, 0] / (fx * s_v), of_s[1, 1] / (fy * s_v), none)
                g_n = (rise * of_s[2, 0] / fx, rise * of_s[2, 1] / fy, none)
                by_u, by_v, by_n = _dot(first, g_u), _dot(second, g_v), _dot(n, g_n)
                of_k = by_u + by_v + by_n
                of_scales[i, 0], of_scales[i, 1] = -k * by_u / s_u, -k * by_v / s_v
                camera[12] -= k * (first[0] * g_u[0] + second[0] * g_v[0] + n[0] * g_n[0]) / fx
                camera[13] -= k * (first[1] * g_u[1] + second[1] * g_v[1] + n[1] * g_n[1]) / fy
                of_g = -of_k * k / g
                of_n = (k * g_n[0] + of_g * ray[0], k * g_n[1] + of_g * ray[1], of_g * ray[2])
                from_u, from_v = cross(g_u, b), cross(a, g_v)
                of_ray = (
                    of_g * n[0] + k * (from_u[0] + from_v[0]),
                    of_g * n[1] + k * (from_u[1] + from_v[1]),
                    of_g * n[2] + k * (from_u[2] + from_v[2]),
                )
                of_z += -k * by_n / z if orthographic else of_k / g
                one, two = cross(b, of_n), cross(g_v, ray)
                of_a = (one[0] + k * two[0], one[1] + k * two[1], one[2] + k * two[2])
                one, two = cross(of_n, a), cross(ray, g_u)
                of_b = (one[0] + k * two[0], one[1] + k * two[1], one[2] + k * two[2])
            of_p = (of_x, of_y, of_z)
            if not orthographic:  # there the ray is p
                of_p = (of_x + of_ray[0], of_y + of_ray[1], of_z + of_ray[2])
            side = -1 if g > 0 else 1
            for j in range(3):
                of_r[j, 0] = world[0, j] * of_a[0] + world[1, j] * of_a[1] + world[2, j] * of_a[2]
                of_r[j, 1] = world[0, j] * of_b[0] + world[1, j] * of_b[1] + world[2, j] * of_b[2]
                of_r[j, 2] = side * of_normals[i, j]
                of_means[i, j] = world[0, j] * of_p[0] + world[1, j] * of_p[1] + world[2, j] * of_p[2]
                for row in range(3):
                    camera[4 * row + j] += of_p[row] * means[i, j] + of_a[row] * r[j][0] + of_b[row] * r[j][1]
            for row in range(3):
                camera[4 * row + 3] += of_p[row]
            quaternion_gradient(of_r, q, length, of_quats[i])
        of_camera[part] = camera
