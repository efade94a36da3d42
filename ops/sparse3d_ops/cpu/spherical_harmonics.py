"""Numba bodies of the spherical harmonics. Rows go in chunks, each with one basis that stays in the cache."""

import numba
import numpy as np

from sparse3d_ops.spherical_harmonics import (
    C0,
    C1,
    C2_0,
    C2_1,
    C2_2,
    C3_0,
    C3_1,
    C3_2,
    C3_3,
    C4_0,
    C4_1,
    C4_2,
    C4_3,
    C4_4,
)

CHUNK = 512  # rows: enough work for a thread, few enough for a short array to keep all of them busy


@numba.njit(inline="always")
def fill(x, y, z, degree, b):
    """The polynomials, in double: b (K,) is an output."""
    b[0] = C0
    if degree < 1:
        return
    b[1] = -C1 * y
    b[2] = C1 * z
    b[3] = -C1 * x
    if degree < 2:
        return
    xx, yy, zz = x * x, y * y, z * z
    b[4] = C2_1 * x * y
    b[5] = -C2_1 * y * z
    b[6] = C2_0 * (2 * zz - xx - yy)
    b[7] = -C2_1 * x * z
    b[8] = C2_2 * (xx - yy)
    if degree < 3:
        return
    b[9] = -C3_3 * y * (3 * xx - yy)
    b[10] = 2 * C3_2 * x * y * z
    b[11] = -C3_1 * y * (4 * zz - xx - yy)
    b[12] = C3_0 * z * (2 * zz - 3 * xx - 3 * yy)
    b[13] = -C3_1 * x * (4 * zz - xx - yy)
    b[14] = C3_2 * z * (xx - yy)
    b[15] = -C3_3 * x * (xx - 3 * yy)
    if degree < 4:
        return
    rr = xx + yy + zz
    b[16] = 4 * C4_4 * x * y * (xx - yy)
    b[17] = -C4_3 * y * z * (3 * xx - yy)
    b[18] = 2 * C4_2 * x * y * (7 * zz - rr)
    b[19] = -C4_1 * y * z * (7 * zz - 3 * rr)
    b[20] = C4_0 * (35 * zz * zz - 30 * zz * rr + 3 * rr * rr)
    b[21] = -C4_1 * x * z * (7 * zz - 3 * rr)
    b[22] = C4_2 * (xx - yy) * (7 * zz - rr)
    b[23] = -C4_3 * x * z * (xx - 3 * yy)
    b[24] = C4_4 * (xx * (xx - 3 * yy) - yy * (3 * xx - yy))


@numba.njit(parallel=True, cache=True, nogil=True)
def basis(directions, degree, out):
    for n in numba.prange(len(directions)):
        x, y, z = np.float64(directions[n, 0]), np.float64(directions[n, 1]), np.float64(directions[n, 2])
        fill(x, y, z, degree, out[n])


@numba.njit(parallel=True, cache=True, nogil=True)
def slope(weights, directions, degree, of, to, factor, out):
    """`of`, `to`, `factor` (3, M) are the tables of `spherical_harmonics.slopes`."""
    for chunk in numba.prange((len(directions) + CHUNK - 1) // CHUNK):
        b = np.empty(weights.shape[1], np.float64)
        for n in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(directions))):
            x, y, z = np.float64(directions[n, 0]), np.float64(directions[n, 1]), np.float64(directions[n, 2])
            fill(x, y, z, degree, b)
            for axis in range(3):
                total = 0.0
                for m in range(of.shape[1]):
                    total += factor[axis, m] * weights[n, of[axis, m]] * b[to[axis, m]]
                out[n, axis] = total


@numba.njit(parallel=True, cache=True, nogil=True)
def colors(coefficients, directions, degree, out):
    for chunk in numba.prange((len(directions) + CHUNK - 1) // CHUNK):
        b = np.empty(coefficients.shape[1], coefficients.dtype)
        for n in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(directions))):
            x, y, z = np.float64(directions[n, 0]), np.float64(directions[n, 1]), np.float64(directions[n, 2])
            fill(x, y, z, degree, b)
            for c in range(out.shape[1]):
                total = b[0] * coefficients[n, 0, c]
                for k in range(1, len(b)):
                    total += b[k] * coefficients[n, k, c]
                out[n, c] = total


@numba.njit(parallel=True, cache=True, nogil=True)
def spread(grad, directions, degree, out):
    for chunk in numba.prange((len(directions) + CHUNK - 1) // CHUNK):
        b = np.empty(out.shape[1], out.dtype)
        for n in range(chunk * CHUNK, min((chunk + 1) * CHUNK, len(directions))):
            x, y, z = np.float64(directions[n, 0]), np.float64(directions[n, 1]), np.float64(directions[n, 2])
            fill(x, y, z, degree, b)
            for k in range(len(b)):
                for c in range(grad.shape[1]):
                    out[n, k, c] = b[k] * grad[n, c]
