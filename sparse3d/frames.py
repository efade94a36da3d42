"""What data sets give and models take: LiDAR frames, batches of them, and detections; and, for
segmentation, frames with a label for each point.

Boxes are (x, y, z, l, w, h, yaw): centre in metres, yaw in radians about +z from +x, in the LiDAR frame (x
forward, y left, z up). Labels are indices into the list of class names that the data config holds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

IGNORE = -1  # label of a point that counts neither in a loss nor in a metric


@dataclass(frozen=True)
class LidarFrame:
    """One scan with its labelled boxes.

    `points` (N, 3 + F) float32: x, y, z in metres, then features (KITTI: intensity in [0, 1]). `boxes` (M, 7)
    float32, `labels` (M,) int64. `velocities` (M, 2) float32: of each box along x and y of this frame, m/s,
    NaN where unknown; None stands for all unknown. `box_info` holds arrays with a row for each box (track,
    attribute, ...), `extra` what else a data set adds (KITTI: calibration, objects); neither is batched.
    """

    frame_id: str
    points: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    extra: dict[str, Any] = field(default_factory=dict)
    velocities: np.ndarray | None = None
    box_info: dict[str, np.ndarray] = field(default_factory=dict)

    @property
    def known_velocities(self) -> np.ndarray:
        """(M, 2) float32, NaN where unknown; never None."""
        if self.velocities is None:
            return np.full((len(self.boxes), 2), np.nan, dtype=np.float32)
        return self.velocities

    def select_boxes(self, rows: np.ndarray) -> "LidarFrame":
        """The frame with some of its boxes: (M,) bool or row numbers."""
        velocities = None if self.velocities is None else self.velocities[rows]
        info = {name: column[rows] for name, column in self.box_info.items()}
        return replace(
            self, boxes=self.boxes[rows], labels=self.labels[rows], velocities=velocities, box_info=info
        )


@dataclass(frozen=True)
class DetectionBatch:
    """Frames concatenated: row p of `points` belongs to frame `point_frame[p]`, row m of `boxes`, `labels`
    and `velocities` (NaN where unknown) to `box_frame[m]`."""

    points: Float[Tensor, "P F"]
    point_frame: Int[Tensor, "P"]
    boxes: Float[Tensor, "M 7"]
    labels: Int[Tensor, "M"]
    velocities: Float[Tensor, "M 2"]
    box_frame: Int[Tensor, "M"]
    batch_size: int
    frame_ids: tuple[str, ...]

    @staticmethod
    def collate(frames: list[LidarFrame]) -> "DetectionBatch":
        """Concatenate frames. Frames without points or boxes are legal."""

        points, boxes = [f.points for f in frames], [f.boxes.reshape(-1, 7) for f in frames]
        return DetectionBatch(
            points=_joined(points, np.float32),
            point_frame=_owners(points),
            boxes=_joined(boxes, np.float32),
            labels=_joined([f.labels for f in frames], np.int64),
            velocities=_joined([f.known_velocities.reshape(-1, 2) for f in frames], np.float32),
            box_frame=_owners(boxes),
            batch_size=len(frames),
            frame_ids=tuple(f.frame_id for f in frames),
        )

    def without_frames(self) -> "DetectionBatch":
        """A batch of no frames with this one's columns: the share of a process that gets none."""
        names = ("points", "point_frame", "boxes", "labels", "velocities", "box_frame")
        rows = {name: getattr(self, name)[:0] for name in names}
        return replace(self, **rows, batch_size=0, frame_ids=())

    def to(self, device: torch.device | str) -> "DetectionBatch":
        """The same batch on another device."""
        names = ("points", "point_frame", "boxes", "labels", "velocities", "box_frame")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


