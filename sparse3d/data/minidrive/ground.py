"""The ground: a sloping, gently waving base, and a road one kerb lower than the pavement beside it.

Road frame: s along the street, d across it to the left; the sensor stands at s = 0, d = `sensor_offset`. A
side street may cross at s = `cross_at`.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from sparse3d.data.minidrive.primitives import Material, Semantic

ROAD, SIDEWALK, LOT = 0, 1, 2  # regions
MARKING_WIDTH = 0.07  # metres, half width of a painted line
DASH = 3.0  # metres painted, then as many unpainted


class Ground(NamedTuple):
    """Base height z = offset + slope . (x, y) + sum of waves, and the street plan. Metres and radians.

    `waves` (K, 4): wave numbers k_x, k_y, phase, amplitude. `steepest`: no point of the base is steeper.
    `left`, `right`: distance of the kerbs from the lane divider. `cross_half` 0: no side street.
    """

    offset: float
    slope_x: float
    slope_y: float
    waves: np.ndarray
    steepest: float
    heading: float
    sensor_offset: float
    left: float
    right: float
    cross_at: float
    cross_half: float
    kerb: float
    sidewalk: float
    paved_lots: bool

    def to_world(self, s: float, d: float) -> tuple[float, float]:
        """Road frame to LiDAR frame."""
        d = d - self.sensor_offset
        cos, sin = math.cos(self.heading), math.sin(self.heading)
        return cos * s - sin * d, sin * s + cos * d


@njit(cache=True, nogil=True, inline="always")
def base_height(ground, x, y):
    """Height of the road level at (x, y), whether or not there is a road."""
    z = ground.offset + ground.slope_x * x + ground.slope_y * y
    for k in range(ground.waves.shape[0]):
        z += ground.waves[k, 3] * math.sin(
            ground.waves[k, 0] * x + ground.waves[k, 1] * y + ground.waves[k, 2]
        )
    return z


@njit(cache=True, nogil=True)
def road_frame(ground, x, y):
    """LiDAR frame to road frame (s, d)."""
    cos, sin = math.cos(ground.heading), math.sin(ground.heading)
    return cos * x + sin * y, -sin * x + cos * y + ground.sensor_offset


@njit(cache=True, nogil=True)
def region(ground, x, y):
    """Road, sidewalk or lot."""
    s, d = road_frame(ground, x, y)
    cross = abs(s - ground.cross_at)
    if -ground.right < d < ground.left or cross < ground.cross_half:
        return ROAD
    if -ground.right - ground.sidewalk < d < ground.left + ground.sidewalk:
        return SIDEWALK
    if ground.cross_half > 0 and cross < ground.cross_half + ground.sidewalk:
        return SIDEWALK
    return LOT


@njit(cache=True, nogil=True)
def surface_height(ground, x, y):
    """Height of what one stands on at (x, y): road level, or one kerb above it."""
    z = base_height(ground, x, y)
    return z if region(ground, x, y) == ROAD else z + ground.kerb


@njit(cache=True, nogil=True)
def surface(ground, x, y):
    """(material, semantic) of the ground at (x, y)."""
    where = region(ground, x, y)
    if where == SIDEWALK:
        return Material.CONCRETE, Semantic.SIDEWALK
    if where == LOT:
        return (Material.CONCRETE if ground.paved_lots else Material.GRASS), Semantic.TERRAIN
    s, d = road_frame(ground, x, y)
    on_cross = abs(s - ground.cross_at) < ground.cross_half
    if not on_cross and abs(d) < MARKING_WIDTH and s % (2 * DASH) < DASH:
        return Material.MARKING, Semantic.ROAD
    return Material.ASPHALT, Semantic.ROAD


@njit(cache=True, nogil=True)
def descend(ground, lift, ox, oy, oz, dx, dy, dz, start, end):
    """First t in [start, end] where the ray meets the base raised by `lift`, else inf.

    Sphere tracing: no step is longer than the steepest slope of the base allows.
    """
    closing = ground.steepest * math.sqrt(dx * dx + dy * dy) - dz
    if closing <= 0:
        return math.inf
    t = start
    for _ in range(200):
        gap = oz + t * dz - lift - base_height(ground, ox + t * dx, oy + t * dy)
        if gap < 1e-4:
            return t + gap / closing
        t += gap / closing
        if t > end:
            return math.inf
    return t


@njit(cache=True, nogil=True)
def hit_ground(ground, ox, oy, oz, dx, dy, dz, end):
    """(t, cosine of incidence, material, semantic) where the ray first meets the ground; t = inf: never."""
    upper = descend(ground, ground.kerb, ox, oy, oz, dx, dy, dz, 0.0, end)
    if upper == math.inf:
        return math.inf, 0.0, Material.ASPHALT, Semantic.ROAD
    t = upper
    if region(ground, ox + t * dx, oy + t * dy) == ROAD:
        t = descend(ground, 0.0, ox, oy, oz, dx, dy, dz, upper, end)
        if t == math.inf:
            return math.inf, 0.0, Material.ASPHALT, Semantic.ROAD
        if region(ground, ox + t * dx, oy + t * dy) != ROAD:
            # Between the two levels the ray left the road: it met the kerb's face, found by bisection.
            low, high = upper, t
            for _ in range(24):
                middle = 0.5 * (low + high)
                if region(ground, ox + middle * dx, oy + middle * dy) == ROAD:
                    low = middle
                else:
                    high = middle
            # Kerbs are straight: the street's face across it, those of the side street along it.
            _, d = road_frame(ground, ox + low * dx, oy + low * dy)
            along, across = road_frame(ground, dx, dy)
            on_street = -ground.right < d < ground.left
            cosine = abs(across - ground.sensor_offset) if on_street else abs(along)
            return high, cosine, Material.CONCRETE, Semantic.SIDEWALK
    x, y = ox + t * dx, oy + t * dy
    material, semantic = surface(ground, x, y)
    # Normal of the base by its gradient.
    gx, gy = ground.slope_x, ground.slope_y
    for k in range(ground.waves.shape[0]):
        kx, ky = ground.waves[k, 0], ground.waves[k, 1]
        c = ground.waves[k, 3] * math.cos(kx * x + ky * y + ground.waves[k, 2])
        gx += kx * c
        gy += ky * c
    cosine = (gx * dx + gy * dy - dz) / math.sqrt(gx * gx + gy * gy + 1)
    return t, max(cosine, 0.0), material, semantic
