"""The sensor: one turn while the car moves, then noise, lost returns and intensities.

The world stands still during the turn; only the sensor moves, along an arc of constant speed and turn rate.
Time 0 is when it faces forward, and the LiDAR frame is the sensor's frame at that moment; it is the world's
frame too, unless the sensor is placed elsewhere.
"""

from typing import NamedTuple

import numpy as np

from sparse3d.data.minidrive.cast import cast
from sparse3d.data.minidrive.config import LidarConfig
from sparse3d.data.minidrive.primitives import LOSS, REFLECTIVITY
from sparse3d.data.minidrive.world import World

REFERENCE_RANGE = 80.0  # metres at which a white board facing the sensor gives signal 1
HALF_INTENSITY_RANGE = 60.0  # metres; what remains of the fall-off after the sensor's own correction


class Motion(NamedTuple):
    """`speed` in m/s along the sensor's x, `turn_rate` in rad/s about z."""

    speed: float
    turn_rate: float


class Place(NamedTuple):
    """Where the sensor stands in the world, metres, and its heading, radians."""

    x: float = 0.0
    y: float = 0.0
    z: float = 0.0
    yaw: float = 0.0

    def matrix(self) -> np.ndarray:
        """(4, 4) world_from_lidar."""
        cos, sin = np.cos(self.yaw), np.sin(self.yaw)
        return np.array(
            [[cos, -sin, 0.0, self.x], [sin, cos, 0.0, self.y], [0.0, 0.0, 1.0, self.z], [0.0, 0.0, 0.0, 1.0]]
        )


ORIGIN = Place()


class Scan(NamedTuple):
    """Returns in firing order, and what each labelled object got.

    `points` (N, 4) float32 x, y, z, intensity; `semantic` (N,) int32; `instance` (N,) int32, m + 1 for object
    m, 0 for the rest; `column`, `beam` (N,) int32: where in the turn. `hits` (M,): returned points; `visible`
    (M,): share of the rays that meet the object when it stands alone that still meet it first in this scene
    (0 when there are none).
    """

    points: np.ndarray
    semantic: np.ndarray
    instance: np.ndarray
    column: np.ndarray
    beam: np.ndarray
    hits: np.ndarray
    visible: np.ndarray


def poses(lidar: LidarConfig, motion: Motion) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Of every column: azimuth (C,) in the turning sensor's frame, its position (C, 3) and yaw (C,) in the
    LiDAR frame.

    The turn is counter-clockwise from the rear, so that azimuth 0 is reached half way.
    """
    azimuth = -np.pi + 2 * np.pi * (np.arange(lidar.columns) + 0.5) / lidar.columns
    time = azimuth / (2 * np.pi) * lidar.turn_time
    yaw = motion.turn_rate * time
    # Arc: chord length v t sinc(yaw / 2), direction yaw / 2; np.sinc(x) = sin(pi x) / (pi x).
    chord = motion.speed * time * np.sinc(yaw / (2 * np.pi))
    position = np.column_stack([chord * np.cos(yaw / 2), chord * np.sin(yaw / 2), np.zeros(lidar.columns)])
    return azimuth, position, yaw


def return_probability(
    lidar: LidarConfig, reflectivity: np.ndarray, cosine: np.ndarray, distance: np.ndarray
) -> np.ndarray:
    """Chance that an echo is seen: (1 - dropout) (1 - exp(-signal / sensitivity)).

    signal = rho cos(incidence) (80 m / r)^2; any shapes that broadcast.
    """
    signal = reflectivity * cosine * (REFERENCE_RANGE / distance) ** 2
    return (1 - lidar.dropout) * -np.expm1(-signal / max(lidar.sensitivity, 1e-12))


def intensity(reflectivity: np.ndarray, cosine: np.ndarray, distance: np.ndarray) -> np.ndarray:
    """Noise-free intensity rho cos(incidence)^(1/2) / (1 + (r / 60 m)^2).

    The sensor itself corrects most of the fall-off by range and angle; this is what remains.
    """
    return reflectivity * np.sqrt(cosine) / (1 + (distance / HALF_INTENSITY_RANGE) ** 2)


def scan(
    world: World, lidar: LidarConfig, motion: Motion, rng: np.random.Generator, place: Place = ORIGIN
) -> Scan:
    """Turn the sensor once. All chance comes from `rng`, drawn outside the parallel loop."""
    shape = (lidar.columns, lidar.beams)
    azimuth, position, yaw = poses(lidar, motion)
    elevation = lidar.elevation_angles()
    own = np.stack(
        [
            np.cos(azimuth)[:, None] * np.cos(elevation),
            np.sin(azimuth)[:, None] * np.cos(elevation),
            np.broadcast_to(np.sin(elevation), shape),
        ],
        axis=2,
    )
    cos, sin = np.cos(yaw)[:, None], np.sin(yaw)[:, None]
    directions = own.copy()
    directions[..., 0] = cos * own[..., 0] - sin * own[..., 1]
    directions[..., 1] = sin * own[..., 0] + cos * own[..., 1]

    distance, cosine = np.empty(shape), np.empty(shape)
    owner, solid = np.empty(shape, np.int32), np.empty(shape, np.int32)
    material, semantic = np.empty(shape, np.int8), np.empty(shape, np.int16)
    alone = np.zeros((lidar.columns, len(world.names) + 1), np.int32)
    key = rng.integers(0, 2**64, dtype=np.uint64)
    pose = place.matrix()
    cast(
        world.ground, world.solids, position @ pose[:3, :3].T + pose[:3, 3], directions @ pose[:3, :3].T,
        np.tan(elevation), key,
        lidar.min_range, lidar.max_range,
        distance, owner, solid, material, semantic, cosine, alone,
    )  # fmt: skip
    normal, uniform = rng.standard_normal((2, *shape)), rng.random(shape)

    echo = np.isfinite(distance)
    column, beam = np.nonzero(echo)
    r, facing, surface = distance[echo], cosine[echo], material[echo]
    albedo = np.append(world.solids.albedo, 1.0)[solid[echo]]  # -1, the ground, is the appended last
    rho = np.clip(REFLECTIVITY[surface] * albedo, 0.0, 1.0)
    seen = uniform[echo] < return_probability(lidar, rho, facing, r) * (1 - LOSS[surface])
    value = intensity(rho, facing, r) * (1 + lidar.intensity_noise * normal[0][echo])
    measured = r + lidar.range_noise * normal[1][echo]
    if lidar.compensate:
        xyz = position[column] + measured[:, None] * directions[column, beam]
    else:
        xyz = measured[:, None] * own[column, beam]
    # One byte holds the intensity in the sensor's packets; KITTI keeps it in steps of a hundredth.
    value = np.round(np.clip(value, 0.0, 0.99) * 100) / 100
    points = np.column_stack([xyz, value]).astype(np.float32)

    counts = np.bincount(owner[echo], minlength=alone.shape[1])[1:]
    possible = alone.sum(axis=0)[1:]
    instance = owner[echo][seen]
    return Scan(
        points=points[seen],
        semantic=semantic[echo][seen].astype(np.int32),
        instance=instance,
        column=column[seen].astype(np.int32),
        beam=beam[seen].astype(np.int32),
        hits=np.bincount(instance, minlength=alone.shape[1])[1:],
        visible=counts / np.maximum(possible, 1),
    )
