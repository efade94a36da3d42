"""The ray caster: for every ray of a turn the first solid or ground it meets.

All beams of one column lie in one upright plane through the sensor, so a column first keeps the solids whose
upright bounding cylinder that half-plane cuts, then each beam tests those whose elevation window contains it.
Columns run in parallel; each writes only its own rows, so the result is bitwise the same for any number of
threads.
"""

import math

import numpy as np
from numba import njit, prange

from sparse3d.data.minidrive.ground import hit_ground
from sparse3d.data.minidrive.primitives import Kind

ELLIPSOID, CONVEX = int(Kind.ELLIPSOID), int(Kind.CONVEX)


@njit(cache=True, nogil=True)
def hashed_uniform(key, ray, solid):
    """A number in (0, 1) from three counters, by the finaliser of splitmix64 (Steele et al. 2014)."""
    z = (
        key
        + np.uint64(ray) * np.uint64(0x9E3779B97F4A7C15)
        + np.uint64(solid) * np.uint64(0xD1B54A32D192ED03)
    )
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    z = z ^ (z >> np.uint64(31))
    return (float(z >> np.uint64(11)) + 0.5) / 9007199254740992.0


@njit(cache=True, nogil=True)
def _round_interval(kind, m, ox, oy, oz, dx, dy, dz):
    """(enter, leave, cosine of incidence) of a ray and a round solid with inverse m; miss: enter > leave."""
    px = m[0] * ox + m[1] * oy + m[2] * oz + m[9]
    py = m[3] * ox + m[4] * oy + m[5] * oz + m[10]
    pz = m[6] * ox + m[7] * oy + m[8] * oz + m[11]
    qx = m[0] * dx + m[1] * dy + m[2] * dz
    qy = m[3] * dx + m[4] * dy + m[5] * dz
    qz = m[6] * dx + m[7] * dy + m[8] * dz
    ball = kind == ELLIPSOID
    a = qx * qx + qy * qy
    b = px * qx + py * qy
    c = px * px + py * py - 1.0
    if ball:
        a += qz * qz
        b += pz * qz
        c += pz * pz
    enter, leave = -math.inf, math.inf
    if a > 1e-18:
        discriminant = b * b - a * c
        if discriminant <= 0.0:
            return 1.0, 0.0, 0.0
        root = math.sqrt(discriminant)
        enter, leave = (-b - root) / a, (-b + root) / a
    elif c > 0.0:
        return 1.0, 0.0, 0.0
    on_cap = False
    if not ball:
        if abs(qz) < 1e-18:
            if abs(pz) > 1.0:
                return 1.0, 0.0, 0.0
        else:
            near, far = (-1.0 - pz) / qz, (1.0 - pz) / qz
            if near > far:
                near, far = far, near
            if near > enter:
                enter, on_cap = near, True
            leave = min(leave, far)
    if enter > leave:
        return 1.0, 0.0, 0.0
    # The normal of f(u) = 1 at the entry, pulled back to the world by A^-T.
    ux, uy, uz = px + enter * qx, py + enter * qy, pz + enter * qz
    if on_cap:
        ux, uy = 0.0, 0.0
    elif not ball:
        uz = 0.0
    nx = m[0] * ux + m[3] * uy + m[6] * uz
    ny = m[1] * ux + m[4] * uy + m[7] * uz
    nz = m[2] * ux + m[5] * uy + m[8] * uz
    cosine = abs(nx * dx + ny * dy + nz * dz) / math.sqrt(nx * nx + ny * ny + nz * nz + 1e-300)
    return enter, leave, cosine


@njit(cache=True, nogil=True)
def _convex_interval(planes, first, last, ox, oy, oz, dx, dy, dz):
    """(enter, leave, entry plane) of a ray and the half-spaces planes[first:last]; enter > leave: a miss."""
    enter, leave, face = -math.inf, math.inf, first
    for q in range(first, last):
        speed = planes[q, 0] * dx + planes[q, 1] * dy + planes[q, 2] * dz
        gap = planes[q, 3] - planes[q, 0] * ox - planes[q, 1] * oy - planes[q, 2] * oz
        if speed < -1e-15:
            if gap / speed > enter:
                enter, face = gap / speed, q
        elif speed > 1e-15:
            leave = min(leave, gap / speed)
        elif gap < 0.0:
            return 1.0, 0.0, first
        if enter > leave:
            return 1.0, 0.0, first
    return enter, leave, face


