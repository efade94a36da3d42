"""CenterPoint's tracker: detections of one frame after another become objects that keep their number.

Each detection, best first, is moved back by its own velocity to the time at which a track was last seen, and
takes the nearest track of its class within that class's reach. A detection without a partner begins a track;
a track that nobody continues waits a few frames. All of it happens in a frame at rest, so that the sensor may
move.

Yin, Zhou, Krähenbühl: "Center-based 3D Object Detection and Tracking" (arXiv 2006.11275), section 4.2 and
appendix. With `associate: query` the place of the voxel that found an object is compared, not the centre of
its box: Chen et al., "VoxelNeXt" (arXiv 2303.11301), section 3.3. A voxel lies where points are, and carries
no error of a regressed offset.

Where we differ from CenterPoint: a detector that tells no velocities is served too, by moving each track
forward with the velocity that its last sightings show; a waiting track is compared at the time of its last
sighting instead of being carried on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from sparse3d.errors import ConfigError
from sparse3d.frames import Detections
from sparse3d.geometry.rigid import transform_boxes, transform_points

# Metres between two frames of half a second that an object of a class may deviate from its prediction: the
# values published for nuScenes, and their like for the classes of KITTI and Waymo.
REACH = {
    "car": 4.0,
    "truck": 4.0,
    "bus": 5.5,
    "trailer": 3.0,
    "pedestrian": 1.0,
    "motorcycle": 13.0,
    "bicycle": 3.0,
    "cyclist": 3.0,
    "van": 4.0,
    "vehicle": 4.0,
}
OTHER_REACH = 3.0
SMOOTHING = 0.5  # share of the last step in a velocity that is taken from sightings


@dataclass(frozen=True)
class TrackerConfig:
    classes: tuple[str, ...]  # labels are indices into this list
    score_threshold: float = 0.3  # detections below neither begin nor continue a track
    max_distances: tuple[float, ...] = ()  # metres, one a class; empty: `REACH`
    max_age: int = 3  # frames that a track may miss
    # "greedy": the best detection chooses first; "hungarian": the smallest sum of distances.
    assignment: Literal["greedy", "hungarian"] = "greedy"
    # What of a detection is near or far: "centre" of its box, or "query", the voxel that found it.
    associate: Literal["centre", "query"] = "centre"

    def __post_init__(self) -> None:
        if self.max_distances and len(self.max_distances) != len(self.classes):
            raise ConfigError(
                f"max_distances has {len(self.max_distances)} values for {len(self.classes)} classes"
            )
        if self.max_age < 0 or not all(0 < d < np.inf for d in self.max_distances):
            raise ConfigError("max_age must not be negative, and max_distances must be positive metres")

    @property
    def reach(self) -> np.ndarray:
        """(K,) metres of each class."""
        default = [REACH.get(name.lower(), OTHER_REACH) for name in self.classes]
        return np.array(self.max_distances or default, dtype=np.float64)


class Tracks(NamedTuple):
    """The objects seen in one frame, best detection first, in its LiDAR frame."""

    ids: np.ndarray  # (T,) int64 from 1, never used twice
    boxes: np.ndarray  # (T, 7) float32
    labels: np.ndarray  # (T,) int64
    scores: np.ndarray  # (T,) float32, of the detections
    velocities: np.ndarray  # (T, 2) float32, m/s; NaN where nothing tells it yet
    ages: np.ndarray  # (T,) int64, sightings of the object so far, 1 for a new one


@dataclass
class _Track:
    """`centre`, `place`, which detections are compared with, and `velocity` (2,) in the frame at rest;
    velocity NaN where unknown."""

    number: int
    label: int
    centre: np.ndarray
    place: np.ndarray
    velocity: np.ndarray
    time: float
    sightings: int = 1
    missed: int = 0


class Tracker:
    """Feed it the frames of one sequence in order; a new sequence needs a new tracker."""

    def __init__(self, config: TrackerConfig):
        self.config = config
        self._reach = config.reach
        self._tracks: list[_Track] = []
        self._next = 1
        self._time = -np.inf

    def update(
        self, detections: Detections, time: float, world_from_lidar: np.ndarray | None = None
    ) -> Tracks:
        """The objects of one frame; `time` in seconds, `world_from_lidar` (4, 4), None for a sensor at rest.

        Raises ValueError where time does not go on, for labels outside of the classes, and for detections
        without queries where these are compared.
        """
        if not time > self._time:
            raise ValueError(f"time {time} s does not come after {self._time} s: frames must be in order")
        self._time = time
        pose = np.eye(4) if world_from_lidar is None else np.asarray(world_from_lidar, dtype=np.float64)
        found = self._usable(detections.cpu())
        labels = found.labels.numpy()
        boxes = found.boxes.float().numpy()
        centres = transform_boxes(boxes.astype(np.float64), pose)[:, :2]
        places = self._places(found, centres, pose)
        velocities = np.full((len(boxes), 2), np.nan)
        if found.velocities is not None:
            velocities = found.velocities.double().numpy() @ pose[:2, :2].T

        partner = self._assign(self._costs(places, velocities, labels, time))
        seen = [
            self._sighting(track, centres[row], places[row], velocities[row], int(labels[row]), time)
            for row, track in enumerate(partner)
        ]
        # New numbers follow the order of the detections; the tracks of this frame come before waiting ones.
        waiting = [track for track in self._tracks if track.time < time]
        for track in waiting:
            track.missed += 1
        self._tracks = seen + [track for track in waiting if track.missed <= self.config.max_age]
        told = np.array([track.velocity for track in seen]).reshape(-1, 2) @ pose[:2, :2]
        return Tracks(
            ids=np.array([track.number for track in seen], dtype=np.int64),
            boxes=boxes,
            labels=labels,
            scores=found.scores.float().numpy(),
            velocities=told.astype(np.float32),
            ages=np.array([track.sightings for track in seen], dtype=np.int64),
        )

    def _usable(self, detections: Detections) -> Detections:
        """Finite detections above the threshold, best first."""
        bad = (detections.labels < 0) | (detections.labels >= len(self.config.classes))
        if bad.any():
            label = int(detections.labels[bad][0])
            raise ValueError(f"label {label} of a detection, expected 0 to {len(self.config.classes) - 1}")
        keep = (detections.scores >= self.config.score_threshold) & detections.boxes.isfinite().all(dim=1)
        found = detections.select(keep)
        return found.select(found.scores.argsort(descending=True, stable=True))

    def _places(self, found: Detections, centres: np.ndarray, pose: np.ndarray) -> np.ndarray:
        """(N, 2) in the frame at rest: what of each detection is compared."""
        if self.config.associate == "centre":
            return centres
        if found.queries is None:
            raise ValueError("associate: query follows the voxels of VoxelNeXt; this detector tells none")
        z = found.boxes[:, 2:3].double()
        return transform_points(torch.cat([found.queries.double(), z], dim=1).numpy(), pose)[:, :2]

    def _costs(
        self, places: np.ndarray, velocities: np.ndarray, labels: np.ndarray, time: float
    ) -> np.ndarray:
        """(N, T) metres between each detection and each track; infinite where they cannot be one object."""
        tracks = self._tracks
        if not tracks or not len(places):
            return np.full((len(places), len(tracks)), np.inf)
        last = np.array([track.place for track in tracks])
        elapsed = np.array([time - track.time for track in tracks])
        known = ~np.isnan(velocities.sum(axis=1))
        back = np.where(known[:, None], velocities, 0.0)
        forward = np.nan_to_num(np.array([track.velocity for track in tracks]))
        moved = places[:, None] - back[:, None] * elapsed[:, None]
        step = np.where(known[:, None, None], 0.0, forward * elapsed[:, None])
        distance = np.linalg.norm(moved - (last + step), axis=2)
        same = np.equal(labels[:, None], [track.label for track in tracks])
        return np.where(same & (distance <= self._reach[labels][:, None]), distance, np.inf)

    def _assign(self, costs: np.ndarray) -> Sequence[_Track | None]:
        """The track of each detection, None for a new one."""
        partner: list[_Track | None] = [None] * len(costs)
        if costs.shape[1] == 0:
            return partner
        if self.config.assignment == "hungarian":
            # A pair beyond its reach costs more than all others together, and is dropped afterwards.
            finite = np.where(np.isfinite(costs), costs, 1e6)
            rows, columns = linear_sum_assignment(finite)
            for row, column in zip(rows, columns, strict=True):
                if np.isfinite(costs[row, column]):
                    partner[row] = self._tracks[column]
            return partner
        costs = costs.copy()
        for row in range(len(costs)):
            column = int(costs[row].argmin())
            if np.isfinite(costs[row, column]):
                partner[row] = self._tracks[column]
                costs[:, column] = np.inf
        return partner

    def _sighting(
        self,
        track: _Track | None,
        centre: np.ndarray,
        place: np.ndarray,
        velocity: np.ndarray,
        label: int,
        time: float,
    ) -> _Track:
        """The track after a detection, or a new one."""
        if track is None:
            track = _Track(self._next, label, centre, place, velocity, time)
            self._next += 1
            return track
        if np.isnan(velocity).any():
            step = (centre - track.centre) / (time - track.time)
            unknown = np.isnan(track.velocity).any()
            velocity = step if unknown else SMOOTHING * step + (1 - SMOOTHING) * track.velocity
        track.centre, track.place, track.velocity, track.time = centre, place, velocity, time
        track.sightings, track.missed = track.sightings + 1, 0
        return track
