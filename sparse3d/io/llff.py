"""LLFF's poses_bounds.npy: forward-facing photos with one focal length each, and how near and far they see.

A row of 17: the 3x5 matrix [rotation | translation | height, width, focal] row after row, camera-to-world
with the axes (down, right, backwards), then the nearest and farthest depth (Mildenhall et al. 2019,
"Local Light Field Fusion"). Rows belong to the photos in the order of their names.
"""

from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.cameras import Camera
from sparse3d.io.captures import Capture, View, checked_capture
from sparse3d.io.colmap import read_colmap_points
from sparse3d.io.image_folders import image_folder, images_in
from sparse3d.io.images import read_array


def read_llff(root: str | Path, scale: float = 1.0) -> Capture:
    """A folder with poses_bounds.npy and images/ (or images_8/ for scale 1/8); points of sparse/0 where
    there are some. DataError where the number of rows is not that of the photos: nothing says which is
    which."""
    root = Path(root)
    path = root / "poses_bounds.npy"
    table = read_array(path)
    if table.ndim != 2 or table.shape[1] != 17 or not np.issubdtype(table.dtype, np.floating):
        raise DataError(path, f"holds {table.dtype} {table.shape}, expected floats (photos, 17)")
    folder = image_folder(root, scale)
    photos = images_in(folder)
    if len(photos) != len(table):
        raise DataError(path, f"has {len(table)} rows, but {folder} has {len(photos)} photos")
    views = []
    for number, (photo, row) in enumerate(zip(photos, table.astype(np.float64), strict=True)):
        matrix = row[:15].reshape(3, 5)
        down, right, backwards, origin = matrix.T[:4]
        pose = np.stack([right, down, -backwards, origin], 1)
        near, far = row[15:]
        try:
            if not np.isfinite(row).all():
                raise ValueError("a number is not finite")
            if not 0 < near < far:
                raise ValueError(f"it sees from {near:g} to {far:g}, expected 0 < near < far")
            height, width, focal = matrix[:, 4]
            camera = Camera(focal, focal, width / 2, height / 2, round(width), round(height), pose)
        except ValueError as error:
            raise DataError(path, f"row {number} ({photo.name}): {error}") from error
        views.append(View(photo.name, photo, camera, number, near_far=(float(near), float(far))))
    points = read_colmap_points(root / "sparse" / "0")
    return checked_capture(root, Capture("llff", tuple(views), points=points))
