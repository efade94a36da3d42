"""The KITTI object data set, and every folder of the same layout (minidrive), as labelled LiDAR frames.

Expected tree: datasets/README.md. Frames come out in the LiDAR frame, boxes as (x, y, z, l, w, h, yaw).
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from sparse3d.data.augment import AugmentConfig, RangeFilter, check_bounds
from sparse3d.data.gt_sampling import GroundTruthSampling, build_object_database, open_object_database
from sparse3d.data.kitti_index import (
    FrameEntry,
    cache_folder,
    find_root,
    fingerprint,
    frame_files,
    load_index,
    read_split,
)
from sparse3d.errors import ConfigError, DataError
from sparse3d.frames import LidarFrame
from sparse3d.io.kitti import (
    KittiCalibration,
    KittiObjects,
    difficulty,
    in_image,
    objects_to_boxes,
    parse_objects,
    read_calibration,
)
from sparse3d.io.points import read_valid_points
from sparse3d_ops.boxes import points_per_box

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class KittiDatasetConfig:
    """Where the data is and what of it counts."""

    kind: Literal["kitti"] = "kitti"
    root: str = "kitti"  # a folder, or the name of one in $SPARSE3D_DATASETS
    classes: tuple[str, ...] = ("Car", "Pedestrian", "Cyclist")  # boxes of other names give no targets
    camera_view: bool = True  # keep only points that camera 2 sees; KITTI labels nothing else
    bounds: tuple[float, ...] | None = None  # x, y, z min, x, y, z max in metres; None keeps everything
    min_points: int = 1  # training boxes with fewer points are dropped
    columns: int = 4  # float32 values a point in the .bin files
    skip_missing: bool = False  # go on without frames whose files are missing, instead of an error
    seed: int = 0  # of the augmentation
    cache_dir: str = ""  # for the index and object database; "" is the root, or the user cache if read-only

    def __post_init__(self):
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes must be names, each once, got {self.classes}")
        if self.bounds is not None:
            check_bounds(self.bounds)
        if self.columns < 3:
            raise ValueError(f"columns must be at least 3 (x, y, z), got {self.columns}")


class KittiDataset(Dataset[LidarFrame]):
    """Frames of one split of a KITTI-layout folder.

    With an `AugmentConfig` the frames are for training: boxes with fewer than `config.min_points` points are
    dropped, then the steps are applied in order, with a generator that depends only on (seed, epoch, index).
    With None the frames are for evaluation. Points outside of the camera's view and of `config.bounds` are
    removed in both, boxes whose centre is out of bounds too.

    `frame.extra` has "objects" (KittiObjects, every row of the label file), "calibration" (KittiCalibration),
    "image_size" (width, height) and "other_boxes" (K, 7), of objects of no class of ours; they describe the
    scene as recorded and do not follow an augmentation.

    Raises DataError where the root, the split, or files of it are missing, and for corrupt ones when they are
    read.
    """

    def __init__(self, config: KittiDatasetConfig, split: str, augment: AugmentConfig | None = None):
        self.config = config
        self.split = split
        self.root = find_root(config.root)
        self.epoch = 0
        entries = load_index(self.root, split, read_split(self.root, split), config.cache_dir)
        self._entries = self._complete(entries)
        self.augment = None if augment is None else self._with_database(augment)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels: label i is `class_names[i]`."""
        return self.config.classes

    @property
    def frame_ids(self) -> tuple[str, ...]:
        """The id of each frame, in the order of the split file."""
        return tuple(entry.frame_id for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentation `dataset[index]` gives. Loaders pass (epoch, index) instead."""
        self.epoch = epoch

    def __getitem__(self, index: int | tuple[int, int]) -> LidarFrame:
        """The frame at `index`, or at (epoch, index): as it goes into a network."""
        epoch, index = index if isinstance(index, tuple) else (self.epoch, index)
        frame = self._seen(self.frame(index))
        rng = np.random.default_rng(np.random.SeedSequence([self.config.seed, epoch, index % len(self)]))
        if self.augment is not None:
            frame = drop_sparse_boxes(frame, self.config.min_points)
            for step in self.augment.steps:
                frame = step(frame, rng)
        if self.config.bounds is not None:
            frame = RangeFilter(bounds=self.config.bounds)(frame, rng)
        return frame

    def frame(self, index: int) -> LidarFrame:
        """The frame at `index` as recorded: all finite points, boxes of `class_names`, nothing cropped or
        augmented.
        """
        entry = self._entry(index)
        files = frame_files(self.root, self.split, entry.frame_id)
        calibration = read_calibration(files.calib)
        objects = self.objects(index)
        boxes, labels = labelled_boxes(objects, calibration, self.class_names)
        if (boxes[:, 3:6] <= 0).any():
            raise DataError(
                files.label, "an object to train on has a length, width or height that is not positive"
            )
        other = ~np.isin(objects.names, [*self.class_names, "DontCare"])
        other &= np.all(objects.dimensions > 0, axis=1)
        return LidarFrame(
            frame_id=entry.frame_id,
            points=read_valid_points(files.velodyne, self.config.columns),
            boxes=boxes,
            labels=labels,
            extra={
                "objects": objects,
                "calibration": calibration,
                "image_size": entry.image_size,
                "other_boxes": objects_to_boxes(objects.select(other), calibration).astype(np.float32),
            },
        )

    def objects(self, index: int) -> KittiObjects:
        """The label rows of a frame, from the index: no file is opened."""
        entry = self._entry(index)
        return parse_objects(entry.label_text, frame_files(self.root, self.split, entry.frame_id).label)

    def _entry(self, index: int) -> FrameEntry:
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return self._entries[index]

    def _complete(self, entries: list[FrameEntry]) -> list[FrameEntry]:
        """The entries whose files are all there; complains about the others."""
        # Test frames have no labels by nature, and pictures are optional everywhere.
        needed = {"velodyne", "calib"} | ({"label"} if self.split != "test" else set())
        missing = {e.frame_id: needed & set(e.missing) for e in entries if needed & set(e.missing)}
        if not missing:
            return entries
        shown = ", ".join(f"{i} ({', '.join(sorted(kinds))})" for i, kinds in list(missing.items())[:5])
        message = f"{len(missing)} of {len(entries)} frames of {self.split!r} lack files: {shown}" + (
            ", ..." if len(missing) > 5 else ""
        )
        if not self.config.skip_missing:
            way_out = f"see `sparse3d data check kitti --root {self.root}`, or set skip_missing"
            raise DataError(self.root, f"{message}; {way_out}")
        _log.warning("%s: %s; skipped", self.root, message)
        return [entry for entry in entries if entry.frame_id not in missing]

    def _with_database(self, augment: AugmentConfig) -> AugmentConfig:
        """The steps with a database of objects of this split where one samples from none in particular."""
        steps = []
        for step in augment.steps:
            if isinstance(step, GroundTruthSampling):
                step = self._bound(step if step.database else replace(step, database=self._own_database()))
            steps.append(step)
        return AugmentConfig(steps=tuple(steps))

    def _own_database(self) -> str:
        config = self.config
        folder = build_object_database(
            self._object_frames,
            config.classes,
            cache_folder(self.root, config.cache_dir),
            fingerprint(self._entries) + repr((config.classes, config.columns, config.camera_view)),
        )
        return str(folder)

    def _bound(self, step: GroundTruthSampling) -> GroundTruthSampling:
        """The step itself, if its classes are those of this data set."""
        classes = list(self.class_names)
        unknown = [wanted.name for wanted in step.counts if wanted.name not in classes]
        if unknown:
            raise ConfigError(
                f"gt_sampling counts {unknown}, which are not among the data set's classes {classes}"
            )
        found = list(open_object_database(step.database).class_names)
        if found != classes:
            raise ConfigError(
                f"{step.database} was built for the classes {found}, the data set has {classes}"
            )
        return step

    def _object_frames(self) -> Iterator[tuple[LidarFrame, np.ndarray]]:
        """Each frame as training starts from it, with the difficulty (M,) of its boxes."""
        for index in range(len(self)):
            frame = self._seen(self.frame(index))
            objects = frame.extra["objects"]
            yield frame, difficulty(objects)[np.isin(objects.names, self.class_names)]

    def _seen(self, frame: LidarFrame) -> LidarFrame:
        if not self.config.camera_view:
            return frame
        seen = in_image(frame.points, frame.extra["calibration"], frame.extra["image_size"])
        return replace(frame, points=frame.points[seen])


def labelled_boxes(
    objects: KittiObjects, calibration: KittiCalibration, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Objects -> boxes (M, 7) float32 in the LiDAR frame and labels (M,) int64, of the objects named in
    `classes`.
    """
    known = objects.select(np.isin(objects.names, list(classes)))
    labels = np.array([list(classes).index(name) for name in known.names], dtype=np.int64)
    return objects_to_boxes(known, calibration).astype(np.float32), labels


def drop_sparse_boxes(frame: LidarFrame, min_points: int) -> LidarFrame:
    """The frame without boxes that hold fewer than `min_points` points."""
    if min_points <= 0 or not len(frame.boxes):
        return frame
    counts = points_per_box(
        torch.from_numpy(np.ascontiguousarray(frame.points[:, :3])), torch.from_numpy(frame.boxes)
    )
    return frame.select_boxes((counts >= min_points).numpy())
