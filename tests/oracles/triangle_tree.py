"""The nearest triangle and the winding number, by looking at all triangles with exact case distinctions."""

import math

import torch


def _closest(p, a, b, c):
    """The weights of the corners at the nearest point: the first nearest of the foot on the triangle's plane,
    where that is within, and of the points of the sides a b, a c, b c."""
    candidates = []
    normal = torch.linalg.cross(b - a, c - a)
    if normal.norm() > 0:
        parts = [torch.linalg.cross(t - s, p - s) @ normal / (normal @ normal) for s, t in ((b, c), (c, a))]
        if min(*parts, 1 - parts[0] - parts[1]) >= 0:
            candidates.append([parts[0], parts[1], 1 - parts[0] - parts[1]])
    for s, t, first, second in ((a, b, 0, 1), (a, c, 0, 2), (b, c, 1, 2)):
        length = (t - s) @ (t - s)
        weights = [0.0, 0.0, 0.0]
        weights[second] = float(((p - s) @ (t - s) / length).clamp(0, 1)) if length > 0 else 0.0
        weights[first] = 1 - weights[second]
        candidates.append(weights)
    candidates = [torch.tensor(weights, dtype=torch.float64) for weights in candidates]
    return min(candidates, key=lambda w: round(float((w @ torch.stack([a, b, c]) - p).norm()), 13))


def nearest_triangle(boxes, corners, rows, queries, limit):
    squares = torch.full((len(queries),), float("inf"), dtype=torch.float64)
    found = torch.full((len(queries),), -1)
    weights = torch.zeros(len(queries), 3, dtype=torch.float64)
    for q, p in enumerate(queries.double()):
        if not p.isfinite().all():
            continue
        best = (float("inf"), -1)
        for f in range(len(corners)):
            a, b, c = corners[f].view(3, 3)
            w = _closest(p, a, b, c)
            off = w @ torch.stack([a, b, c]) - p
            square = float(off @ off)
            # Distances that differ by rounding alone are equal.
            row, nearer = int(rows[f]), square < best[0] * (1 - 1e-12) - 1e-300
            if square <= limit * limit and (nearer or (square <= best[0] * (1 + 1e-12) and row < best[1])):
                best = (square, row)
                squares[q], found[q], weights[q] = square, row, w
    return squares, found, weights


def winding_number(boxes, moments, corners, queries, accuracy):
    """Exact: the sum of all solid angles."""
    total = torch.zeros(len(queries), dtype=torch.float64)
    for q, p in enumerate(queries.double()):
        if not p.isfinite().all():
            continue
        for triangle in corners:
            a, b, c = triangle.view(3, 3) - p
            la, lb, lc = a.norm(), b.norm(), c.norm()
            across = a @ torch.linalg.cross(b, c)
            along = la * lb * lc + (a @ b) * lc + (b @ c) * la + (c @ a) * lb
            if across != 0:
                total[q] += 2 * math.atan2(across, along) / (4 * math.pi)
    return total
