"""Detection and tracking results as nuScenes' evaluation server takes them: one JSON file of a split.

    {"meta": {"use_camera": false, "use_lidar": true, ...}, "results": {sample token: [box, ...], ...}}

A box has its centre, size (width, length, height), rotation (quaternion w, x, y, z) and velocity in the
global frame, a class name and a score; detections have an attribute, tracks an id. Source: the file formats
of the detection and tracking tasks in nuscenes-devkit.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from sparse3d.errors import DataError
from sparse3d.io.files import write_text

Task = Literal["detection", "tracking"]
META = ("use_camera", "use_lidar", "use_radar", "use_map", "use_external")
MAX_BOXES = 500  # of one sample; the server refuses more
_NUMBERS = {"translation": 3, "size": 3, "rotation": 4, "velocity": 2}


@dataclass(frozen=True)
class SampleBoxes:
    """N boxes of one sample in the global frame.

    `boxes` (N, 7) float64 x, y, z, l, w, h, yaw about the global z axis; `velocities` (N, 2) m/s (NaN:
    unknown); `names` (N,) classes; `scores` (N,); `tags` (N,) the attribute of a detection ("" for none) or
    the id of a track.
    """

    boxes: np.ndarray
    velocities: np.ndarray
    names: np.ndarray
    scores: np.ndarray
    tags: np.ndarray

    def __post_init__(self) -> None:
        count = len(self.boxes)
        shapes = {"boxes": (count, 7), "velocities": (count, 2), "names": (count,)}
        for name, expected in (shapes | {"scores": (count,), "tags": (count,)}).items():
            if getattr(self, name).shape != expected:
                raise ValueError(f"{name} has shape {getattr(self, name).shape}, expected {expected}")


def write_results(
    path: str | Path,
    task: Task,
    samples: Mapping[str, SampleBoxes],
    sensors: tuple[str, ...] = ("use_lidar",),
) -> None:
    """Write the samples of a split, all of them (one without boxes too), keeping the best `MAX_BOXES` each.

    `sensors` names what the method used, of `META`. Boxes are written as standing upright in the global
    frame. ValueError for an unknown name in `sensors` and for numbers that are not finite (velocities may be
    NaN).
    """
    unknown = [name for name in sensors if name not in META]
    if unknown:
        raise ValueError(f"sensors {', '.join(unknown)} are unknown; there are {', '.join(META)}")
    results = {token: _rows(token, task, boxes) for token, boxes in samples.items()}
    meta = {name: name in sensors for name in META}
    write_text(path, json.dumps({"meta": meta, "results": results}))


def _rows(token: str, task: Task, sample: SampleBoxes) -> list[dict[str, Any]]:
    if not (np.isfinite(sample.boxes).all() and np.isfinite(sample.scores).all()):
        raise ValueError(f"sample {token} has a box or score that is not finite")
    best = np.argsort(-sample.scores, kind="stable")[:MAX_BOXES]
    tag = "attribute_name" if task == "detection" else "tracking_id"
    rows = []
    for i in best:
        x, y, z, length, width, height, yaw = sample.boxes[i].tolist()
        rows.append(
            {
                "sample_token": token,
                "translation": [x, y, z],
                "size": [width, length, height],
                "rotation": [math.cos(yaw / 2), 0.0, 0.0, math.sin(yaw / 2)],
                "velocity": sample.velocities[i].tolist(),
                f"{task}_name": str(sample.names[i]),
                f"{task}_score": float(sample.scores[i]),
                tag: str(sample.tags[i]),
            }
        )
    return rows


def read_results(path: str | Path, task: Task) -> dict[str, SampleBoxes]:
    """The samples of a results file. DataError that names the sample for whatever the server would refuse."""
    path = Path(path)
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(path, f"no JSON results file: {error}") from error
    if not isinstance(tree, dict) or not isinstance(tree.get("results"), dict) or "meta" not in tree:
        raise DataError(path, 'expected an object with "meta" and "results" (sample token -> list of boxes)')
    samples = {}
    for token, rows in tree["results"].items():
        if not isinstance(rows, list) or len(rows) > MAX_BOXES:
            raise DataError(path, f"sample {token}: expected a list of at most {MAX_BOXES} boxes")
        try:
            samples[token] = _sample(rows, task)
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(path, f"sample {token}: a box is not one of a {task} file: {error!r}") from error
    return samples


def _sample(rows: list[dict[str, Any]], task: Task) -> SampleBoxes:
    columns = {
        name: np.array([row[name] for row in rows], dtype=np.float64).reshape(len(rows), width)
        for name, width in _NUMBERS.items()
    }
    scores = np.array([row[f"{task}_score"] for row in rows], dtype=np.float64).reshape(len(rows))
    numbers = [columns[name] for name in ("translation", "size", "rotation")]
    if not all(np.isfinite(part).all() for part in (*numbers, scores)):
        raise ValueError("a number is not finite")
    if (columns["size"] <= 0).any():
        raise ValueError("a size is not positive")
    boxes = np.concatenate(
        [columns["translation"], columns["size"][:, [1, 0, 2]], heading(columns["rotation"])[:, None]], axis=1
    )
    tag = "attribute_name" if task == "detection" else "tracking_id"
    names, tags = (np.array([str(row[key]) for row in rows], dtype=np.str_) for key in (f"{task}_name", tag))
    return SampleBoxes(boxes, columns["velocity"], names, scores, tags)


def heading(quaternions: np.ndarray) -> np.ndarray:
    """(N, 4) w, x, y, z of any length -> (N,) yaw: where the turned x axis points, seen from above."""
    w, x, y, z = quaternions.T
    return np.arctan2(2 * (w * z + x * y), w**2 + x**2 - y**2 - z**2)
