"""The KITTI object data set, and every folder of the same layout (minidrive), as labelled LiDAR frames.

Expected tree: datasets/README.md. Frames come out in the LiDAR frame, boxes as (x, y, z, l, w, h, yaw).
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sparse3d.data.augment import AugmentConfig, check_bounds
from sparse3d.data.kitti_index import FrameEntry, fingerprint, frame_files, load_index, read_split
from sparse3d.data.labelled import LabelledFrames
from sparse3d.errors import DataError
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


class KittiDataset(LabelledFrames[KittiDatasetConfig]):
    """Frames of one split of a KITTI-layout folder.

    See `LabelledFrames` for what `augment` and `epochs` do. Points outside of the camera's view are removed
    for training and evaluation alike.

    `frame.extra` has "objects" (KittiObjects, every row of the label file), "calibration" (KittiCalibration),
    "image_size" (width, height) and "other_boxes" (K, 7), of objects of no class of ours; they describe the
    scene as recorded and do not follow an augmentation.

    Raises DataError where the root, the split, or files of it are missing, and for corrupt ones when they are
    read.
    """

    def __init__(
        self,
        config: KittiDatasetConfig,
        split: str,
        augment: AugmentConfig | None = None,
        epochs: int | None = None,
    ):
        super().__init__(config, split, epochs)
        entries = load_index(self.root, split, read_split(self.root, split), config.cache_dir)
        self._entries = self._complete(entries)
        self.augment_with(augment)

    @property
    def frame_ids(self) -> tuple[str, ...]:
        return tuple(entry.frame_id for entry in self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def frame(self, index: int) -> LidarFrame:
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
            box_info={"occlusion": objects.occluded[np.isin(objects.names, self.class_names)]},
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

    def labels(self, index: int) -> np.ndarray:
        names = self.objects(index).names
        known = names[np.isin(names, self.class_names)]
        return np.array([self.class_names.index(name) for name in known], dtype=np.int64)

    def fingerprint(self) -> str:
        config = self.config
        return fingerprint(self._entries) + repr((config.classes, config.columns, config.camera_view))

    def difficulty(self, frame: LidarFrame) -> np.ndarray:
        """KITTI's own levels; -1 where an object is too small, too hidden or too truncated for any."""
        objects = frame.extra["objects"]
        return difficulty(objects)[np.isin(objects.names, self.class_names)]

    def seen(self, frame: LidarFrame) -> LidarFrame:
        """With `camera_view`, only the points that camera 2 sees."""
        if not self.config.camera_view:
            return frame
        seen = in_image(frame.points, frame.extra["calibration"], frame.extra["image_size"])
        return replace(frame, points=frame.points[seen])

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


def labelled_boxes(
    objects: KittiObjects, calibration: KittiCalibration, classes: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Objects -> boxes (M, 7) float32 in the LiDAR frame and labels (M,) int64, of the objects named in
    `classes`.
    """
    known = objects.select(np.isin(objects.names, list(classes)))
    labels = np.array([list(classes).index(name) for name in known.names], dtype=np.int64)
    return objects_to_boxes(known, calibration).astype(np.float32), labels
