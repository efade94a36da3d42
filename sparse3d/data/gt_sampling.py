"""Ground-truth sampling: paste labelled objects of other frames into a scene (SECOND, Yan et al. 2018, sec.
3.2).

Objects keep the pose in which they were recorded, so that their density and the side that the LiDAR sees stay
true. `object_database` cuts them out.
"""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from sparse3d.data.object_database import ObjectDatabase, open_object_database
from sparse3d.frames import LidarFrame
from sparse3d_ops.boxes import box_iou_bev, points_in_boxes


@dataclass(frozen=True)
class ClassCount:
    """Objects of class `name` are added until the scene has `count`."""

    name: str
    count: int

    def __post_init__(self):
        if self.count < 0:
            raise ValueError(f"count of {self.name} must be at least 0, got {self.count}")


@dataclass(frozen=True)
class GroundTruthSampling:
    """Fill the scene with objects of the database that hit no box, seen from above, and no object pasted
    before.

    Scene points inside of a pasted box are removed. A class of which the scene has enough gets none;
    candidates that collide are not replaced by others. Objects that are no targets are not hit either, where
    the data set gives their boxes as `frame.extra["other_boxes"]` (K, 7): those are of the recorded scene, so
    this step should come first.
    """

    kind: Literal["gt_sampling"] = "gt_sampling"
    counts: tuple[ClassCount, ...] = (
        ClassCount("Car", 20),
        ClassCount("Pedestrian", 15),
        ClassCount("Cyclist", 15),
    )
    min_points: int = 5  # objects with fewer are never pasted
    rated_only: bool = True  # leave out objects that are too small or too hidden for any difficulty
    to_ground: bool = False  # move each object up or down onto the scene's ground around it
    database: str = ""  # folder; "" is one of the data set's own split, built when first needed

    def __call__(self, frame: LidarFrame, rng: np.random.Generator) -> LidarFrame:
        database = open_object_database(self.database)
        chosen = self._choose(frame, database, rng)
        boxes = database.boxes[chosen].copy()
        if self.to_ground:
            boxes[:, 2] += _ground_steps(frame.points, boxes)
        others = frame.extra.get("other_boxes", np.zeros((0, 7), dtype=np.float32))
        free = _collision_free(np.concatenate([frame.boxes, others]), boxes)
        chosen, boxes = chosen[free], boxes[free]
        if not len(chosen):
            return frame
        covered = points_in_boxes(
            torch.from_numpy(np.ascontiguousarray(frame.points[:, :3])), torch.from_numpy(boxes)
        ).numpy()
        pasted = [database.points[database.offsets[k] : database.offsets[k + 1]].copy() for k in chosen]
        for points, box, k in zip(pasted, boxes, chosen, strict=True):
            points[:, 2] += box[2] - database.boxes[k, 2]
        return replace(
            frame,
            points=np.concatenate([frame.points[covered < 0], *pasted]),
            boxes=np.concatenate([frame.boxes, boxes]),
            labels=np.concatenate([frame.labels, database.labels[chosen]]),
            velocities=_joined_velocities(frame, database.velocities[chosen]),
            box_info={},  # which says nothing of pasted objects
        )

    def _choose(self, frame: LidarFrame, database: ObjectDatabase, rng: np.random.Generator) -> np.ndarray:
        """Rows of the database to try, in a random order within each class."""
        fits = np.diff(database.offsets) >= self.min_points
        if self.rated_only:
            fits &= database.difficulty >= 0
        chosen = [np.empty(0, dtype=np.int64)]
        for wanted in self.counts:
            label = database.class_names.index(wanted.name)
            candidates = np.flatnonzero(fits & (database.labels == label))
            missing = wanted.count - int(np.count_nonzero(frame.labels == label))
            if missing > 0 and len(candidates):
                chosen.append(rng.choice(candidates, min(missing, len(candidates)), replace=False))
        return np.concatenate(chosen)


def _joined_velocities(frame: LidarFrame, pasted: np.ndarray) -> np.ndarray | None:
    """Those of the frame and then those of pasted objects; None where all are unknown."""
    if frame.velocities is None and np.isnan(pasted).all():
        return None
    return np.concatenate([frame.known_velocities, pasted.astype(np.float32)])


def _collision_free(fixed: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Rows of `boxes` that overlap neither with a fixed box nor with an earlier row that is kept, seen from
    above.
    """
    if not len(boxes):
        return np.empty(0, dtype=np.int64)
    everything = np.concatenate([fixed.reshape(-1, 7), boxes]).astype(np.float32)
    hits = (box_iou_bev(torch.from_numpy(boxes), torch.from_numpy(everything)) > 0).numpy()
    taken = np.arange(len(everything)) < len(fixed)
    kept = []
    for row in range(len(boxes)):
        if not (hits[row] & taken).any():
            kept.append(row)
            taken[len(fixed) + row] = True
    return np.array(kept, dtype=np.int64)


# Ground around an object: points within this distance of its centre seen from above, of which a low share is
# ground even where half of them hang in bushes; too few say nothing, and a larger step is no ground but a
# hole or a wall.
_GROUND_RADIUS = 3.0
_GROUND_SHARE = 5
_GROUND_MIN_POINTS = 10
_GROUND_MAX_STEP = 1.0


def _ground_steps(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(M,) metres by which each box must rise to stand on the ground around it; 0 where none is found."""
    steps = np.zeros(len(boxes), dtype=np.float32)
    for m, box in enumerate(boxes):
        near = np.abs(points[:, :2] - box[:2]).max(axis=1) < _GROUND_RADIUS
        if np.count_nonzero(near) >= _GROUND_MIN_POINTS:
            step = np.percentile(points[near, 2], _GROUND_SHARE) - (box[2] - box[5] / 2)
            steps[m] = step if abs(step) <= _GROUND_MAX_STEP else 0
    return steps
