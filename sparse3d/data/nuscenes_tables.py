"""The released tables of nuScenes as one `SequenceTable`: every LIDAR_TOP scan of a version, and the labels.

Boxes and poses are in the sensor's own axes here: x right, y forward, z up.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparse3d.data.sequences import SequenceTable, track_velocities
from sparse3d.errors import DataError
from sparse3d.geometry.rigid import inverse, is_rigid, rigid, rotation_from_quaternion
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
        *("sample_token", "instance_token", "attribute_tokens", "translation", "size", "rotation"),
        *("num_lidar_pts", "num_radar_pts"),
    ),
}

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

    def _poses(self, name: str, wanted: Any) -> dict[str, np.ndarray]:
        found = {}
        for row in self.rows(name):
            if wanted(row):
                try:
                    pose = rigid(rotation_from_quaternion(row["rotation"]), row["translation"])
                    assert is_rigid(pose)
                except (ValueError, TypeError, AssertionError):
                    message = f"{row['token']} has a rotation or translation that is none"
                    raise DataError(self.folder / f"{name}.json", message) from None
                found[row["token"]] = pose
        return found

    def _scans(self) -> Iterator[_Scan]:
        for row in self.rows("sample_data"):
            if row["calibrated_sensor_token"] in self.sensors:
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


class _Labels(NamedTuple):
    """Annotations, a row each, in a frame that stands still."""

    frame: np.ndarray  # (M,) int64
    centre: np.ndarray  # (M, 3)
    size: np.ndarray  # (M, 3) length, width, height
    rotation: np.ndarray  # (M, 4) quaternion
    instance: np.ndarray  # (M,) int64
    attribute: np.ndarray  # (M,) int64
    points: np.ndarray  # (M,) int64, of LiDAR and radar


def build_table(folder: Path) -> SequenceTable:
    """Read the tables of a version. Raises DataError for missing and broken ones."""
    tables = _Tables(folder)
    scans = tables.scans
    world_from_ego = _stacked([tables.find("ego_pose", tables.egos, scan.ego_pose) for scan in scans], (4, 4))
    ego_from_lidar = _stacked([tables.sensors[scan.sensor] for scan in scans], (4, 4))
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
        category_names=np.array([name for _, name in categories.values()], dtype=np.str_),
        attribute_names=np.array([name for _, name in attributes.values()], dtype=np.str_),
    )


def _read_labels(
    tables: _Tables, samples: list[str], instances: Mapping[str, Any], attributes: Mapping[str, Any]
) -> _Labels:
    """The annotations of the frames, those of the first frame first."""
    frame_of = {sample: frame for frame, sample in enumerate(samples)}
    rows: list[tuple[Any, ...]] = []
    for row in tables.rows("sample_annotation"):
        frame = frame_of.get(row["sample_token"])
        if frame is None:  # of a sample without a scan; one of no sample at all is a fault
            tables.find("sample", tables.samples, row["sample_token"])
            continue
        instance = tables.find("instance", instances, row["instance_token"])[0]
        known = row["attribute_tokens"]
        attribute = tables.find("attribute", attributes, known[0])[0] if known else -1
        points = row["num_lidar_pts"] + row["num_radar_pts"]
        rows.append((frame, row["translation"], row["size"], row["rotation"], instance, attribute, points))
    rows.sort(key=lambda row: row[0])
    columns = list(zip(*rows, strict=True)) or [()] * 7
    path = tables.folder / "sample_annotation.json"
    try:
        frame, centre, size, rotation, instance, attribute, points = columns
        found = _Labels(
            frame=np.array(frame, dtype=np.int64),
            centre=_stacked(centre, (3,)),
            size=_stacked(size, (3,))[:, [1, 0, 2]],
            rotation=_stacked(rotation, (4,)),
            instance=np.array(instance, dtype=np.int64),
            attribute=np.array(attribute, dtype=np.int64),
            points=np.array(points, dtype=np.int64),
        )
        rotation_from_quaternion(found.rotation)
    except (ValueError, TypeError) as error:
        raise DataError(path, f"an annotation has a place, size or rotation that is none: {error}") from error
    if not np.isfinite(np.concatenate([found.centre, found.size], axis=1)).all():
        raise DataError(path, "an annotation has a place or size that is not finite")
    return found


def _stacked(rows: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Rows of numbers as one array, of the right shape also where there is none."""
    return np.array(rows, dtype=np.float64).reshape(-1, *shape) if len(rows) else np.zeros((0, *shape))
