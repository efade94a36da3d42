"""Numba bodies of the tree of boxes over triangles; `sparse3d_ops/triangle_tree.py` says how it lies."""

import math

import numba
import numpy as np

RUN = 64  # queries that look for their triangles together
FEW = 40  # triangles that a run may have in common; more are looked for by each query alone
DEEP = 64  # the stack of a walk holds one node a level
SLACK = 1 + 1e-9  # distances of distances add their roundings


@numba.njit(cache=True, nogil=True)
def _select(key, order, low, high, nth):
    """Rearrange order[low:high] so that the first nth - low of them have the smallest keys (Hoare's FIND)."""
    left, right = low, high - 1
    while left < right:
        pivot = key[order[(left + right) >> 1]]
        i, j = left, right
        while i <= j:
            while key[order[i]] < pivot:
                i += 1
            while key[order[j]] > pivot:
                j -= 1
            if i <= j:
                order[i], order[j] = order[j], order[i]
                i += 1
                j -= 1
        if nth <= j:
            right = j
        elif nth >= i:
            left = i
        else:
            return


@numba.njit(parallel=True, cache=True, nogil=True)
def halve(middles, order, level):
    """Split each node of a level: order (F,) is rearranged within the nodes."""
    count = len(order)
    for node in numba.prange(1 << level):
        low, high = (count * node) >> level, (count * (node + 1)) >> level
        if high - low < 2:
            continue
        axis, most = 0, -1.0
        for a in range(3):
            least, largest = np.inf, -np.inf
            for i in range(low, high):
                value = middles[order[i], a]
                least, largest = min(least, value), max(largest, value)
            if largest - least > most:
                axis, most = a, largest - least
        _select(middles[:, axis], order, low, high, (count * (2 * node + 1)) >> (level + 1))


@numba.njit(cache=True, nogil=True)
def bound(corners, depth, boxes, moments):
    """boxes and moments are outputs, moments come in 0."""
    count, leaves = len(corners), 1 << depth
    weight = np.zeros(2 * leaves)
    boxes[:, :3], boxes[:, 3:] = np.inf, -np.inf
    for leaf in range(leaves):
        node = leaves + leaf
        for f in range((count * leaf) >> depth, (count * (leaf + 1)) >> depth):
            c = corners[f]
            for k in range(9):
                boxes[node, k % 3] = min(boxes[node, k % 3], c[k])
                boxes[node, 3 + k % 3] = max(boxes[node, 3 + k % 3], c[k])
            ux, uy, uz = c[3] - c[0], c[4] - c[1], c[5] - c[2]
            vx, vy, vz = c[6] - c[0], c[7] - c[1], c[8] - c[2]
            nx, ny, nz = (uy * vz - uz * vy) / 2, (uz * vx - ux * vz) / 2, (ux * vy - uy * vx) / 2
            area = math.sqrt(nx * nx + ny * ny + nz * nz)
            weight[node] += area
            for k in range(3):
                moments[node, k] += area * (c[k] + c[3 + k] + c[6 + k]) / 3
            moments[node, 3] += nx
            moments[node, 4] += ny
            moments[node, 5] += nz
    for node in range(leaves - 1, 0, -1):
        for child in (2 * node, 2 * node + 1):
            weight[node] += weight[child]
            for k in range(3):
                boxes[node, k] = min(boxes[node, k], boxes[child, k])
                boxes[node, 3 + k] = max(boxes[node, 3 + k], boxes[child, 3 + k])
            for k in range(6):
                moments[node, k] += moments[child, k]
    for node in range(1, 2 * leaves):
        square = 0.0
        for k in range(3):
            if weight[node] > 0:
                moments[node, k] /= weight[node]
            # A sum of roundings may lie a little outside.
            middle = min(max(moments[node, k], boxes[node, k]), boxes[node, 3 + k])
            moments[node, k] = middle
            far = max(middle - boxes[node, k], boxes[node, 3 + k] - middle)
            square += far * far
        moments[node, 6] = math.sqrt(square) if boxes[node, 0] <= boxes[node, 3] else 0.0


