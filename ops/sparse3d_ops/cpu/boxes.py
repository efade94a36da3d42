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

# Parts of the points that are counted side by side, however many threads there are.
MOST_CHUNKS = 64


@numba.njit(cache=True, nogil=True)
def _comes_after(a, b):
    for k in range(7):
        if a[k] != b[k]:
            return a[k] > b[k]
    return False


@numba.njit(inline="always")
def _box(boxes, m):
    """A row as seven numbers: a view of it would count references to memory that all threads share."""
    x, y, z, yaw = boxes[m, 0], boxes[m, 1], boxes[m, 2], boxes[m, 6]
    return x, y, z, boxes[m, 3], boxes[m, 4], boxes[m, 5], yaw


@numba.njit(cache=True, nogil=True)
def _circles(boxes, circles):
    """Rows (x, y, diameter of the circumscribed circle): circles (3, N) is an output."""
    for m in range(len(boxes)):
        circles[0, m], circles[1, m] = boxes[m, 0], boxes[m, 1]
        circles[2, m] = math.sqrt(boxes[m, 3] * boxes[m, 3] + boxes[m, 4] * boxes[m, 4])


@numba.njit(inline="always")
def _circles_meet(p, q, i, j):
    reach = 0.5 * (p[2, i] + q[2, j])
    dx, dy = q[0, j] - p[0, i], q[1, j] - p[1, i]
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
    """Area of the intersection of two boxes seen from above whose circles meet; where they do not it would be
    zero too, but for rounding. `scratch` is (2, MAX_VERTICES, 2)."""
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
def _row_iou(a, b, i, circles_a, circles_b, volumes, near, scratch, out):
    """Overlaps of box i of `a` with all of `b`: of volumes, or seen from above. `near` (M,) is scratch."""
    for j in range(len(b)):  # by itself, so that it runs on vectors: nearly all pairs end here
        near[j] = _circles_meet(circles_a, circles_b, i, j)
    for j in range(len(b)):
        if not near[j]:
            out[j] = 0
        else:
            p, q = _box(a, i), _box(b, j)
            out[j] = _iou_3d(p, q, scratch) if volumes else _iou_bev(p, q, scratch)


@numba.njit(parallel=True, cache=True, nogil=True)
def box_iou(a, b, volumes, out):
    """All pairs: out (N, M) is an output, of any float type."""
    circles_a, circles_b = np.empty((3, len(a))), np.empty((3, len(b)))
    _circles(a, circles_a)
    _circles(b, circles_b)
    if len(a) * len(b) < FEW_PAIRS:
        near, scratch = np.empty(len(b), np.bool_), np.empty((2, MAX_VERTICES, 2))
        for i in range(len(a)):
            _row_iou(a, b, i, circles_a, circles_b, volumes, near, scratch, out[i])
    else:
        for i in numba.prange(len(a)):
            near, scratch = np.empty(len(b), np.bool_), np.empty((2, MAX_VERTICES, 2))
            _row_iou(a, b, i, circles_a, circles_b, volumes, near, scratch, out[i])


@numba.njit(cache=True, nogil=True)
def box_iou_3d_aligned(a, b, out):
    circles_a, circles_b = np.empty((3, len(a))), np.empty((3, len(b)))
    _circles(a, circles_a)
    _circles(b, circles_b)
    scratch = np.empty((2, MAX_VERTICES, 2))
    for i in range(len(a)):
        meet = _circles_meet(circles_a, circles_b, i, i)
        out[i] = _iou_3d(_box(a, i), _box(b, i), scratch) if meet else 0.0


