"""Boxes (x, y, z, l, w, h, yaw) in numpy: centre in metres, yaw in radians about +z from +x.

Kernels over many points and boxes (IoU, NMS, points in boxes) are ops: `sparse3d_ops.boxes`.
"""

import numpy as np

# Corner order: the bottom face counter-clockwise from front left, then the top face in the same order.
_CORNER_SIGNS = np.array(
    [(1, 1, -1), (-1, 1, -1), (-1, -1, -1), (1, -1, -1), (1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, 1)]
)

# (12, 2) pairs of corner rows that an edge joins: bottom face, top face, uprights.
BOX_EDGES = np.array(
    [(0, 1), (1, 2), (2, 3), (3, 0), (4, 5), (5, 6), (6, 7), (7, 4), (0, 4), (1, 5), (2, 6), (3, 7)]
)


def wrap_angle(angle: np.ndarray) -> np.ndarray:
    """Angles in radians brought into [-pi, pi), in the dtype that came (float32 or float64).

    Computed in float64; a value that float32 would round up to pi becomes -pi.
    """
    angle = np.asarray(angle)
    dtype = angle.dtype if angle.dtype in (np.float32, np.float64) else np.dtype(np.float64)
    wrapped = ((angle.astype(np.float64) + np.pi) % (2 * np.pi) - np.pi).astype(dtype)
    return np.where(wrapped.astype(np.float64) >= np.pi, -np.pi, wrapped).astype(dtype)


def box_corners(boxes: np.ndarray) -> np.ndarray:
    """(M, 7) boxes -> (M, 8, 3) float64 corners: bottom face counter-clockwise from front left, then the top
    face.
    """
    boxes = np.asarray(boxes, dtype=np.float64).reshape(-1, 7)
    local = _CORNER_SIGNS[None] * boxes[:, None, 3:6] / 2
    cos, sin = np.cos(boxes[:, 6])[:, None], np.sin(boxes[:, 6])[:, None]
    x = cos * local[..., 0] - sin * local[..., 1]
    y = sin * local[..., 0] + cos * local[..., 1]
    return np.stack([x, y, local[..., 2]], axis=-1) + boxes[:, None, :3]
