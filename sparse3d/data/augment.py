"""Training augmentations of labelled LiDAR frames.

Each step is a frozen dataclass, callable as `step(frame, rng) -> frame`; it never changes the arrays of the
frame that it is given, and all its randomness comes from `rng`. The vocabulary is SECOND's (Yan et al.,
Sensors 2018, sec. 3.2). Points and boxes move together, so that a step keeps which points lie in which box,
up to rounding at the faces. `frame.extra` is passed on as it is: it describes the recorded scene.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np
import torch

from sparse3d.data.gt_sampling import ClassCount, GroundTruthSampling
from sparse3d.frames import LidarFrame
from sparse3d.geometry.boxes import (
    mirror_boxes,
    mirror_points,
    rotate_boxes_z,
    rotate_points_z,
    scale_boxes,
    scale_points,
    translate,
    wrap_angle,
)
from sparse3d_ops.boxes import box_iou_bev, points_in_boxes


def _moved(frame: LidarFrame, change: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
    """The velocities after a linear change of the frame."""
    return None if frame.velocities is None else change(frame.velocities)


@dataclass(frozen=True)
class RandomFlip:
    """Mirror the scene: axis "y" swaps left and right, "x" front and back."""

    kind: Literal["flip"] = "flip"
    axis: Literal["x", "y"] = "y"  # the coordinate that changes its sign
    probability: float = 0.5

    def __post_init__(self):
        if not 0 <= self.probability <= 1:
            raise ValueError(f"probability must lie in [0, 1], got {self.probability}")

    def __call__(self, frame: LidarFrame, rng: np.random.Generator) -> LidarFrame:
        if rng.random() >= self.probability:
            return frame
        return replace(
            frame,
            points=mirror_points(frame.points, self.axis),
            boxes=mirror_boxes(frame.boxes, self.axis),
            velocities=_moved(frame, lambda rows: mirror_points(rows, self.axis)),
        )


@dataclass(frozen=True)
class RandomRotation:
    """Turn the scene about the LiDAR's z axis by a uniform angle."""

    kind: Literal["rotation"] = "rotation"
    min_angle: float = -np.pi / 4  # rad
    max_angle: float = np.pi / 4  # rad

    def __post_init__(self):
        if not self.min_angle <= self.max_angle:
            raise ValueError(f"min_angle {self.min_angle} is larger than max_angle {self.max_angle}")

    def __call__(self, frame: LidarFrame, rng: np.random.Generator) -> LidarFrame:
        angle = rng.uniform(self.min_angle, self.max_angle)
        return replace(
            frame,
            points=rotate_points_z(frame.points, angle),
            boxes=rotate_boxes_z(frame.boxes, angle),
            velocities=_moved(frame, lambda rows: rotate_points_z(rows, angle)),
        )


@dataclass(frozen=True)
class RandomScaling:
    """Scale the scene about the LiDAR by a uniform factor."""

    kind: Literal["scaling"] = "scaling"
    min_scale: float = 0.95
    max_scale: float = 1.05

    def __post_init__(self):
        if not 0 < self.min_scale <= self.max_scale:
            raise ValueError(f"scales must be 0 < min <= max, got {self.min_scale} and {self.max_scale}")

    def __call__(self, frame: LidarFrame, rng: np.random.Generator) -> LidarFrame:
        scale = rng.uniform(self.min_scale, self.max_scale)
        return replace(
            frame,
            points=scale_points(frame.points, scale),
            boxes=scale_boxes(frame.boxes, scale),
            velocities=_moved(frame, lambda rows: rows * rows.dtype.type(scale)),
        )


@dataclass(frozen=True)
class RandomTranslation:
    """Shift the scene by a normal offset."""

    kind: Literal["translation"] = "translation"
    std: tuple[float, float, float] = (0.2, 0.2, 0.2)  # m, along x, y, z

    def __call__(self, frame: LidarFrame, rng: np.random.Generator) -> LidarFrame:
        offset = rng.normal(0, self.std)
        return replace(frame, points=translate(frame.points, offset), boxes=translate(frame.boxes, offset))


@dataclass(frozen=True)
class ObjectNoise:
    """Turn and shift each box with the points in it, where that hits no other box seen from above.

    Each box in turn tries `tries` poses and takes the first free one, else stays. A point in two boxes
    follows the first. What stood at the new place stays there.
    """

    kind: Literal["object_noise"] = "object_noise"
    std: tuple[float, float, float] = (0.25, 0.25, 0.1)  # m, along x, y, z
    max_angle: float = np.pi / 20  # rad, uniform in both directions
    tries: int = 10

    def __post_init__(self):
        if self.tries < 1 or self.max_angle < 0 or min(self.std) < 0:
            raise ValueError(f"tries must be at least 1, max_angle and std at least 0, got {self}")

    def __call__(self, frame: LidarFrame, rng: np.random.Generator) -> LidarFrame:
        count = len(frame.boxes)
        angles = rng.uniform(-self.max_angle, self.max_angle, (count, self.tries))
        shifts = rng.normal(0, self.std, (count, self.tries, 3))
        boxes = torch.from_numpy(frame.boxes.copy())
        angle, shift = np.zeros(count), np.zeros((count, 3))
        for m in range(count):
            poses = boxes[m].repeat(self.tries, 1)
            poses[:, :3] += torch.from_numpy(shifts[m]).to(poses.dtype)
            poses[:, 6] += torch.from_numpy(angles[m]).to(poses.dtype)
            others = torch.cat([boxes[:m], boxes[m + 1 :]])
            free = (box_iou_bev(poses, others) == 0).all(dim=1).nonzero()
            if len(free):
                first = int(free[0])
                boxes[m], angle[m], shift[m] = poses[first], angles[m, first], shifts[m, first]
        moved = boxes.numpy()
        moved[:, 6] = wrap_angle(moved[:, 6])
        velocities = _moved(frame, lambda rows: _turn(rows, angle))
        return replace(
            frame, points=_move_with_boxes(frame, angle, shift), boxes=moved, velocities=velocities
        )