@numba.njit(cache=True, nogil=True)
def _grid(circles):
    """Origin and side of square cells in which boxes that meet lie at most one cell apart.

    The side is a little more than the largest diameter, so that rounding cannot set two cells between them,
    and no less than 2^-20 of the extent, which keeps cell numbers small whatever the boxes are.
    """
    x, y, side = circles[0, 0], circles[1, 0], 0.0
    far_x, far_y = x, y
    for m in range(circles.shape[1]):
        x, y = min(x, circles[0, m]), min(y, circles[1, m])
        far_x, far_y = max(far_x, circles[0, m]), max(far_y, circles[1, m])
        side = max(side, circles[2, m])
    side = max(1.01 * side, max(far_x - x, far_y - y) / (1 << 20))
    return x, y, side if side > 0 else 1.0


@numba.njit(cache=True, nogil=True)
def _cell_slot(cells, key):
    """Place of a cell in an open-addressing table, or the free place (-1) where it belongs."""
    mask = len(cells) - 1
    slot = np.int64((np.uint64(key) * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)) & mask
    while cells[slot] != -1 and cells[slot] != key:
        slot = (slot + 1) & mask
    return slot


@numba.njit(cache=True, nogil=True)
def nms(boxes, order, threshold, kept):
    """`order` (N,) visits the boxes; returns how many `kept` (N,) are set, in that order.

    Each box is held against the kept ones in its own and the eight cells around it: what a box farther away
    overlaps is nothing. That gives the same as striking out what each kept box overlaps.
    """
    if len(boxes) == 0:
        return 0
    circles = np.empty((3, len(boxes)))
    _circles(boxes, circles)
    x, y, side = _grid(circles)
    size = 8
    while size < 2 * len(boxes):
        size *= 2
    cells = np.full(size, -1, np.int64)
    newest = np.empty(size, np.int64)  # the last kept box of a cell, and of each box the one kept before it
    before = np.empty(len(boxes), np.int64)
    scratch = np.empty((2, MAX_VERTICES, 2))
    count = 0
    for box in order:
        column, line = np.int64((circles[0, box] - x) / side), np.int64((circles[1, box] - y) / side)
        free = True
        for i in range(column - 1, column + 2):
            for j in range(line - 1, line + 2):
                if i < 0 or j < 0 or not free:
                    continue
                slot = _cell_slot(cells, (i << 32) | j)
                other = newest[slot] if cells[slot] != -1 else -1
                while free and other >= 0:
                    if _circles_meet(circles, circles, other, box):
                        free = not _iou_bev(_box(boxes, other), _box(boxes, box), scratch) > threshold
                    other = before[other]
        if free:
            slot = _cell_slot(cells, (column << 32) | line)
            before[box] = newest[slot] if cells[slot] != -1 else -1
            cells[slot] = (column << 32) | line
            newest[slot] = box
            kept[count] = box
            count += 1
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
def _inside(x, y, z, edges, m):
    """A point that is not finite fails the first comparison."""
    dx = x - edges[m, 0]
    if not abs(dx) <= edges[m, 3]:
        return False
    dy = y - edges[m, 1]
    if not abs(dy) <= edges[m, 3] or not abs(z - edges[m, 2]) <= edges[m, 6]:
        return False
    c, s = edges[m, 7], edges[m, 8]
    return abs(c * dx + s * dy) <= edges[m, 4] and abs(c * dy - s * dx) <= edges[m, 5]


@numba.njit(inline="always")
def _cell(value, low, step, cells):
    """Cell of a coordinate on one axis; what lies beyond the grid belongs to its border."""
    place = (value - low) / step
    return np.int64(min(place, cells - 1.0)) if place > 0 else np.int64(0)  # written so that NaN is in 0


@numba.njit(cache=True, nogil=True)
def _held_cells(edges, m, low, step, cells):
    """Range of cells (x0, x1, y0, y1) that box m may reach into: one more than it does to each side, so that
    rounding loses no corner."""
    x, y, radius = edges[m, 0], edges[m, 1], edges[m, 3]
    return (
        max(_cell(x - radius, low[0], step[0], cells) - 1, 0),
        min(_cell(x + radius, low[0], step[0], cells) + 2, cells),
        max(_cell(y - radius, low[1], step[1], cells) - 1, 0),
        min(_cell(y + radius, low[1], step[1], cells) + 2, cells),
    )


