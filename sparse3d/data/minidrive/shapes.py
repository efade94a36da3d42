"""What people and vehicles look like: each maker returns a `Shape` and the tight box around it.

x is where the object heads, z = 0 the ground. Proportions are measured on ordinary cars, bicycles and people;
every maker draws its own variation, and the box follows the shape, never the other way round.
"""

import math
from typing import NamedTuple

import numpy as np

from sparse3d.data.minidrive.config import SizeConfig
from sparse3d.data.minidrive.primitives import Material, Semantic, Shape


class Actor(NamedTuple):
    """A shape and the box around it: `centre` (3,) in the shape's frame, `size` (3,) = (l, w, h)."""

    name: str
    shape: Shape
    centre: np.ndarray
    size: np.ndarray


def _actor(name: str, shape: Shape) -> Actor:
    lower, upper = shape.extents()
    return Actor(name, shape, (lower + upper) / 2, upper - lower)


def draw_size(rng: np.random.Generator, sizes: SizeConfig) -> tuple[float, float, float]:
    """(length, width, height); long cars tend to be wide."""
    z = np.clip(rng.standard_normal(3), -2.5, 2.5)
    z[1] = 0.5 * z[0] + math.sqrt(0.75) * z[1]
    l, w, h = np.asarray(sizes.mean) + np.asarray(sizes.deviation) * z
    return float(l), float(w), float(h)


def _wheels(shape: Shape, front: float, rear: float, half_width: float, radius: float) -> None:
    for x in (front, rear):
        for side in (-1, 1):
            y = side * half_width
            shape.rod((x, y, radius), (x, y - side * 0.2, radius), radius, Material.RUBBER)


def _lights(shape: Shape, front: float, rear: float, half_width: float, low: float, high: float) -> None:
    """Tail lights and number plates shine back; head lights less so. They stand out by a centimetre."""
    for side in (-1, 1):
        y0, y1 = sorted((side * (half_width - 0.05), side * (half_width - 0.28)))
        shape.box((rear, y0, low), (rear + 0.05, y1, high), Material.RETRO)
        shape.box((front - 0.05, y0, low - 0.05), (front, y1, low + 0.08), Material.GLASS)
    shape.box((rear, -0.26, 0.45), (rear + 0.02, 0.26, 0.56), Material.RETRO)
    shape.box((front - 0.02, -0.26, 0.40), (front, 0.26, 0.51), Material.RETRO)


def make_car(rng: np.random.Generator, sizes: SizeConfig) -> Actor:
    """A car: bonnet, cabin with slanted windows, boot or none, wheels, lights and number plates."""
    l, w, h = draw_size(rng, sizes)
    # Paint seen by an infrared laser: black cars send back a tenth of what white ones do.
    shape = Shape(
        Semantic.CAR, albedo=float(rng.choice([0.15, 0.4, 0.8, 1.2, 1.6])) * float(rng.uniform(0.8, 1.2))
    )
    front, rear, half = l / 2, -l / 2, w / 2
    clearance, belt, bonnet = (
        rng.uniform(0.16, 0.24),
        h * rng.uniform(0.56, 0.62),
        h * rng.uniform(0.46, 0.52),
    )
    bonnet_end = front - l * rng.uniform(0.21, 0.27)
    boot = l * (rng.uniform(0.10, 0.16) if rng.random() < 0.4 else rng.uniform(0.0, 0.02))
    screen, back = rng.uniform(0.45, 0.8), rng.uniform(0.15, 0.3) + (0.35 if boot > 0.1 * l else 0.0)
    lean = rng.uniform(0.10, 0.18)  # of the side windows

    sill = half - 0.03
    shape.frustum(
        (rear + 0.06, bonnet_end, -sill, sill), (rear + 0.01, bonnet_end, -half, half),
        (clearance, belt * 0.7), Material.PAINT,
    )  # fmt: skip
    shape.frustum(
        (rear + 0.01, bonnet_end, -half, half), (rear + 0.05, bonnet_end, -half + 0.04, half - 0.04),
        (belt * 0.7, belt), Material.PAINT,
    )  # fmt: skip
    shape.frustum(
        (bonnet_end, front - 0.01, -sill, sill), (bonnet_end, front - 0.12, -half + 0.06, half - 0.06),
        (clearance, bonnet), Material.PAINT,
    )  # fmt: skip
    foot_front, foot_rear = bonnet_end + 0.1, rear + 0.04 + boot
    side = half - 0.05
    shape.frustum(
        (foot_rear, foot_front, -side, side),
        (foot_rear + back, foot_front - screen, -side + lean, side - lean),
        (min(belt, bonnet) - 0.02, h), Material.PAINT, sides=Material.GLASS,
    )  # fmt: skip
    pillar = (-0.12 * l, -0.12 * l + 0.1)  # between front and rear doors
    shape.frustum(
        (*pillar, -side - 0.005, side + 0.005), (*pillar, lean - side - 0.005, side - lean + 0.005),
        (belt, h), Material.PAINT,
    )  # fmt: skip
    radius = 0.2 * h * rng.uniform(0.98, 1.08)
    _wheels(shape, front - 0.195 * l, rear + 0.19 * l, half - 0.01, radius)
    _lights(shape, front, rear, half - 0.03, belt * 0.72, belt * 0.72 + 0.16)
    return _actor("Car", shape)


