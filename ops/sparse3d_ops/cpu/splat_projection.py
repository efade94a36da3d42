"""Numba bodies of the projection of Gaussians: one lane of work a Gaussian, camera gradients in slices.

Notation (Zwicker et al., "EWA Splatting", 2002): p = W m + t in the camera's frame, J the derivative of the
image in p, U = J W R(q) diag(s); the image's covariance is U U^T + blur I, and the conic its inverse.
"""

import math

import numba
import numpy as np

# Gaussians whose share of the camera's gradient is summed by one thread; slices are added in order.
SLICE = 1024
# How far beyond the image's border, in parts of the half field of view, the derivative of the image is taken
# where it is; farther out it is that of this border, or splats beside the camera would become huge.
BORDER = 0.3


@numba.njit(nogil=True)
def rotation(quats, n):
    """Rotation of a quaternion (w, x, y, z) of any length, and that length."""
    w, x, y, z = quats[n, 0], quats[n, 1], quats[n, 2], quats[n, 3]
    length = math.sqrt(w * w + x * x + y * y + z * z)
    if length > 0:
        w, x, y, z = w / length, x / length, y / length, z / length
    r = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return r, (w, x, y, z), length


@numba.njit(nogil=True)
def in_camera(means, n, world):
    x, y, z = means[n, 0], means[n, 1], means[n, 2]
    return (
        world[0, 0] * x + world[0, 1] * y + world[0, 2] * z + world[0, 3],
        world[1, 0] * x + world[1, 1] * y + world[1, 2] * z + world[1, 3],
        world[2, 0] * x + world[2, 1] * y + world[2, 2] * z + world[2, 3],
    )


@numba.njit(nogil=True)
def _held(ratio, focal, centre, size):
    """The slope of a ray within the image and its border, and whether it was within."""
    border = BORDER * size / 2 / focal
    low, high = -centre / focal - border, (size - centre) / focal + border
    return min(max(ratio, low), high), low <= ratio <= high


@numba.njit(nogil=True)
def _jacobian(x, y, z, lens, width, height, orthographic):
    """Entries (0, 0), (0, 2), (1, 1), (1, 2) of J; the others are 0."""
    fx, fy = lens[0], lens[1]
    if orthographic:
        return fx, x * 0, fy, y * 0
    a, _ = _held(x / z, fx, lens[2], width)
    b, _ = _held(y / z, fy, lens[3], height)
    return fx / z, -fx * a / z, fy / z, -fy * b / z


