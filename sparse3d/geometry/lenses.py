"""Lenses: where a direction meets the image plane, and the exact way back.

A lens maps a point in front of a camera (OpenCV axes: x right, y down, z forward) to the image plane at
distance 1. Two models, with the coefficients in OpenCV's order (its documentation, "Camera calibration and 3D
reconstruction" and "Fisheye camera model"), as rows `k` of (N, 8), zeros where there are fewer:

    PERSPECTIVE  k1 k2 p1 p2 k3 k4 k5 k6   (x, y) = (X, Y) / Z, s = x^2 + y^2,
                 (x, y) (1 + k1 s + k2 s^2 + k3 s^3) / (1 + k4 s + k5 s^2 + k6 s^3)
                 + (2 p1 x y + p2 (s + 2 x^2), p1 (s + 2 y^2) + 2 p2 x y);  all 0 is a pinhole
    FISHEYE      k1 k2 k3 k4               t = angle to the axis, t (1 + k1 t^2 + k2 t^4 + k3 t^6 + k4 t^8)

A polynomial folds back: beyond the first radius where it stops growing (`one_to_one_limit`) two directions
would share a pixel. Such directions are not seen, and pixels that no direction within the limit reaches have
no ray; both give NaN. Everything is float64.
"""

import numpy as np
from numba import njit
from numpy.polynomial import polynomial

PERSPECTIVE, FISHEYE = 0, 1
COEFFICIENTS = 8

# Newton doubles the digits; 60 leaves room for the halved steps near the limit. What has not come to 1e-12 of
# the image plane's unit by then has no solution: a pixel is about 1e-3 of it.
_STEPS = 60
_SOLVED = 1e-12


def one_to_one_limit(kind: int, k: np.ndarray) -> float:
    """The largest radius (PERSPECTIVE: of the undistorted plane; FISHEYE: angle in radians, at most pi) up to
    which the radial part grows. inf for a pinhole."""
    if kind == FISHEYE:
        slope = np.array([1, 3 * k[0], 5 * k[1], 7 * k[2], 9 * k[3]])
        return min(np.sqrt(_first_root(slope)), np.pi)
    over, under = np.array([1, k[0], k[1], k[4]]), np.array([1, k[5], k[6], k[7]])
    # Derivative of r over(r^2) / under(r^2), times under^2, as a polynomial in s = r^2.
    turn = polynomial.polysub(
        polynomial.polymul(polynomial.polyder(over), under),
        polynomial.polymul(over, polynomial.polyder(under)),
    )
    slope = polynomial.polyadd(polynomial.polymul(over, under), polynomial.polymul([0, 2], turn))
    return float(np.sqrt(min(_first_root(slope), _first_root(under))))


def _first_root(coefficients: np.ndarray) -> float:
    """The smallest positive real root of c0 + c1 s + ..., inf where there is none."""
    roots = polynomial.polyroots(polynomial.polytrim(coefficients))
    real = roots.real[(np.abs(roots.imag) < 1e-9 * (1 + np.abs(roots))) & (roots.real > 0)]
    return float(real.min(initial=np.inf))