@numba.njit(cache=True, nogil=True)
def box_square(box, x, y, z):
    """Squared distance of a place from a box."""
    dx = max(box[0] - x, x - box[3], 0.0)
    dy = max(box[1] - y, y - box[4], 0.0)
    dz = max(box[2] - z, z - box[5], 0.0)
    return dx * dx + dy * dy + dz * dz


@numba.njit(inline="always")
def _part(numerator, denominator):
    """A part of the way, within [0, 1]; 0 on a way of no length."""
    return min(max(numerator / denominator, 0.0), 1.0) if denominator > 0 else 0.0


@numba.njit(inline="always")
def _better(v, w, d, best_v, best_w, best):
    return (v, w, d) if d < best else (best_v, best_w, best)


@numba.njit(cache=True, nogil=True)
def _square_at(c, x, y, z, v, w):
    """Squared distance to the point (1 - v - w) a + v b + w c: at a corner exactly the corner's, the same for
    all triangles around it."""
    u = 1 - v - w
    dx = u * c[0] + v * c[3] + w * c[6] - x
    dy = u * c[1] + v * c[4] + w * c[7] - y
    dz = u * c[2] + v * c[5] + w * c[8] - z
    return dx * dx + dy * dy + dz * dz


@numba.njit(cache=True, nogil=True)
def point_triangle(c, x, y, z):
    """Weights v, w of the second and third corner at the nearest point, and its squared distance.

    The foot of the perpendicular where it is within, else the nearest point of the three sides. Distances are
    those of points of the triangle, so that slivers and triangles without area give no wrong ones.
    """
    ux, uy, uz = c[3] - c[0], c[4] - c[1], c[5] - c[2]
    vx, vy, vz = c[6] - c[0], c[7] - c[1], c[8] - c[2]
    px, py, pz = x - c[0], y - c[1], z - c[2]
    uu, uv, vv = ux * ux + uy * uy + uz * uz, ux * vx + uy * vy + uz * vz, vx * vx + vy * vy + vz * vz
    pu, pv = px * ux + py * uy + pz * uz, px * vx + py * vy + pz * vz
    square = uu * vv - uv * uv
    v, w = pu * vv - pv * uv, pv * uu - pu * uv
    if square > 1e-24 * uu * vv and v >= 0 and w >= 0 and v + w <= square:
        v, w = v / square, w / square
        return v, w, _square_at(c, x, y, z, v, w)
    v, w = _part(pu, uu), 0.0
    best = _square_at(c, x, y, z, v, w)
    s = _part(pv, vv)
    v, w, best = _better(0.0, s, _square_at(c, x, y, z, 0.0, s), v, w, best)
    s = _part(uu - uv - pu + pv, uu - 2 * uv + vv)  # from b to c
    v, w, best = _better(1 - s, s, _square_at(c, x, y, z, 1 - s, s), v, w, best)
    return v, w, best


