"""Training augmentations of scans with a label for each point.

A step that changes one scan is callable as `step(frame, rng) -> frame`; a step that mixes two has
`mix(frame, other, rng) -> frame` and a `probability`. None changes the arrays that it is given, and all
randomness comes from `rng`. A point keeps its label and its features wherever it goes; instances of two scans
stay apart. Sources: PolarMix (arXiv 2208.00223), LaserMix (arXiv 2207.00026), Mix3D (arXiv 2110.02210); mixes
here join labelled scans, where LaserMix joins a labelled with a pseudo-labelled one.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sparse3d.frames import SegmentationFrame
from sparse3d.geometry.boxes import mirror_points, rotate_points_z, scale_points


def _check_share(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must lie in [0, 1], got {value}")


@dataclass(frozen=True)
class ScanFlip:
    """Mirror the scan: axis "y" swaps left and right, "x" front and back."""

    kind: Literal["flip"] = "flip"
    axis: Literal["x", "y"] = "y"  # the coordinate that changes its sign
    probability: float = 0.5

    def __post_init__(self):
        _check_share("probability", self.probability)

    def __call__(self, frame: SegmentationFrame, rng: np.random.Generator) -> SegmentationFrame:
        if rng.random() >= self.probability:
            return frame
        return replace(frame, points=mirror_points(frame.points, self.axis))


@dataclass(frozen=True)
class ScanRotation:
    """Turn the scan about the LiDAR's z axis by a uniform angle."""

    kind: Literal["rotation"] = "rotation"
    min_angle: float = -np.pi  # rad
    max_angle: float = np.pi  # rad

    def __post_init__(self):
        if not self.min_angle <= self.max_angle:
            raise ValueError(f"min_angle {self.min_angle} is larger than max_angle {self.max_angle}")

    def __call__(self, frame: SegmentationFrame, rng: np.random.Generator) -> SegmentationFrame:
        angle = rng.uniform(self.min_angle, self.max_angle)
        return replace(frame, points=rotate_points_z(frame.points, angle))


@dataclass(frozen=True)
class ScanScaling:
    """Scale the scan about the LiDAR by a uniform factor."""

    kind: Literal["scaling"] = "scaling"
    min_scale: float = 0.95
    max_scale: float = 1.05

    def __post_init__(self):
        if not 0 < self.min_scale <= self.max_scale:
            raise ValueError(f"scales must be 0 < min <= max, got {self.min_scale} and {self.max_scale}")

    def __call__(self, frame: SegmentationFrame, rng: np.random.Generator) -> SegmentationFrame:
        return replace(frame, points=scale_points(frame.points, rng.uniform(self.min_scale, self.max_scale)))


@dataclass(frozen=True)
class PointJitter:
    """Shift every point by a normal offset of its own, cut at `limit`."""

    kind: Literal["jitter"] = "jitter"
    std: float = 0.01  # m, along each axis
    limit: float = 0.05  # m

    def __post_init__(self):
        if self.std < 0 or self.limit < 0:
            raise ValueError(f"std and limit must be at least 0, got {self.std} and {self.limit}")

    def __call__(self, frame: SegmentationFrame, rng: np.random.Generator) -> SegmentationFrame:
        points = frame.points.copy()
        offset = rng.normal(0, self.std, (len(points), 3)).clip(-self.limit, self.limit)
        points[:, :3] += offset.astype(points.dtype)
        return replace(frame, points=points)


@dataclass(frozen=True)
class PointDropout:
    """Remove a uniform share of the points, up to `max_share`; at least one point stays."""

    kind: Literal["dropout"] = "dropout"
    max_share: float = 0.2
    probability: float = 0.5

    def __post_init__(self):
        _check_share("max_share", self.max_share)
        _check_share("probability", self.probability)

    def __call__(self, frame: SegmentationFrame, rng: np.random.Generator) -> SegmentationFrame:
        if rng.random() >= self.probability or not len(frame.points):
            return frame
        keep = rng.random(len(frame.points)) >= rng.uniform(0, self.max_share)
        keep[int(rng.integers(len(keep)))] = True
        return frame.select_points(keep)


@dataclass(frozen=True)
class Mix3D:
    """All points of both scans in one scene: context no longer gives the class away."""

    kind: Literal["mix3d"] = "mix3d"
    probability: float = 0.8

    def __post_init__(self):
        _check_share("probability", self.probability)

    def mix(
        self, frame: SegmentationFrame, other: SegmentationFrame, rng: np.random.Generator
    ) -> SegmentationFrame:
        return joined(frame, other)


