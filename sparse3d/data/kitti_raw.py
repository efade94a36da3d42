"""KITTI's raw recordings: drives at 10 Hz with the vehicle's motion, some of them with tracklets.

Expected tree: datasets/README.md. For detection and tracking along a drive, and for training where there are
tracklets.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sparse3d.data.array_cache import cached_table, stamps_key
from sparse3d.data.drives import Drive, Labels, table_of, velocities_of
from sparse3d.data.sequences import SequenceConfig, SequenceDataset, SequenceTable
from sparse3d.errors import DataError
from sparse3d.geometry.rigid import inverse
from sparse3d.io.kitti_raw import Tracklets, read_times, read_tracklets, read_transform, world_from_imu
from sparse3d.io.points import read_bin

# Raise it when the meaning of the table changes.
_VERSION = 1

CATEGORIES = ("Car", "Van", "Truck", "Pedestrian", "Person (sitting)", "Cyclist", "Tram", "Misc")

# Seconds between two labels of an object up to which they give a velocity: two frames.
_MAX_GAP = 0.25


@dataclass(frozen=True)
class KittiRawConfig(SequenceConfig):
    """Where the recordings are and what of them counts."""

    kind: Literal["kitti_raw"] = "kitti_raw"
    root: str = "kitti_raw"  # a folder, or the name of one in $SPARSE3D_DATASETS
    classes: tuple[str, ...] = ("Car", "Pedestrian", "Cyclist")  # boxes of other names give no targets

    CATEGORIES = {name: (name,) for name in CATEGORIES}


class KittiRawDataset(SequenceDataset[KittiRawConfig]):
    """Scans of drives (synced and rectified): all, labelled (those with tracklets), or one by its name, such
    as 2011_09_26_drive_0001.

    Points are x, y, z in the LiDAR frame, intensity in [0, 1] and, with more than one sweep, seconds since
    their scan; the world is the IMU of the drive's first frame. Frame ids are `drive/number`. Tracklets cover
    what the left color camera sees.
    """

    def load_table(self) -> SequenceTable:
        drives = self._drives()
        stamped = [drive / part for drive in drives for part in (_SCANS, _TIMES, _OXTS, _TRACKLETS)]
        return cached_table(
            SequenceTable,
            self.root,
            f"kitti_raw {self.split}",
            self.config.cache_dir,
            stamps_key(_VERSION, stamped),
            lambda: table_of([_read_drive(self.root, drive) for drive in drives], CATEGORIES),
        )

    def read_scan(self, scan: int) -> np.ndarray:
        return read_bin(self._path(scan))

    def missing(self, scans: np.ndarray) -> np.ndarray:
        return np.array([not self._path(int(scan)).is_file() for scan in scans], dtype=bool)

    def _path(self, scan: int) -> Path:
        return self.root / self.table.scan_file[scan].decode()

    def _drives(self) -> list[Path]:
        found = {path.name.removesuffix("_sync"): path for path in self.root.glob("*/*_drive_*_sync")}
        names = self.split_file()
        if names is None and self.split == "all":
            names = sorted(found)
        if names is None and self.split == "labelled":
            names = sorted(name for name, path in found.items() if (path / _TRACKLETS).is_file())
        names = [name.removesuffix("_sync") for name in (names if names is not None else [self.split])]
        absent = [name for name in names if name not in found]
        if absent or not names:
            raise DataError(
                self.root,
                f"no split or drive {', '.join(absent[:5]) or self.split}; there are 'all', 'labelled', the "
                f"files in {self.root / 'splits'}, and the drives {', '.join(sorted(found)[:5]) or '(none)'}",
            )
        return [found[name] for name in names]


_SCANS, _TIMES = "velodyne_points/data", "velodyne_points/timestamps.txt"
_OXTS, _TRACKLETS = "oxts/data", "tracklet_labels.xml"


def _read_drive(root: Path, folder: Path) -> Drive:
    """The frames of a drive are those with a scan; a few drives lack some in the middle. Raises DataError for
    missing and broken files."""
    scans = folder / _SCANS
    frames = np.array(sorted(int(p.stem) for p in scans.glob("*.bin") if p.stem.isdecimal()), np.int64)
    if not len(frames):
        raise DataError(scans, "no scans (0000000000.bin)")
    lines = read_times(folder / _TIMES)
    untimed = [int(n) for n in frames if n >= len(lines) or lines[n] is None]
    if untimed:
        raise DataError(folder / _TIMES, f"no time of frame {untimed[0]} and {len(untimed) - 1} others")
    times = np.array([lines[number] for number in frames], dtype=np.int64)
    imu_from_velo = inverse(read_transform(folder.parent / "calib_imu_to_velo.txt"))
    poses = world_from_imu([folder / _OXTS / f"{number:010d}.txt" for number in frames]) @ imu_from_velo
    path, name = folder / _TRACKLETS, folder.name.removesuffix("_sync")
    labels = _labels(read_tracklets(path), frames) if path.is_file() else Labels.none()
    return Drive(
        name,
        [f"{scans.relative_to(root).as_posix()}/{number:010d}.bin" for number in frames],
        [f"{name}/{number:010d}" for number in frames],
        times,
        poses,
        labels._replace(velocity=velocities_of(labels, times, poses, _MAX_GAP)),
    )


def _labels(tracklets: Tracklets, frames: np.ndarray) -> Labels:
    """The tracklets of the frames that have a scan."""
    rows = np.flatnonzero(np.isin(tracklets.frame, frames))
    rows = rows[np.argsort(tracklets.frame[rows], kind="stable")]
    unknown = np.full(len(rows), -1, dtype=np.int64)
    return Labels(
        scan=np.searchsorted(frames, tracklets.frame[rows]),
        boxes=tracklets.boxes[rows],
        category=tracklets.name[rows],
        track=tracklets.track[rows],
        velocity=np.zeros((0, 2)),
        points=unknown,
        difficulty=unknown,
    )
