"""Rotated boxes by the definition: exact rational arithmetic on corners, loops over pairs and points.

Overlap: cut one rectangle by the four edges of the other (half-planes through any two corners, no special
frame), area by the shoelace formula, all in fractions; only the corners themselves are rounded.
`sampled_iou_bev` is a second check that knows nothing of polygons: it counts the cells of a fine grid.
"""

import math
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor


def corners_bev(box: list[float]) -> list[tuple[Fraction, Fraction]]:
    """The four corners, counter-clockwise."""
    x, y, _, l, w, _, yaw = box
    along, across = (math.cos(yaw), math.sin(yaw)), (-math.sin(yaw), math.cos(yaw))
    return [
        tuple(
            Fraction(centre)
            + Fraction(p * l / 2) * Fraction(along[k])
            + Fraction(q * w / 2) * Fraction(across[k])
            for k, centre in enumerate((x, y))
        )
        for p, q in ((1, 1), (-1, 1), (-1, -1), (1, -1))
    ]


def cut(polygon, start, end):
    """The part of a polygon on the left of the line from start to end."""

    def side(point):
        return (end[0] - start[0]) * (point[1] - start[1]) - (end[1] - start[1]) * (point[0] - start[0])

    out = []
    for here, there in zip(polygon, polygon[1:] + polygon[:1], strict=True):
        a, b = side(here), side(there)
        if a >= 0:
            out.append(here)
        if a * b < 0:
            t = a / (a - b)
            out.append((here[0] + t * (there[0] - here[0]), here[1] + t * (there[1] - here[1])))
    return out


def area(polygon) -> Fraction:
    pairs = zip(polygon, polygon[1:] + polygon[:1], strict=True)
    return sum((a[0] * b[1] - b[0] * a[1] for a, b in pairs), Fraction(0)) / 2


def shared_area(a: list[float], b: list[float]) -> Fraction:
    if math.dist(a[:2], b[:2]) > math.hypot(a[3], a[4]) + math.hypot(b[3], b[4]):
        return Fraction(0)
    polygon, window = corners_bev(a), corners_bev(b)
    if a[3] * a[4] == 0 or b[3] * b[4] == 0:
        return Fraction(0)
    for start, end in zip(window, window[1:] + window[:1], strict=True):
        polygon = cut(polygon, start, end)
    return area(polygon)


def iou_bev(a: list[float], b: list[float]) -> float:
    shared = shared_area(a, b)
    union = Fraction(a[3]) * Fraction(a[4]) + Fraction(b[3]) * Fraction(b[4]) - shared
    return float(shared / union) if shared > 0 else 0.0


def iou_3d(a: list[float], b: list[float]) -> float:
    top = min(Fraction(a[2]) + Fraction(a[5]) / 2, Fraction(b[2]) + Fraction(b[5]) / 2)
    bottom = max(Fraction(a[2]) - Fraction(a[5]) / 2, Fraction(b[2]) - Fraction(b[5]) / 2)
    shared = shared_area(a, b) * max(top - bottom, Fraction(0))
    volumes = [math.prod(map(Fraction, box[3:6])) for box in (a, b)]
    return float(shared / (volumes[0] + volumes[1] - shared)) if shared > 0 else 0.0


def box_iou_bev(a: Tensor, b: Tensor) -> Tensor:
    rows = [[iou_bev(p, q) for q in b.tolist()] for p in a.tolist()]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(a), len(b))


def box_iou_3d(a: Tensor, b: Tensor) -> Tensor:
    rows = [[iou_3d(p, q) for q in b.tolist()] for p in a.tolist()]
    return torch.tensor(rows, dtype=torch.float64).reshape(len(a), len(b))


def box_iou_3d_aligned(a: Tensor, b: Tensor) -> Tensor:
    rows = [iou_3d(p, q) for p, q in zip(a.tolist(), b.tolist(), strict=True)]
    return torch.tensor(rows, dtype=torch.float64)


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    rows, values = boxes.tolist(), scores.tolist()
    kept: list[int] = []
    for candidate in sorted(range(len(rows)), key=lambda i: (-values[i], i)):
        if all(iou_bev(rows[candidate], rows[k]) <= iou_threshold for k in kept):
            kept.append(candidate)
    return torch.tensor(kept, dtype=torch.int64)


def holds(box: list[float], point: list[float]) -> bool:
    """Distance to the centre along each of the box's own axes is at most half the size."""
    offset = [p - c for p, c in zip(point, box[:3], strict=True)]
    yaw = box[6]
    axes = [(math.cos(yaw), math.sin(yaw), 0.0), (-math.sin(yaw), math.cos(yaw), 0.0), (0.0, 0.0, 1.0)]
    distances = [abs(sum(o * a for o, a in zip(offset, axis, strict=True))) for axis in axes]
    return all(distance <= size / 2 for distance, size in zip(distances, box[3:6], strict=True))


def points_in_boxes(points: Tensor, boxes: Tensor) -> Tensor:
    found = [
        next((m for m, box in enumerate(boxes.tolist()) if holds(box, point)), -1)
        for point in points.tolist()
    ]
    return torch.tensor(found, dtype=torch.int64)


def points_per_box(points: Tensor, boxes: Tensor) -> Tensor:
    counts = [sum(holds(box, point) for point in points.tolist()) for box in boxes.tolist()]
    return torch.tensor(counts, dtype=torch.int64)


def sampled_iou_bev(a: list[float], b: list[float], cell: float) -> float:
    """Intersection over union in cells of a grid around both; the error is about perimeter * cell / area."""
    reach = max(math.hypot(a[3], a[4]), math.hypot(b[3], b[4])) + math.dist(a[:2], b[:2])
    steps = np.arange(-reach, reach, cell) + cell / 2
    x, y = np.meshgrid(a[0] + steps, a[1] + steps, indexing="ij")
    inside = []
    for box in (a, b):
        dx, dy, yaw = x - box[0], y - box[1], box[6]
        along, across = math.cos(yaw) * dx + math.sin(yaw) * dy, math.cos(yaw) * dy - math.sin(yaw) * dx
        inside.append((abs(along) <= box[3] / 2) & (abs(across) <= box[4] / 2))
    return float((inside[0] & inside[1]).sum() / (inside[0] | inside[1]).sum())