@numba.njit(cache=True, nogil=True)
def _extent(edges, cells):
    """Lower corner of all boxes and the sides of a cell."""
    low, step = np.zeros(2), np.ones(2)
    for axis in range(2):
        if len(edges):
            low[axis], high = np.inf, -np.inf
            for m in range(len(edges)):
                low[axis] = min(low[axis], edges[m, axis] - edges[m, 3])
                high = max(high, edges[m, axis] + edges[m, 3])
            step[axis] = max((high - low[axis]) / cells, 1e-30)
    return low, step


@numba.njit(cache=True, nogil=True)
def _candidates(edges, cells):
    """A grid of cells x cells over all boxes, seen from above: low, step, and the boxes that may reach into
    cell c as held[offsets[c]:offsets[c + 1]], lowest index first."""
    low, step = _extent(edges, cells)
    offsets = np.zeros(cells * cells + 1, np.int64)
    for m in range(len(edges)):
        x0, x1, y0, y1 = _held_cells(edges, m, low, step, cells)
        for i in range(x0, x1):
            for j in range(y0, y1):
                offsets[i * cells + j + 1] += 1
    for c in range(cells * cells):
        offsets[c + 1] += offsets[c]
    held = np.empty(offsets[-1], np.int32)
    cursor = offsets[:-1].copy()
    for m in range(len(edges)):
        x0, x1, y0, y1 = _held_cells(edges, m, low, step, cells)
        for i in range(x0, x1):
            for j in range(y0, y1):
                held[cursor[i * cells + j]] = m
                cursor[i * cells + j] += 1
    return low, step, offsets, held


@numba.njit(cache=True, nogil=True)
def _cells_for(edges):
    """Cells an axis: 64, but one where large boxes would fill most of such a grid each."""
    low, step = _extent(edges, 64)
    total = 0
    for m in range(len(edges)):
        x0, x1, y0, y1 = _held_cells(edges, m, low, step, 64)
        total += (x1 - x0) * (y1 - y0)
    return 64 if total <= 512 * len(edges) else 1


@numba.njit(parallel=True, cache=True, nogil=True)
def points_in_boxes(points, boxes, out):
    edges = np.empty((len(boxes), 9))
    _edges(boxes, edges)
    cells = _cells_for(edges)
    low, step, offsets, held = _candidates(edges, cells)
    for p in numba.prange(len(points)):
        x, y, z = np.float64(points[p, 0]), np.float64(points[p, 1]), np.float64(points[p, 2])
        out[p] = -1
        i, j = _cell(x, low[0], step[0], cells), _cell(y, low[1], step[1], cells)
        for k in range(offsets[i * cells + j], offsets[i * cells + j + 1]):
            if _inside(x, y, z, edges, held[k]):
                out[p] = held[k]
                break


@numba.njit(parallel=True, cache=True, nogil=True)
def points_per_box(points, boxes, out):
    edges = np.empty((len(boxes), 9))
    _edges(boxes, edges)
    cells = _cells_for(edges)
    low, step, offsets, held = _candidates(edges, cells)
    chunks = min(MOST_CHUNKS, len(points) // 4096 + 1)
    length = (len(points) + chunks - 1) // chunks
    counts = np.zeros((chunks, len(boxes)), np.int64)
    for c in numba.prange(chunks):
        for p in range(c * length, min((c + 1) * length, len(points))):
            x, y, z = np.float64(points[p, 0]), np.float64(points[p, 1]), np.float64(points[p, 2])
            i, j = _cell(x, low[0], step[0], cells), _cell(y, low[1], step[1], cells)
            for k in range(offsets[i * cells + j], offsets[i * cells + j + 1]):
                if _inside(x, y, z, edges, held[k]):
                    counts[c, held[k]] += 1
    for m in range(len(boxes)):
        out[m] = 0
        for c in range(chunks):
            out[m] += counts[c, m]