def make_van(rng: np.random.Generator, sizes: SizeConfig) -> Actor:
    """A delivery van: short nose, upright box."""
    l, w, h = draw_size(rng, sizes)
    shape = Shape(Semantic.VAN, albedo=float(rng.uniform(0.5, 1.6)))
    front, rear, half = l / 2, -l / 2, w / 2
    nose, belt = rng.uniform(0.5, 0.9), 0.52 * h
    shape.frustum(
        (rear + 0.01, front - nose, -half, half), (rear + 0.03, front - nose, -half, half),
        (0.22, belt), Material.PAINT,
    )  # fmt: skip
    shape.frustum(
        (front - nose, front - 0.01, -half, half), (front - nose, front - 0.15, -half + 0.08, half - 0.08),
        (0.22, belt), Material.PAINT,
    )  # fmt: skip
    cab = front - nose - 0.6
    shape.frustum(
        (cab, front - nose + 0.15, -half, half), (cab, front - nose - 0.35, -half + 0.08, half - 0.08),
        (belt, h), Material.PAINT, sides=Material.GLASS,
    )  # fmt: skip
    shape.frustum(
        (rear + 0.03, cab, -half, half),
        (rear + 0.06, cab, -half + 0.06, half - 0.06),
        (belt, h),
        Material.PAINT,
    )
    _wheels(shape, front - 0.19 * l, rear + 0.2 * l, half - 0.01, 0.34)
    _lights(shape, front, rear, half - 0.02, 0.9, 1.2)
    return _actor("Van", shape)


def make_pedestrian(rng: np.random.Generator) -> Actor:
    """A person standing or in mid stride: legs, torso, arms, head, now and then a bag or a long coat."""
    h = float(np.clip(rng.normal(1.77, 0.08), 1.55, 1.98))
    if rng.random() < 0.06:
        h = float(rng.uniform(1.1, 1.45))  # a child
    k = h / 1.75
    shape = Shape(Semantic.PEDESTRIAN, albedo=float(rng.uniform(0.35, 1.5)))
    # Half the distance between the ankles; three of ten stand.
    stride = k * (rng.uniform(0.02, 0.10) if rng.random() < 0.3 else rng.uniform(0.30, 0.46))
    stride *= float(rng.choice([-1, 1]))
    width = k * rng.uniform(0.85, 1.2)  # build
    hip, shoulder = 0.5 * h, 0.82 * h
    lean = rng.uniform(0.0, 0.07) * k if abs(stride) > 0.15 else 0.0
    for side in (-1, 1):
        foot, y = side * stride, side * 0.10 * width
        shape.rod((foot, y, 0.05), (0.0, y, hip + 0.04), 0.075 * width, Material.CLOTH)
        shape.box((foot - 0.07 * k, y - 0.05, 0.0), (foot + 0.18 * k, y + 0.05, 0.09 * k), Material.RUBBER)
        hand = -side * stride * rng.uniform(0.5, 1.0) + rng.uniform(-0.02, 0.1)
        out = side * width * rng.uniform(0.24, 0.36)
        reach = (hand, out, hip - 0.02 + abs(hand) * 0.3)
        if rng.random() < 0.2:  # holds something in front
            reach = (0.3 * k, side * 0.12, 0.62 * h)
        shape.rod((lean, side * 0.2 * width, shoulder - 0.02), reach, 0.048 * width, Material.CLOTH)
    shape.ellipsoid(
        (lean / 2, 0, (hip + shoulder) / 2 + 0.02), (0.135 * width, 0.215 * width, 0.19 * h), Material.CLOTH,
        pitch=lean,
    )  # fmt: skip
    if rng.random() < 0.2:  # coat or skirt
        shape.frustum(
            (-0.17, 0.17, -0.2 * width, 0.2 * width), (-0.11, 0.11, -0.17 * width, 0.17 * width),
            (0.3 * h, 0.56 * h), Material.CLOTH,
        )  # fmt: skip
    if rng.random() < 0.3:  # rucksack
        shape.box((-0.30 * k, -0.15, 0.56 * h), (-0.10 * k, 0.15, shoulder), Material.CLOTH)
    shape.rod((lean, 0, shoulder - 0.02), (lean, 0, shoulder + 0.08), 0.06, Material.SKIN)
    head = 0.065 * h
    shape.ellipsoid((lean + 0.02, 0, h - head), (0.098 * k, 0.078 * k, head), Material.SKIN)
    return _actor("Pedestrian", shape)


