"""What stands beside the road without a label: houses, walls, trees, bushes, things as slim as a person."""

import math
from typing import NamedTuple

import numpy as np

from sparse3d.data.minidrive.primitives import Material, Semantic, Shape


class Prop(NamedTuple):
    """A shape and the rectangle (length, width) that it keeps free at a person's height."""

    shape: Shape
    length: float
    width: float


def make_building(rng: np.random.Generator, length: float, depth: float) -> Prop:
    """A house: a block with windows that swallow light, under a flat or a gabled roof."""
    h = rng.uniform(4.5, 14.0)
    shape = Shape(Semantic.BUILDING, albedo=float(rng.uniform(0.5, 1.5)))
    x, y = length / 2, depth / 2
    shape.box((-x, -y, -1.0), (x, y, h), Material.WALL)
    for z in np.arange(1.1, h - 1.5, 3.0):
        for at in np.arange(-x + 1.2, x - 1.8, rng.uniform(2.2, 4.0)):
            for side in (-1, 1):
                y0, y1 = sorted((side * y, side * (y + 0.03)))
                shape.box((at, y0, z), (at + 1.2, y1, z + 1.3), Material.GLASS)
        if z > 6:
            break  # the beams do not reach higher windows nearby
    if rng.random() < 0.5:
        eaves = 0.3
        shape.frustum(
            (-x - eaves, x + eaves, -y - eaves, y + eaves),
            (-x, x, -0.05, 0.05),
            (h, h + 0.5 * depth),
            Material.WALL,
        )
    return Prop(shape, length + 0.2, depth + 0.2)


def make_wall(rng: np.random.Generator, length: float) -> Prop:
    """A garden wall, a hedge, a mesh fence or a fence of posts and boards, along x."""
    style = rng.integers(4)
    h, half = rng.uniform(0.7, 1.9), length / 2
    if style == 0:
        shape = Shape(Semantic.FENCE, albedo=float(rng.uniform(0.6, 1.3)))
        shape.box((-half, -0.1, -0.5), (half, 0.1, h), Material.WALL)
        return Prop(shape, length, 0.3)
    if style == 1:
        shape = Shape(Semantic.VEGETATION)
        thick = rng.uniform(0.3, 0.6)
        shape.box((-half, -thick, -0.3), (half, thick, h), Material.LEAF, density=6.0)
        return Prop(shape, length, 2 * thick)
    shape = Shape(Semantic.FENCE, albedo=float(rng.uniform(0.6, 1.3)))
    if style == 2:
        shape.box((-half, -0.02, 0.0), (half, 0.02, h), Material.METAL, density=10.0)
    else:
        for z in (0.3, h - 0.2):
            shape.box((-half, -0.03, z), (half, 0.03, z + 0.12), Material.BARK)
    for x in np.arange(-half, half + 0.01, 2.5):
        shape.rod((x, 0, -0.3), (x, 0, h + 0.05), 0.05, Material.METAL)
    return Prop(shape, length, 0.2)


def make_tree(rng: np.random.Generator) -> Prop:
    """A trunk under a crown of several leafy balls; no crown hangs lower than a van is high."""
    shape = Shape(Semantic.VEGETATION, albedo=float(rng.uniform(0.8, 1.2)))
    radius, height = rng.uniform(0.10, 0.28), rng.uniform(2.9, 4.0)
    top = (rng.uniform(-0.2, 0.2), rng.uniform(-0.2, 0.2), height + 1)
    shape.rod((0, 0, -0.3), top, radius, Material.BARK, semantic=Semantic.TRUNK)
    for _ in range(rng.integers(3, 7)):
        size = rng.uniform(0.8, 1.7)
        squash = size * rng.uniform(0.6, 1.0)
        centre = (rng.normal(0, 0.8), rng.normal(0, 0.8), height + squash + rng.uniform(0, 2.0))
        shape.ellipsoid(centre, (size, size, squash), Material.LEAF, density=rng.uniform(0.5, 1.5))
    return Prop(shape, 2.5 * radius, 2.5 * radius)


def make_bush(rng: np.random.Generator) -> Prop:
    """A bush, or a slim thuja about as high and wide as a person."""
    shape = Shape(Semantic.VEGETATION, albedo=float(rng.uniform(0.7, 1.2)))
    if rng.random() < 0.3:
        r, h = rng.uniform(0.25, 0.45), rng.uniform(1.3, 2.3)
        shape.ellipsoid((0, 0, h / 2), (r, r, h / 2), Material.LEAF, density=8.0)
        return Prop(shape, 2 * r, 2 * r)
    r = rng.uniform(0.35, 0.9)
    for _ in range(3):
        size = r * rng.uniform(0.5, 0.8)
        x, y = rng.uniform(-0.4, 0.4, 2) * r
        shape.ellipsoid(
            (x, y, size * 0.8), (size, size, size * rng.uniform(0.8, 1.2)), Material.LEAF, density=4.0
        )
    return Prop(shape, 2.4 * r, 2.4 * r)


