"""The released tables of nuScenes as one `SequenceTable`: every LIDAR_TOP scan of a version, and the labels.

Boxes and poses are in the sensor's own axes here: x right, y forward, z up.
"""

import math
from array import array
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparse3d.data.sequences import SequenceTable, track_velocities
from sparse3d.errors import DataError
from sparse3d.geometry.rigid import inverse, rigid, rotation_from_quaternion
from sparse3d.io.nuscenes import read_rows

# Raise it when the meaning of the table changes.
VERSION = 1

# The tables that are read, and what is needed of their records.
TABLES: Mapping[str, tuple[str, ...]] = {
    "sensor": ("token", "channel"),
    "calibrated_sensor": ("token", "sensor_token", "translation", "rotation"),
    "category": ("token", "name"),
    "attribute": ("token", "name"),
    "instance": ("token", "category_token"),
    "scene": ("token", "name"),
    "sample": ("token", "timestamp", "scene_token"),
    "sample_data": (
        *("token", "sample_token", "ego_pose_token", "calibrated_sensor_token", "filename", "timestamp"),
        "is_key_frame",
    ),
    "ego_pose": ("token", "translation", "rotation"),
    "sample_annotation": (
        *("token", "sample_token", "instance_token", "attribute_tokens", "translation", "size", "rotation"),
        *("num_lidar_pts", "num_radar_pts"),
    ),
}

# How much of an object the six cameras see (token of the table `visibility`: level) as a level of occlusion.
_OCCLUSION = {"1": 3, "2": 2, "3": 1, "4": 0}  # 0-40 %, 40-60 %, 60-80 %, 80-100 %

# Seconds between two labels of an object up to which they give a velocity (the development kit's choice).
_MAX_GAP = 1.5


class _Scan(NamedTuple):
    scene: str
    time: int  # microseconds
    sample: str
    ego_pose: str
    sensor: str
    file: str
    is_key: bool


class _Tables:
    """The tables of a folder; a token that leads nowhere is a DataError."""

    def __init__(self, folder: Path):
        self.folder = folder
        lidars = {row["token"] for row in self.rows("sensor") if row["channel"] == "LIDAR_TOP"}
        self.sensors = self._poses("calibrated_sensor", lambda row: row["sensor_token"] in lidars)
        self.scenes = {row["token"]: str(row["name"]) for row in self.rows("scene")}
        self.samples = {row["token"]: (row["scene_token"], row["timestamp"]) for row in self.rows("sample")}
        self.scans = sorted(self._scans(), key=lambda scan: (scan.scene, scan.time))
        wanted = {scan.ego_pose for scan in self.scans}
        self.egos = self._poses("ego_pose", lambda row: row["token"] in wanted)

    def rows(self, name: str) -> Iterator[dict[str, Any]]:
        return read_rows(self.folder / f"{name}.json", TABLES[name])

    def find(self, name: str, records: Mapping[str, Any], token: Any) -> Any:
        try:
            return records[token]
        except (KeyError, TypeError):
            raise DataError(
                self.folder / f"{name}.json", f"no record {token!r}, which another table refers to"
            ) from None

    def _poses(self, name: str, wanted: Callable[[dict[str, Any]], bool]) -> "_Poses":
        path = self.folder / f"{name}.json"
        numbers = _Numbers(path, {"rotation": 4, "translation": 3})
        place: dict[str, int] = {}
        for row in self.rows(name):
            if wanted(row):
                place[row["token"]] = len(place)
                numbers.add(row)
        rows = numbers.rows()
        try:
            return _Poses(place, rigid(rotation_from_quaternion(rows[:, :4]), rows[:, 4:]))
        except ValueError as error:
            raise DataError(path, str(error)) from error

    def _scans(self) -> Iterator[_Scan]:
        for row in self.rows("sample_data"):
            if row["calibrated_sensor_token"] in self.sensors.place:
                sample = self.find("sample", self.samples, row["sample_token"])
                yield _Scan(
                    scene=self.find("scene", self.scenes, sample[0]),
                    time=int(row["timestamp"]),
                    sample=row["sample_token"],
                    ego_pose=row["ego_pose_token"],
                    sensor=row["calibrated_sensor_token"],
                    file=row["filename"],
                    is_key=bool(row["is_key_frame"]),
                )


class _Poses(NamedTuple):
    """(K, 4, 4) poses and the row of each token in them."""

    place: Mapping[str, int]
    matrices: np.ndarray


class _Numbers:
    """Numbers of many records, packed: the largest tables have millions of them."""

    def __init__(self, path: Path, fields: Mapping[str, int]):
        self.path, self.fields = path, fields
        self._values = array("d")

    def add(self, record: dict[str, Any]) -> None:
        """Keep the fields of a record. DataError for other than so many finite numbers each."""
        for key, count in self.fields.items():
            try:
                values = [float(value) for value in record[key]]
            except (TypeError, ValueError):
                values = []
            if len(values) != count or not all(map(math.isfinite, values)):
                raise DataError(
                    self.path, f"{record['token']!r} has {key} {record[key]}, expected {count} finite numbers"
                )
            self._values.extend(values)

    def rows(self) -> np.ndarray:
        """(K, sum of the fields' counts) float64, a row a record."""
        return np.array(self._values, dtype=np.float64).reshape(-1, sum(self.fields.values()))


