"""nuScenes: ten classes, key frames at 2 Hz, ten sweeps a frame; straight from the released tables.

Expected tree: datasets/README.md. Caesar et al., "nuScenes" (CVPR 2020). The choices of its development kit
are kept: which points are the vehicle's own, how velocities are taken from labels, which categories are a
class.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from sparse3d.data.array_cache import cached_table, stamps_key
from sparse3d.data.nuscenes_splits import scenes_of, version_of
from sparse3d.data.nuscenes_tables import TABLES, VERSION, build_table
from sparse3d.data.sequences import SequenceConfig, SequenceDataset, SequenceTable, of_split
from sparse3d.errors import DataError
from sparse3d.geometry.boxes import wrap_angle
from sparse3d.geometry.rigid import inverse, rigid
from sparse3d.io.nuscenes import read_nuscenes_scan

CATEGORIES = {
    "car": ("vehicle.car",),
    "truck": ("vehicle.truck",),
    "construction_vehicle": ("vehicle.construction",),
    "bus": ("vehicle.bus.bendy", "vehicle.bus.rigid"),
    "trailer": ("vehicle.trailer",),
    "barrier": ("movable_object.barrier",),
    "motorcycle": ("vehicle.motorcycle",),
    "bicycle": ("vehicle.bicycle",),
    "pedestrian": (
        "human.pedestrian.adult",
        "human.pedestrian.child",
        "human.pedestrian.construction_worker",
        "human.pedestrian.police_officer",
    ),
    "traffic_cone": ("movable_object.trafficcone",),
}

# Points nearer to the sensor than this along both x and y, in metres, are the vehicle's own.
_CLOSE = 1.0

# x forward, y left from the sensor's x right, y forward.
_FORWARD_FROM_SENSOR = rigid(np.array([[0.0, 1, 0], [-1, 0, 0], [0, 0, 1]]), np.zeros(3))


@dataclass(frozen=True)
class NuscenesConfig(SequenceConfig):
    """Where nuScenes is and what of it counts."""

    kind: Literal["nuscenes"] = "nuscenes"
    root: str = "nuscenes"  # a folder, or the name of one in $SPARSE3D_DATASETS
    classes: tuple[str, ...] = tuple(CATEGORIES)  # boxes of other names give no targets
    sweeps: int = (
        10  # scans a frame: its own and the ones before; from 2 on, the last feature is the time lag
    )
    version: str = "v1.0-trainval"  # folder of the tables; the splits mini_* and test have their own
    # sparse3d: x forward, y left, intensity in [0, 1]. released: as the files have it, x right, y forward,
    # intensity up to 255, which weights trained elsewhere expect.
    convention: Literal["sparse3d", "released"] = "sparse3d"

    CATEGORIES = CATEGORIES


class NuscenesDataset(SequenceDataset[NuscenesConfig]):
    """Key frames of the scenes of a split: train, val, test, mini_train, mini_val.

    Points are x, y, z, intensity and, with more than one sweep, seconds since their scan (0 for the frame's
    own). Frame ids are sample tokens. The number of points of a box is that of LiDAR and radar, as the
    benchmark counts them.
    """

    def load_table(self) -> SequenceTable:
        config = self.config
        version = version_of(self.split, config.version)
        folder = self.root / version
        if not folder.is_dir():
            found = sorted(path.name for path in self.root.glob("v1.0-*"))
            raise DataError(folder, f"no such tables; {self.root} has {', '.join(found) or 'none'}")
        table = cached_table(
            SequenceTable,
            self.root,
            version,
            config.cache_dir,
            stamps_key(VERSION, [folder / f"{name}.json" for name in TABLES]),
            lambda: build_table(folder),
        )
        if config.convention == "sparse3d":
            table = _turned(table)
        names = self.split_file() or scenes_of(self.split, [str(name) for name in table.sequence_names])
        if names is None:
            raise DataError(
                self.root,
                f"no split {self.split!r}; there are train, val, test, mini_train, mini_val, the names of "
                f"scenes, and the files in {self.root / 'splits'}",
            )
        return of_split(table, names, folder, partial=self.config.skip_missing)

    def read_scan(self, scan: int) -> np.ndarray:
        points = read_nuscenes_scan(self._path(scan))
        points = points[~(np.abs(points[:, :2]) < _CLOSE).all(axis=1)]
        if self.config.convention == "sparse3d":
            x, y = points[:, 0].copy(), points[:, 1].copy()
            points[:, 0], points[:, 1] = y, -x
            points[:, 3] /= 255
        return points

    def missing(self, scans: np.ndarray) -> np.ndarray:
        return np.array([not self._path(int(scan)).is_file() for scan in scans], dtype=bool)

    def scan_options(self) -> str:
        return self.config.convention

    def _path(self, scan: int) -> Path:
        return self.root / self.table.scan_file[scan].decode()


def _turned(table: SequenceTable) -> SequenceTable:
    """A table of the sensor's axes in ours: a quarter turn about z."""
    boxes, velocity, vehicle = table.boxes.copy(), table.velocity.copy(), table.vehicle.copy()
    for rows in (boxes, velocity, vehicle):
        rows[:, 0], rows[:, 1] = rows[:, 1].copy(), -rows[:, 0]
    boxes[:, 6] = wrap_angle(boxes[:, 6] - np.float32(np.pi / 2))
    poses = table.world_from_lidar @ inverse(_FORWARD_FROM_SENSOR)
    return table._replace(boxes=boxes, velocity=velocity, vehicle=vehicle, world_from_lidar=poses)