def to_plane(points: np.ndarray, kind: np.ndarray, k: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """(N, 3) points in the camera's frame, with lens kind (N,), coefficients (N, 8) and limit (N,) of each ->
    (N, 2) on the distorted plane; NaN for what the lens does not see."""
    out = np.full((len(points), 2), np.nan)
    x, y, z = np.moveaxis(np.asarray(points, dtype=np.float64), -1, 0)
    fish = kind == FISHEYE
    front = ~fish & (z > 0)
    with np.errstate(over="ignore"):
        plane = np.stack([x[front] / z[front], y[front] / z[front]], -1)
        front[front] = np.hypot(*plane.T) <= limit[front]
    plane = np.stack([x[front] / z[front], y[front] / z[front]], -1)
    out[front] = _distort(plane, k[front])
    radius = np.hypot(x, y)
    angle = np.arctan2(radius, z)
    fish &= (angle <= limit) & ((radius > 0) | (z > 0))
    ratio = _fisheye(angle[fish], k[fish])[0] / np.where(radius[fish] > 0, radius[fish], 1)
    out[fish] = np.stack([x[fish], y[fish]], -1) * ratio[:, None]
    return out


def to_direction(plane: np.ndarray, kind: np.ndarray, k: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """(N, 2) on the distorted plane -> (N, 3) unit directions in the camera's frame, by Newton's method to
    double accuracy; NaN where no direction within the lens's limit goes there."""
    plane = np.asarray(plane, dtype=np.float64)
    out = np.empty((len(plane), 3))
    fish = kind == FISHEYE
    if not fish.all():
        straight = _undistort(plane[~fish], k[~fish], limit[~fish])
        length = np.sqrt(1 + (straight**2).sum(-1, keepdims=True))
        out[~fish] = np.concatenate([straight, np.ones_like(length)], -1) / length
    if fish.any():
        radius = np.hypot(*plane[fish].T)
        angle = _fisheye_angle(radius, k[fish], limit[fish])
        side = plane[fish] / np.where(radius > 0, radius, 1)[:, None]
        out[fish] = np.concatenate([side * np.sin(angle)[:, None], np.cos(angle)[:, None]], -1)
    return out


def _distort(plane: np.ndarray, k: np.ndarray) -> np.ndarray:
    """(N, 2) -> the distorted (N, 2)."""
    x, y = plane.T
    k1, k2, p1, p2, k3, k4, k5, k6 = k.T
    s = x * x + y * y
    over, under = 1 + s * (k1 + s * (k2 + s * k3)), 1 + s * (k4 + s * (k5 + s * k6))
    c = over / under
    moved = [x * c + 2 * p1 * x * y + p2 * (s + 2 * x * x), y * c + p1 * (s + 2 * y * y) + 2 * p2 * x * y]
    return np.stack(moved, -1)


def _undistort(plane: np.ndarray, k: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """The inverse of `_distort` on its one-to-one part, NaN where it has none."""
    out = np.empty_like(plane)
    _undistort_rows(np.ascontiguousarray(plane), np.ascontiguousarray(k), np.ascontiguousarray(limit), out)
    return out


@njit(cache=True, nogil=True)
def _distort_one(x, y, k):
    """One row of `_distort`: both coordinates and the Jacobian's xx, xy, yy."""
    s = x * x + y * y
    over = 1 + s * (k[0] + s * (k[1] + s * k[4]))
    under = 1 + s * (k[5] + s * (k[6] + s * k[7]))
    c = over / under
    slope = (k[0] + s * (2 * k[1] + s * 3 * k[4]) - c * (k[5] + s * (2 * k[6] + s * 3 * k[7]))) / under
    p1, p2 = k[2], k[3]
    u = x * c + 2 * p1 * x * y + p2 * (s + 2 * x * x)
    v = y * c + p1 * (s + 2 * y * y) + 2 * p2 * x * y
    xx = c + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
    xy = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    yy = c + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
    return u, v, xx, xy, yy


@njit(cache=True, nogil=True, error_model="numpy")
def _undistort_rows(plane, k, limit, out):
    """Newton from inside the one-to-one part, a step halved where it would leave that part or grow the
    residual. A pole gives inf or NaN, which is never smaller."""
    for row in range(len(plane)):
        goal_x, goal_y = plane[row, 0], plane[row, 1]
        size = np.hypot(goal_x, goal_y)
        straight = True
        for c in range(8):
            straight = straight and k[row, c] == 0
        if straight:
            out[row, 0], out[row, 1] = goal_x, goal_y
            continue
        shrink = min(1.0, 0.9 * limit[row] / max(size, 1e-300))
        x, y = goal_x * shrink, goal_y * shrink
        u, v, xx, xy, yy = _distort_one(x, y, k[row])
        left = np.hypot(u - goal_x, v - goal_y)
        good_enough = 2 * 2.220446049250313e-16 * max(size, 1e-3)
        factor = 1.0
        for _ in range(_STEPS):
            if not left > good_enough or factor < 1e-6:
                break
            determinant = xx * yy - xy * xy
            step_x = (yy * (u - goal_x) - xy * (v - goal_y)) / determinant
            step_y = (xx * (v - goal_y) - xy * (u - goal_x)) / determinant
            new_x, new_y = x - factor * step_x, y - factor * step_y
            new = _distort_one(new_x, new_y, k[row])
            new_left = np.hypot(new[0] - goal_x, new[1] - goal_y)
            if new_left < left and np.hypot(new_x, new_y) <= limit[row]:
                x, y, left = new_x, new_y, new_left
                u, v, xx, xy, yy = new
                factor = min(1.0, 2 * factor)
            else:
                factor /= 2
        solved = left <= _SOLVED * max(size, 1.0) and xx * yy > xy * xy
        out[row, 0] = x if solved else np.nan
        out[row, 1] = y if solved else np.nan


def _fisheye(angle: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Angle to the axis (N,) -> radius on the plane, and its derivative."""
    s = angle * angle
    k1, k2, k3, k4 = k[:, :4].T
    value = angle * (1 + s * (k1 + s * (k2 + s * (k3 + s * k4))))
    return value, 1 + s * (3 * k1 + s * (5 * k2 + s * (7 * k3 + s * 9 * k4)))


def _fisheye_angle(radius: np.ndarray, k: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """The inverse of `_fisheye` on [0, limit]: Newton, or bisection where its step leaves the bracket."""
    low, high = np.zeros(len(radius)), np.array(limit)
    reached = radius <= _fisheye(high, k)[0] * (1 + 4 * np.finfo(np.float64).eps)
    at = np.minimum(radius, 0.9 * high)
    with np.errstate(all="ignore"):
        for _ in range(_STEPS):
            value, slope = _fisheye(at, k)
            low, high = np.where(value <= radius, at, low), np.where(value >= radius, at, high)
            tried = at - (value - radius) / slope
            new = np.where((tried >= low) & (tried <= high), tried, (low + high) / 2)
            done = np.abs(new - at) <= np.spacing(at)
            at = new
            if (done | ~reached).all():
                break
    return np.where(reached, at, np.nan)
