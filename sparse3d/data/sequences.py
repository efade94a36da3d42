"""Data sets of recorded drives: scans with poses and times, some of them labelled frames.

A data set fills one `SequenceTable`, and reads one scan; all else is here: splits by the names of sequences,
several scans in one frame with the motion of the vehicle taken out, boxes, velocities, and what a tracker
needs. `world` is a frame that stands still during a sequence, `lidar` the frame of the points: x forward, y
left, z up, its origin where the data set has it (the sensor, or the vehicle).
"""

import hashlib
import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np

from sparse3d.data.augment import AugmentConfig, check_bounds
from sparse3d.data.labelled import LabelledFrames
from sparse3d.errors import ConfigError, DataError
from sparse3d.frames import LidarFrame
from sparse3d.geometry.rigid import inverse, transform_points
from sparse3d.io.points import drop_invalid
from sparse3d.io.reading import read_text

_log = logging.getLogger(__name__)

# Columns of a `SequenceTable` with a row for each box; the data sets' own words about it come last.
_BOX_INFO = ("track", "points", "attribute", "difficulty", "occlusion")
_PER_BOX = ("boxes", "category", "velocity", *_BOX_INFO)


class SequenceTable(NamedTuple):
    """S scans, sequence after sequence and by time in each; N of them are frames with M boxes in all.

    Object columns hold -1 (velocities NaN) where a data set does not say. Text is kept as bytes, which take a
    quarter of numpy's text.
    """

    sequence_names: np.ndarray  # (Q,) str
    scan_sequence: np.ndarray  # (S,) int64
    scan_time: np.ndarray  # (S,) int64, nanoseconds
    world_from_lidar: np.ndarray  # (S, 4, 4) float64
    vehicle: np.ndarray  # (S, 3) float32: origin of the vehicle's frame, in the LiDAR frame
    scan_file: np.ndarray  # (S,) bytes: where the scan is, in words of the data set
    frame_scan: np.ndarray  # (N,) int64
    frame_id: np.ndarray  # (N,) bytes
    first_box: np.ndarray  # (N + 1,) int64: frame n has the boxes first_box[n] to first_box[n + 1]
    boxes: np.ndarray  # (M, 7) float32, in the LiDAR frame of their own frame
    category: np.ndarray  # (M,) int64, into category_names
    velocity: np.ndarray  # (M, 2) float32, along x and y of the LiDAR frame, m/s
    track: np.ndarray  # (M,) int64, one number an object and sequence
    points: np.ndarray  # (M,) int64, points in the box as the data set counts them
    attribute: np.ndarray  # (M,) int64, into attribute_names
    difficulty: np.ndarray  # (M,) int64
    occlusion: np.ndarray  # (M,) int64, from 0, hardly hidden, to 3
    category_names: np.ndarray  # (C,) str
    attribute_names: np.ndarray  # (A,) str

    def of_sequences(self, names: Sequence[str]) -> "SequenceTable":
        """The part of some sequences; the columns of names stay whole."""
        wanted = np.isin(self.sequence_names, list(names))
        scans = wanted[self.scan_sequence]
        frames = scans[self.frame_scan]
        counts = np.diff(self.first_box)
        rows = np.repeat(frames, counts)
        per_scan = ("scan_sequence", "scan_time", "world_from_lidar", "vehicle", "scan_file")
        return self._replace(
            frame_scan=(np.cumsum(scans) - 1)[self.frame_scan[frames]],
            frame_id=self.frame_id[frames],
            first_box=np.concatenate([[0], np.cumsum(counts[frames])]).astype(np.int64),
            **{name: getattr(self, name)[scans] for name in per_scan},
            **{name: getattr(self, name)[rows] for name in _PER_BOX},
        )

    def of_frames(self, keep: np.ndarray) -> "SequenceTable":
        """With some of the frames, (N,) bool; all scans stay."""
        counts = np.diff(self.first_box)
        rows = np.repeat(keep, counts)
        return self._replace(
            frame_scan=self.frame_scan[keep],
            frame_id=self.frame_id[keep],
            first_box=np.concatenate([[0], np.cumsum(counts[keep])]).astype(np.int64),
            **{name: getattr(self, name)[rows] for name in _PER_BOX},
        )