@dataclass(frozen=True)
class Detections:
    """What a detector found in one frame, highest score first: boxes (K, 7), scores (K,) in [0, 1], labels
    (K,) int64, and from models that tell it the velocities (K, 2) along x and y, m/s, and the queries (K, 2):
    where along x and y the voxel lies that found the object, metres."""

    boxes: Float[Tensor, "K 7"]
    scores: Float[Tensor, "K"]
    labels: Int[Tensor, "K"]
    velocities: Float[Tensor, "K 2"] | None = None
    queries: Float[Tensor, "K 2"] | None = None

    def select(self, rows: Tensor) -> "Detections":
        """Some of the detections: (K,) bool or row numbers."""
        return self._map(lambda column: column[rows])

    def cpu(self) -> "Detections":
        """The same detections in host memory."""
        return self._map(lambda column: column.cpu())

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Detections":
        return Detections(
            change(self.boxes),
            change(self.scores),
            change(self.labels),
            None if self.velocities is None else change(self.velocities),
            None if self.queries is None else change(self.queries),
        )

    @staticmethod
    def concatenate(parts: Sequence["Detections"]) -> "Detections":
        """All of the parts (at least one), highest score first; equal scores keep their order. All have
        velocities, or none; so with queries.
        """
        told = [part.velocities for part in parts if part.velocities is not None]
        queries = [part.queries for part in parts if part.queries is not None]
        joined = Detections(
            boxes=torch.cat([part.boxes for part in parts]),
            scores=torch.cat([part.scores for part in parts]),
            labels=torch.cat([part.labels for part in parts]),
            velocities=torch.cat(told) if told else None,
            queries=torch.cat(queries) if queries else None,
        )
        return joined.select(joined.scores.argsort(descending=True, stable=True))


@dataclass(frozen=True)
class SegmentationFrame:
    """One scan with a label for each point.

    `points` (N, 3 + F) float32: x, y, z in metres, then features (intensity). `labels` (N,) int64: positions
    in the list of class names, IGNORE where nothing is asked. `instances` (N,) int64: equal numbers within a
    class are one object, 0 is none. `extra` is not batched.
    """

    frame_id: str
    points: np.ndarray
    labels: np.ndarray
    instances: np.ndarray
    extra: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def unlabelled(frame_id: str, points: np.ndarray) -> "SegmentationFrame":
        """A scan of which nothing is known: every label is IGNORE."""
        return SegmentationFrame(
            frame_id, points, np.full(len(points), IGNORE, np.int64), np.zeros(len(points), np.int64)
        )

    def select_points(self, rows: np.ndarray) -> "SegmentationFrame":
        """The frame with some of its points: (N,) bool or row numbers."""
        return replace(
            self, points=self.points[rows], labels=self.labels[rows], instances=self.instances[rows]
        )


@dataclass(frozen=True)
class SegmentationBatch:
    """Frames concatenated: row p of `points` and `labels` (IGNORE where nothing is asked) belongs to frame
    `point_frame[p]`; rows of one frame stand together and keep their order."""

    points: Float[Tensor, "P F"]
    point_frame: Int[Tensor, "P"]
    labels: Int[Tensor, "P"]
    batch_size: int
    frame_ids: tuple[str, ...]

    @staticmethod
    def collate(frames: Sequence[SegmentationFrame]) -> "SegmentationBatch":
        """Concatenate frames. Frames without points are legal."""
        points = [f.points for f in frames]
        return SegmentationBatch(
            points=_joined(points, np.float32),
            point_frame=_owners(points),
            labels=_joined([f.labels for f in frames], np.int64),
            batch_size=len(frames),
            frame_ids=tuple(f.frame_id for f in frames),
        )

    def without_frames(self) -> "SegmentationBatch":
        """A batch of no frames with this one's columns: the share of a process that gets none."""
        rows = {name: getattr(self, name)[:0] for name in ("points", "point_frame", "labels")}
        return replace(self, **rows, batch_size=0, frame_ids=())

    def split(self, rows: Tensor) -> list[Tensor]:
        """(P, ...) values of all points -> those of each frame."""
        return list(rows.split(torch.bincount(self.point_frame, minlength=self.batch_size).tolist()))

    def to(self, device: torch.device | str) -> "SegmentationBatch":
        """The same batch on another device."""
        names = ("points", "point_frame", "labels")
        return replace(self, **{name: getattr(self, name).to(device, non_blocking=True) for name in names})


def collate(frames: Sequence[LidarFrame] | Sequence[SegmentationFrame]) -> DetectionBatch | SegmentationBatch:
    """The batch of the frames' kind; at least one frame, all of one kind."""
    lidar = [frame for frame in frames if isinstance(frame, LidarFrame)]
    if lidar:
        return DetectionBatch.collate(lidar)
    return SegmentationBatch.collate([frame for frame in frames if isinstance(frame, SegmentationFrame)])


def _joined(arrays: list[np.ndarray], dtype: type) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(np.concatenate(arrays), dtype=dtype))


def _owners(arrays: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.repeat(np.arange(len(arrays)), [len(a) for a in arrays]))