@numba.njit(nogil=True)
def _spread(j, world, r, scales, n):
    """M = J W and B = M R as two rows each, and the sharp covariance (A, B, D) of the image."""
    m = (
        (
            j[0] * world[0, 0] + j[1] * world[2, 0],
            j[0] * world[0, 1] + j[1] * world[2, 1],
            j[0] * world[0, 2] + j[1] * world[2, 2],
        ),
        (
            j[2] * world[1, 0] + j[3] * world[2, 0],
            j[2] * world[1, 1] + j[3] * world[2, 1],
            j[2] * world[1, 2] + j[3] * world[2, 2],
        ),
    )
    u = (
        m[0][0] * r[0][0] + m[0][1] * r[1][0] + m[0][2] * r[2][0],
        m[0][0] * r[0][1] + m[0][1] * r[1][1] + m[0][2] * r[2][1],
        m[0][0] * r[0][2] + m[0][1] * r[1][2] + m[0][2] * r[2][2],
    )
    v = (
        m[1][0] * r[0][0] + m[1][1] * r[1][0] + m[1][2] * r[2][0],
        m[1][0] * r[0][1] + m[1][1] * r[1][1] + m[1][2] * r[2][1],
        m[1][0] * r[0][2] + m[1][1] * r[1][2] + m[1][2] * r[2][2],
    )
    s0, s1, s2 = scales[n, 0] ** 2, scales[n, 1] ** 2, scales[n, 2] ** 2
    a = s0 * u[0] * u[0] + s1 * u[1] * u[1] + s2 * u[2] * u[2]
    b = s0 * u[0] * v[0] + s1 * u[1] * v[1] + s2 * u[2] * v[2]
    d = s0 * v[0] * v[0] + s1 * v[1] * v[1] + s2 * v[2] * v[2]
    # The determinant as a sum of squares: a d - b^2 of a needle would cancel.
    c01, c02, c12 = u[0] * v[1] - u[1] * v[0], u[0] * v[2] - u[2] * v[0], u[1] * v[2] - u[2] * v[1]
    sharp = s0 * s1 * c01 * c01 + s0 * s2 * c02 * c02 + s1 * s2 * c12 * c12
    return m, u, v, a, b, d, sharp


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
    conics,
    depths,
    reach,
    compensation,
):
    """Limits: width, height, near, blur, least alpha. Outputs of what is not seen are 0."""
    width, height, near, blur, least_alpha = limits[0], limits[1], limits[2], limits[3], limits[4]
    for n in numba.prange(len(means)):
        means2d[n] = 0
        conics[n] = 0
        reach[n] = 0
        depths[n] = 0
        compensation[n] = 0
        x, y, z = in_camera(means, n, world)
        if not (z >= near and opacities[n] > least_alpha):
            continue
        r, _, length = rotation(quats, n)
        if not length > 0:
            continue
        j = _jacobian(x, y, z, lens, width, height, orthographic)
        _, _, _, a, b, d, sharp = _spread(j, world, r, scales, n)
        determinant = sharp + blur * (a + d) + blur * blur
        a, d = a + blur, d + blur
        over = 1 if orthographic else z
        u, v = lens[0] * x / over + lens[2], lens[1] * y / over + lens[3]
        widest = math.sqrt(2 * math.log(opacities[n] / least_alpha))
        reach_x, reach_y = widest * math.sqrt(a), widest * math.sqrt(d)
        # Also false for NaN and infinite values.
        if not (
            determinant > 0
            and determinant < math.inf
            and u + reach_x > 0
            and u - reach_x < width
            and v + reach_y > 0
            and v - reach_y < height
        ):
            continue
        means2d[n, 0], means2d[n, 1] = u, v
        conics[n, 0], conics[n, 1], conics[n, 2] = d / determinant, -b / determinant, a / determinant
        depths[n] = z
        reach[n, 0], reach[n, 1] = reach_x, reach_y
        compensation[n] = math.sqrt(sharp / determinant)


