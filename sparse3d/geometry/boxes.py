"""Rotated boxes as arrays: angles, corners, and the rigid motions that augmentation and drawing need.

Boxes are (N, 7) numpy arrays (x, y, z, l, w, h, yaw): centre and sizes in metres, yaw in radians about +z
from +x. Points are (N, 3 + F): x, y, z, then features that no motion touches. Every function returns new
arrays of the dtype that came in and computes in it; empty arrays are legal. Overlaps and points inside:
`sparse3d_ops.boxes`.
"""

from typing import Literal

import numpy as np

# Signs of (l, w, h) / 2 at the corners: the bottom face counter-clockwise seen from above, from front left,
# then the top face in the same order. Corners 0, 3, 7, 4 are the front.
CORNER_SIGNS = np.array(
    [(1, 1, -1), (-1, 1, -1), (-1, -1, -1), (1, -1, -1), (1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, 1)]
)

# (12, 2) pairs of corner rows that an edge joins: bottom face, top face, uprights.
EDGES = np.array(
    [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
)


def wrap_angle(angle: np.ndarray | float, period: float = 2 * np.pi) -> np.ndarray:
    """The same direction in [-period / 2, period / 2): radians, any shape, float32 or float64 as it came.

    Computed in float64; a value that float32 would round up to period / 2 becomes -period / 2.
    """
    angle = np.asarray(angle)
    dtype = angle.dtype if angle.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    half = 0.5 * period
    wrapped = ((angle.astype(np.float64) + half) % period - half).astype(dtype)
    return np.where(wrapped.astype(np.float64) >= half, -half, wrapped).astype(dtype)


def angle_between(a: np.ndarray | float, b: np.ndarray | float, period: float = 2 * np.pi) -> np.ndarray:
    """Size of the turn from `a` to `b` in [0, period / 2]; period pi where front and back are the same."""
    return np.abs(wrap_angle(np.asarray(b) - np.asarray(a), period))


def corners(boxes: np.ndarray) -> np.ndarray:
    """(N, 7) -> (N, 8, 3) float64 corners in the order of `CORNER_SIGNS`; `EDGES` joins them."""
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 7)
    local = CORNER_SIGNS * boxes[:, None, 3:6] / 2
    c, s = np.cos(boxes[:, 6])[:, None], np.sin(boxes[:, 6])[:, None]
    x = c * local[..., 0] - s * local[..., 1]
    y = s * local[..., 0] + c * local[..., 1]
    return np.stack([x, y, local[..., 2]], axis=-1) + boxes[:, None, :3]


def bottom_corners(boxes: np.ndarray) -> np.ndarray:
    """(N, 7) -> (N, 4, 2) float64: the footprint in x and y, counter-clockwise from front left."""
    return corners(boxes)[:, :4, :2]


def to_box_frame(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Points (N, 3 + F) as one box (7,) sees them: origin at its centre, x along its length."""
    box = _check(np.asarray(box)[None])[0]
    return rotate_points_z(translate(points, -box[:3]), -float(box[6]))


def from_box_frame(points: np.ndarray, box: np.ndarray) -> np.ndarray:
    """The inverse of `to_box_frame`."""
    box = _check(np.asarray(box)[None])[0]
    return translate(rotate_points_z(points, float(box[6])), box[:3])


def enlarge(boxes: np.ndarray, margin: float | tuple[float, float, float]) -> np.ndarray:
    """Boxes with `margin` metres added to l, w and h in all (half on either side); sizes stop at 0."""
    out = _check(boxes).copy()
    out[:, 3:6] = np.maximum(out[:, 3:6] + np.asarray(margin, dtype=out.dtype), 0)
    return out


def translate(rows: np.ndarray, offset: np.ndarray | tuple[float, float, float]) -> np.ndarray:
    """Points (N, 3 + F) or boxes (N, 7) moved by `offset` metres along x, y, z."""
    out = np.array(rows)
    out[:, :3] += np.asarray(offset, dtype=out.dtype)
    return out


def rotate_points_z(points: np.ndarray, angle: float) -> np.ndarray:
    """Points (N, 3 + F) turned about the z axis, counter-clockwise seen from above, by `angle` radians."""
    out = np.array(points)
    c, s = out.dtype.type(np.cos(angle)), out.dtype.type(np.sin(angle))
    out[:, 0] = c * points[:, 0] - s * points[:, 1]
    out[:, 1] = s * points[:, 0] + c * points[:, 1]
    return out


def rotate_boxes_z(boxes: np.ndarray, angle: float) -> np.ndarray:
    """Boxes turned about the z axis by `angle` radians; yaw comes back in [-pi, pi)."""
    out = rotate_points_z(_check(boxes), angle)
    out[:, 6] = wrap_angle(out[:, 6] + out.dtype.type(angle))
    return out


def scale_points(points: np.ndarray, factor: float) -> np.ndarray:
    """Points (N, 3 + F) stretched away from the origin by `factor` > 0."""
    out = np.array(points)
    out[:, :3] *= out.dtype.type(factor)
    return out


def scale_boxes(boxes: np.ndarray, factor: float) -> np.ndarray:
    """Boxes with centres and sizes stretched away from the origin by `factor` > 0."""
    out = _check(boxes).copy()
    out[:, :6] *= out.dtype.type(factor)
    return out


def mirror_points(points: np.ndarray, axis: Literal["x", "y"]) -> np.ndarray:
    """Points (N, 3 + F) with the sign of their x or y coordinate changed."""
    out = np.array(points)
    out[:, "xy".index(axis)] *= -1
    return out


def mirror_boxes(boxes: np.ndarray, axis: Literal["x", "y"]) -> np.ndarray:
    """Boxes seen in the mirror that changes the sign of x or y; yaw comes back in [-pi, pi)."""
    out = mirror_points(_check(boxes), axis)
    out[:, 6] = wrap_angle(-out[:, 6] if axis == "y" else out.dtype.type(np.pi) - out[:, 6])
    return out


def _check(boxes: np.ndarray) -> np.ndarray:
    boxes = np.asarray(boxes)
    if boxes.ndim != 2 or boxes.shape[1] != 7 or not np.issubdtype(boxes.dtype, np.floating):
        raise ValueError(f"boxes are {boxes.dtype} {boxes.shape}, expected float (N, 7)")
    return boxes
