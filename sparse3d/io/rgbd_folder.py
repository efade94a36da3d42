"""RGB-D recordings as 7-Scenes has them: frame-000000.color.png, .depth.png (16 bits, millimetres) and
.pose.txt (4x4, camera-to-world, OpenCV's axes) of each frame, in the folder itself or in data/.

Intrinsics stand in camera-intrinsics.txt (3x3); without it they are those that 7-Scenes was recorded with.
Depth is taken as seen by the colour camera.
"""

from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.cameras import Camera
from sparse3d.io.captures import Capture, Skipped, View, checked_capture
from sparse3d.io.image_folders import SUFFIXES
from sparse3d.io.images import image_size
from sparse3d.io.reading import read_text

# Shotton et al. 2013: the default of their Kinect.
FOCAL, CENTRE = 585.0, (320.0, 240.0)


def frames_folder(root: Path) -> Path | None:
    """Where the frames are."""
    return next((f for f in (root, root / "data") if next(f.glob("frame-*.pose.txt"), None)), None)


def read_rgbd(root: str | Path) -> Capture:
    """The frames of a folder; frames without a photo, or whose pose is not finite (lost tracking), are listed
    in `skipped`."""
    root = Path(root)
    folder = frames_folder(root)
    if folder is None:
        raise DataError(root, "no frame-000000.pose.txt, here or in data/")
    k = read_intrinsics(root, folder)
    views, skipped = [], []
    for path in sorted(folder.glob("frame-*.pose.txt")):
        name = path.name.removesuffix(".pose.txt")
        photo = next((p for s in SUFFIXES if (p := folder / f"{name}.color{s}").is_file()), None)
        if photo is None:
            skipped.append(Skipped(name, "no colour image"))
            continue
        pose = read_matrix(path, (4, 4))
        if not np.isfinite(pose).all():
            skipped.append(Skipped(name, "its pose is not finite: tracking was lost"))
            continue
        try:
            camera = Camera(k[0, 0], k[1, 1], k[0, 2], k[1, 2], *image_size(photo), pose)
        except ValueError as error:
            if isinstance(error, DataError):
                raise
            raise DataError(path, str(error)) from error
        depth = folder / f"{name}.depth.png"
        number = "".join(c for c in name if c.isdigit())
        views.append(
            View(name, photo, camera, int(number or len(views)), depth=depth if depth.is_file() else None)
        )
    return checked_capture(folder, Capture("rgbd", tuple(views), tuple(skipped)))


def read_intrinsics(*folders: Path) -> np.ndarray:
    """(3, 3) of the first camera-intrinsics.txt in the folders; without one that of 7-Scenes."""
    given = [path for folder in folders if (path := folder / "camera-intrinsics.txt").is_file()]
    if given:
        return read_matrix(given[0], (3, 3))
    return np.array([[FOCAL, 0, CENTRE[0]], [0, FOCAL, CENTRE[1]], [0, 0, 1]])


def read_matrix(path: Path, shape: tuple[int, int]) -> np.ndarray:
    """A matrix of a text file."""
    try:
        return np.array(read_text(path).split(), dtype=np.float64).reshape(shape)
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(path, f"not a matrix of {shape[0]} x {shape[1]} numbers: {error}") from error
