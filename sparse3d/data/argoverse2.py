"""Argoverse 2 sensor data set: 26 classes, scans at 10 Hz in the vehicle's frame, poses in the city.

Expected tree: datasets/README.md. Wilson et al., "Argoverse 2" (arXiv 2301.00493). Read through pyarrow
(extra `datasets`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sparse3d.data.array_cache import cached_table, stamps_key
from sparse3d.data.drives import Drive, Labels, table_of, velocities_of
from sparse3d.data.sequences import SequenceConfig, SequenceDataset, SequenceTable
from sparse3d.errors import DataError
from sparse3d.geometry.rigid import rigid, rotation_from_quaternion
from sparse3d.io.arrow import read_feather

# Raise it when the meaning of the table changes.
_VERSION = 1

CLASSES = (
    *("REGULAR_VEHICLE", "PEDESTRIAN", "BICYCLIST", "MOTORCYCLIST", "WHEELED_RIDER", "BOLLARD"),
    *("CONSTRUCTION_CONE", "SIGN", "CONSTRUCTION_BARREL", "STOP_SIGN", "MOBILE_PEDESTRIAN_CROSSING_SIGN"),
    *("LARGE_VEHICLE", "BUS", "BOX_TRUCK", "TRUCK", "VEHICULAR_TRAILER", "TRUCK_CAB", "SCHOOL_BUS"),
    *("ARTICULATED_BUS", "MESSAGE_BOARD_TRAILER", "BICYCLE", "MOTORCYCLE", "WHEELED_DEVICE", "WHEELCHAIR"),
    *("STROLLER", "DOG"),
)

# Labelled too, but without a place in the benchmark.
OTHER_CATEGORIES = ("ANIMAL", "OFFICIAL_SIGNALER", "RAILED_VEHICLE", "TRAFFIC_LIGHT_TRAILER")
CATEGORIES = (*CLASSES, *OTHER_CATEGORIES)

# Seconds between two labels of an object up to which they give a velocity: labels are 0.1 s apart, and
# further where a scan is missing.
_MAX_GAP = 0.25


@dataclass(frozen=True)
class Argoverse2Config(SequenceConfig):
    """Where Argoverse 2 is and what of it counts."""

    kind: Literal["argoverse2"] = "argoverse2"
    root: str = "argoverse2"  # a folder, or the name of one in $SPARSE3D_DATASETS
    classes: tuple[str, ...] = CLASSES  # boxes of other names give no targets

    CATEGORIES = {name: (name,) for name in CATEGORIES}


class Argoverse2Dataset(SequenceDataset[Argoverse2Config]):
    """Scans of the logs of a split: train, val, test (folders of the root).

    Points are x, y, z in the vehicle's frame (its origin on the ground below the rear axle), intensity in
    [0, 1] and, with more than one sweep, seconds since their scan. The files are free of the motion during a
    scan. They give no velocities: those are taken from the labels before and after. Frame ids are
    `log/timestamp`.
    """

    def load_table(self) -> SequenceTable:
        logs = self._logs()
        stamped = [p for log in logs for p in (log / _LABELS, log / _POSES, log / _SCANS)]
        return cached_table(
            SequenceTable,
            self.root,
            f"argoverse2 {self.split}",
            self.config.cache_dir,
            stamps_key(_VERSION, stamped),
            lambda: table_of([_read_log(self.root, log) for log in logs], CATEGORIES),
        )

    def read_scan(self, scan: int) -> np.ndarray:
        return read_argoverse2_scan(self._path(scan))

    def missing(self, scans: np.ndarray) -> np.ndarray:
        return np.array([not self._path(int(scan)).is_file() for scan in scans], dtype=bool)

    def _path(self, scan: int) -> Path:
        return self.root / self.table.scan_file[scan].decode()

    def _logs(self) -> list[Path]:
        """The folders of the split's logs, by name."""
        names = self.split_file()
        if names is None:
            folder = self.root / self.split
            if folder.is_dir():
                return sorted(path for path in folder.iterdir() if path.is_dir())
            names = [self.split]
        found = [sorted(self.root.glob(f"*/{name}")) for name in names if name and "/" not in name]
        absent = [name for name, paths in zip(names, found, strict=False) if not paths]
        if absent or not found:
            there = sorted(path.name for path in self.root.iterdir() if path.is_dir())
            raise DataError(
                self.root / self.split,
                f"no such split or log ({', '.join(absent[:5])}); {self.root} has "
                f"{', '.join(there) or 'none'}",
            )
        return [paths[0] for paths in found]


