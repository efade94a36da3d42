"""Waymo Open Dataset, perception, in the parquet files of its second release: no TensorFlow.

Expected tree: datasets/README.md. Sun et al., "Scalability in Perception for Autonomous Driving" (arXiv
1912.04838). Read through pyarrow (extra `datasets`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sparse3d.data.array_cache import cached_table, stamps_key
from sparse3d.data.drives import Drive, Labels, table_of
from sparse3d.data.sequences import SequenceConfig, SequenceDataset, SequenceTable
from sparse3d.errors import DataError
from sparse3d.io.arrow import ParquetRows
from sparse3d.io.reading import read_bytes
from sparse3d.io.waymo import LASERS, OBJECT, TIME, VEHICLE_POSE, SegmentFiles, matrices

# Raise it when the meaning of the table changes.
_VERSION = 1

# In the order of the numbers in the files.
CATEGORIES = ("Unknown", "Vehicle", "Pedestrian", "Sign", "Cyclist")

_FOLDERS = {"train": "training", "val": "validation", "test": "testing"}


@dataclass(frozen=True)
class WaymoConfig(SequenceConfig):
    """Where Waymo is and what of it counts."""

    kind: Literal["waymo"] = "waymo"
    root: str = "waymo"  # a folder, or the name of one in $SPARSE3D_DATASETS
    classes: tuple[str, ...] = ("Vehicle", "Pedestrian", "Cyclist")  # boxes of other names give no targets
    lasers: tuple[Literal["TOP", "FRONT", "SIDE_LEFT", "SIDE_RIGHT", "REAR"], ...] = (
        *("TOP", "FRONT", "SIDE_LEFT", "SIDE_RIGHT", "REAR"),
    )
    returns: int = 2  # of each pulse: 1, the strongest, or 2

    CATEGORIES = {name: (name,) for name in CATEGORIES}
    SCAN_CHANNELS = 5  # elongation besides

    def __post_init__(self):
        super().__post_init__()
        if not self.lasers or len(set(self.lasers)) != len(self.lasers):
            raise ValueError(f"lasers must be names, each once, got {self.lasers}")
        if self.returns not in (1, 2):
            raise ValueError(f"returns must be 1 or 2, got {self.returns}")


class WaymoDataset(SequenceDataset[WaymoConfig]):
    """Frames of the segments of a split: train, val, test (the folders training, validation, testing).

    Points are x, y, z in the vehicle's frame, tanh of the intensity, elongation and, with more than one
    sweep, seconds since their scan. `difficulty` of a box is the level that a labeller gave (1, 2; -1 none).
    Frame ids are `segment/timestamp`. Points that `datasets/prepare_waymo.py` decoded are read in place of
    the range images where `lasers` and `returns` are the defaults: much faster.
    """

    def load_table(self) -> SequenceTable:
        files = self._segments()
        stamped = [
            path.parent.parent / part / path.name for path in files for part in ("vehicle_pose", _LABELS)
        ]
        return cached_table(
            SequenceTable,
            self.root,
            f"waymo {self.split}",
            self.config.cache_dir,
            stamps_key(_VERSION, stamped),
            lambda: table_of([_read_segment(self.root, path) for path in files], CATEGORIES),
        )

    def read_scan(self, scan: int) -> np.ndarray:
        folder, segment, time = self._place(scan)
        decoded = points_file(folder, segment, time)
        if self._default_points and decoded.is_file():
            return read_decoded(decoded)
        pose = self.table.world_from_lidar[scan]
        return SegmentFiles(folder, segment).points(time, pose, self.config.lasers, self.config.returns)

    def missing(self, scans: np.ndarray) -> np.ndarray:
        found: dict[Path, bool] = {}
        gone = np.zeros(len(scans), dtype=bool)
        for i, scan in enumerate(scans):
            folder, segment, time = self._place(int(scan))
            path = folder / "lidar" / f"{segment}.parquet"
            there = found.setdefault(path, path.is_file())
            gone[i] = not there and not (
                self._default_points and points_file(folder, segment, time).is_file()
            )
        return gone

    def scan_options(self) -> str:
        return repr((self.config.lasers, self.config.returns))

    @property
    def _default_points(self) -> bool:
        return self.config.lasers == tuple(LASERS) and self.config.returns == 2

    def _place(self, scan: int) -> tuple[Path, str, int]:
        """The folder, segment and time (microseconds) of a scan."""
        folder, segment = self.table.scan_file[scan].decode().split("/")
        return self.root / folder, segment, int(self.table.scan_time[scan]) // 1000

    def _segments(self) -> list[Path]:
        """The vehicle_pose files of the split's segments, by name."""
        names = self.split_file()
        folder = self.root / _FOLDERS.get(self.split, self.split)
        if names is None and folder.is_dir():
            found = sorted((folder / "vehicle_pose").glob("*.parquet"))
            if not found:
                raise DataError(folder / "vehicle_pose", "no segments (SEGMENT.parquet)")
            return found
        names = names if names is not None else [self.split]
        paths = [
            sorted(self.root.glob(f"*/vehicle_pose/{name}.parquet")) for name in names if "/" not in name
        ]
        absent = [name for name, found in zip(names, paths, strict=False) if not found]
        if absent or not paths:
            there = sorted(path.name for path in self.root.iterdir() if path.is_dir())
            raise DataError(
                folder,
                f"no such split or segment ({', '.join(absent[:5])}); {self.root} has "
                f"{', '.join(there) or 'none'}",
            )
        return [found[0] for found in paths]


