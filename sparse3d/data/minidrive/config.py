"""What minidrive can be told: the sensor, the world it drives through, and how both become KITTI files."""

import math
from dataclasses import dataclass, field

import numpy as np

from sparse3d.errors import ConfigError


@dataclass(frozen=True)
class LidarConfig:
    """A spinning LiDAR like the HDL-64E, one return a ray, ten turns a second."""

    beams: int = 64
    columns: int = 1024  # azimuth steps a turn
    elevations: tuple[
        float, ...
    ] = ()  # degrees, one a beam; empty: the HDL-64E's two blocks, resampled to `beams`
    height: float = 1.73  # metres above the road
    turn_time: float = 0.1  # seconds a turn
    min_range: float = 1.5  # metres; nearer returns are the car's own roof
    max_range: float = 80.0  # metres
    range_noise: float = 0.02  # metres, standard deviation along the ray
    dropout: float = 0.03  # share of returns lost at any range and angle
    sensitivity: float = 0.04  # signal at which 63 % of the returns are seen, see `scan.return_probability`
    intensity_noise: float = 0.12  # relative standard deviation
    compensate: bool = True  # undo the ego motion inside a turn, as KITTI's scans are; False leaves the skew

    def __post_init__(self) -> None:
        if self.beams < 1 or self.columns < 1:
            raise ConfigError(f"a LiDAR needs beams and columns, got {self.beams} x {self.columns}")
        if self.elevations and len(self.elevations) != self.beams:
            raise ConfigError(f"got {len(self.elevations)} elevations for {self.beams} beams")
        if not 0 < self.min_range < self.max_range:
            raise ConfigError(f"ranges must satisfy 0 < {self.min_range} < {self.max_range}")
        for name in ("range_noise", "intensity_noise", "sensitivity"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.dropout <= 1:
            raise ConfigError(f"dropout must lie in [0, 1], got {self.dropout}")

    def elevation_angles(self) -> np.ndarray:
        """(beams,) radians, highest first. HDL-64E: 32 beams 1/3 degree apart, then 32 half a degree."""
        if self.elevations:
            return np.radians(np.asarray(self.elevations, dtype=np.float64))
        hdl64 = np.concatenate([2.0 - np.arange(32) / 3, -8.83 - np.arange(32) / 2])
        return np.radians(np.interp(np.linspace(0, 63, self.beams), np.arange(64), hdl64))


@dataclass(frozen=True)
class EgoConfig:
    """How the sensor moves while it turns: an arc of constant speed and turn rate, drawn once a scene."""

    max_speed: float = 14.0  # m/s; drawn uniformly from 0
    turn_rate: float = 0.08  # rad/s, standard deviation


@dataclass(frozen=True)
class SizeConfig:
    """Normal distributions of (length, width, height) in metres, cut at 2.5 standard deviations."""

    mean: tuple[float, float, float]
    deviation: tuple[float, float, float]


@dataclass(frozen=True)
class WorldConfig:
    """What stands and moves along the street. Counts are means a scene unless they say otherwise."""

    extent: float = 62.0  # metres of street built before and behind the sensor
    slope: float = 0.008  # rise per metre, standard deviation
    undulation: float = 0.06  # metres, amplitude of each of the ground's two waves
    cross_street: float = 0.45  # probability
    parked: tuple[float, float] = (0.15, 0.75)  # share of the parking places taken: uniform between
    driving: float = 3.5  # cars in the lanes
    crossing_cars: float = 1.5  # cars in the side street, if there is one
    yard_cars: float = 1.5  # cars in any direction beside the road
    vans: float = 0.08  # share of vehicles that are vans
    pedestrians: float = 10.0
    cyclists: float = 5.0
    ahead: float = 0.85  # share of the people placed in the camera's half of the street
    trees: float = 11.0
    lamps: float = 5.0
    bushes: float = 18.0
    street_furniture: float = 12.0  # bins, bollards, signs, cabinets, columns
    car: SizeConfig = SizeConfig((3.9, 1.63, 1.53), (0.42, 0.10, 0.13))
    van: SizeConfig = SizeConfig((5.0, 1.92, 2.15), (0.35, 0.06, 0.15))


@dataclass(frozen=True)
class LabelConfig:
    """Which objects become label rows and how their occlusion level is told."""

    image_width: int = 1242  # pixels
    image_height: int = 375  # pixels
    min_points: int = 5  # objects with fewer points become DontCare
    max_distance: float = 75.0  # metres; objects beyond are not labelled at all
    visible: tuple[float, float, float] = (0.75, 0.40, 0.10)  # least visible share of levels 0, 1 and 2


@dataclass(frozen=True)
class MinidriveConfig:
    """Everything that, together with a seed and an index, decides a scene."""

    lidar: LidarConfig = field(default_factory=LidarConfig)
    ego: EgoConfig = field(default_factory=EgoConfig)
    world: WorldConfig = field(default_factory=WorldConfig)
    labels: LabelConfig = field(default_factory=LabelConfig)

    def __post_init__(self) -> None:
        if not math.isfinite(self.world.extent) or self.world.extent <= 0:
            raise ConfigError(f"world.extent must be positive, got {self.world.extent}")