_LABELS, _POSES, _SCANS = "annotations.feather", "city_SE3_egovehicle.feather", "sensors/lidar"
_QUATERNION, _PLACE = ("qw", "qx", "qy", "qz"), ("tx_m", "ty_m", "tz_m")
_SIZE = ("length_m", "width_m", "height_m")


def read_argoverse2_scan(path: Path) -> np.ndarray:
    """A scan -> (P, 4) float32: x, y, z in the vehicle's frame, metres, and intensity in [0, 1]."""
    columns = read_feather(path, ("x", "y", "z", "intensity"))
    points = np.stack(list(columns.values()), axis=1).astype(np.float32)
    points[:, 3] /= 255
    return points


def _read_log(root: Path, log: Path) -> Drive:
    """A log. A scan that is labelled but not there is a frame all the same: it shows as missing.

    Raises DataError for missing and broken files.
    """
    files = [path for path in (log / _SCANS).glob("*.feather") if path.stem.isdecimal()]
    scanned = np.array([int(path.stem) for path in files], dtype=np.int64)
    columns = _read_labels(log / _LABELS)
    times = np.unique(np.concatenate([scanned, columns["timestamp_ns"]]))
    if not len(times):
        raise DataError(log / _SCANS, "no scans (TIMESTAMP.feather)")
    poses = _poses_at(log / _POSES, times)
    order = np.argsort(columns["timestamp_ns"], kind="stable")
    columns = {name: column[order] for name, column in columns.items()}
    rotation = _rotation(log / _LABELS, columns)
    labels = Labels(
        scan=np.searchsorted(times, columns["timestamp_ns"]),
        boxes=np.column_stack(
            [*(columns[name] for name in (*_PLACE, *_SIZE)), np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])]
        ),
        category=columns["category"],
        track=np.unique(columns["track_uuid"], return_inverse=True)[1].astype(np.int64),
        velocity=np.zeros((0, 2)),
        points=columns["num_interior_pts"].astype(np.int64),
        difficulty=np.full(len(order), -1, dtype=np.int64),
    )
    return Drive(
        log.name,
        [f"{log.relative_to(root).as_posix()}/{_SCANS}/{time}.feather" for time in times],
        [f"{log.name}/{time}" for time in times],
        times,
        poses,
        labels._replace(velocity=velocities_of(labels, times, poses, _MAX_GAP)),
    )


def _read_labels(path: Path) -> dict[str, np.ndarray]:
    """The columns of a log's labels; none of them where it has no such file, as in the test split."""
    numbers = (*_SIZE, *_QUATERNION, *_PLACE)
    names = ("timestamp_ns", "num_interior_pts", "track_uuid", "category", *numbers)
    if not path.is_file():
        kinds = (np.int64, np.int64, np.str_, np.str_, *(np.float64 for _ in numbers))
        return {name: np.zeros(0, kind) for name, kind in zip(names, kinds, strict=True)}
    columns = read_feather(path, names)
    bad = [name for name in numbers if not np.isfinite(columns[name]).all()]
    if bad:
        raise DataError(path, f"column {bad[0]} holds what is not finite")
    return columns


def _poses_at(path: Path, times: np.ndarray) -> np.ndarray:
    """(S, 4, 4) city from vehicle at the times of the scans, which the file has exactly."""
    columns = read_feather(path, ("timestamp_ns", *_QUATERNION, *_PLACE))
    order = np.argsort(columns["timestamp_ns"])
    known = columns["timestamp_ns"][order]
    place = np.minimum(np.searchsorted(known, times), max(len(known) - 1, 0))
    absent = times[known[place] != times] if len(known) else times
    if len(absent):
        raise DataError(path, f"no pose at {absent[0]} and {len(absent) - 1} other times of scans")
    rows = order[place]
    translation = np.stack([columns[name][rows] for name in _PLACE], axis=1)
    if not np.isfinite(translation).all():
        raise DataError(path, "a pose is not finite")
    return rigid(_rotation(path, {name: columns[name][rows] for name in _QUATERNION}), translation)


def _rotation(path: Path, columns: dict[str, np.ndarray]) -> np.ndarray:
    quaternion = np.stack([columns[name] for name in _QUATERNION], axis=1).reshape(-1, 4)
    try:
        return rotation_from_quaternion(quaternion)
    except ValueError as error:
        raise DataError(path, str(error)) from error
