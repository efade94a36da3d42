"""Numba bodies over rotated boxes, rows (x, y, z, l, w, h, yaw), always in float64.

A pair is looked at in the frame of one of its boxes: there the other box is clipped by four axis-parallel
lines (Sutherland and Hodgman 1974), so neither a far origin nor equal, touching or zero-sized boxes need a
special case. Which of the two boxes gives the frame depends on the values only, not on the order of the
arguments: overlaps are symmetric to the last bit.
"""

import math

import numba
import numpy as np

# Clipping a convex polygon by a line adds one vertex: 4 corners and 4 lines make 8. Rounding may bend a
# nearly straight border; even if every line then crossed every edge on every second vertex there would be 4 *
# 1.5^4 < 21.
MAX_VERTICES = 24

# Below this many pairs one thread is done before a second one has woken up.
FEW_PAIRS = 1024


@numba.njit(cache=True, nogil=True)
def _comes_after(a, b):
    for k in range(7):
        if a[k] != b[k]:
            return a[k] > b[k]
    return False


@numba.njit(cache=True, nogil=True)
def _circles_meet(a, b):
    reach = 0.5 * (math.sqrt(a[3] * a[3] + a[4] * a[4]) + math.sqrt(b[3] * b[3] + b[4] * b[4]))
    dx, dy = b[0] - a[0], b[1] - a[1]
    return dx * dx + dy * dy <= reach * reach


@numba.njit(cache=True, nogil=True)
def _clip(source, count, target, axis, sign, limit):
    """Keep the part of a polygon where sign * coordinate[axis] <= limit; returns its number of vertices."""
    kept = 0
    for i in range(count):
        j = i + 1 if i + 1 < count else 0
        here = limit - sign * source[i, axis]
        there = limit - sign * source[j, axis]
        if here >= 0:
            target[kept, 0], target[kept, 1] = source[i, 0], source[i, 1]
            kept += 1
        if (here > 0 and there < 0) or (here < 0 and there > 0):
            t = here / (here - there)
            other = 1 - axis
            target[kept, axis] = sign * limit
            target[kept, other] = source[i, other] + t * (source[j, other] - source[i, other])
            kept += 1
    return kept


@numba.njit(cache=True, nogil=True)
def _shared_area(a, b, scratch):
    """Area of the intersection of two boxes seen from above. `scratch` is (2, MAX_VERTICES, 2)."""
    if not _circles_meet(a, b):
        return 0.0
    if _comes_after(a, b):
        a, b = b, a
    dx, dy = b[0] - a[0], b[1] - a[1]
    cos_a, sin_a = math.cos(a[6]), math.sin(a[6])
    x, y = cos_a * dx + sin_a * dy, cos_a * dy - sin_a * dx
    c, s = math.cos(b[6] - a[6]), math.sin(b[6] - a[6])
    polygon, spare = scratch[0], scratch[1]
    for k in range(4):  # counter-clockwise
        u = 0.5 * b[3] if k == 0 or k == 3 else -0.5 * b[3]
        v = 0.5 * b[4] if k < 2 else -0.5 * b[4]
        polygon[k, 0], polygon[k, 1] = x + c * u - s * v, y + s * u + c * v
    count = 4
    for axis in range(2):
        for sign in (1.0, -1.0):
            count = _clip(polygon, count, spare, axis, sign, 0.5 * a[3 + axis])
            polygon, spare = spare, polygon
    twice = 0.0
    for i in range(count):
        j = i + 1 if i + 1 < count else 0
        twice += polygon[i, 0] * polygon[j, 1] - polygon[j, 0] * polygon[i, 1]
    return min(max(0.5 * twice, 0.0), a[3] * a[4], b[3] * b[4])


@numba.njit(cache=True, nogil=True)
def _iou_bev(a, b, scratch):
    shared = _shared_area(a, b, scratch)
    return shared / (a[3] * a[4] + b[3] * b[4] - shared) if shared > 0 else 0.0


@numba.njit(cache=True, nogil=True)
def _iou_3d(a, b, scratch):
    if _comes_after(a, b):
        a, b = b, a
    dz = b[2] - a[2]
    height = min(0.5 * a[5], dz + 0.5 * b[5]) - max(-0.5 * a[5], dz - 0.5 * b[5])
    if not height > 0:
        return 0.0
    # min: (dz + h/2) - (dz - h/2) may round to more than h, and then the overlap to more than either box.
    shared = _shared_area(a, b, scratch) * min(height, a[5], b[5])
    return shared / (a[3] * a[4] * a[5] + b[3] * b[4] * b[5] - shared) if shared > 0 else 0.0


