"""Waymo's second release (parquet): range images as points, and the names of its columns.

A range image has a row for each beam, the highest first, and a column for each direction, counter-clockwise
from the back seen against the turn: the middle column looks forward. Its channels are range (m, <= 0: no
return), intensity, elongation, and whether the pixel lies in a zone without labels.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.rigid import inverse, is_rigid, rotation_from_euler
from sparse3d.io.arrow import ParquetRows

LASERS = {"TOP": 1, "FRONT": 2, "SIDE_LEFT": 3, "SIDE_RIGHT": 4, "REAR": 5}

SEGMENT, TIME, LASER, OBJECT = (
    f"key.{name}"
    for name in ("segment_context_name", "frame_timestamp_micros", "laser_name", "laser_object_id")
)
VEHICLE_POSE = "[VehiclePoseComponent].world_from_vehicle.transform"
_EXTRINSIC = "[LiDARCalibrationComponent].extrinsic.transform"
_INCLINATION = "[LiDARCalibrationComponent].beam_inclination."
_RETURN = "[LiDARComponent].range_image_return{}."
_PIXEL_POSE = "[LiDARPoseComponent].range_image_return1."


class LaserCalibration(NamedTuple):
    """`vehicle_from_laser` (4, 4), and the inclinations of its beams in radians: one by one, upwards from the
    lowest, or the two ends of an even spread."""

    vehicle_from_laser: np.ndarray
    inclinations: np.ndarray | None
    ends: tuple[float, float]

    def of_rows(self, height: int) -> np.ndarray:
        """(height,) radians, the highest beam first. ValueError where the beams are not as many."""
        if self.inclinations is not None:
            if len(self.inclinations) != height:
                raise ValueError(f"{height} rows for {len(self.inclinations)} beams")
            return self.inclinations[::-1]
        low, high = self.ends
        return (low + (high - low) * (np.arange(height) + 0.5) / height)[::-1]


def read_calibrations(path: Path) -> dict[int, LaserCalibration]:
    """A segment's lidar_calibration file: the lasers by their number."""
    file = ParquetRows(path)
    fixed = file.columns((LASER, _EXTRINSIC, f"{_INCLINATION}min", f"{_INCLINATION}max"))
    extrinsics = matrices(path, fixed[_EXTRINSIC])
    lists = file.rows(np.arange(len(extrinsics)), (f"{_INCLINATION}values",))
    return {
        int(laser): LaserCalibration(
            extrinsics[i],
            numbers(lists[i][f"{_INCLINATION}values"]),
            (float(fixed[f"{_INCLINATION}min"][i]), float(fixed[f"{_INCLINATION}max"][i])),
        )
        for i, laser in enumerate(fixed[LASER])
    }


def matrices(path: Path, rows: np.ndarray) -> np.ndarray:
    """(N, 16) numbers -> (N, 4, 4) rigid motions; DataError where they are none."""
    if rows.size % 16 or not is_rigid(rows.reshape(-1, 4, 4).astype(np.float64)):
        raise DataError(path, "holds a transform that is not a rigid motion")
    return rows.reshape(-1, 4, 4).astype(np.float64)


def numbers(scalar: Any) -> np.ndarray | None:
    """An Arrow list as an array, None for a gap."""
    return scalar.values.to_numpy(zero_copy_only=False) if scalar.is_valid else None


def range_image_points(
    image: np.ndarray,
    calibration: LaserCalibration,
    pixel_pose: np.ndarray | None = None,
    world_from_vehicle: np.ndarray | None = None,
) -> np.ndarray:
    """A range image (H, W, 4) -> (P, 5) float32 in the vehicle's frame: x, y, z, tanh of the intensity,
    elongation; row by row.

    `pixel_pose` (H, W, 6): roll, pitch, yaw, x, y, z of the vehicle in the world when each pixel was taken;
    the points are then where they lie in the vehicle's frame at the time of `world_from_vehicle`.
    """
    height, width = image.shape[:2]
    row, column = np.nonzero(image[..., 0] > 0)
    distance = image[row, column, 0].astype(np.float64)
    # The image's azimuths are the vehicle's: the laser's own turn is taken out before it is put in again.
    own_turn = np.arctan2(calibration.vehicle_from_laser[1, 0], calibration.vehicle_from_laser[0, 0])
    azimuth = np.pi * (2 * (width - column - 0.5) / width - 1) - own_turn
    inclination = calibration.of_rows(height)[row]
    flat = distance * np.cos(inclination)
    points = np.stack(
        [flat * np.cos(azimuth), flat * np.sin(azimuth), distance * np.sin(inclination)], axis=1
    )
    points = _moved(points, calibration.vehicle_from_laser)
    if pixel_pose is not None and world_from_vehicle is not None:
        pose = pixel_pose[row, column].astype(np.float64)
        turned = rotation_from_euler(pose[:, 0], pose[:, 1], pose[:, 2]) @ points[..., None]
        points = _moved(turned[..., 0] + pose[:, 3:], inverse(world_from_vehicle))
    features = np.stack([np.tanh(image[row, column, 1]), image[row, column, 2]], axis=1)
    return np.concatenate([points, features], axis=1).astype(np.float32)


