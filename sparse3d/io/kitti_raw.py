"""Files of KITTI's raw recordings: motion of the vehicle, times, calibration, tracklets.

Geiger et al., "Vision meets Robotics: The KITTI Dataset" (IJRR 2013).
"""

import xml.etree.ElementTree as ElementTree
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.rigid import inverse, is_rigid, rigid, rotation_from_euler
from sparse3d.io.reading import read_text

_EARTH = 6378137.0  # metres, the radius of the sphere that Mercator's projection takes


def world_from_imu(files: list[Path]) -> np.ndarray:
    """oxts files of a drive -> (N, 4, 4), with the first as the world: Mercator's projection of latitude and
    longitude at the scale of the first, height, and roll, pitch, yaw."""
    rows = np.array([_oxts(path) for path in files]).reshape(-1, 6)
    if not len(rows):
        return np.zeros((0, 4, 4))
    latitude, longitude, height, roll, pitch, yaw = rows.T
    scale = np.cos(np.radians(latitude[0]))
    east = scale * _EARTH * np.radians(longitude)
    north = scale * _EARTH * np.log(np.tan(np.radians(90 + latitude) / 2))
    poses = rigid(rotation_from_euler(roll, pitch, yaw), np.stack([east, north, height], axis=1))
    return inverse(poses[0]) @ poses


def _oxts(path: Path) -> list[float]:
    """Latitude, longitude (degrees), height (m), roll, pitch, yaw (rad) of one file."""
    words = read_text(path).split()
    try:
        values = [float(word) for word in words[:6]]
    except ValueError as error:
        raise DataError(path, f"not an oxts file: {error}") from error
    if len(values) < 6 or not np.isfinite(values).all() or abs(values[0]) >= 90:
        raise DataError(
            path, f"begins with {words[:6]}, expected latitude, longitude, height and three angles"
        )
    return values


def read_times(path: Path) -> list[int | None]:
    """timestamps.txt -> nanoseconds since 1970 of each line, None where it is blank."""
    found: list[int | None] = []
    for number, line in enumerate(read_text(path).splitlines(), start=1):
        if not line.strip():
            found.append(None)
            continue
        whole, _, fraction = line.strip().partition(".")
        try:
            second = datetime.fromisoformat(f"{whole}+00:00")
            found.append(int(second.timestamp()) * 10**9 + int(fraction.ljust(9, "0")[:9] or 0))
        except ValueError as error:
            raise DataError(f"{path}:{number}", f"{line!r} is not a time: {error}") from error
    return found


def read_transform(path: Path) -> np.ndarray:
    """A calibration file with the lines `R:` (9 numbers) and `T:` (3) -> (4, 4), e.g. velodyne from IMU."""
    numbers: dict[str, np.ndarray] = {}
    for line in read_text(path).splitlines():
        key, _, rest = line.partition(":")
        if key in ("R", "T"):
            try:
                numbers[key] = np.array([float(word) for word in rest.split()])
            except ValueError as error:
                raise DataError(path, f"line {key}: {error}") from error
    if [numbers.get(key, np.zeros(0)).size for key in ("R", "T")] != [9, 3]:
        raise DataError(path, "expected a line 'R:' of 9 numbers and a line 'T:' of 3")
    found = rigid(numbers["R"].reshape(3, 3), numbers["T"])
    if not is_rigid(found):
        raise DataError(path, "'R:' is not a rotation")
    return found


class Tracklets(NamedTuple):
    """Labelled objects of a drive, a row for each frame that one is in: `boxes` (M, 7) in the LiDAR frame,
    `frame` (M,), `track` (M,), `name` (M,) text."""

    frame: np.ndarray
    boxes: np.ndarray
    track: np.ndarray
    name: np.ndarray


def read_tracklets(path: Path) -> Tracklets:
    """tracklet_labels.xml; poses are of the middle of a box's floor, turned about z alone."""
    try:
        root = ElementTree.fromstring(read_text(path))
    except ElementTree.ParseError as error:
        raise DataError(path, f"not whole XML: {error}") from error
    frames, boxes, tracks, names = [], [], [], []
    for track, item in enumerate(root.iterfind("./tracklets/item")):
        height, width, length = (_number(path, item, key) for key in "hwl")
        first = int(_number(path, item, "first_frame"))
        for offset, pose in enumerate(item.iterfind("./poses/item")):
            x, y, z, yaw = (_number(path, pose, key) for key in ("tx", "ty", "tz", "rz"))
            frames.append(first + offset)
            boxes.append([x, y, z + height / 2, length, width, height, yaw])
            tracks.append(track)
            names.append(item.findtext("objectType", "").strip())
    return Tracklets(
        np.array(frames, dtype=np.int64),
        np.array(boxes, dtype=np.float64).reshape(-1, 7),
        np.array(tracks, dtype=np.int64),
        np.array(names, dtype=np.str_),
    )


def _number(path: Path, item: ElementTree.Element, key: str) -> float:
    text = item.findtext(key)
    try:
        value = float(text or "")
    except ValueError:
        value = float("nan")
    if not np.isfinite(value):
        raise DataError(path, f"a tracklet's {key!r} is {text!r}, expected a number")
    return value
