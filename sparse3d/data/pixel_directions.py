"""Directions through pixel centres, looked up where a lens makes them dear to compute."""

import numpy as np

from sparse3d.geometry.cameras import Cameras
from sparse3d.geometry.rays import pixel_centres

# Photos share a lens or two, so a table of its directions is worth 24 bytes a pixel up to this many pixels
# (100 MB); photos with a lens each are inverted pixel by pixel, as they come.
_MOST_PIXELS = 4_000_000


class PixelDirections:
    """`directions(photo, pixel)`: unit vectors (R, 3) float64 in the frames of the cameras of photos (R,),
    through the centres of pixels (R,) counted row after row; NaN where the lens has none."""

    def __init__(self, cameras: Cameras):
        self.cameras = cameras
        bent = (cameras.distortion != 0).any(1) | (cameras.kind != 0)
        keys: dict[bytes, int] = {}
        self.lens = np.full(len(cameras), -1)  # which distinct lens a photo has, -1 for a pinhole
        self._first: list[int] = []
        columns = (cameras.size, cameras.focal, cameras.centre, cameras.kind, cameras.distortion)
        for row in np.flatnonzero(bent):
            key = b"".join(np.ascontiguousarray(column[row]).tobytes() for column in columns)
            if key not in keys:
                keys[key] = len(self._first)
                self._first.append(int(row))
            self.lens[row] = keys[key]
        self._sizes = cameras.size[self._first].prod(1) if self._first else np.zeros(0, dtype=np.int64)
        self._starts = np.concatenate([[0], np.cumsum(self._sizes)])
        self._table = None
        if self._first and self._starts[-1] <= _MOST_PIXELS:
            self._table = np.concatenate([self._all(row) for row in self._first])

    def reached(self, photo: int) -> np.ndarray | None:
        """(height * width,) which pixels of a photo have a ray; None stands for all of them."""
        lens = self.lens[photo]
        if lens < 0:
            return None
        if self._table is not None:
            found = np.isfinite(self._table[self._starts[lens] : self._starts[lens + 1], 0])
        else:
            found = np.isfinite(self._all(photo)[:, 0])
        return None if found.all() else found

    def directions(self, photo: np.ndarray, pixel: np.ndarray) -> np.ndarray:
        lens = self.lens[photo]
        if self._table is not None and (lens >= 0).all():
            return self._table[self._starts[lens] + pixel]
        width = self.cameras.size[photo, 0]
        centres = np.stack([pixel % width + 0.5, pixel // width + 0.5], -1)
        return self.cameras.unproject(centres, photo)

    def _all(self, photo: int) -> np.ndarray:
        width, height = (int(v) for v in self.cameras.size[photo])
        centres = pixel_centres(width, height)
        return self.cameras.unproject(centres, np.full(len(centres), photo))
