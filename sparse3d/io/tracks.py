"""tracks.json: the objects of a sequence, frame by frame, each with a number that it keeps.

    {"format": "sparse3d tracks", "classes": [names], "frames": [{"name", "time", "objects": [{"id", "class",
     "score", "x", "y", "z", "length", "width", "height", "yaw", "vx", "vy"}]}]}

Boxes lie in the LiDAR frame of their scan: metres, radians from +x; velocities are those over the ground
along its x and y, m/s, left out where unknown; times are seconds. What people labelled has no score.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sparse3d.errors import DataError
from sparse3d.io.files import write_text
from sparse3d.io.reading import read_text

FORMAT = "sparse3d tracks"
NAME = "tracks.json"
_BOX = ("x", "y", "z", "length", "width", "height", "yaw")


@dataclass(frozen=True)
class TrackedFrame:
    """The M objects of one scan: `ids` (M,) int64, `boxes` (M, 7) float32, `labels` (M,) int64 into the class
    names, `scores` (M,) float32 (1 for labelled ones), `velocities` (M, 2) float32, NaN where unknown."""

    name: str
    time: float
    ids: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    velocities: np.ndarray

    def select(self, rows: np.ndarray) -> "TrackedFrame":
        """Some of the objects: (M,) bool or row numbers."""
        columns = (self.ids, self.boxes, self.labels, self.scores, self.velocities)
        return TrackedFrame(self.name, self.time, *(column[rows] for column in columns))


@dataclass(frozen=True)
class TrackedSequence:
    """`frames` in the order of time; labels are indices into `classes`."""

    classes: tuple[str, ...]
    frames: tuple[TrackedFrame, ...]


def write_tracks(
    path: str | Path, classes: Sequence[str], frames: Sequence[TrackedFrame], scores: bool = True
) -> None:
    """Write a tracks.json atomically; without `scores` where people, or a simulation, know the truth."""
    lines = []
    for frame in frames:
        objects = [_object(frame, row, classes, scores) for row in range(len(frame.ids))]
        lines.append(json.dumps({"name": frame.name, "time": frame.time, "objects": objects}))
    head = json.dumps({"format": FORMAT, "classes": list(classes)})[:-1]
    write_text(path, head + ', "frames": [\n' + ",\n".join(lines) + "\n]}\n")


def _object(frame: TrackedFrame, row: int, classes: Sequence[str], scores: bool) -> dict[str, Any]:
    found: dict[str, Any] = {"id": int(frame.ids[row]), "class": classes[int(frame.labels[row])]}
    if scores:
        found["score"] = round(float(frame.scores[row]), 4)
    found |= {key: round(float(value), 4) for key, value in zip(_BOX, frame.boxes[row], strict=True)}
    if np.isfinite(frame.velocities[row]).all():
        found["vx"], found["vy"] = (round(float(v), 4) for v in frame.velocities[row])
    return found


def read_tracks(path: str | Path) -> TrackedSequence:
    """Read a tracks.json. A DataError says what is missing, and in which frame."""
    try:
        tree = json.loads(read_text(path))
    except ValueError as error:
        raise DataError(path, f"not JSON ({error})") from error
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise DataError(path, f'no "format": "{FORMAT}"; this is another kind of file')
    try:
        classes = tuple(str(name) for name in tree["classes"])
        frames = tuple(_frame(frame, classes) for frame in tree["frames"])
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(path, f"a frame or an object is not as it should be: {error!r}") from error
    for before, after in zip(frames, frames[1:], strict=False):
        if not after.time > before.time:
            raise DataError(path, f"frame {after.name!r} at {after.time} s follows one at {before.time} s")
    return TrackedSequence(classes, frames)


def _frame(frame: dict[str, Any], classes: tuple[str, ...]) -> TrackedFrame:
    objects = frame["objects"]
    ids = [int(found["id"]) for found in objects]
    if len(set(ids)) != len(ids):
        raise ValueError(f"frame {frame['name']!r} has an id twice")
    boxes = np.array([[float(found[key]) for key in _BOX] for found in objects], dtype=np.float32)
    if not np.isfinite(boxes).all():
        raise ValueError(f"frame {frame['name']!r} has a box with a number that is not finite")
    velocities = [[float(found.get(key, "nan")) for key in ("vx", "vy")] for found in objects]
    return TrackedFrame(
        name=str(frame["name"]),
        time=float(frame["time"]),
        ids=np.array(ids, dtype=np.int64),
        boxes=boxes.reshape(-1, 7),
        labels=np.array([classes.index(found["class"]) for found in objects], dtype=np.int64),
        scores=np.array([float(found.get("score", 1.0)) for found in objects], dtype=np.float32),
        velocities=np.array(velocities, dtype=np.float32).reshape(-1, 2),
    )