@dataclass(frozen=True)
class SequenceConfig:
    """What the data sets of drives have in common."""

    root: str = ""  # a folder, or the name of one in $SPARSE3D_DATASETS
    classes: tuple[str, ...] = ()  # boxes of other names give no targets
    sweeps: int = 1  # scans a frame: its own and the ones before; from 2 on, the last feature is the time lag
    bounds: tuple[float, ...] | None = None  # x, y, z min, x, y, z max in metres; None keeps everything
    min_points: int = 1  # training boxes with fewer points are dropped; those of all sweeps count
    every: int = 1  # use every n-th frame of a sequence for training
    skip_missing: bool = False  # go on without frames whose scan is missing, instead of an error
    seed: int = 0  # of the augmentation
    cache_dir: str = ""  # for the index and object database; "" is the root, or the user cache if read-only

    camera_view: ClassVar[bool] = False  # nothing is cut to what a camera sees

    # What each class of ours is called in the files; a class that is not here has the same name there.
    CATEGORIES: ClassVar[dict[str, tuple[str, ...]]] = {}

    # Values a point of a scan: x, y, z, intensity.
    SCAN_CHANNELS: ClassVar[int] = 4

    @property
    def point_channels(self) -> int:
        """Values a point of the frames, with the time lag where there is one."""
        return self.SCAN_CHANNELS + (self.sweeps > 1)

    def __post_init__(self):
        if not self.classes or len(set(self.classes)) != len(self.classes):
            raise ValueError(f"classes must be names, each once, got {self.classes}")
        if self.bounds is not None:
            check_bounds(self.bounds)
        for name in ("sweeps", "every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


Drives = TypeVar("Drives", bound=SequenceConfig, covariant=True)


class SequenceDataset(LabelledFrames[Drives]):
    """Frames of the drives of a split, in the order of the drives and of time.

    `frame.box_info` has "track", "points", "attribute", "difficulty" and "occlusion" of each box (-1
    unknown). `frame.extra` has "sequence" (name), "timestamp" (s), "world_from_lidar" (4, 4) float64,
    "vehicle" (3,), the place of the vehicle's origin in the LiDAR frame, and "other_boxes" (K, 7) with
    "other_categories" (K,), of objects of no class of ours; all of it describes the recorded scene and
    follows no augmentation.

    A split is one that the data set knows, `splits/<name>.txt` in the root with one sequence a line, or the
    name of a single sequence.
    """

    def __init__(
        self,
        config: Drives,
        split: str,
        augment: AugmentConfig | None = None,
        epochs: int | None = None,
    ):
        super().__init__(config, split, epochs)
        self._reported: set[int] = set()  # scans whose bad points have been told of
        self.absent: tuple[str, ...] = ()  # scans of frames that were left out since their file is not there
        self.table = self._complete(self.load_table())
        if augment is not None and config.every > 1:
            drive = self.table.scan_sequence[self.table.frame_scan]
            place = np.arange(len(drive)) - np.searchsorted(drive, drive)  # of a frame in its drive
            self.table = self.table.of_frames(place % config.every == 0)
        self._frame_ids = tuple(text.decode() for text in self.table.frame_id.tolist())
        self._label_of = self._labels_of_categories()
        self.augment_with(augment)

    # ---- what a data set defines ---------------------------------------------------------------------------

    @abstractmethod
    def load_table(self) -> SequenceTable:
        """The part of the data set's table that belongs to `self.split`."""

    @abstractmethod
    def read_scan(self, scan: int) -> np.ndarray:
        """The points of a scan, (P, 3 + F) float32 in its LiDAR frame, finite or not."""

    @abstractmethod
    def missing(self, scans: np.ndarray) -> np.ndarray:
        """(K,) scan numbers -> (K,) bool: its file is not there."""

    # ---- frames --------------------------------------------------------------------------------------------

    @property
    def frame_ids(self) -> tuple[str, ...]:
        return self._frame_ids

    def __len__(self) -> int:
        return len(self.table.frame_scan)

    @property
    def attribute_names(self) -> tuple[str, ...]:
        """Names of the values of `box_info["attribute"]`."""
        return tuple(str(name) for name in self.table.attribute_names)

    @property
    def sequences(self) -> dict[str, range]:
        """The frames of each sequence, by time: `dataset[i] for i in dataset.sequences[name]`."""
        of_frame = self.table.scan_sequence[self.table.frame_scan]
        found, first = np.unique(of_frame, return_index=True)
        ends = [*first[1:], len(of_frame)]
        names = self.table.sequence_names[found]
        return {str(name): range(int(a), int(b)) for name, a, b in zip(names, first, ends, strict=True)}

    def frame(self, index: int) -> LidarFrame:
        frame = self.labelled(index)
        return replace(frame, points=self._points(int(self.table.frame_scan[index])))

    def labelled(self, index: int) -> LidarFrame:
        """The frame at `index` as recorded but for its points, (0, 3): no file is opened."""
        frame_scan = int(self.table.frame_scan[self._checked(index)])
        table, rows = self.table, self._rows(index)
        labels = self._label_of[table.category[rows]]
        ours = rows[labels >= 0]
        boxes = table.boxes[rows]
        frame_id = table.frame_id[index].decode()
        if (boxes[labels >= 0, 3:6] <= 0).any():
            place = f"{self.root}, frame {frame_id}"
            raise DataError(place, "an object to train on has a length, width or height that is not positive")
        other = (labels < 0) & (boxes[:, 3:6] > 0).all(axis=1)
        return LidarFrame(
            frame_id=frame_id,
            points=np.zeros((0, 3), np.float32),
            boxes=table.boxes[ours],
            labels=labels[labels >= 0],
            velocities=table.velocity[ours],
            box_info={name: getattr(table, name)[ours] for name in _BOX_INFO},
            extra={
                "sequence": str(table.sequence_names[table.scan_sequence[frame_scan]]),
                "timestamp": float(table.scan_time[frame_scan] * 1e-9),
                "world_from_lidar": table.world_from_lidar[frame_scan],
                "vehicle": table.vehicle[frame_scan],
                "other_boxes": boxes[other],
                "other_categories": table.category_names[table.category[rows[other]]],
            },
        )

    def labels(self, index: int) -> np.ndarray:
        labels = self._label_of[self.table.category[self._rows(index)]]
        return labels[labels >= 0]

    def difficulty(self, frame: LidarFrame) -> np.ndarray:
        """All boxes may be pasted, unless the data set rates them."""
        return np.maximum(frame.box_info["difficulty"], 0)

    def fingerprint(self) -> str:
        table, config = self.table, self.config
        options = (self.root.resolve(), config.classes, config.sweeps, config.skip_missing)
        digest = hashlib.sha256(repr(options).encode())
        columns = (table.frame_id, table.first_box, table.boxes, table.category, table.velocity)
        for column in (*columns, table.world_from_lidar):
            digest.update(np.ascontiguousarray(column).tobytes())
        return digest.hexdigest() + self.scan_options()

    def scan_options(self) -> str:
        """Options of the config that change the points of a scan, in words."""
        return ""

    def sweeps(self, scan: int) -> range:
        """The scans of a frame whose own scan is `scan`, that one first, then back in time."""
        first = int(np.searchsorted(self.table.scan_sequence, self.table.scan_sequence[scan]))
        return range(scan, max(scan - self.config.sweeps, first - 1), -1)

    def _points(self, scan: int) -> np.ndarray:
        """Points of the sweeps in the LiDAR frame of `scan`, the newest first."""
        table = self.table
        clouds = []
        lidar_from_world = inverse(table.world_from_lidar[scan])
        for other in self.sweeps(scan):
            if other != scan and self.config.skip_missing and self.missing(np.array([other]))[0]:
                continue
            points, dropped = drop_invalid(self.read_scan(other))
            if dropped and other not in self._reported:
                self._reported.add(other)
                name = table.scan_file[other].decode()
                _log.warning("%s: dropped %d points with nan or infinite values", name, dropped)
            if other != scan:
                points = transform_points(points, lidar_from_world @ table.world_from_lidar[other])
            if self.config.sweeps > 1:
                lag = np.float32((table.scan_time[scan] - table.scan_time[other]) * 1e-9)
                points = np.concatenate([points, np.full((len(points), 1), lag, np.float32)], axis=1)
            clouds.append(points)
        return np.concatenate(clouds).astype(np.float32, copy=False)

    def _checked(self, index: int) -> int:
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return index

    def _rows(self, index: int) -> np.ndarray:
        """Rows of the boxes of a frame."""
        index = self._checked(index) % len(self)
        return np.arange(self.table.first_box[index], self.table.first_box[index + 1])

    def _labels_of_categories(self) -> np.ndarray:
        """(C,) int64: the label of each category of the files, -1 for none."""
        class_of = {
            category: label
            for label, name in enumerate(self.config.classes)
            for category in self.config.CATEGORIES.get(name, (name,))
        }
        known = {*self.config.CATEGORIES, *map(str, self.table.category_names)}
        unknown = [name for name in self.config.classes if name not in known]
        if unknown:
            raise ConfigError(f"data.classes {unknown} are not in {self.root}; it has {sorted(known)}")
        names = map(str, self.table.category_names)
        return np.array([class_of.get(name, -1) for name in names], dtype=np.int64).reshape(-1)

    def _complete(self, table: SequenceTable) -> SequenceTable:
        """The table with the frames whose own scan is there; complains about the others."""
        if not len(table.frame_scan):
            raise DataError(self.root, f"the split {self.split!r} has no frames")
        self.table = table
        gone = self.missing(table.frame_scan)
        if not gone.any():
            return table
        self.absent = tuple(name.decode() for name in table.scan_file[table.frame_scan[gone]])
        names = ", ".join(self.absent[:5]) + (", ..." if len(self.absent) > 5 else "")
        message = f"{gone.sum()} of {len(gone)} frames of {self.split!r} lack files: {names}"
        if not self.config.skip_missing or gone.all():
            raise DataError(self.root, f"{message}; see `sparse3d data check`, or set data.skip_missing=true")
        _log.warning("%s: %s; skipped", self.root, message)
        return table.of_frames(~gone)

    # ---- splits --------------------------------------------------------------------------------------------

    def split_file(self) -> list[str] | None:
        """The sequences of splits/<split>.txt, None where there is no such file."""
        path = self.root / "splits" / f"{self.split}.txt"
        if not path.is_file():
            return None
        return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def of_split(table: SequenceTable, names: Sequence[str], where: object, partial: bool) -> SequenceTable:
    """The part of the named sequences. DataError for one that is not there, unless parts are allowed."""
    absent = sorted(set(names) - set(map(str, table.sequence_names)))
    if absent and (not partial or len(absent) == len(set(names))):
        shown = ", ".join(absent[:5]) + (", ..." if len(absent) > 5 else "")
        raise DataError(f"{where}", f"{len(absent)} of {len(set(names))} sequences are not there: {shown}")
    return table.of_sequences(names)


def track_velocities(track: np.ndarray, time: np.ndarray, world: np.ndarray, max_gap: float) -> np.ndarray:
    """Velocities (M, 3) m/s in a frame at rest, of objects seen at `time` (M,) seconds at `world` (M, 3).

    The difference between the sightings of the same `track` (M,) before and after, over their time; between
    one of them and the present where the other is missing. NaN where an object is seen once, or where the
    sightings lie further apart than `max_gap` seconds (twice that for one before and one after).
    """
    order = np.lexsort((time, track))
    track, time, world = track[order], time[order], world[order]
    rows = np.arange(len(track))
    same = track[1:] == track[:-1]
    before = np.where(np.concatenate([[False], same]), rows - 1, rows)[: len(rows)]
    after = np.where(np.concatenate([same, [False]]), rows + 1, rows)[: len(rows)]
    span = time[after] - time[before]
    limit = max_gap * ((after - before) if len(rows) else 1)
    known = (span > 0) & (span <= limit)
    found = np.full((len(track), 3), np.nan)
    found[order[known]] = (world[after] - world[before])[known] / span[known, None]
    return found
