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
    out[front] = _distort(plane, k[front])[0]
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


def _distort(plane: np.ndarray, k: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 2) -> the distorted (N, 2) and the (symmetric) Jacobian as xx, xy, yy (N, 3)."""
    x, y = plane.T
    k1, k2, p1, p2, k3, k4, k5, k6 = k.T
    s = x * x + y * y
    over, under = 1 + s * (k1 + s * (k2 + s * k3)), 1 + s * (k4 + s * (k5 + s * k6))
    over_slope, under_slope = k1 + s * (2 * k2 + s * 3 * k3), k4 + s * (2 * k5 + s * 3 * k6)
    c = over / under
    slope = (over_slope - c * under_slope) / under
    moved = [x * c + 2 * p1 * x * y + p2 * (s + 2 * x * x), y * c + p1 * (s + 2 * y * y) + 2 * p2 * x * y]
    jacobian = [
        c + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x,
        2 * x * y * slope + 2 * p1 * x + 2 * p2 * y,
        c + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x,
    ]
    return np.stack(moved, -1), np.stack(jacobian, -1)


def _undistort(plane: np.ndarray, k: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """The inverse of `_distort` on its one-to-one part: Newton from inside, its step halved where it would
    leave that part or grow the residual."""
    bent = np.flatnonzero((k != 0).any(-1))
    out = np.array(plane)
    if not len(bent):
        return out
    target, k, limit = plane[bent], k[bent], limit[bent]
    size = np.hypot(*target.T)
    at = target * np.minimum(1, 0.9 * limit / np.maximum(size, 1e-300))[:, None]
    value, jacobian = _distort(at, k)
    left = np.hypot(*(value - target).T)
    factor = np.ones(len(bent))
    good_enough = 2 * np.finfo(np.float64).eps * np.maximum(size, 1e-3)
    with np.errstate(all="ignore"):  # a pole or a flat spot gives inf or NaN, which is never accepted below
        for _ in range(_STEPS):
            active = np.flatnonzero((left > good_enough) & (factor > 1e-6))
            if not len(active):
                break
            xx, xy, yy = jacobian[active].T
            rx, ry = (value[active] - target[active]).T
            determinant = xx * yy - xy * xy
            step = np.stack([(yy * rx - xy * ry) / determinant, (xx * ry - xy * rx) / determinant], -1)
            tried = at[active] - factor[active, None] * step
            tried_value, tried_jacobian = _distort(tried, k[active])
            tried_left = np.hypot(*(tried_value - target[active]).T)
            better = (tried_left < left[active]) & (np.hypot(*tried.T) <= limit[active])
            rows = active[better]
            at[rows], value[rows], jacobian[rows] = tried[better], tried_value[better], tried_jacobian[better]
            left[rows] = tried_left[better]
            factor[rows] = np.minimum(1, 2 * factor[rows])
            factor[active[~better]] /= 2
    turned = jacobian[:, 0] * jacobian[:, 2] <= jacobian[:, 1] ** 2
    at[(left > _SOLVED * np.maximum(size, 1)) | turned | ~np.isfinite(left)] = np.nan
    out[bent] = at
    return out


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
