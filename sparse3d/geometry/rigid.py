"""Rigid motions as 4x4 matrices, and what they do to points and boxes.

`b_from_a` maps coordinates in frame a to frame b: `b_from_a @ a_from_c` is `b_from_c`. Everything is computed
in float64, since positions in a city's frame lose centimetres in float32. Leading axes are batches.
"""

import numpy as np


def rotation_from_quaternion(quaternion: np.ndarray) -> np.ndarray:
    """(..., 4) as w, x, y, z -> (..., 3, 3); the length does not matter. ValueError for a length of 0."""
    q = np.asarray(quaternion, dtype=np.float64)
    length = np.linalg.norm(q, axis=-1, keepdims=True)
    if not np.all(length > 0):
        raise ValueError("a quaternion has length 0 (or is not a number) and is no rotation")
    w, x, y, z = np.moveaxis(q / length, -1, 0)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def rotation_from_euler(roll: np.ndarray, pitch: np.ndarray, yaw: np.ndarray) -> np.ndarray:
    """Rz(yaw) Ry(pitch) Rx(roll), radians, arrays of one shape (...) -> (..., 3, 3)."""
    roll, pitch, yaw = (np.asarray(angle, dtype=np.float64) for angle in (roll, pitch, yaw))
    cr, sr, cp, sp, cy, sy = (f(a) for a in (roll, pitch, yaw) for f in (np.cos, np.sin))
    rows = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    return np.stack([np.stack(row, axis=-1) for row in rows], axis=-2)


def rigid(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
    """(..., 3, 3) and (..., 3) -> (..., 4, 4)."""
    rotation = np.asarray(rotation, dtype=np.float64)
    matrix = np.zeros((*rotation.shape[:-2], 4, 4))
    matrix[..., :3, :3] = rotation
    matrix[..., :3, 3] = translation
    matrix[..., 3, 3] = 1
    return matrix


def inverse(matrix: np.ndarray) -> np.ndarray:
    """(..., 4, 4) -> (..., 4, 4): `a_from_b` of `b_from_a`."""
    turned = np.swapaxes(matrix[..., :3, :3], -1, -2)
    return rigid(turned, -(turned @ matrix[..., :3, 3:])[..., 0])


def is_rigid(matrix: np.ndarray, tolerance: float = 1e-3) -> bool:
    """Whether (..., 4, 4) are finite, with rotations of determinant 1 and a last row of 0 0 0 1."""
    if not np.isfinite(matrix).all():
        return False
    rotation = matrix[..., :3, :3]
    straight = np.abs(rotation @ np.swapaxes(rotation, -1, -2) - np.eye(3)).max(initial=0) < tolerance
    last = np.abs(matrix[..., 3, :] - [0, 0, 0, 1]).max(initial=0) < tolerance
    return bool(straight and last and (np.linalg.det(rotation) > 0).all())


def transform_points(points: np.ndarray, b_from_a: np.ndarray) -> np.ndarray:
    """Points (N, 3 + F) in frame a -> frame b, in the dtype that came in; the features stay."""
    out = np.array(points)
    out[:, :3] = points[:, :3].astype(np.float64) @ b_from_a[:3, :3].T + b_from_a[:3, 3]
    return out


def transform_boxes(boxes: np.ndarray, b_from_a: np.ndarray) -> np.ndarray:
    """Upright boxes (N, 7) in frame a -> frame b; b_from_a (4, 4), or (N, 4, 4) with one for each box.

    Yaw is the direction of the turned length axis seen from above: a box stays upright where the frames tilt
    against each other.
    """
    out = np.array(boxes)
    centre, yaw = boxes[:, :3].astype(np.float64), boxes[:, 6].astype(np.float64)
    rotation, translation = b_from_a[..., :3, :3], b_from_a[..., :3, 3]
    out[:, :3] = (rotation @ centre[..., None])[..., 0] + translation
    forward = (rotation @ np.stack([np.cos(yaw), np.sin(yaw), np.zeros_like(yaw)], -1)[..., None])[..., 0]
    out[:, 6] = np.arctan2(forward[:, 1], forward[:, 0])
    return out