@numba.njit(parallel=True, cache=True, nogil=True)
def project_backward(
    means,
    quats,
    scales,
    world,
    lens,
    limits,
    orthographic,
    reach,
    of_means2d,
    of_conics,
    of_depths,
    of_compensation,
    of_means,
    of_quats,
    of_scales,
    of_camera,
):
    """of_camera (slices, 16): gradients in the 12 numbers of world (row after row) and the four of the
    lens."""
    width, height, blur = limits[0], limits[1], limits[3]
    count = len(means)
    for part in numba.prange(len(of_camera)):
        camera, of_r, of_m = np.zeros(16), np.empty((3, 3), means.dtype), np.empty((2, 3), means.dtype)
        for n in range(part * SLICE, min((part + 1) * SLICE, count)):
            of_means[n] = 0
            of_quats[n] = 0
            of_scales[n] = 0
            if not reach[n, 0] > 0:
                continue
            x, y, z = in_camera(means, n, world)
            r, q, length = rotation(quats, n)
            j = _jacobian(x, y, z, lens, width, height, orthographic)
            m, u, v, a0, b, d0, sharp = _spread(j, world, r, scales, n)
            determinant = sharp + blur * (a0 + d0) + blur * blur
            a, d = a0 + blur, d0 + blur
            # The conic's matrix and the gradient in the covariance, - conic G conic.
            k00, k01, k11 = d / determinant, -b / determinant, a / determinant
            g00, g01, g11 = of_conics[n, 0], of_conics[n, 1] / 2, of_conics[n, 2]
            t00, t01 = k00 * g00 + k01 * g01, k00 * g01 + k01 * g11
            t10, t11 = k01 * g00 + k11 * g01, k01 * g01 + k11 * g11
            s00, s01 = -(t00 * k00 + t01 * k01), -(t00 * k01 + t01 * k11)
            s11 = -(t10 * k01 + t11 * k11)
            if sharp > 0:
                half = of_compensation[n] * math.sqrt(sharp / determinant) / 2
                s00 += half * (d0 / sharp - d / determinant)
                s01 -= half * (b / sharp - b / determinant)
                s11 += half * (a0 / sharp - a / determinant)
            of_m[:] = 0
            for k in range(3):
                s = scales[n, k]
                of_u, of_v = 2 * (s00 * u[k] + s01 * v[k]) * s, 2 * (s01 * u[k] + s11 * v[k]) * s
                of_scales[n, k] = of_u * u[k] + of_v * v[k]
                for i in range(3):
                    of_r[i, k] = s * (m[0][i] * of_u + m[1][i] * of_v)
                    of_m[0, i] += s * of_u * r[i][k]
                    of_m[1, i] += s * of_v * r[i][k]
            quaternion_gradient(of_r, q, length, of_quats[n])
            # M = J W.
            of_j0 = of_m[0, 0] * world[0, 0] + of_m[0, 1] * world[0, 1] + of_m[0, 2] * world[0, 2]
            of_j02 = of_m[0, 0] * world[2, 0] + of_m[0, 1] * world[2, 1] + of_m[0, 2] * world[2, 2]
            of_j1 = of_m[1, 0] * world[1, 0] + of_m[1, 1] * world[1, 1] + of_m[1, 2] * world[1, 2]
            of_j12 = of_m[1, 0] * world[2, 0] + of_m[1, 1] * world[2, 1] + of_m[1, 2] * world[2, 2]
            fx, fy, of_u, of_v = lens[0], lens[1], of_means2d[n, 0], of_means2d[n, 1]
            camera[14] += of_u
            camera[15] += of_v
            if orthographic:
                of_x, of_y, of_z = of_u * fx, of_v * fy, of_depths[n]
                camera[12] += of_u * x + of_j0
                camera[13] += of_v * y + of_j1
            else:
                slope_x, slope_y = x / z, y / z
                hx, free_x = _held(slope_x, fx, lens[2], width)
                hy, free_y = _held(slope_y, fy, lens[3], height)
                of_slope_x = of_u * fx - (of_j02 * fx / z if free_x else 0)
                of_slope_y = of_v * fy - (of_j12 * fy / z if free_y else 0)
                of_x, of_y = of_slope_x / z, of_slope_y / z
                of_z = of_depths[n] - (of_slope_x * slope_x + of_slope_y * slope_y) / z
                of_z -= (of_j0 * fx + of_j1 * fy - of_j02 * fx * hx - of_j12 * fy * hy) / (z * z)
                camera[12] += of_u * slope_x + (of_j0 - of_j02 * hx) / z
                camera[13] += of_v * slope_y + (of_j1 - of_j12 * hy) / z
            of_p = (of_x, of_y, of_z)
            for i in range(3):
                of_means[n, i] = world[0, i] * of_x + world[1, i] * of_y + world[2, i] * of_z
                camera[i] += of_x * means[n, i] + j[0] * of_m[0, i]
                camera[4 + i] += of_y * means[n, i] + j[2] * of_m[1, i]
                camera[8 + i] += of_z * means[n, i] + j[1] * of_m[0, i] + j[3] * of_m[1, i]
                camera[4 * i + 3] += of_p[i]
        of_camera[part] = camera


@numba.njit(nogil=True)
def quaternion_gradient(g, q, length, out):
    """Through `rotation`: gradient g (3, 3) in the rotation, unit quaternion q and the length it had."""
    w, x, y, z = q
    of_w = 2 * (x * (g[2, 1] - g[1, 2]) + y * (g[0, 2] - g[2, 0]) + z * (g[1, 0] - g[0, 1]))
    xy, xz, yz = g[0, 1] + g[1, 0], g[0, 2] + g[2, 0], g[1, 2] + g[2, 1]
    of_x = 2 * (y * xy + z * xz + w * (g[2, 1] - g[1, 2]) - 2 * x * (g[1, 1] + g[2, 2]))
    of_y = 2 * (x * xy + z * yz + w * (g[0, 2] - g[2, 0]) - 2 * y * (g[0, 0] + g[2, 2]))
    of_z = 2 * (x * xz + y * yz + w * (g[1, 0] - g[0, 1]) - 2 * z * (g[0, 0] + g[1, 1]))
    along = of_w * w + of_x * x + of_y * y + of_z * z
    out[0], out[1] = (of_w - along * w) / length, (of_x - along * x) / length
    out[2], out[3] = (of_y - along * y) / length, (of_z - along * z) / length
