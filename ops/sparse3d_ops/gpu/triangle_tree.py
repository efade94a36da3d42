"""Triton bodies of the tree of boxes over triangles: a lane owns a query and walks the tree without a stack.

Children have twice the number of their node, so the node that follows one and all below it is found by
adding 1 and halving while the number is even.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 32  # lanes of a block wait for the one with the longest walk


@triton.jit
def box_square(boxes, node, x, y, z, mask):
    at = boxes + 6 * node
    dx = tl.maximum(tl.load(at, mask=mask, other=0) - x, x - tl.load(at + 3, mask=mask, other=0))
    dy = tl.maximum(tl.load(at + 1, mask=mask, other=0) - y, y - tl.load(at + 4, mask=mask, other=0))
    dz = tl.maximum(tl.load(at + 2, mask=mask, other=0) - z, z - tl.load(at + 5, mask=mask, other=0))
    dx, dy, dz = tl.maximum(dx, 0.0), tl.maximum(dy, 0.0), tl.maximum(dz, 0.0)
    return dx * dx + dy * dy + dz * dz


@triton.jit
def _part(numerator, denominator):
    there = denominator > 0
    part = numerator / tl.where(there, denominator, 1.0)
    return tl.where(there, tl.minimum(tl.maximum(part, 0.0), 1.0), 0.0)


@triton.jit
def _square_at(ax, ay, az, bx, by, bz, cx, cy, cz, x, y, z, v, w):
    u = 1 - v - w
    dx = u * ax + v * bx + w * cx - x
    dy = u * ay + v * by + w * cy - y
    dz = u * az + v * bz + w * cz - z
    return dx * dx + dy * dy + dz * dz


@triton.jit
def point_triangle(corners, f, x, y, z, mask):
    """What `cpu/triangle_tree.py` computes, in the same order."""
    at = corners + 9 * f
    ax, ay = tl.load(at, mask=mask, other=0), tl.load(at + 1, mask=mask, other=0)
    az, bx = tl.load(at + 2, mask=mask, other=0), tl.load(at + 3, mask=mask, other=0)
    by, bz = tl.load(at + 4, mask=mask, other=0), tl.load(at + 5, mask=mask, other=0)
    cx, cy = tl.load(at + 6, mask=mask, other=0), tl.load(at + 7, mask=mask, other=0)
    cz = tl.load(at + 8, mask=mask, other=0)
    ux, uy, uz = bx - ax, by - ay, bz - az
    vx, vy, vz = cx - ax, cy - ay, cz - az
    px, py, pz = x - ax, y - ay, z - az
    uu, uv, vv = ux * ux + uy * uy + uz * uz, ux * vx + uy * vy + uz * vz, vx * vx + vy * vy + vz * vz
    pu, pv = px * ux + py * uy + pz * uz, px * vx + py * vy + pz * vz
    square = uu * vv - uv * uv
    v, w = pu * vv - pv * uv, pv * uu - pu * uv
    # The constant must be float64: the interpreter and the compiler would round it differently.
    within = (square * 1e12 * 1e12 > uu * vv) & (v >= 0) & (w >= 0) & (v + w <= square)
    divisor = tl.where(within, square, 1.0)
    v, w = v / divisor, w / divisor
    inner = _square_at(ax, ay, az, bx, by, bz, cx, cy, cz, x, y, z, v, w)
    best_v, best_w = _part(pu, uu), tl.zeros_like(v)
    best = _square_at(ax, ay, az, bx, by, bz, cx, cy, cz, x, y, z, best_v, best_w)
    s = _part(pv, vv)
    d = _square_at(ax, ay, az, bx, by, bz, cx, cy, cz, x, y, z, tl.zeros_like(s), s)
    better = d < best
    best_v, best_w = tl.where(better, 0.0, best_v), tl.where(better, s, best_w)
    best = tl.where(better, d, best)
    s = _part(uu - uv - pu + pv, uu - 2 * uv + vv)
    d = _square_at(ax, ay, az, bx, by, bz, cx, cy, cz, x, y, z, 1 - s, s)
    better = d < best
    best_v, best_w = tl.where(better, 1 - s, best_v), tl.where(better, s, best_w)
    best = tl.where(better, d, best)
    return tl.where(within, v, best_v), tl.where(within, w, best_w), tl.where(within, inner, best)


@triton.jit
def following(node, mask):
    """The node after one and all below it; 1, the root, after the last."""
    node = tl.where(mask, node + 1, node)
    even = mask & (node % 2 == 0)
    while tl.max(even.to(tl.int32), 0) > 0:
        node = tl.where(even, node // 2, node)
        even = even & (node % 2 == 0)
    return node


@triton.jit(do_not_specialize=["items", "leaves", "count"])
def nearest_kernel(
    boxes, corners, rows, queries, limit, squares, found, weights, leaves, count, items, BLOCK: tl.constexpr
):
    """limit (1,) float64."""
    q = lanes(BLOCK)
    inside = q < items
    x = tl.load(queries + 3 * q, mask=inside, other=0)
    y = tl.load(queries + 3 * q + 1, mask=inside, other=0)
    z = tl.load(queries + 3 * q + 2, mask=inside, other=0)
    finite = (tl.abs(x) < float("inf")) & (tl.abs(y) < float("inf")) & (tl.abs(z) < float("inf"))
    inside = inside & finite
    x, y, z = tl.where(finite, x, 0.0), tl.where(finite, y, 0.0), tl.where(finite, z, 0.0)
    most = tl.load(limit)
    best = tl.zeros_like(x) + most * most
    row = tl.full(q.shape, -1, tl.int64)
    v, w = tl.zeros_like(x), tl.zeros_like(x)
    # Down to one leaf by the nearer child: then most of the tree is too far away.
    node = tl.full(q.shape, 1, tl.int64)
    while tl.max((inside & (node < leaves)).to(tl.int32), 0) > 0:
        deeper = inside & (node < leaves)
        left = box_square(boxes, 2 * node, x, y, z, deeper)
        right = box_square(boxes, 2 * node + 1, x, y, z, deeper)
        node = tl.where(deeper, 2 * node + (right < left).to(tl.int64), node)
    turn = 0
    walking = inside
    while tl.max(walking.to(tl.int32), 0) > 0:
        near = walking & (box_square(boxes, node, x, y, z, walking) <= best + best * 1e-9)
        leaf = node - leaves
        at_leaf = near & (leaf >= 0)
        leaf = tl.where(at_leaf, leaf, 0)
        f, end = count * leaf // leaves, tl.where(at_leaf, count * (leaf + 1) // leaves, 0)
        while tl.max((f < end).to(tl.int32), 0) > 0:
            open_lanes = f < end
            a, b, d = point_triangle(corners, f, x, y, z, open_lanes)
            name = tl.load(rows + f, mask=open_lanes, other=0)
            better = open_lanes & ((d < best) | ((d == best) & ((row < 0) | (name < row))))
            best, row = tl.where(better, d, best), tl.where(better, name, row)
            v, w = tl.where(better, a, v), tl.where(better, b, w)
            f += 1
        if turn == 0:  # the leaf of the descent; now the whole tree in order
            node = tl.where(walking, 1, node)
        else:
            deeper = near & (node < leaves)
            node = following(tl.where(deeper, 2 * node, node), walking & ~deeper)
            walking = walking & (node != 1)
        turn = 1
    inside = q < items
    hit = row >= 0
    tl.store(squares + q, tl.where(hit, best, float("inf")), mask=inside)
    tl.store(found + q, row, mask=inside)
    tl.store(weights + 3 * q, tl.where(hit, tl.maximum(1 - v - w, 0.0), 0.0), mask=inside)
    tl.store(weights + 3 * q + 1, tl.where(hit, v, 0.0), mask=inside)
    tl.store(weights + 3 * q + 2, tl.where(hit, w, 0.0), mask=inside)


def nearest(
    boxes: Tensor,
    corners: Tensor,
    rows: Tensor,
    queries: Tensor,
    limit: float,
    squares: Tensor,
    found: Tensor,
    weights: Tensor,
) -> None:
    most = torch.full((1,), limit, dtype=torch.float64, device=queries.device)
    sizes = len(boxes) // 2, len(corners)
    outputs = squares, found, weights
    launch(nearest_kernel, len(queries), BLOCK, boxes, corners, rows, queries, most, *outputs, *sizes)


@triton.jit
def arctangent(x):
    """Of x >= 0; `cpu/triangle_tree.py` says how."""
    turned = x > 1
    t = tl.where(turned, 1 / tl.where(turned, x, 1.0), x)
    t = t / (1 + tl.sqrt(1 + t * t))
    t = t / (1 + tl.sqrt(1 + t * t))
    s = t * t
    one = tl.zeros_like(x) + 1  # float64: a constant alone would be float32
    total = one / 15
    total = one / 13 - s * total
    total = one / 11 - s * total
    total = one / 9 - s * total
    total = one / 7 - s * total
    total = one / 5 - s * total
    total = one / 3 - s * total
    total = one - s * total
    angle = 4 * t * total
    return turned, angle


@triton.jit
def solid_angle(corners, f, x, y, z, pi, mask):
    """Half the solid angle of triangles, as `cpu/triangle_tree.py` has it."""
    at = corners + 9 * f
    ax, ay = tl.load(at, mask=mask, other=0) - x, tl.load(at + 1, mask=mask, other=0) - y
    az, bx = tl.load(at + 2, mask=mask, other=0) - z, tl.load(at + 3, mask=mask, other=0) - x
    by, bz = tl.load(at + 4, mask=mask, other=0) - y, tl.load(at + 5, mask=mask, other=0) - z
    cx, cy = tl.load(at + 6, mask=mask, other=0) - x, tl.load(at + 7, mask=mask, other=0) - y
    cz = tl.load(at + 8, mask=mask, other=0) - z
    a, b = tl.sqrt(ax * ax + ay * ay + az * az), tl.sqrt(bx * bx + by * by + bz * bz)
    d = tl.sqrt(cx * cx + cy * cy + cz * cz)
    across = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
    along = a * b * d + (ax * bx + ay * by + az * bz) * d
    along += (bx * cx + by * cy + bz * cz) * a
    along += (cx * ax + cy * ay + cz * az) * b
    turned, angle = arctangent(tl.abs(across / tl.where(along == 0, 1.0, along)))
    angle = tl.where(turned, pi / 2 - angle, angle)
    angle = tl.where(along == 0, pi / 2, tl.where(along > 0, angle, pi - angle))
    return tl.where(across == 0, 0.0, tl.where(across > 0, angle, -angle))


@triton.jit(do_not_specialize=["items", "leaves", "count"])
def winding_kernel(moments, corners, queries, numbers, total, leaves, count, items, BLOCK: tl.constexpr):
    """numbers (2,) float64: the accuracy, and pi."""
    q = lanes(BLOCK)
    inside = q < items
    x = tl.load(queries + 3 * q, mask=inside, other=0)
    y = tl.load(queries + 3 * q + 1, mask=inside, other=0)
    z = tl.load(queries + 3 * q + 2, mask=inside, other=0)
    finite = (tl.abs(x) < float("inf")) & (tl.abs(y) < float("inf")) & (tl.abs(z) < float("inf"))
    x, y, z = tl.where(finite, x, 0.0), tl.where(finite, y, 0.0), tl.where(finite, z, 0.0)
    accuracy, pi = tl.load(numbers), tl.load(numbers + 1)
    angle = tl.zeros_like(x)
    node = tl.full(q.shape, 1, tl.int64)
    walking = inside & finite
    while tl.max(walking.to(tl.int32), 0) > 0:
        at = moments + 7 * node
        dx = tl.load(at, mask=walking, other=0) - x
        dy = tl.load(at + 1, mask=walking, other=0) - y
        dz = tl.load(at + 2, mask=walking, other=0) - z
        square = dx * dx + dy * dy + dz * dz
        least = accuracy * tl.load(at + 6, mask=walking, other=0)
        far = walking & (square > least * least)
        seen = tl.load(at + 3, mask=far, other=0) * dx + tl.load(at + 4, mask=far, other=0) * dy
        seen += tl.load(at + 5, mask=far, other=0) * dz
        divisor = tl.where(far, square, 1.0)
        angle = tl.where(far, angle + seen / (divisor * tl.sqrt(divisor)) / 2, angle)
        leaf = node - leaves
        at_leaf = walking & ~far & (leaf >= 0)
        leaf = tl.where(at_leaf, leaf, 0)
        f, end = count * leaf // leaves, tl.where(at_leaf, count * (leaf + 1) // leaves, 0)
        while tl.max((f < end).to(tl.int32), 0) > 0:
            open_lanes = f < end
            more = solid_angle(corners, f, x, y, z, pi, open_lanes)
            angle = tl.where(open_lanes, angle + more, angle)
            f += 1
        deeper = walking & ~far & (node < leaves)
        node = following(tl.where(deeper, 2 * node, node), walking & ~deeper)
        walking = walking & (node != 1)
    tl.store(total + q, angle / (2 * pi), mask=inside)


def winding(moments: Tensor, corners: Tensor, queries: Tensor, accuracy: float, total: Tensor) -> None:
    numbers = torch.tensor([accuracy, torch.pi], dtype=torch.float64, device=queries.device)
    sizes = len(moments) // 2, len(corners)
    launch(winding_kernel, len(queries), BLOCK, moments, corners, queries, numbers, total, *sizes)