@njit(cache=True, nogil=True)
def _meet(solids, i, key, ray, ox, oy, oz, dx, dy, dz, start):
    """(t, cosine, material) of a ray and solid i; t = inf for a miss or a start inside."""
    if solids.kind[i] == CONVEX:
        first, last = solids.plane_start[i], solids.plane_start[i + 1]
        enter, leave, face = _convex_interval(solids.planes, first, last, ox, oy, oz, dx, dy, dz)
        if enter > leave or enter < start:
            return math.inf, 0.0, 0
        n = solids.planes[face]
        cosine = abs(n[0] * dx + n[1] * dy + n[2] * dz)
        material = solids.plane_material[face]
    else:
        enter, leave, cosine = _round_interval(solids.kind[i], solids.inverse[i], ox, oy, oz, dx, dy, dz)
        if enter > leave or enter < start:
            return math.inf, 0.0, 0
        material = solids.material[i]
    if solids.density[i] > 0.0:
        # A medium: free path exponential, leaves face anywhere.
        u = hashed_uniform(key, ray, i)
        enter += -math.log(u) / solids.density[i]
        if enter > leave:
            return math.inf, 0.0, 0
        cosine = 0.3 + 0.7 * hashed_uniform(key, ray, i + solids.kind.shape[0])
    return enter, cosine, material


@njit(cache=True, nogil=True, parallel=True)
def cast(
    ground, solids, origins, directions, slopes, key, min_range, max_range,
    distance, owner, solid, material, semantic, cosine, alone,
):  # fmt: skip
    """Cast C columns of B beams each.

    In: `origins` (C, 3), `directions` (C, B, 3) unit vectors, `slopes` (B,) = tan(elevation). Out, (C, B):
    `distance` (inf: nothing), `owner`, `solid` (-1: ground or nothing), `material`, `semantic`, `cosine`;
    `alone` (C, owners + 1): rays that would meet each owner if nothing else were there.
    """
    columns, beams = distance.shape
    count = solids.kind.shape[0]
    for c in prange(columns):
        ox, oy, oz = origins[c, 0], origins[c, 1], origins[c, 2]
        flat = math.hypot(directions[c, 0, 0], directions[c, 0, 1])
        ux, uy = directions[c, 0, 0] / flat, directions[c, 0, 1] / flat

        candidates = np.empty(count, np.int64)
        nearest = np.empty(count, np.float64)  # horizontal distance before which the solid cannot be met
        lowest = np.empty(count, np.float64)  # slopes between which a beam can meet it
        highest = np.empty(count, np.float64)
        kept = 0
        for i in range(count):
            bx, by, radius = solids.bound[i, 0] - ox, solids.bound[i, 1] - oy, solids.bound[i, 2]
            along, across = bx * ux + by * uy, by * ux - bx * uy
            if abs(across) > radius or along < -radius:
                continue
            near, far = max(along - radius, 1e-3), max(along + radius, 1e-3)
            if near > max_range:
                continue
            low, high = solids.bound[i, 3] - oz, solids.bound[i, 4] - oz
            candidates[kept] = i
            nearest[kept] = near
            lowest[kept] = low / (near if low < 0.0 else far)
            highest[kept] = high / (far if high < 0.0 else near)
            kept += 1

        last_alone = np.full(alone.shape[1], -1, np.int64)
        for b in range(beams):
            dx, dy, dz = directions[c, b, 0], directions[c, b, 1], directions[c, b, 2]
            ray = c * beams + b
            best, best_cosine, best_material, best_semantic = hit_ground(
                ground, ox, oy, oz, dx, dy, dz, max_range
            )
            best_solid = -1
            across_plane = math.hypot(dx, dy)
            for k in range(kept):
                if slopes[b] < lowest[k] or slopes[b] > highest[k]:
                    continue
                i = candidates[k]
                who = solids.owner[i]
                # Owned solids are always tested, since `alone` counts rays that others would block.
                if who == 0 and nearest[k] > best * across_plane:
                    continue
                t, angle, surface = _meet(solids, i, key, ray, ox, oy, oz, dx, dy, dz, min_range)
                if t > max_range:
                    continue
                if who > 0 and last_alone[who] != b:
                    last_alone[who] = b
                    alone[c, who] += 1
                if t < best:
                    best, best_cosine, best_solid, best_material = t, angle, i, surface
            if best < min_range:
                best = math.inf
            distance[c, b] = best
            solid[c, b] = best_solid
            cosine[c, b] = best_cosine
            material[c, b] = best_material
            if best_solid >= 0:
                owner[c, b] = solids.owner[best_solid]
                semantic[c, b] = solids.semantic[best_solid]
            else:
                owner[c, b] = 0
                semantic[c, b] = best_semantic