class _Labels(NamedTuple):
    """Annotations, a row each, in a frame that stands still."""

    frame: np.ndarray  # (M,) int64
    centre: np.ndarray  # (M, 3)
    size: np.ndarray  # (M, 3) length, width, height
    rotation: np.ndarray  # (M, 4) quaternion
    instance: np.ndarray  # (M,) int64
    attribute: np.ndarray  # (M,) int64
    points: np.ndarray  # (M,) int64, of LiDAR and radar
    occlusion: np.ndarray  # (M,) int64


def build_table(folder: Path) -> SequenceTable:
    """Read the tables of a version. Raises DataError for missing and broken ones."""
    tables = _Tables(folder)
    scans = tables.scans
    egos, sensors = tables.egos, tables.sensors
    ego = np.array([tables.find("ego_pose", egos.place, scan.ego_pose) for scan in scans], dtype=np.int64)
    sensor = np.array([sensors.place[scan.sensor] for scan in scans], dtype=np.int64)
    world_from_ego, ego_from_lidar = egos.matrices[ego], sensors.matrices[sensor]
    world_from_lidar = world_from_ego @ ego_from_lidar
    frame_scan = np.array([row for row, scan in enumerate(scans) if scan.is_key], dtype=np.int64)
    samples = [scans[row].sample for row in frame_scan]

    instances = {row["token"]: (i, row["category_token"]) for i, row in enumerate(tables.rows("instance"))}
    categories = {row["token"]: (i, str(row["name"])) for i, row in enumerate(tables.rows("category"))}
    attributes = {row["token"]: (i, str(row["name"])) for i, row in enumerate(tables.rows("attribute"))}
    category_of = np.array(
        [tables.find("category", categories, category)[0] for _, category in instances.values()], np.int64
    )
    labels = _read_labels(tables, samples, instances, attributes)
    lidar_from_world = inverse(world_from_lidar)[frame_scan][labels.frame]
    rotation = lidar_from_world[:, :3, :3]
    turned = rotation @ rotation_from_quaternion(labels.rotation)
    centre = (rotation @ labels.centre[..., None])[..., 0] + lidar_from_world[:, :3, 3]
    times = np.array([tables.samples[sample][1] for sample in samples], dtype=np.float64) * 1e-6
    moved = track_velocities(labels.instance, times[labels.frame], labels.centre, _MAX_GAP)

    names = np.array(sorted(tables.scenes.values()), dtype=np.str_)
    counts = np.bincount(labels.frame, minlength=len(samples))
    return SequenceTable(
        sequence_names=names,
        scan_sequence=np.searchsorted(names, np.array([scan.scene for scan in scans], dtype=np.str_)),
        scan_time=np.array([scan.time for scan in scans], dtype=np.int64) * 1000,
        world_from_lidar=world_from_lidar,
        vehicle=inverse(ego_from_lidar)[:, :3, 3].astype(np.float32),
        scan_file=np.array([scan.file.encode() for scan in scans], dtype=np.bytes_),
        frame_scan=frame_scan,
        frame_id=np.array([sample.encode() for sample in samples], dtype=np.bytes_),
        first_box=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        boxes=np.column_stack([centre, labels.size, np.arctan2(turned[:, 1, 0], turned[:, 0, 0])]).astype(
            np.float32
        ),
        category=category_of[labels.instance],
        velocity=(rotation @ moved[..., None])[:, :2, 0].astype(np.float32),
        track=labels.instance,
        points=labels.points,
        attribute=labels.attribute,
        difficulty=np.full(len(labels.frame), -1, dtype=np.int64),
        occlusion=labels.occlusion,
        category_names=np.array([name for _, name in categories.values()], dtype=np.str_),
        attribute_names=np.array([name for _, name in attributes.values()], dtype=np.str_),
    )


def _read_labels(
    tables: _Tables, samples: list[str], instances: Mapping[str, Any], attributes: Mapping[str, Any]
) -> _Labels:
    """The annotations of the frames, those of the first frame first."""
    frame_of = {sample: frame for frame, sample in enumerate(samples)}
    path = tables.folder / "sample_annotation.json"
    numbers = _Numbers(path, {"translation": 3, "size": 3, "rotation": 4})
    whole = array("q")  # frame, instance, attribute, points, occlusion of each
    for row in tables.rows("sample_annotation"):
        frame = frame_of.get(row["sample_token"])
        if frame is None:  # of a sample without a scan; one of no sample at all is a fault
            tables.find("sample", tables.samples, row["sample_token"])
            continue
        instance = tables.find("instance", instances, row["instance_token"])[0]
        known = row["attribute_tokens"]
        attribute = tables.find("attribute", attributes, known[0])[0] if known else -1
        numbers.add(row)
        points = row["num_lidar_pts"] + row["num_radar_pts"]
        hidden = _OCCLUSION.get(str(row.get("visibility_token")), -1)
        whole.extend((frame, instance, attribute, points, hidden))
    frame, instance, attribute, points, occlusion = np.array(whole, dtype=np.int64).reshape(-1, 5).T
    order = np.argsort(frame, kind="stable")
    rows = numbers.rows()[order]
    if not (np.abs(rows[:, 6:]).max(axis=1, initial=0) > 0).all():
        raise DataError(path, "an annotation has a rotation of length 0, which is none")
    return _Labels(
        frame=frame[order],
        centre=rows[:, :3],
        size=rows[:, [4, 3, 5]],
        rotation=rows[:, 6:],
        instance=instance[order],
        attribute=attribute[order],
        points=points[order],
        occlusion=occlusion[order],
    )