def _move_with_boxes(frame: LidarFrame, angle: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Points with those of box m turned by angle[m] about its centre and shifted by shift[m]."""
    points = frame.points.copy()
    owner = box_of_points(points, frame.boxes)
    inside = np.flatnonzero(owner >= 0)
    owner = owner[inside]
    centre = frame.boxes[owner, :3].astype(np.float64)
    local = points[inside, :3] - centre
    points[inside, :3] = _turn(local, angle[owner]) + centre + shift[owner]
    return points


def _turn(rows: np.ndarray, angle: np.ndarray) -> np.ndarray:
    """Rows (N, >= 2), each turned about z by an angle (N,) of its own."""
    cos, sin = np.cos(angle), np.sin(angle)
    turned = rows.copy()
    turned[:, 0] = cos * rows[:, 0] - sin * rows[:, 1]
    turned[:, 1] = sin * rows[:, 0] + cos * rows[:, 1]
    return turned


def box_of_points(points: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """(P, >=3), (M, 7) -> (P,) int64: the first box that holds each point, -1 for none."""
    xyz = torch.from_numpy(np.ascontiguousarray(points[:, :3]))
    return points_in_boxes(xyz, torch.from_numpy(np.ascontiguousarray(boxes))).numpy()


@dataclass(frozen=True)
class PointShuffle:
    """Bring the points into a random order."""

    kind: Literal["shuffle"] = "shuffle"

    def __call__(self, frame: LidarFrame, rng: np.random.Generator) -> LidarFrame:
        return replace(frame, points=frame.points[rng.permutation(len(frame.points))])


@dataclass(frozen=True)
class RangeFilter:
    """Remove points out of bounds, and boxes whose centre is. Not random: it fits evaluation too."""

    kind: Literal["range"] = "range"
    bounds: tuple[float, ...] = (0.0, -40.0, -3.0, 70.4, 40.0, 1.0)  # m; x, y, z min, then x, y, z max

    def __post_init__(self):
        check_bounds(self.bounds)

    def __call__(self, frame: LidarFrame, rng: np.random.Generator) -> LidarFrame:
        frame = frame.select_boxes(self.inside(frame.boxes))
        return replace(frame, points=frame.points[self.inside(frame.points)])

    def inside(self, rows: np.ndarray) -> np.ndarray:
        """(N, >=3) -> (N,) bool: min <= position < max on all three axes."""
        low, high = np.array(self.bounds[:3]), np.array(self.bounds[3:])
        return np.all((rows[:, :3] >= low) & (rows[:, :3] < high), axis=1)


def check_bounds(bounds: tuple[float, ...]) -> None:
    """ValueError unless `bounds` are (x, y, z min, x, y, z max) with room between them."""
    if len(bounds) != 6 or any(low >= high for low, high in zip(bounds[:3], bounds[3:], strict=True)):
        raise ValueError(f"bounds must be x, y, z min and then x, y, z max, each larger; got {bounds}")


AugmentStep = (
    GroundTruthSampling
    | RandomFlip
    | RandomRotation
    | RandomScaling
    | RandomTranslation
    | ObjectNoise
    | PointShuffle
    | RangeFilter
)


@dataclass(frozen=True)
class FadeOut:
    """Steps of these kinds are left out in the last epochs of a training, so that it ends on scenes as they
    are (for pasted objects: Wang et al., "PointAugmenting", CVPR 2021)."""

    epochs: int = 4  # the last so many
    kinds: tuple[str, ...] = ("gt_sampling",)

    def __post_init__(self):
        known = [step.kind for step in get_args(AugmentStep)]
        unknown = [kind for kind in self.kinds if kind not in known]
        if unknown:
            raise ValueError(f"kinds {unknown} are no steps; there are {known}")
        if self.epochs < 0:
            raise ValueError(f"epochs must be at least 0, got {self.epochs}")


@dataclass(frozen=True)
class AugmentConfig:
    """The steps, in the order in which they are applied. None at all is legal."""

    steps: tuple[AugmentStep, ...] = ()
    fade_out: FadeOut | None = None  # which of them end before the training does

    def steps_in(self, epoch: int, epochs: int | None) -> tuple[AugmentStep, ...]:
        """The steps of an epoch (counted from 0) of a training of `epochs`; of unknown length: all."""
        if self.fade_out is None or epochs is None or epoch < epochs - self.fade_out.epochs:
            return self.steps
        return tuple(step for step in self.steps if step.kind not in self.fade_out.kinds)


# What SECOND and PointPillars train KITTI with, without the per-object noise, which later work found not to
# help.
SECOND_AUGMENTATION = AugmentConfig(
    steps=(
        GroundTruthSampling(
            counts=(ClassCount("Car", 20), ClassCount("Pedestrian", 15), ClassCount("Cyclist", 15))
        ),
        RandomFlip(),
        RandomRotation(),
        RandomScaling(),
        PointShuffle(),
    )
)
