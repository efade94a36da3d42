"""Triton bodies over rotated boxes, rows (x, y, z, l, w, h, yaw) in float64.

A lane cannot keep a list of corners, so the shared area of two boxes is not clipped but integrated. In the
frame of the first box the second has a lower and an upper edge over each x; cut off at the sides of the first
box, their distance is the shared width there. Each edge is integrated by itself: nothing is decided about
corners, so rounding moves the area by no more than itself. Boxes that the line of a side separates share
exactly nothing. Which of the two gives the frame depends on the values only: overlaps are symmetric to the
last bit.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 128
WARPS = BLOCK // 32  # one lane to a thread: two boxes in float64 fill its registers
WORD = tl.constexpr(64)  # boxes to an int64 of the suppression table
POINTS = 1024  # a step of a program over points


@triton.jit
def box_at(boxes, row, inside):
    at = boxes + 7 * row
    x = tl.load(at, mask=inside, other=0)
    y = tl.load(at + 1, mask=inside, other=0)
    z = tl.load(at + 2, mask=inside, other=0)
    length = tl.load(at + 3, mask=inside, other=0)
    width = tl.load(at + 4, mask=inside, other=0)
    height = tl.load(at + 5, mask=inside, other=0)
    yaw = tl.load(at + 6, mask=inside, other=0)
    return x, y, z, length, width, height, yaw


@triton.jit
def clamped(value, limit):
    return tl.minimum(tl.maximum(value, -limit), limit)


@triton.jit
def under_edge(x0, y0, x1, y1, half_x, half_y):
    """Integral of y, cut off at half_y, over the part of an edge between -half_x and half_x; negative for an
    edge that runs towards smaller x."""
    dx, dy = x1 - x0, y1 - y0
    a, b = clamped(x0, half_x), clamped(x1, half_x)
    run = tl.where(dx == 0, 1.0, dx)
    ya, yb = y0 + (a - x0) / run * dy, y0 + (b - x0) / run * dy
    low, high = clamped(ya, half_y), clamped(yb, half_y)
    # From ya to yb in one unit of time: constant up to `enters`, then linear, then constant.
    rise = tl.where(ya == yb, 1.0, yb - ya)
    enters = tl.minimum(tl.maximum((low - ya) / rise, 0.0), 1.0)
    linear = (high - low) / rise
    mean = enters * low + linear * (0.5 * (low + high)) + (1.0 - enters - linear) * high
    return (b - a) * tl.where(low == high, low, mean)


@triton.jit
def shared_area(x, y, c, s, al, aw, bl, bw):
    """Boxes of half sizes: a at the origin, b at (x, y), turned by an angle of cosine c and sine s."""
    cu, su, cv, sv = c * bl, s * bl, c * bw, s * bw
    x0, y0 = x + cu - sv, y + su + cv  # counter-clockwise
    x1, y1 = x - cu - sv, y - su + cv
    x2, y2 = x - cu + sv, y - su - cv
    x3, y3 = x + cu + sv, y + su - cv
    area = under_edge(x0, y0, x1, y1, al, aw) + under_edge(x1, y1, x2, y2, al, aw)
    area += under_edge(x2, y2, x3, y3, al, aw) + under_edge(x3, y3, x0, y0, al, aw)
    ac, asn = tl.abs(c), tl.abs(s)
    apart = (tl.abs(x) >= al + ac * bl + asn * bw) | (tl.abs(y) >= aw + asn * bl + ac * bw)
    apart = apart | (tl.abs(c * x + s * y) >= bl + ac * al + asn * aw)
    apart = apart | (tl.abs(c * y - s * x) >= bw + asn * al + ac * aw)
    area = tl.minimum(tl.minimum(tl.maximum(-area, 0.0), 4 * al * aw), 4 * bl * bw)
    return tl.where(apart, 0.0, area)


@triton.jit
def iou(a, i, b, j, inside, VOLUME: tl.constexpr):
    """Of boxes a[i] and b[j], seen from above or of their volumes."""
    ax, ay, az, al, aw, ah, at = box_at(a, i, inside)
    bx, by, bz, bl, bw, bh, bt = box_at(b, j, inside)
    # The box that comes first in the order of the values gives the frame.
    turn = at > bt
    turn = tl.where(ah != bh, ah > bh, turn)
    turn = tl.where(aw != bw, aw > bw, turn)
    turn = tl.where(al != bl, al > bl, turn)
    turn = tl.where(az != bz, az > bz, turn)
    turn = tl.where(ay != by, ay > by, turn)
    turn = tl.where(ax != bx, ax > bx, turn)
    dx, dy, dz = (
        tl.where(turn, ax - bx, bx - ax),
        tl.where(turn, ay - by, by - ay),
        tl.where(turn, az - bz, bz - az),
    )
    al, bl = tl.where(turn, bl, al), tl.where(turn, al, bl)
    aw, bw = tl.where(turn, bw, aw), tl.where(turn, aw, bw)
    ah, bh = tl.where(turn, bh, ah), tl.where(turn, ah, bh)
    at, bt = tl.where(turn, bt, at), tl.where(turn, at, bt)
    cos_a, sin_a = tl.cos(at), tl.sin(at)
    x, y = cos_a * dx + sin_a * dy, cos_a * dy - sin_a * dx
    shared = shared_area(x, y, tl.cos(bt - at), tl.sin(bt - at), 0.5 * al, 0.5 * aw, 0.5 * bl, 0.5 * bw)
    whole = al * aw + bl * bw
    if VOLUME:
        height = tl.minimum(0.5 * ah, dz + 0.5 * bh) - tl.maximum(-0.5 * ah, dz - 0.5 * bh)
        # (dz + h / 2) - (dz - h / 2) may round to more than h, and then the overlap to more than a box.
        shared = shared * tl.maximum(tl.minimum(tl.minimum(height, ah), bh), 0.0)
        whole = al * aw * ah + bl * bw * bh
    meet = shared > 0
    return tl.where(meet, shared / tl.where(meet, whole - shared, 1.0), 0.0)


@triton.jit(do_not_specialize=["items", "columns"])
def pairs_kernel(a, b, out, columns, items, VOLUME: tl.constexpr, BLOCK: tl.constexpr):
    k = lanes(BLOCK)
    inside = k < items
    tl.store(out + k, iou(a, k // columns, b, k % columns, inside, VOLUME), mask=inside)


@triton.jit(do_not_specialize=["items"])
def aligned_kernel(a, b, out, items, BLOCK: tl.constexpr):
    k = lanes(BLOCK)
    inside = k < items
    tl.store(out + k, iou(a, k, b, k, inside, True), mask=inside)


def box_iou_bev(a: Tensor, b: Tensor, out: Tensor) -> None:
    launch(pairs_kernel, out.numel(), BLOCK, a, b, out, len(b), VOLUME=False, num_warps=WARPS)


def box_iou_3d(a: Tensor, b: Tensor, out: Tensor) -> None:
    launch(pairs_kernel, out.numel(), BLOCK, a, b, out, len(b), VOLUME=True, num_warps=WARPS)


def box_iou_3d_aligned(a: Tensor, b: Tensor, out: Tensor) -> None:
    launch(aligned_kernel, len(out), BLOCK, a, b, out, num_warps=WARPS)


@triton.jit(do_not_specialize=["items", "words", "count"])
def overlaps_kernel(boxes, threshold, over, words, count, items, BLOCK: tl.constexpr):
    """Bit j % 64 of over[i, j // 64] says that box i, if it is kept, suppresses the later box j."""
    k = lanes(BLOCK)
    i, j = k // (words * WORD), k % (words * WORD)
    later = (k < items) & (j > i) & (j < count)
    words_here = tl.program_id(0).to(tl.int64) * (BLOCK // WORD) + tl.arange(0, BLOCK // WORD)
    word = tl.zeros((BLOCK // WORD,), tl.int64)
    if tl.max(later.to(tl.int32), 0) > 0:  # in half of the programs there is nothing to do
        hit = later & (iou(boxes, i, boxes, j, later, False) > tl.load(threshold))
        bits = hit.to(tl.int64) << (k % WORD)
        # Bits of one word are distinct, so their sum is their union.
        word = tl.sum(tl.reshape(bits, (BLOCK // WORD, WORD)), 1)
    tl.store(over + words_here, word, mask=words_here * WORD < items)


@triton.jit(do_not_specialize=["items", "words", "count"])
def keep_kernel(over, kept, words, count, items, WORDS: tl.constexpr, BLOCK: tl.constexpr):
    """One program visits the boxes in order: kept[i] = 1 unless a kept box has suppressed it."""
    word = tl.arange(0, WORDS)
    suppressed = tl.zeros((WORDS,), tl.int64)
    box = tl.zeros((WORDS,), tl.int32)
    for _ in range(count):
        row = tl.load(over + word, mask=word < words, other=0)
        bit = (suppressed >> (box % WORD)) & 1
        alive = tl.sum(tl.where(word == box // WORD, bit, 0), 0) == 0
        tl.store(kept, alive.to(tl.int32))
        suppressed = tl.where(alive, suppressed | row, suppressed)
        box += 1
        over += words
        kept += 1


def nms(boxes: Tensor, threshold: Tensor, kept: Tensor) -> None:
    """boxes (N, 7) best first, threshold (1,) float64; kept (N,) int32 is an output."""
    count = len(boxes)
    words = -(-count // WORD.value)
    over = torch.empty(count, words, dtype=torch.int64, device=boxes.device)
    pairs = over.numel() * WORD.value
    launch(overlaps_kernel, pairs, BLOCK, boxes, threshold, over, words, count, num_warps=WARPS)
    size = triton.next_power_of_2(max(words, 1))
    # One warp as long as it can hold the words: it asks no other one in each of `count` steps.
    warps = 1 if size <= 256 else 4
    launch(keep_kernel, min(count, 1), 1, over, kept, words, count, WORDS=size, num_warps=warps)


def edges(boxes: Tensor) -> Tensor:
    """Rows (x, y, z, radius, l/2, w/2, h/2, cos yaw, sin yaw): what a point is tested against."""
    half = 0.5 * boxes[:, 3:6]
    # A little more than the circumscribed circle: rounding must not lose corners.
    radius = torch.hypot(half[:, 0], half[:, 1]) * (1 + 1e-9)
    turn = boxes[:, 6:].cos(), boxes[:, 6:].sin()
    return torch.cat([boxes[:, :3], radius[:, None], half, *turn], 1).contiguous()


@triton.jit
def holds(edge, x, y, z):
    """Whether the box of one row of `edges` holds each point; one that is not finite fails a comparison."""
    dx, dy, dz = x - tl.load(edge), y - tl.load(edge + 1), z - tl.load(edge + 2)
    c, s = tl.load(edge + 7), tl.load(edge + 8)
    near = (tl.abs(dx) <= tl.load(edge + 3)) & (tl.abs(dy) <= tl.load(edge + 3))
    dx, dy = tl.where(near, dx, 0.0), tl.where(near, dy, 0.0)
    across = (tl.abs(c * dx + s * dy) <= tl.load(edge + 4)) & (tl.abs(c * dy - s * dx) <= tl.load(edge + 5))
    return near & across & (tl.abs(dz) <= tl.load(edge + 6))


@triton.jit(do_not_specialize=["items", "count"])
def first_box_kernel(points, edge, out, count, items, BLOCK: tl.constexpr):
    p = lanes(BLOCK)
    inside = p < items
    x = tl.load(points + 3 * p, mask=inside, other=0).to(tl.float64)
    y = tl.load(points + 3 * p + 1, mask=inside, other=0).to(tl.float64)
    z = tl.load(points + 3 * p + 2, mask=inside, other=0).to(tl.float64)
    first = tl.full((BLOCK,), -1, tl.int64)
    box = tl.zeros((BLOCK,), tl.int64)
    for _ in range(count):
        first = tl.where((first < 0) & holds(edge, x, y, z), box, first)
        box += 1
        edge += 9
    tl.store(out + p, first, mask=inside)


def points_in_boxes(points: Tensor, boxes: Tensor, out: Tensor) -> None:
    launch(first_box_kernel, len(points), POINTS // 2, points, edges(boxes), out, len(boxes))


@triton.jit(do_not_specialize=["items", "count"])
def count_kernel(points, edge, out, count, items, POINTS: tl.constexpr, BLOCK: tl.constexpr):
    """A program counts the points of one box."""
    box = tl.program_id(0).to(tl.int64)
    total = tl.zeros((POINTS,), tl.int64)
    p = tl.arange(0, POINTS).to(tl.int64)
    for _ in range(0, count, POINTS):
        there = p < count
        x = tl.load(points + 3 * p, mask=there, other=0).to(tl.float64)
        y = tl.load(points + 3 * p + 1, mask=there, other=0).to(tl.float64)
        z = tl.load(points + 3 * p + 2, mask=there, other=0).to(tl.float64)
        total += (there & holds(edge + 9 * box, x, y, z)).to(tl.int64)
        p += POINTS
    tl.store(out + box, tl.sum(total, 0))


def points_per_box(points: Tensor, boxes: Tensor, out: Tensor) -> None:
    launch(count_kernel, len(boxes), 1, points, edges(boxes), out, len(points), POINTS=POINTS, num_warps=8)