def make_cyclist(rng: np.random.Generator) -> Actor:
    """A rider on a bicycle: two spoked wheels, frame, handlebar, bent rider, one pedal up and one down."""
    h = float(np.clip(rng.normal(1.74, 0.07), 1.55, 1.92))
    k = h / 1.74
    shape = Shape(Semantic.CYCLIST, albedo=float(rng.uniform(0.35, 1.5)))
    radius = 0.34 * rng.uniform(0.95, 1.03)
    base = 1.08 * rng.uniform(0.96, 1.04)  # between the axles
    front, rear = base / 2, -base / 2
    for x in (front, rear):
        # Spokes and rim as a thin medium: about 45 % of the rays across it come back.
        shape.rod((x, -0.02, radius), (x, 0.02, radius), radius, Material.METAL, density=15.0)
    bottom, saddle, bar = (-0.10, 0.0, 0.30), (-0.27, 0.0, 0.92 * k), (front - 0.14, 0.0, 1.0 * k)
    head_tube = (front - 0.17, 0.0, 0.82)
    for start, end in (
        ((rear, 0, radius), bottom), ((rear, 0, radius), saddle), (bottom, saddle), (bottom, head_tube),
        (saddle, head_tube), (head_tube, (front, 0, radius)), (head_tube, bar),
    ):  # fmt: skip
        shape.rod(start, end, 0.025, Material.METAL)
    grip = rng.uniform(0.24, 0.32)
    shape.rod((bar[0], -grip, bar[2]), (bar[0], grip, bar[2]), 0.02, Material.METAL)
    if rng.random() < 0.5:
        shape.box((rear - 0.2, -0.05, 0.58), (rear - 0.17, 0.05, 0.68), Material.RETRO)
    hip = (-0.24, 0.0, 0.98 * k)
    lean = rng.uniform(0.15, 0.40)  # how far the shoulders come forward
    shoulder = (hip[0] + lean, 0.0, 1.45 * k - 0.12 * lean)
    middle = ((hip[0] + shoulder[0]) / 2, 0.0, (hip[2] + shoulder[2]) / 2 + 0.02)
    pitch = math.atan2(lean, shoulder[2] - hip[2])
    build = k * rng.uniform(0.85, 1.1)
    shape.ellipsoid(middle, (0.13 * build, 0.19 * build, 0.34 * k), Material.CLOTH, pitch=pitch)
    pedal = rng.uniform(0, 2 * math.pi)
    for side in (-1, 1):
        turn = pedal + (math.pi if side > 0 else 0.0)
        foot = (bottom[0] + 0.17 * math.cos(turn), side * 0.12, bottom[2] + 0.17 * math.sin(turn) + 0.03)
        knee = (0.14 + 0.06 * math.cos(turn), side * 0.13, 0.72 * k + 0.1 * math.sin(turn))
        shape.rod((hip[0], side * 0.09, hip[2]), knee, 0.075 * build, Material.CLOTH)
        shape.rod(knee, foot, 0.055 * build, Material.CLOTH)
        arm, hand = side * 0.19 * build, (bar[0] - 0.02, side * grip, bar[2] + 0.03)
        shape.rod((shoulder[0], arm, shoulder[2]), hand, 0.045, Material.CLOTH)
    top = 0.115 * k
    shape.ellipsoid((shoulder[0] + 0.06, 0, h - top), (0.115 * k, 0.09 * k, top), Material.SKIN)
    shape.rod((shoulder[0], 0, shoulder[2]), (shoulder[0] + 0.05, 0, h - 1.4 * top), 0.06, Material.SKIN)
    return _actor("Cyclist", shape)
