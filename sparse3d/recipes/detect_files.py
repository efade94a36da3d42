"""A trained detector on files: point clouds in, KITTI result files and JSON out."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError

from sparse3d.data.kitti_index import DEFAULT_IMAGE_SIZE
from sparse3d.data.minidrive.labels import calibration as minidrive_calibration
from sparse3d.errors import DataError
from sparse3d.frames import Detections, LidarFrame
from sparse3d.io.files import write_text
from sparse3d.io.kitti import KittiCalibration, in_image, read_calibration, write_objects
from sparse3d.io.points import POINT_SUFFIXES, read_valid_points
from sparse3d.recipes.detection import Detector, load_detector
from sparse3d.recipes.detection_judge import objects_of
from sparse3d.recipes.detection_metrics import as_objects, detected


class CameraView(NamedTuple):
    """The camera that a result file speaks of. `source` is the calibration file, None where it is assumed."""

    calibration: KittiCalibration
    image_size: tuple[int, int]
    source: Path | None


class FrameDetections(NamedTuple):
    """One input file with what was found in it."""

    path: Path
    points: np.ndarray
    detections: Detections
    camera: CameraView


def detect(
    run: str | Path,
    inputs: Sequence[str | Path],
    out: str | Path,
    score: float = 0.3,
    checkpoint: str = "best",
    *,
    calib: str | Path | None = None,
    device: str | None = None,
) -> Iterator[FrameDetections]:
    """Detect objects in point cloud files (or folders of them); writes `out/<stem>.json` and `.txt`.

    Yields each frame after its files are written. Detections below `score` are left out. The clouds are in
    the LiDAR frame, x forward, y left, z up; where the config trains on the camera's view and the calibration
    is known, they are cut to that view. The .txt is a KITTI result file of every detection, for the
    camera of `camera_view`; the image box of a detection that it does not see is -1 -1 -1 -1. A cloud without
    a point within the model's bounds holds no objects, whatever scores the network has for nothing.
    """
    files = point_files(inputs)
    given = None if calib is None else CameraView(read_calibration(calib), DEFAULT_IMAGE_SIZE, Path(calib))
    cameras = [camera_view(path) if given is None else given for path in files]
    detector = load_detector(run, checkpoint, device)
    for path, camera in zip(files, cameras, strict=True):
        points = read_valid_points(path)
        if getattr(detector.config.data, "camera_view", False) and camera.source is not None:
            # The network was trained on what the camera sees; beside that it would only guess.
            points = points[in_image(points[:, :3], camera.calibration, camera.image_size)]
        frame = LidarFrame(path.stem, points, np.zeros((0, 7), np.float32), np.zeros(0, np.int64))
        found = detector.predict([frame])[0].cpu()
        keep = found.scores >= score
        keep &= has_point_within(points, detector.config.model.bounds)
        found = found.select(keep)
        text = json.dumps(_as_json(path, found, detector), indent=1)
        write_text(Path(out) / f"{path.stem}.json", text + "\n")
        objects = as_objects(found, detector.config.data.classes, camera.calibration, camera.image_size)
        write_objects(Path(out) / f"{path.stem}.txt", objects)
        yield FrameDetections(path, points, found, camera)


def camera_view(cloud: Path) -> CameraView:
    """The camera of a cloud in a KITTI-layout folder (`velodyne/x.bin` with `calib/x.txt` beside it and the
    size of `image_2/x.png`), elsewhere minidrive's, which is made like KITTI's."""
    root, name = cloud.resolve().parent.parent, cloud.stem
    calib, picture = root / "calib" / f"{name}.txt", root / "image_2" / f"{name}.png"
    if cloud.resolve().parent.name != "velodyne" or not calib.is_file():
        return CameraView(minidrive_calibration(), DEFAULT_IMAGE_SIZE, None)
    size = DEFAULT_IMAGE_SIZE
    if picture.is_file():
        try:
            with Image.open(picture) as image:  # reads the header only
                size = image.size
        except (UnidentifiedImageError, OSError) as error:
            raise DataError(picture, f"not a picture: {error}") from error
    return CameraView(read_calibration(calib), size, calib)


def point_files(inputs: Sequence[str | Path]) -> list[Path]:
    """The files themselves and the clouds in the folders; DataError where results would have equal names."""
    files: list[Path] = []
    for given in map(Path, inputs):
        if given.is_dir():
            inside = sorted(path for path in given.iterdir() if path.suffix.lower() in POINT_SUFFIXES)
            if not inside:
                raise DataError(given, f"no point clouds in this folder ({', '.join(POINT_SUFFIXES)})")
            files += inside
        elif given.is_file():
            files.append(given)
        else:
            raise DataError(given, "no such file or folder")
    stems = [path.stem for path in files]
    twice = next((path for path in files if stems.count(path.stem) > 1), None)
    if twice is not None:
        raise DataError(
            twice, "another input has the same name, and their results would overwrite each other"
        )
    return files


def has_point_within(points: np.ndarray, bounds: Sequence[float]) -> bool:
    """Whether a network with these bounds sees anything of a cloud."""
    low, high = np.array(bounds[:3]), np.array(bounds[3:])
    return bool(((points[:, :3] >= low) & (points[:, :3] < high)).all(axis=1).any())


def _as_json(path: Path, found: Detections, detector: Detector) -> dict[str, object]:
    return {
        "input": path.name,
        "frame": "LiDAR: x forward, y left, z up; x, y, z is the centre in metres, yaw in radians from +x",
        "objects": objects_of(detected(found), detector.config.data.classes),
    }