@numba.njit(cache=True, nogil=True)
def _row_iou_bev(a, b, out):
    scratch = np.empty((2, MAX_VERTICES, 2))
    for j in range(len(b)):
        out[j] = _iou_bev(a, b[j], scratch)


@numba.njit(parallel=True, cache=True, nogil=True)
def box_iou_bev(a, b, out):
    if len(a) * len(b) < FEW_PAIRS:
        for i in range(len(a)):
            _row_iou_bev(a[i], b, out[i])
    else:
        for i in numba.prange(len(a)):
            _row_iou_bev(a[i], b, out[i])


@numba.njit(cache=True, nogil=True)
def _row_iou_3d(a, b, out):
    scratch = np.empty((2, MAX_VERTICES, 2))
    for j in range(len(b)):
        out[j] = _iou_3d(a, b[j], scratch)


@numba.njit(parallel=True, cache=True, nogil=True)
def box_iou_3d(a, b, out):
    if len(a) * len(b) < FEW_PAIRS:
        for i in range(len(a)):
            _row_iou_3d(a[i], b, out[i])
    else:
        for i in numba.prange(len(a)):
            _row_iou_3d(a[i], b, out[i])


@numba.njit(cache=True, nogil=True)
def box_iou_3d_aligned(a, b, out):
    scratch = np.empty((2, MAX_VERTICES, 2))
    for i in range(len(a)):
        out[i] = _iou_3d(a[i], b[i], scratch)


@numba.njit(cache=True, nogil=True)
def nms(boxes, order, threshold, suppressed, kept):
    """`order` (N,) visits the boxes, `suppressed` (N,) comes in False; returns how many `kept` are set."""
    scratch = np.empty((2, MAX_VERTICES, 2))
    count = 0
    for i in range(len(order)):
        first = order[i]
        if suppressed[first]:
            continue
        kept[count] = first
        count += 1
        for j in range(i + 1, len(order)):
            second = order[j]
            if not suppressed[second] and _circles_meet(boxes[first], boxes[second]):
                suppressed[second] = _iou_bev(boxes[first], boxes[second], scratch) > threshold
    return count


@numba.njit(cache=True, nogil=True)
def _edges(boxes, edges):
    """Rows (x, y, z, radius, l/2, w/2, h/2, cos yaw, sin yaw): what a point is tested against."""
    for m in range(len(boxes)):
        edges[m, 0], edges[m, 1], edges[m, 2] = boxes[m, 0], boxes[m, 1], boxes[m, 2]
        # A little more than the circumscribed circle: it only pre-selects, rounding must not lose corners.
        edges[m, 3] = 0.5 * math.hypot(boxes[m, 3], boxes[m, 4]) * (1 + 1e-9)
        edges[m, 4], edges[m, 5], edges[m, 6] = 0.5 * boxes[m, 3], 0.5 * boxes[m, 4], 0.5 * boxes[m, 5]
        edges[m, 7], edges[m, 8] = math.cos(boxes[m, 6]), math.sin(boxes[m, 6])


@numba.njit(cache=True, nogil=True)
def _inside(x, y, z, box):
    """A point that is not finite fails the first comparison."""
    dx = x - box[0]
    if not abs(dx) <= box[3]:
        return False
    dy = y - box[1]
    if not abs(dy) <= box[3] or not abs(z - box[2]) <= box[6]:
        return False
    c, s = box[7], box[8]
    return abs(c * dx + s * dy) <= box[4] and abs(c * dy - s * dx) <= box[5]


@numba.njit(parallel=True, cache=True, nogil=True)
def points_in_boxes(points, boxes, out):
    edges = np.empty((len(boxes), 9))
    _edges(boxes, edges)
    for p in numba.prange(len(points)):
        x, y, z = np.float64(points[p, 0]), np.float64(points[p, 1]), np.float64(points[p, 2])
        out[p] = -1
        for m in range(len(edges)):
            if _inside(x, y, z, edges[m]):
                out[p] = m
                break


@numba.njit(parallel=True, cache=True, nogil=True)
def points_per_box(points, boxes, out):
    edges = np.empty((len(boxes), 9))
    _edges(boxes, edges)
    for m in numba.prange(len(boxes)):
        count = 0
        for p in range(len(points)):
            if _inside(
                np.float64(points[p, 0]), np.float64(points[p, 1]), np.float64(points[p, 2]), edges[m]
            ):
                count += 1
        out[m] = count
