"""What the nuScenes detection benchmark does with boxes before it compares them: its task of 2019.

Of labels and detections alike, those count that lie within their class's range of the vehicle; labels must
hold a LiDAR or radar point; bicycles and motorcycles in a bicycle rack are left out. Frames here are those of
the caller: `ego_xy` says where the vehicle's own origin is in them.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from sparse3d.evaluation.frame_boxes import FrameBoxes
from sparse3d.geometry.boxes import to_box_frame
from sparse3d.io.nuscenes_results import SampleBoxes

# The order of the benchmark's documentation; metres from the vehicle.
RANGES: Mapping[str, float] = {
    "car": 50,
    "truck": 50,
    "bus": 50,
    "trailer": 50,
    "construction_vehicle": 50,
    "pedestrian": 40,
    "motorcycle": 40,
    "bicycle": 40,
    "traffic_cone": 30,
    "barrier": 30,
}
CLASSES = tuple(RANGES)
TRACKING_CLASSES = ("bicycle", "bus", "car", "motorcycle", "pedestrian", "trailer", "truck")
RACK_CLASSES = ("bicycle", "motorcycle")

ATTRIBUTES = (
    "vehicle.moving",
    "vehicle.stopped",
    "vehicle.parked",
    "cycle.with_rider",
    "cycle.without_rider",
    "pedestrian.moving",
    "pedestrian.standing",
    "pedestrian.sitting_lying_down",
)
MOVING_SPEED = 0.2  # m/s: what a standing object's estimated velocity stays below

Exclude = Callable[[FrameBoxes], np.ndarray]  # a frame -> (N,) bool, True for boxes that do not count


def countable(
    frame: FrameBoxes,
    class_names: Sequence[str],
    ego_xy: Sequence[float] = (0.0, 0.0),
    exclude: Exclude | None = None,
    ranges: Mapping[str, float] = RANGES,
) -> FrameBoxes:
    """The boxes of a frame, labelled or detected, that the benchmark looks at.

    Nearer than the range of their class (horizontally, from `ego_xy`), with `num_points` above 0 where that
    is known, and not excluded by the caller's rule (`in_racks`). ValueError for a class without a range.
    """
    missing = [name for name in class_names if name not in ranges]
    if missing:
        raise ValueError(f"no range for {', '.join(missing)}; there are ranges for {', '.join(ranges)}")
    limit = np.array([ranges[name] for name in class_names], dtype=np.float64)[frame.labels]
    gap = frame.boxes[:, :2].astype(np.float64) - np.asarray(ego_xy, dtype=np.float64)
    keep = np.sqrt((gap**2).sum(1)) < limit
    if frame.num_points is not None:
        keep &= frame.num_points != 0
    if exclude is not None:
        keep &= ~exclude(frame)
    return frame.select(keep)


def as_frame(sample: SampleBoxes, class_names: Sequence[str]) -> FrameBoxes:
    """Boxes of a detection file for `nuscenes.evaluate`; those of other classes are left out. ValueError for
    an attribute that nuScenes does not have."""
    known = np.isin(sample.names, list(class_names))
    order = {name: label for label, name in enumerate(class_names)}
    return FrameBoxes(
        sample.boxes[known],
        np.array([order[name] for name in sample.names[known]], dtype=np.int64),
        sample.scores[known],
        sample.velocities[known],
        np.array([attribute_index(str(tag)) for tag in sample.tags[known]], dtype=np.int64),
    )


def attribute_index(name: str) -> int:
    """Position in `ATTRIBUTES`, -1 for "" (none, or unknown)."""
    if name and name not in ATTRIBUTES:
        raise ValueError(f"attribute {name!r} is unknown; there are {', '.join(ATTRIBUTES)}")
    return ATTRIBUTES.index(name) if name else -1


def in_racks(racks: np.ndarray, class_names: Sequence[str]) -> Exclude:
    """A rule for `countable`: bicycles and motorcycles whose centre is within one of the `racks` (R, 7)."""
    of_racks = np.array([name in RACK_CLASSES for name in class_names], dtype=bool)

    def inside(frame: FrameBoxes) -> np.ndarray:
        found = np.zeros(len(frame), dtype=bool)
        for rack in np.asarray(racks, dtype=np.float64).reshape(-1, 7):
            place = to_box_frame(frame.boxes[:, :3].astype(np.float64), rack)
            found |= (np.abs(place) <= rack[3:6] / 2).all(axis=1)
        return found & of_racks[frame.labels]

    return inside


def attributes_by_speed(names: Sequence[str], velocities: np.ndarray) -> list[str]:
    """A likely attribute for each box from its class and speed (N, 2) m/s, for detectors that tell none.

    Barriers and cones have none (""). What is as fast as `MOVING_SPEED` moves; what is slower has the
    attribute that is most frequent among the standing objects of its class in the training split.
    """
    fast = np.linalg.norm(np.nan_to_num(velocities.reshape(-1, 2)), axis=1) > MOVING_SPEED
    return [
        _MOVING.get(name, "") if moves else _STILL.get(name, "")
        for name, moves in zip(names, fast, strict=True)
    ]


_VEHICLES = ("car", "truck", "bus", "trailer", "construction_vehicle")
_MOVING = dict.fromkeys(_VEHICLES, "vehicle.moving") | {
    "motorcycle": "cycle.with_rider",
    "bicycle": "cycle.with_rider",
    "pedestrian": "pedestrian.moving",
}
_STILL = dict.fromkeys(_VEHICLES, "vehicle.parked") | {
    "bus": "vehicle.stopped",
    "motorcycle": "cycle.without_rider",
    "bicycle": "cycle.without_rider",
    "pedestrian": "pedestrian.standing",
}
