"""One street scene from one random generator; nothing overlaps anything else on the ground."""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from sparse3d.data.minidrive import scenery
from sparse3d.data.minidrive.config import MinidriveConfig, WorldConfig
from sparse3d.data.minidrive.ground import Ground, surface_height
from sparse3d.data.minidrive.primitives import Collection, Primitives
from sparse3d.data.minidrive.shapes import Actor, make_car, make_cyclist, make_pedestrian, make_van

LANE_EDGE = 0.35  # metres, free strip between a parked car and the lane
CLEARANCE = 0.25  # metres between any two things on the ground


class World(NamedTuple):
    """`solids` and `ground` for the caster; labelled object m has owner id m + 1.

    `names` (M,) str, `boxes` (M, 7) float64 in the LiDAR frame.
    """

    solids: Primitives
    ground: Ground
    names: np.ndarray
    boxes: np.ndarray


class Street(NamedTuple):
    """Where things belong, in the road frame (metres)."""

    lane: float  # width
    park_left: float  # width of the parking strip, 0: none
    park_right: float
    across: bool  # cars park at right angles to the street
    setback: float  # from the pavement to the houses


@njit(cache=True, nogil=True)
def overlaps(rectangles, count, x, y, half_length, half_width, yaw):
    """Whether a rectangle meets any of rectangles[:count], rows (x, y, half length, half width, yaw).

    By separating axes; touching counts.
    """
    c1, s1 = math.cos(yaw), math.sin(yaw)
    for i in range(count):
        dx, dy = rectangles[i, 0] - x, rectangles[i, 1] - y
        l2, w2 = rectangles[i, 2], rectangles[i, 3]
        reach = math.hypot(half_length, half_width) + math.hypot(l2, w2)
        if dx * dx + dy * dy > reach * reach:
            continue
        c2, s2 = math.cos(rectangles[i, 4]), math.sin(rectangles[i, 4])
        c, s = abs(c1 * c2 + s1 * s2), abs(s1 * c2 - c1 * s2)
        if abs(c1 * dx + s1 * dy) > half_length + l2 * c + w2 * s:
            continue
        if abs(-s1 * dx + c1 * dy) > half_width + l2 * s + w2 * c:
            continue
        if abs(c2 * dx + s2 * dy) > l2 + half_length * c + half_width * s:
            continue
        if abs(-s2 * dx + c2 * dy) > w2 + half_length * s + half_width * c:
            continue
        return True
    return False