def make_lamp(rng: np.random.Generator) -> Prop:
    """A street lamp with its arm over the road (towards -y)."""
    shape = Shape(Semantic.POLE)
    h, r = rng.uniform(4.5, 8.0), rng.uniform(0.05, 0.11)
    shape.rod((0, 0, -0.3), (0, 0, h), r, Material.METAL)
    shape.rod((0, 0, 0), (0, 0, 0.9), r + 0.04, Material.METAL)
    shape.rod((0, 0, h - 0.1), (0, -1.5, h + 0.1), 0.04, Material.METAL)
    return Prop(shape, 0.4, 0.4)


def make_furniture(rng: np.random.Generator) -> Prop:
    """Bins, bollards, signs, cabinets, columns, benches: what a careless detector calls a person."""
    kind = rng.integers(7)
    shape = Shape(Semantic.OBJECT, albedo=float(rng.uniform(0.5, 1.5)))
    if kind == 0:  # litter bin on wheels
        w, h = rng.uniform(0.25, 0.38), rng.uniform(0.9, 1.2)
        shape.frustum((-w, w, -w * 0.8, w * 0.8), (-w * 1.1, w * 1.1, -w, w), (0, h), Material.PAINT)
        return Prop(shape, 2.3 * w, 2.3 * w)
    if kind == 1:  # bollard
        r = rng.uniform(0.06, 0.12)
        shape.rod((0, 0, -0.1), (0, 0, rng.uniform(0.7, 1.1)), r, Material.METAL)
        return Prop(shape, 2 * r, 2 * r)
    if kind == 2:  # traffic sign
        shape.semantic = Semantic.SIGN
        z, r = rng.uniform(1.6, 2.3), rng.uniform(0.25, 0.4)
        shape.rod((0, 0, -0.2), (0, 0, z), 0.035, Material.METAL, semantic=Semantic.POLE)
        shape.rod((-0.06, 0, z), (-0.04, 0, z), r, Material.RETRO)
        return Prop(shape, 0.4, 2 * r)
    if kind == 3:  # switch cabinet
        l, w, h = rng.uniform(0.3, 0.7), rng.uniform(0.15, 0.25), rng.uniform(0.9, 1.5)
        shape.box((-l, -w, 0), (l, w, h), Material.METAL)
        return Prop(shape, 2 * l, 2 * w)
    if kind == 4:  # advertising column
        r, h = rng.uniform(0.35, 0.65), rng.uniform(2.2, 3.2)
        shape.rod((0, 0, 0), (0, 0, h), r, Material.WALL)
        shape.ellipsoid((0, 0, h), (r * 1.1, r * 1.1, 0.3), Material.WALL)
        return Prop(shape, 2.3 * r, 2.3 * r)
    if kind == 5:  # parking meter or post with a box at head height: a person without legs
        h = rng.uniform(1.2, 1.7)
        shape.rod((0, 0, 0), (0, 0, h), rng.uniform(0.05, 0.09), Material.METAL)
        shape.box((-0.12, -0.18, h - 0.1), (0.12, 0.18, h + rng.uniform(0.2, 0.5)), Material.METAL)
        return Prop(shape, 0.4, 0.4)
    # a bench
    l = rng.uniform(0.6, 1.0)
    shape.box((-l, -0.25, 0.40), (l, 0.2, 0.47), Material.BARK)
    shape.frustum((-l, l, 0.15, 0.22), (-l, l, 0.25, 0.32), (0.47, 0.9), Material.BARK)
    for x in (-l * 0.8, l * 0.8):
        shape.box((x - 0.03, -0.22, 0), (x + 0.03, 0.18, 0.4), Material.METAL)
    return Prop(shape, 2 * l, 0.7)


def make_skip(rng: np.random.Generator) -> Prop:
    """A large rubbish container or a stack of building material: as big as a small car, but not one."""
    shape = Shape(Semantic.OBJECT, albedo=float(rng.uniform(0.4, 1.4)))
    l, w, h = rng.uniform(0.7, 1.7), rng.uniform(0.5, 0.85), rng.uniform(1.0, 1.6)
    if rng.random() < 0.6:
        shape.frustum((-l * 0.8, l * 0.8, -w, w), (-l, l, -w, w), (0.1, h), Material.PAINT)
    else:
        for layer in range(int(h / 0.3)):
            x = l * rng.uniform(0.75, 1.0)
            shape.box((-x, -w, 0.3 * layer), (x, w, 0.3 * layer + 0.28), Material.BARK)
    return Prop(shape, 2 * l, 2 * w)


def turn_towards_road(side: int, heading: float) -> float:
    """Yaw that points a prop's -y at the road when it stands on the left (side +1) or right (-1) of it."""
    return heading if side > 0 else heading + math.pi