def _moved(points: np.ndarray, b_from_a: np.ndarray) -> np.ndarray:
    return points @ b_from_a[:3, :3].T + b_from_a[:3, 3]


class SegmentFiles:
    """The components lidar, lidar_pose and lidar_calibration of one segment, open to read frames.

    DataError for files that are missing or damaged, and for a frame or laser that they do not have.
    """

    def __init__(self, folder: Path, segment: str):
        self._paths = {
            part: folder / part / f"{segment}.parquet"
            for part in ("lidar", "lidar_pose", "lidar_calibration")
        }
        self._files: dict[str, tuple[ParquetRows, dict[str, np.ndarray]]] = {}
        self._calibrations = read_calibrations(self._paths["lidar_calibration"])

    def points(
        self, time: int, world_from_vehicle: np.ndarray, lasers: Sequence[str], returns: int
    ) -> np.ndarray:
        """The points (P, 5) of the frame at `time` (microseconds), see `range_image_points`: laser after
        laser as named, the first `returns` returns of each."""
        names = [_RETURN.format(i + 1) + part for i in range(returns) for part in ("values", "shape")]
        scans = self._rows("lidar", time, names)
        clouds = [np.zeros((0, 5), np.float32)]
        for laser in lasers:
            scan = self._of_laser("lidar", scans, laser, time)
            calibration = self._of_laser("lidar_calibration", self._calibrations, laser, time)
            # The only one that turns slowly enough for the vehicle to move meanwhile.
            poses = self._pixel_poses(time) if laser == "TOP" else None
            for i in range(returns):
                image = _image(self._paths["lidar"], scan, _RETURN.format(i + 1), 4)
                if image is None:
                    continue
                if poses is not None and poses.shape[:2] != image.shape[:2]:
                    message = f"poses of {poses.shape[:2]} pixels for an image of {image.shape[:2]}"
                    raise DataError(self._paths["lidar_pose"], message)
                try:
                    clouds.append(range_image_points(image, calibration, poses, world_from_vehicle))
                except ValueError as error:
                    raise DataError(self._paths["lidar"], f"laser {laser}: {error}") from error
        return np.concatenate(clouds)

    def _pixel_poses(self, time: int) -> np.ndarray:
        rows = self._rows("lidar_pose", time, [_PIXEL_POSE + "values", _PIXEL_POSE + "shape"])
        path = self._paths["lidar_pose"]
        poses = _image(path, self._of_laser("lidar_pose", rows, "TOP", time), _PIXEL_POSE, 6)
        if poses is None:
            raise DataError(path, f"no poses of laser TOP in the frame {time}")
        return poses

    def _of_laser(self, part: str, found: dict[int, Any], laser: str, time: int) -> Any:
        if LASERS[laser] not in found:
            raise DataError(self._paths[part], f"no laser {laser} in the frame {time}")
        return found[LASERS[laser]]

    def _rows(self, part: str, time: int, names: list[str]) -> dict[int, dict[str, Any]]:
        """The rows of one frame by the number of their laser."""
        if part not in self._files:
            file = ParquetRows(self._paths[part])
            self._files[part] = (file, file.columns((TIME, LASER)))
        file, keys = self._files[part]
        rows = np.flatnonzero(keys[TIME] == time)
        found = file.rows(rows, names) if len(rows) else []
        return {int(keys[LASER][row]): values for row, values in zip(rows, found, strict=True)}


def _image(path: Path, row: dict[str, Any], prefix: str, channels: int) -> np.ndarray | None:
    values, shape = numbers(row[f"{prefix}values"]), numbers(row[f"{prefix}shape"])
    if values is None or shape is None or not len(values):
        return None
    if len(shape) != 3 or shape[2] != channels or np.prod(shape, dtype=np.int64) != len(values):
        raise DataError(path, f"an image of {len(values)} values says its shape is {shape.tolist()}")
    return values.reshape(shape)