class StreetBuilder:
    """A world in the making. Every `try_*` puts one thing down unless its place is taken."""

    def __init__(self, config: MinidriveConfig, rng: np.random.Generator):
        self.world: WorldConfig = config.world
        self.rng = rng
        self.collection = Collection()
        self.rectangles = np.zeros((4096, 5))
        self.count = 0
        self.names: list[str] = []
        self.boxes: list[tuple[float, ...]] = []
        # Of each actor: whether it is under way, and its numbers in `rectangles` and in `collection`.
        self.under_way: list[bool] = []
        self.places: list[tuple[int, int]] = []
        self.street, self.ground = _plan(config, rng)
        # The sensor's own car.
        self._take(-1.0, 0.0, 3.2, 1.6, 0.0)

    def _take(self, x: float, y: float, half_length: float, half_width: float, yaw: float) -> bool:
        if self.count == len(self.rectangles):
            return False
        if overlaps(self.rectangles, self.count, x, y, half_length + CLEARANCE, half_width + CLEARANCE, yaw):
            return False
        self.rectangles[self.count] = x, y, half_length, half_width, yaw
        self.count += 1
        return True

    def try_actor(self, actor: Actor, s: float, d: float, yaw_road: float, under_way: bool = False) -> bool:
        """Stand an actor on the ground with its box centre at road coordinates (s, d)."""
        yaw = yaw_road + self.ground.heading
        x, y = self.ground.to_world(s, d)
        if not self._take(x, y, actor.size[0] / 2, actor.size[1] / 2, yaw):
            return False
        z = surface_height(self.ground, x, y)
        cos, sin = math.cos(yaw), math.sin(yaw)
        cx, cy, cz = actor.centre
        owner = len(self.boxes) + 1
        self.under_way.append(under_way)
        self.places.append((self.count - 1, len(self.collection)))
        self.collection.place(actor.shape, x - cos * cx + sin * cy, y - sin * cx - cos * cy, z, yaw, owner)
        self.names.append(actor.name)
        self.boxes.append((x, y, z + cz, *actor.size, math.remainder(yaw, 2 * math.pi)))
        return True

    def try_prop(self, prop: scenery.Prop, s: float, d: float, yaw_road: float) -> bool:
        """Put scenery at road coordinates (s, d)."""
        yaw = yaw_road + self.ground.heading
        x, y = self.ground.to_world(s, d)
        if not self._take(x, y, prop.length / 2, prop.width / 2, yaw):
            return False
        self.collection.place(prop.shape, x, y, surface_height(self.ground, x, y), yaw)
        return True

    def on_cross_street(self, s: float, margin: float) -> bool:
        """Whether road coordinate s lies in the side street or its pavements."""
        return abs(s - self.ground.cross_at) < self.ground.cross_half + margin and self.ground.cross_half > 0

    def vehicle(self) -> Actor:
        if self.rng.random() < self.world.vans:
            return make_van(self.rng, self.world.van)
        return make_car(self.rng, self.world.car)

    def world_now(self) -> World:
        """The world as it stands."""
        return World(
            solids=self.collection.primitives(),
            ground=self.ground,
            names=np.array(self.names, dtype=str),
            boxes=np.array(self.boxes, dtype=np.float64).reshape(-1, 7),
        )

    def try_move(self, actor: int, forward: float) -> bool:
        """Move actor m along its heading, unless something is in its way."""
        x, y, z, l, w, h, yaw = self.boxes[actor]
        dx, dy = forward * math.cos(yaw), forward * math.sin(yaw)
        rectangle, number = self.places[actor]
        if not self.try_rectangle(rectangle, x + dx, y + dy, yaw):
            return False
        dz = surface_height(self.ground, x + dx, y + dy) - surface_height(self.ground, x, y)
        self.boxes[actor] = (x + dx, y + dy, z + dz, l, w, h, yaw)
        self.collection.shift(number, dx, dy, dz)
        return True

    def try_rectangle(self, number: int, x: float, y: float, yaw: float) -> bool:
        """Move what a thing covers on the ground, unless something else is there. Number 0 is the sensor's
        own car."""
        before = self.rectangles[number].copy()
        half_length, half_width = before[2:4]
        self.rectangles[number, 0] = 1e9  # it is not in its own way
        if overlaps(self.rectangles, self.count, x, y, half_length, half_width, yaw):
            self.rectangles[number] = before
            return False
        self.rectangles[number] = x, y, half_length, half_width, yaw
        return True

    # The street's parts, in the order in which they are built.

    def vehicles(self) -> None:
        rng, street, ground, world = self.rng, self.street, self.ground, self.world
        taken = rng.uniform(*world.parked)
        for side, strip in ((1, street.park_left), (-1, street.park_right)):
            if strip <= 0:
                continue
            kerb = ground.left if side > 0 else -ground.right
            s = -0.7 * world.extent + rng.uniform(0, 4)
            while s < 0.85 * world.extent:
                if rng.random() > taken or self.on_cross_street(s, ground.sidewalk + 5.0):
                    s += 3.0 if street.across else 5.5
                    continue
                car = self.vehicle()
                l, w = float(car.size[0]), float(car.size[1])
                turned = rng.random() < (0.3 if street.across else (0.85 if side > 0 else 0.1))
                if street.across:
                    yaw = side * math.pi / 2 + (math.pi if turned else 0.0) + rng.normal(0, 0.04)
                    at = kerb - side * (l / 2 + rng.uniform(0.15, 0.6))
                    self.try_actor(car, s + w / 2, at, yaw)
                    s += w + rng.uniform(0.7, 1.3)
                else:
                    yaw = (math.pi if turned else 0.0) + rng.normal(0, 0.02)
                    self.try_actor(car, s + l / 2, kerb - side * (w / 2 + rng.uniform(0.15, 0.4)), yaw)
                    s += l + rng.uniform(0.6, 2.0)
        for _ in range(rng.poisson(world.driving)):
            oncoming = rng.random() < 0.55
            d = (0.5 if oncoming else -0.5) * street.lane + rng.normal(0, 0.2)
            s = rng.uniform(6, 60) if rng.random() < 0.75 else rng.uniform(-50, -8)
            yaw = (math.pi if oncoming else 0.0) + rng.normal(0, 0.03)
            self.try_actor(self.vehicle(), s, d, yaw, under_way=True)
        if ground.cross_half > 0:
            for _ in range(rng.poisson(world.crossing_cars)):
                side = int(rng.choice([-1, 1]))
                s = ground.cross_at + side * 0.5 * ground.cross_half + rng.normal(0, 0.2)
                edge = ground.left if rng.random() < 0.5 else -ground.right
                d = (
                    edge + math.copysign(rng.uniform(3, 20), edge)
                    if rng.random() < 0.7
                    else rng.uniform(-6, 6)
                )
                yaw = side * math.pi / 2 + rng.normal(0, 0.1)
                self.try_actor(self.vehicle(), s, d, yaw, under_way=True)
        for _ in range(rng.poisson(world.yard_cars)):
            side = int(rng.choice([-1, 1]))
            d = self.beside(side, rng.uniform(2.5, 4.5 + street.setback))
            self.try_actor(self.vehicle(), self.along(), d, rng.uniform(-math.pi, math.pi))

    def beside(self, side: int, beyond: float) -> float:
        """Road coordinate d, `beyond` metres behind the pavement on one side."""
        ground = self.ground
        return side * ((ground.left if side > 0 else ground.right) + ground.sidewalk + beyond)

    def along(self) -> float:
        """A place along the street: mostly ahead and rather near, since the camera looks there."""
        if self.rng.random() < self.world.ahead:
            return float(4.0 + 44.0 * self.rng.beta(1.3, 2.0))
        return float(self.rng.uniform(-45, 4))

    def walkway(self) -> tuple[float, float, float]:
        """(s, d, yaw) of somebody on foot: on a pavement, crossing the street, or behind the pavement."""
        rng, ground = self.rng, self.ground
        s, where, side = self.along(), rng.random(), int(rng.choice([-1, 1]))
        kerb = ground.left if side > 0 else ground.right
        if where < 0.62:
            d = side * (kerb + rng.uniform(0.4, ground.sidewalk - 0.2))
            return s, d, (math.pi if rng.random() < 0.5 else 0.0) + rng.normal(0, 0.3)
        if where < 0.85:
            d = rng.uniform(-ground.right, ground.left)
            if ground.cross_half > 0 and rng.random() < 0.6:  # at the crossing
                s = ground.cross_at - math.copysign(ground.cross_half + rng.uniform(0.5, 3), ground.cross_at)
            return s, d, (math.pi / 2 if rng.random() < 0.5 else -math.pi / 2) + rng.normal(0, 0.3)
        return s, self.beside(side, rng.uniform(0.3, 3.0)), rng.uniform(-math.pi, math.pi)

    def people(self) -> None:
        rng, street = self.rng, self.street
        left = int(rng.poisson(self.world.pedestrians * rng.choice([0.4, 1.0, 1.6])))
        while left > 0:
            group = min(left, int(rng.choice([1, 2, 3, 4], p=[0.6, 0.27, 0.08, 0.05])))
            left -= group
            s, d, yaw = self.walkway()
            for member in range(group):
                turn = yaw + rng.normal(0, 0.15) if group < 4 else rng.uniform(-math.pi, math.pi)
                at_s, at_d = s + rng.normal(0, 0.3), d + member * rng.uniform(0.9, 1.2)
                self.try_actor(make_pedestrian(rng), at_s, at_d, turn, under_way=True)
        for _ in range(rng.poisson(self.world.cyclists)):
            s, where = self.along(), rng.random()
            if where < 0.65:  # at the edge of a lane, with the traffic
                side = int(rng.choice([-1, 1]))
                d, yaw = side * (street.lane - rng.uniform(0.3, 1.0)), math.pi if side > 0 else 0.0
            elif where < 0.85:
                s, d, yaw = self.walkway()
            else:
                d, yaw = rng.uniform(-8, 8), math.copysign(math.pi / 2, rng.normal())
            yaw_now = yaw + rng.normal(0, 0.12)
            if self.try_actor(make_cyclist(rng), s, d, yaw_now, under_way=True) and rng.random() < 0.15:
                behind, beside = s - rng.uniform(2.1, 3), d + rng.normal(0, 0.3)
                self.try_actor(make_cyclist(rng), behind, beside, yaw, under_way=True)

    def houses(self) -> None:
        rng, ground, street, extent = self.rng, self.ground, self.street, self.world.extent
        gap = rng.uniform(0.0, 9.0)
        for side in (-1, 1):
            s = -extent
            while s < extent + 10:
                length, depth = rng.uniform(8, 22), rng.uniform(7, 12)
                middle = s + length / 2
                keep = not self.on_cross_street(middle, length / 2 + ground.sidewalk + 0.5)
                if keep and rng.random() < 0.9:
                    d = self.beside(side, street.setback + depth / 2 + rng.uniform(0, 1.0))
                    # Built facing -y; a half turn is the same house.
                    self.try_prop(scenery.make_building(rng, length, depth), middle, d, rng.normal(0, 0.01))
                elif not keep and rng.random() < 0.6:  # the side street runs on between houses
                    d = self.beside(side, 30 + rng.uniform(0, 15))
                    self.try_prop(scenery.make_building(rng, length, depth), middle, d, 0.0)
                s += length + rng.uniform(0.0, 1.0 + gap)

    def fences(self) -> None:
        rng, ground, street = self.rng, self.ground, self.street
        if street.setback < 2.0:
            return
        for side in (-1, 1):
            if rng.random() < 0.3:
                continue
            s = -0.8 * self.world.extent
            while s < self.world.extent:
                length = rng.uniform(4, 14)
                middle = s + length / 2
                if rng.random() < 0.65 and not self.on_cross_street(middle, length / 2 + ground.sidewalk):
                    self.try_prop(scenery.make_wall(rng, length), middle, self.beside(side, 0.35), 0.0)
                s += length + rng.uniform(0.5, 4)

    def scattered(self) -> None:
        """Trees and lamps along the kerbs, furniture on the pavements, bushes and skips on the lots."""
        rng, ground, street, world = self.rng, self.ground, self.street, self.world

        def anywhere() -> float:
            return float(rng.uniform(-45, 4) if rng.random() < 0.3 else rng.uniform(4, 60))

        def kerbside(side: int, inwards: float) -> float:
            return side * ((ground.left if side > 0 else ground.right) + inwards)

        for make, mean, low, high in (
            (scenery.make_tree, world.trees, 0.4, 0.7),
            (scenery.make_lamp, world.lamps, 0.3, 0.5),
            (scenery.make_furniture, world.street_furniture, 0.3, ground.sidewalk),
            (scenery.make_bush, world.bushes, ground.sidewalk + 0.6, ground.sidewalk + 1.0 + street.setback),
            (
                scenery.make_tree,
                world.trees * 0.5,
                ground.sidewalk + 1.0,
                ground.sidewalk + 2.0 + street.setback,
            ),
            (scenery.make_skip, 1.5, ground.sidewalk * 0.5, ground.sidewalk + 1.0 + street.setback),
        ):
            for _ in range(rng.poisson(mean)):
                side, s = int(rng.choice([-1, 1])), anywhere()
                if self.on_cross_street(s, 0.5):
                    continue
                turn = 0.0 if make is scenery.make_lamp and side > 0 else math.pi
                if make is not scenery.make_lamp:
                    turn = math.pi / 2 * int(rng.integers(4)) + rng.normal(0, 0.1)
                self.try_prop(make(rng), s, kerbside(side, rng.uniform(low, high)), turn)


