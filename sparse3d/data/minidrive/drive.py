"""A drive: the street of a scene comes to life, and the sensor's car moves through it, scan after scan.

Cars under way, cyclists and pedestrians keep their heading and a speed of their own; whoever finds something
in the way waits. The sensor's car follows its lane. The world's frame is the LiDAR frame of the first scan.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sparse3d.data.minidrive.config import MinidriveConfig
from sparse3d.data.minidrive.ground import base_height, road_frame
from sparse3d.data.minidrive.scan import Motion, Place, Scan, scan
from sparse3d.data.minidrive.world import StreetBuilder, World, build_street
from sparse3d.errors import ConfigError

STEPS = 4  # of the world a scan, so that nothing jumps over anything
# Lowest and highest speed under way, m/s; vans drive as cars do.
SPEEDS = {"Car": (2.0, 9.0), "Van": (2.0, 9.0), "Cyclist": (2.5, 6.0), "Pedestrian": (0.6, 1.7)}
STANDING = 0.25  # share of the people who stay where they are
OWN_CAR = (4.4, 1.9)  # metres, length and width; the sensor stands a metre ahead of its middle


@dataclass(frozen=True)
class DriveConfig:
    scans: int = 40
    max_speed: float = 8.0  # m/s of the sensor's car; drawn uniformly from a third of it

    def __post_init__(self) -> None:
        if self.scans < 1 or not 0 <= self.max_speed < 20:
            raise ConfigError(f"a drive needs scans and a speed from 0 to 20 m/s, got {self}")


@dataclass(frozen=True)
class DriveScan:
    """One scan of a drive. `boxes` (M, 7) float32 in its LiDAR frame, `velocities` (M, 2) float32 m/s along
    x and y of that frame but relative to the ground, `names` (M,): the same M objects in each scan. `hits`,
    `visible` (M,) as in a scene. `time` in seconds, `world_from_lidar` (4, 4) float64."""

    scan: Scan
    time: float
    world_from_lidar: np.ndarray
    names: np.ndarray
    boxes: np.ndarray
    velocities: np.ndarray


def simulate_drive(
    seed: int, index: int, drive: DriveConfig = DriveConfig(), config: MinidriveConfig | None = None
) -> Iterator[DriveScan]:
    """The scans of drive `index` of `seed`, which starts as the scene of these numbers stands."""
    config = MinidriveConfig() if config is None else config
    if seed < 0 or index < 0:
        raise ValueError(f"seed and index must not be negative, got {seed} and {index}")
    for_world, _, for_scan, for_speed = (
        np.random.Generator(np.random.Philox(s)) for s in np.random.SeedSequence([seed, index]).spawn(4)
    )
    street = build_street(config, for_world)
    speeds = _speeds(street, for_speed)
    own = _OwnCar(street, config.lidar.height, float(for_speed.uniform(drive.max_speed / 3, drive.max_speed)))
    period = config.lidar.turn_time
    for number in range(drive.scans):
        world, place = street.world_now(), own.place()
        before = world.boxes[:, :2].copy()
        seen = scan(world, config.lidar, Motion(own.speed_now, own.turn_rate), for_scan, place)
        for _ in range(STEPS):
            for actor in np.flatnonzero(speeds).tolist():
                street.try_move(actor, float(speeds[actor]) * period / STEPS)
            own.step(period / STEPS)
        after = np.array(street.boxes).reshape(-1, 7)[:, :2]
        yield _in_lidar_frame(seen, number * period, place, world, (after - before) / period)


def _speeds(street: StreetBuilder, rng: np.random.Generator) -> np.ndarray:
    """(M,) m/s, 0 for what does not move."""
    speeds = np.zeros(len(street.names))
    for actor, (name, under_way) in enumerate(zip(street.names, street.under_way, strict=True)):
        speed, stands = rng.uniform(*SPEEDS.get(name, (0.0, 0.0))), rng.random() < STANDING
        if under_way and not (stands and name in ("Cyclist", "Pedestrian")):
            speeds[actor] = speed
    return speeds


class _OwnCar:
    """The sensor's car on its lane."""

    def __init__(self, street: StreetBuilder, height: float, speed: float):
        self.street, self.height, self.speed = street, height, speed
        self.x = self.y = self.yaw = 0.0
        self.speed_now = self.turn_rate = 0.0
        # The scene keeps a wider space free around it than it takes under way.
        street.rectangles[0] = -1.0, 0.0, OWN_CAR[0] / 2, OWN_CAR[1] / 2, 0.0
        self._steer()

    def place(self) -> Place:
        """Upright, at its height above the ground."""
        level = base_height(self.street.ground, self.x, self.y)
        return Place(self.x, self.y, float(level) + self.height, self.yaw)

    def step(self, duration: float) -> None:
        self._steer()
        yaw = self.yaw + self.turn_rate * duration
        x = self.x + self.speed * duration * math.cos(yaw)
        y = self.y + self.speed * duration * math.sin(yaw)
        if self.street.try_rectangle(0, x - math.cos(yaw), y - math.sin(yaw), yaw):
            self.x, self.y, self.yaw, self.speed_now = x, y, yaw, self.speed
        else:
            self.speed_now = self.turn_rate = 0.0

    def _steer(self) -> None:
        """Towards the middle line of its lane, eight metres ahead."""
        ground = self.street.ground
        _, d = road_frame(ground, self.x, self.y)
        wanted = ground.heading + math.atan2(ground.sensor_offset - d, 8.0)
        self.turn_rate = self.speed / 8.0 * 2 * math.remainder(wanted - self.yaw, 2 * math.pi)


def _in_lidar_frame(seen: Scan, time: float, place: Place, world: World, velocities: np.ndarray) -> DriveScan:
    boxes = world.boxes.copy()
    cos, sin = math.cos(place.yaw), math.sin(place.yaw)
    turn = np.array([[cos, sin], [-sin, cos]])  # world to LiDAR
    boxes[:, :2] = (boxes[:, :2] - (place.x, place.y)) @ turn.T
    boxes[:, 2] -= place.z
    boxes[:, 6] = (boxes[:, 6] - place.yaw + math.pi) % (2 * math.pi) - math.pi
    return DriveScan(
        scan=seen,
        time=time,
        world_from_lidar=place.matrix(),
        names=world.names,
        boxes=boxes.astype(np.float32),
        velocities=(velocities @ turn.T).astype(np.float32),
    )