def points_file(folder: Path, segment: str, time: int) -> Path:
    """Where the decoded points of a frame are kept: (P, 5) float32."""
    return folder / "points" / segment / f"{time}.bin"


def read_decoded(path: Path) -> np.ndarray:
    """Points that `prepare_waymo.py` wrote."""
    data = read_bytes(path)
    if len(data) % 20:
        raise DataError(path, f"{len(data)} bytes are not whole points of 5 float32 (20 bytes); truncated?")
    return np.frombuffer(data, dtype="<f4").reshape(-1, 5).copy()


_LABELS = "lidar_box"
_BOX = "[LiDARBoxComponent]."
_GEOMETRY = [f"{_BOX}box.{part}.{axis}" for part in ("center", "size") for axis in "xyz"] + [
    f"{_BOX}box.heading"
]
_TYPE, _COUNT = f"{_BOX}type", f"{_BOX}num_lidar_points_in_box"
_SPEED, _DIFFICULTY = [f"{_BOX}speed.{axis}" for axis in "xyz"], f"{_BOX}difficulty_level.detection"


def _read_segment(root: Path, path: Path) -> Drive:
    """Poses and labels of a segment, found by its vehicle_pose file. Raises DataError for missing and broken
    files."""
    columns = ParquetRows(path).columns((TIME, VEHICLE_POSE))
    order = np.argsort(columns[TIME])
    times, poses = columns[TIME][order].astype(np.int64), matrices(path, columns[VEHICLE_POSE])[order]
    folder, name = path.parent.parent, path.stem
    # The split testing has no labels at all.
    labelled = (folder / _LABELS).is_dir()
    return Drive(
        name,
        [f"{folder.relative_to(root).as_posix()}/{name}"] * len(times),
        [f"{name}/{time}" for time in times],
        times * 1000,
        poses,
        _read_labels(folder / _LABELS / path.name, times, poses) if labelled else Labels.none(),
    )


def _read_labels(path: Path, times: np.ndarray, poses: np.ndarray) -> Labels:
    names = (TIME, OBJECT, *_GEOMETRY, _TYPE, _COUNT, *_SPEED, _DIFFICULTY)
    found = ParquetRows(path).columns(names, with_gaps=(*_SPEED, _DIFFICULTY))
    order = np.argsort(found[TIME], kind="stable")
    found = {name: column[order] for name, column in found.items()}
    scan = np.minimum(np.searchsorted(times, found[TIME]), max(len(times) - 1, 0))
    if len(scan) and (not len(times) or (times[scan] != found[TIME]).any()):
        raise DataError(path, "labels a time that the segment's vehicle_pose file does not have")
    boxes = np.stack([found[name] for name in _GEOMETRY], axis=1).astype(np.float64)
    kinds = found[_TYPE].astype(np.int64)
    if not np.isfinite(boxes).all() or ((kinds < 0) | (kinds >= len(CATEGORIES))).any():
        raise DataError(path, "a box is not finite, or of an unknown type")
    # Speeds are along the axes of the world.
    world = _without_gap(np.stack([found[name] for name in _SPEED], axis=1))
    velocity = (np.swapaxes(poses[scan, :3, :3], 1, 2) @ world[..., None])[:, :2, 0]
    level = np.nan_to_num(found[_DIFFICULTY]).astype(np.int64)
    return Labels(
        scan=scan,
        boxes=boxes,
        category=np.array(CATEGORIES, dtype=np.str_)[kinds],
        track=np.unique(found[OBJECT], return_inverse=True)[1].astype(np.int64),
        velocity=velocity,
        points=found[_COUNT].astype(np.int64),
        difficulty=np.where(level > 0, level, -1),
    )


def _without_gap(world: np.ndarray) -> np.ndarray:
    """Speeds (M, 3) whose z, which older labels lack, is 0 where it is not known."""
    return np.column_stack([world[:, :2], np.nan_to_num(world[:, 2])])