@dataclass(frozen=True)
class LaserMix:
    """Cut both scans into areas of inclination, and take every second area from the other scan.

    A laser keeps its inclination, and each inclination sees what it usually sees: road below, roofs above.
    """

    kind: Literal["laser_mix"] = "laser_mix"
    areas: tuple[int, ...] = (3, 4, 5, 6)  # how many: one of these
    min_inclination: float = -25.0  # degrees; what lies beyond belongs to the outermost area
    max_inclination: float = 3.0  # degrees
    probability: float = 1.0

    def __post_init__(self):
        _check_share("probability", self.probability)
        if not self.areas or min(self.areas) < 2 or self.min_inclination >= self.max_inclination:
            raise ValueError(f"areas must be numbers above 1 and min < max inclination, got {self}")

    def mix(
        self, frame: SegmentationFrame, other: SegmentationFrame, rng: np.random.Generator
    ) -> SegmentationFrame:
        areas, first = int(rng.choice(self.areas)), int(rng.integers(2))
        mine = self.area(frame.points, areas) % 2 == first
        theirs = self.area(other.points, areas) % 2 != first
        return joined(frame.select_points(mine), other.select_points(theirs))

    def area(self, points: np.ndarray, areas: int) -> np.ndarray:
        """(N, >=3) -> (N,) int64 in [0, areas)."""
        angle = np.degrees(np.arctan2(points[:, 2], np.hypot(points[:, 0], points[:, 1])))
        share = (angle - self.min_inclination) / (self.max_inclination - self.min_inclination)
        return np.clip(np.floor(share * areas), 0, areas - 1).astype(np.int64)


@dataclass(frozen=True)
class PolarMix:
    """Exchange a sector of azimuth, and paste the other scan's objects, turned about the LiDAR.

    Pasted are the points with an instance; they may meet points that are there already, as in the paper.
    """

    kind: Literal["polar_mix"] = "polar_mix"
    sector: float = np.pi  # rad, width
    swap_probability: float = 0.5
    paste_probability: float = 1.0
    turns: tuple[float, ...] = (0.0, 2 * np.pi / 3, 4 * np.pi / 3)  # rad; one copy of the objects each
    probability: float = 1.0

    def __post_init__(self):
        for name in ("swap_probability", "paste_probability", "probability"):
            _check_share(name, getattr(self, name))
        if not 0 < self.sector < 2 * np.pi:
            raise ValueError(f"sector must lie in (0, 2 pi), got {self.sector}")

    def mix(
        self, frame: SegmentationFrame, other: SegmentationFrame, rng: np.random.Generator
    ) -> SegmentationFrame:
        mixed = frame
        if rng.random() < self.swap_probability:
            start = rng.uniform(-np.pi, np.pi)
            mixed = joined(
                frame.select_points(~self.in_sector(frame.points, start)),
                other.select_points(self.in_sector(other.points, start)),
            )
        if rng.random() < self.paste_probability:
            objects = other.select_points(other.instances > 0)
            for turn in self.turns:
                copy = replace(objects, points=rotate_points_z(objects.points, turn))
                mixed = joined(mixed, copy)
        return mixed

    def in_sector(self, points: np.ndarray, start: float) -> np.ndarray:
        """(N, >=3) -> (N,) bool: azimuth in [start, start + sector), around the circle."""
        return (np.arctan2(points[:, 1], points[:, 0]) - start) % (2 * np.pi) < self.sector


def joined(frame: SegmentationFrame, other: SegmentationFrame) -> SegmentationFrame:
    """Both scans' points, the first scan's first; the other's instances get numbers of their own."""
    beyond = int(frame.instances.max(initial=0))
    moved = np.where(other.instances > 0, other.instances + beyond, 0)
    return replace(
        frame,
        points=np.concatenate([frame.points, other.points]),
        labels=np.concatenate([frame.labels, other.labels]),
        instances=np.concatenate([frame.instances, moved]),
    )


Change = ScanFlip | ScanRotation | ScanScaling | PointJitter | PointDropout
Mix = Mix3D | LaserMix | PolarMix
SegmentationStep = Change | Mix
MIXES = (Mix3D, LaserMix, PolarMix)


@dataclass(frozen=True)
class SegmentationAugmentConfig:
    """The steps, in the order in which they are applied. None at all is legal."""

    steps: tuple[SegmentationStep, ...] = ()