def _plan(config: MinidriveConfig, rng: np.random.Generator) -> tuple[Street, Ground]:
    """The street and its ground. The sensor stands in the right-hand lane, `lidar.height` above the road."""
    world = config.world
    across = bool(rng.random() < 0.2)
    depth = 5.2 if across else 2.3
    lane = rng.uniform(3.0, 3.8)
    park_left, park_right = (depth if rng.random() < 0.75 else 0.0 for _ in range(2))
    street = Street(
        lane, park_left, park_right, across, float(rng.choice([0.3, 3.0, 6.0, 12.0])) * rng.uniform(0.8, 1.2)
    )
    waves = np.zeros((2, 4))
    for k in range(2):
        number, towards = 2 * math.pi / rng.uniform(25, 60), rng.uniform(-math.pi, math.pi)
        waves[k] = number * math.cos(towards), number * math.sin(towards), rng.uniform(-math.pi, math.pi), 0
        waves[k, 3] = world.undulation * rng.uniform(0.3, 1.0)
    slope_x, slope_y = rng.normal(0, world.slope, 2)
    crossing = bool(rng.random() < world.cross_street)
    return street, Ground(
        offset=float(-config.lidar.height - (waves[:, 3] * np.sin(waves[:, 2])).sum()),
        slope_x=float(slope_x),
        slope_y=float(slope_y),
        waves=waves,
        steepest=float(
            math.hypot(slope_x, slope_y) + (np.hypot(waves[:, 0], waves[:, 1]) * waves[:, 3]).sum()
        ),
        heading=float(rng.normal(0, 0.06)),
        sensor_offset=float(-lane / 2 + rng.normal(0, 0.2)),
        left=float(lane + LANE_EDGE + park_left),
        right=float(lane + LANE_EDGE + park_right),
        cross_at=float(rng.uniform(12, 45)) if crossing else 1e6,
        cross_half=float(rng.uniform(3.0, 4.5)) if crossing else 0.0,
        kerb=float(rng.uniform(0.08, 0.16)),
        sidewalk=float(rng.uniform(1.6, 4.0)),
        paved_lots=bool(rng.random() < 0.35),
    )


def build_street(config: MinidriveConfig, rng: np.random.Generator) -> StreetBuilder:
    """Build one scene, still open to change; all its chance comes from `rng`."""
    builder = StreetBuilder(config, rng)
    builder.vehicles()
    builder.people()
    builder.houses()
    builder.fences()
    builder.scattered()
    return builder


def build_world(config: MinidriveConfig, rng: np.random.Generator) -> World:
    """Build one scene; all its chance comes from `rng`."""
    return build_street(config, rng).world_now()