@numba.njit(cache=True, nogil=True)
def walk(boxes, corners, rows, x, y, z, best, nodes, ways):
    """The nearest triangle that is no further away than the root of `best`: (square, its place in the tree or
    -1, v, w). nodes and ways (DEEP,) are room. Boxes are left out only where they are further away by more
    than roundings, so that what is found depends on nothing but the triangles."""
    leaves, count = len(boxes) >> 1, len(corners)
    place, v, w = np.int64(-1), 0.0, 0.0
    top = 0
    nodes[0], ways[0] = 1, box_square(boxes[1], x, y, z)
    while top >= 0:
        node, way = nodes[top], ways[top]
        top -= 1
        if not way <= best * SLACK:
            continue
        while node < leaves:
            near, far = 2 * node, 2 * node + 1
            near_way, far_way = box_square(boxes[near], x, y, z), box_square(boxes[far], x, y, z)
            if far_way < near_way:
                near, far, near_way, far_way = far, near, far_way, near_way
            if far_way <= best * SLACK:
                top += 1
                nodes[top], ways[top] = far, far_way
            node = near
            if not near_way <= best * SLACK:
                break
        if node < leaves:
            continue
        leaf = node - leaves
        for f in range(count * leaf // leaves, count * (leaf + 1) // leaves):
            a, b, d = point_triangle(corners[f], x, y, z)
            if d < best or (d == best and (place < 0 or rows[f] < rows[place])):
                best, place, v, w = d, f, a, b
    return best, place, v, w


@numba.njit(cache=True, nogil=True)
def gather(boxes, corners, x, y, z, reach, listed, ways, nodes):
    """The triangles within `reach` of a place, in the order of the tree, and how far they are: their number,
    or FEW + 1 where there are more than `listed` (FEW,) holds."""
    leaves, count, found = len(boxes) >> 1, len(corners), 0
    square = reach * reach
    top = 0
    nodes[0] = 1
    while top >= 0:
        node = nodes[top]
        top -= 1
        if not box_square(boxes[node], x, y, z) <= square:
            continue
        if node < leaves:
            nodes[top + 1], nodes[top + 2] = 2 * node + 1, 2 * node
            top += 2
            continue
        leaf = node - leaves
        for f in range(count * leaf // leaves, count * (leaf + 1) // leaves):
            _, _, d = point_triangle(corners[f], x, y, z)
            if d <= square:
                if found == FEW:
                    return FEW + 1
                listed[found], ways[found] = f, math.sqrt(d)
                found += 1
    return found


@numba.njit(cache=True, nogil=True)
def _sort_by_way(listed, ways, count):
    for i in range(1, count):
        f, d, j = listed[i], ways[i], i
        while j > 0 and ways[j - 1] > d:
            listed[j], ways[j] = listed[j - 1], ways[j - 1]
            j -= 1
        listed[j], ways[j] = f, d


@numba.njit(parallel=True, cache=True, nogil=True)
def nearest(boxes, corners, rows, queries, limit, squares, found, weights):
    """Queries that follow each other are mostly neighbours: the triangles that can be nearest to any of a run
    are gathered once, and each query looks at these alone. Where they are too many it walks by itself, with
    the nearest triangle of the query before for a start."""
    count = len(queries)
    for run in numba.prange((count + RUN - 1) // RUN):
        first, last = run * RUN, min(count, (run + 1) * RUN)
        nodes, ways = np.empty(DEEP, np.int64), np.empty(DEEP)
        listed, near = np.empty(FEW, np.int64), np.empty(FEW)
        low, high = np.full(3, np.inf), np.full(3, -np.inf)
        for q in range(first, last):
            for k in range(3):
                low[k], high[k] = min(low[k], queries[q, k]), max(high[k], queries[q, k])
        x, y, z = (low[0] + high[0]) / 2, (low[1] + high[1]) / 2, (low[2] + high[2]) / 2
        radius = math.sqrt((high[0] - x) ** 2 + (high[1] - y) ** 2 + (high[2] - z) ** 2)
        few = FEW + 1
        if math.isfinite(radius):
            most = ((limit + radius) * SLACK) ** 2
            square, place, _, _ = walk(boxes, corners, rows, x, y, z, most, nodes, ways)
            few = 0
            if place >= 0:
                reach = min(math.sqrt(square) + 2 * radius, limit + radius) * SLACK
                few = gather(boxes, corners, x, y, z, reach, listed, near, nodes)
            if few <= FEW:
                _sort_by_way(listed, near, few)
        before, v, w = np.int64(-1), 0.0, 0.0
        for q in range(first, last):
            qx, qy, qz = queries[q, 0], queries[q, 1], queries[q, 2]
            best, place = limit * limit, np.int64(-1)
            if not math.isfinite(qx + qy + qz):
                pass
            elif few <= FEW:
                off = math.sqrt((qx - x) ** 2 + (qy - y) ** 2 + (qz - z) ** 2) * SLACK
                for k in range(few):
                    least = near[k] - off
                    if least > 0 and least * least > best * SLACK:
                        break
                    f = listed[k]
                    a, b, d = point_triangle(corners[f], qx, qy, qz)
                    if d < best or (d == best and (place < 0 or rows[f] < rows[place])):
                        best, place, v, w = d, f, a, b
            else:
                if before >= 0:  # no further than there, but for roundings
                    best = min(best, _square_at(corners[before], qx, qy, qz, v, w) * SLACK)
                best, place, v, w = walk(boxes, corners, rows, qx, qy, qz, best, nodes, ways)
                before = place
            if place < 0:
                squares[q], found[q] = np.inf, -1
                weights[q, 0] = weights[q, 1] = weights[q, 2] = 0
            else:
                squares[q], found[q] = best, rows[place]
                weights[q, 0], weights[q, 1], weights[q, 2] = max(1 - v - w, 0.0), v, w


@numba.njit(inline="always")
def arctangent(x):
    """Of x >= 0, by sums and roots alone, so that it is the same where a library's is not there: two halvings
    of the angle leave at most pi / 16, where the series of eight terms is exact to 1e-13."""
    turned = x > 1
    t = 1 / x if turned else x
    t = t / (1 + math.sqrt(1 + t * t))
    t = t / (1 + math.sqrt(1 + t * t))
    s = t * t
    total = 1 / 15.0
    for k in (13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0):
        total = 1 / k - s * total
    angle = 4 * t * total
    return math.pi / 2 - angle if turned else angle


@numba.njit(cache=True, nogil=True)
def solid_angle(c, x, y, z):
    """Half the solid angle of a triangle (Van Oosterom and Strackee, 1983): atan2 of its two parts, in (-pi,
    pi], 0 in its own plane."""
    ax, ay, az = c[0] - x, c[1] - y, c[2] - z
    bx, by, bz = c[3] - x, c[4] - y, c[5] - z
    cx, cy, cz = c[6] - x, c[7] - y, c[8] - z
    a, b = math.sqrt(ax * ax + ay * ay + az * az), math.sqrt(bx * bx + by * by + bz * bz)
    d = math.sqrt(cx * cx + cy * cy + cz * cz)
    across = ax * (by * cz - bz * cy) + ay * (bz * cx - bx * cz) + az * (bx * cy - by * cx)
    along = (
        a * b * d
        + (ax * bx + ay * by + az * bz) * d
        + (bx * cx + by * cy + bz * cz) * a
        + (cx * ax + cy * ay + cz * az) * b
    )
    if across == 0:
        return 0.0
    if along == 0:
        return math.copysign(math.pi / 2, across)
    angle = arctangent(abs(across / along))
    return math.copysign(angle if along > 0 else math.pi - angle, across)


@numba.njit(parallel=True, cache=True, nogil=True)
def winding(moments, corners, queries, accuracy, total):
    """The tree is walked in order, so that the sum is the same in each body."""
    nodes, count = len(moments), len(corners)
    leaves = nodes >> 1
    for q in numba.prange(len(queries)):
        x, y, z = queries[q, 0], queries[q, 1], queries[q, 2]
        if not math.isfinite(x + y + z):
            total[q] = 0.0
            continue
        node, angle = 1, 0.0  # halves of solid angles
        while True:
            m = moments[node]
            dx, dy, dz = m[0] - x, m[1] - y, m[2] - z
            square = dx * dx + dy * dy + dz * dz
            least = accuracy * m[6]
            far = square > least * least
            if far:
                angle += (m[3] * dx + m[4] * dy + m[5] * dz) / (square * math.sqrt(square)) / 2
            elif node < leaves:
                node *= 2
                continue
            else:
                leaf = node - leaves
                for f in range(count * leaf // leaves, count * (leaf + 1) // leaves):
                    angle += solid_angle(corners[f], x, y, z)
            node += 1  # the next that does not lie below this one
            while node & 1 == 0:
                node >>= 1
            if node == 1:
                break
        total[q] = angle / (2 * math.pi)
