"""The classic tiny_nerf_data.npz: `images` (N, H, W, 3), `poses` (N, 4, 4) with OpenGL's axes, `focal`."""

import zipfile
from functools import lru_cache
from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.cameras import OPENGL_TO_OPENCV, Camera
from sparse3d.io.captures import Capture, View, checked_capture

# The notebook that made the file known trains on the first 100.
_TRAIN = 100


def read_tiny_nerf(path: str | Path) -> Capture:
    """The views of the file; the first 100 train and the others test where there are more. On black."""
    path = Path(path)
    images, poses, focal = _arrays(str(path), path.stat().st_mtime_ns if path.is_file() else 0)
    count, height, width = images.shape[:3]
    views = []
    for row in range(count):
        try:
            camera = Camera(focal, focal, width / 2, height / 2, width, height, poses[row] @ OPENGL_TO_OPENCV)
        except ValueError as error:
            raise DataError(path, f"view {row}: {error}") from error
        views.append(View(f"{row:03d}", path, camera, row, row=row))
    splits = {"train": tuple(range(_TRAIN)), "test": tuple(range(_TRAIN, count))} if count > _TRAIN else {}
    box = np.array([[-1.5] * 3, [1.5] * 3])
    return checked_capture(
        path, Capture("tiny_nerf", tuple(views), splits=splits, box=box, background=(0.0, 0.0, 0.0))
    )


def read_tiny_nerf_image(path: str | Path, row: int) -> np.ndarray:
    """One photo (H, W, 3) uint8 of the file."""
    path = Path(path)
    pixels = _arrays(str(path), path.stat().st_mtime_ns)[0][row]
    if pixels.dtype == np.uint8:
        return pixels
    return np.clip(np.rint(pixels * 255), 0, 255).astype(np.uint8)


@lru_cache(maxsize=1)  # the file is one compressed block of a few MB: unpacked once for all of its photos
def _arrays(name: str, stamp: int) -> tuple[np.ndarray, np.ndarray, float]:
    path = Path(name)
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as stored:
            images, poses, focal = stored["images"], stored["poses"], float(stored["focal"])
    except FileNotFoundError as error:
        raise DataError(path, "no such file") from error
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile, MemoryError) as error:
        raise DataError(path, f"not a whole tiny_nerf file: {error}") from error
    fits = images.ndim == 4 and images.shape[3] == 3 and poses.shape == (len(images), 4, 4)
    if not fits or images.dtype not in (np.uint8, np.float32, np.float64):
        raise DataError(
            path, f"images {images.dtype} {images.shape} and poses {poses.shape} do not fit together"
        )
    return images, poses.astype(np.float64), focal
