"""Whether photos can be reconstructed at all: cameras that stand apart and look at something in common."""

import logging

import numpy as np

from sparse3d.data.photos import PosedPhotos
from sparse3d.errors import DataError
from sparse3d.geometry.cameras import Cameras

_log = logging.getLogger(__name__)

# Closer together than this, in parts of their distance from the origin, cameras stand in one place: float32
# files keep 6e-8 of it.
_ONE_PLACE = 1e-6

# Pixels a side and depths at which a photo's view is probed, and photos it is compared with, at most.
_PIXELS, _DEPTHS, _OTHERS = 6, 24, 64


def check_views(photos: PosedPhotos) -> None:
    """DataError where all cameras stand in one place (depth cannot be told), or where no photo shows anything
    that another one shows; a warning for single photos of which that is true, and where there is but one."""
    cameras = photos.cameras
    if len(cameras) == 1:
        _log.warning("%s: a single photo; how far away things are follows from priors alone", photos.root)
        return
    origins = cameras.origins
    spread = np.linalg.norm(origins - origins.mean(0), axis=1).max()
    if spread <= _ONE_PLACE * max(np.abs(origins).max(), 1e-300):
        raise DataError(
            photos.root,
            f"all {len(cameras)} cameras stand in one place, {np.round(origins[0], 6).tolist()}: depth "
            "cannot be told from them. Turned on a tripod? Are the poses' translations in the files?",
        )
    alone = [row for row in range(len(cameras)) if not _shares(cameras, row, spread)]
    if len(alone) == len(cameras):
        raise DataError(
            photos.root,
            "no photo shows anything that another one shows: do the poses belong to these photos, and in "
            "which axes are they (ours: x right, y down, z forward)?",
        )
    if alone:
        names = ", ".join(photos.names[row] for row in alone[:5])
        _log.warning("%s: %d photos share their view with no other one: %s", photos.root, len(alone), names)


def _shares(cameras: Cameras, row: int, spread: float) -> bool:
    """Whether a point in front of one camera is in view of another one, at depths from a hundredth to a
    hundred times the cameras' spread."""
    width, height = cameras.size[row]
    parts = (np.arange(_PIXELS) + 0.5) / _PIXELS
    x, y = np.meshgrid(parts * width, parts * height)
    pixels = np.stack([x.ravel(), y.ravel()], -1)
    local = cameras.unproject(pixels, np.full(len(pixels), row))
    directions = local @ cameras.camera_to_world[row, :3, :3].T
    depths = spread * np.geomspace(0.01, 100, _DEPTHS)
    points = (cameras.origins[row] + directions[:, None] * depths[:, None]).reshape(-1, 3)
    points = points[np.isfinite(points).all(1)]
    others = np.flatnonzero(np.arange(len(cameras)) != row)
    # The nearest ones: what the far ones show is rarely needed to tell.
    order = np.argsort(np.linalg.norm(cameras.origins[others] - cameras.origins[row], axis=1), kind="stable")
    for other in others[order[:_OTHERS]]:
        seen, _ = cameras.project(points, np.full(len(points), other))
        if ((seen >= 0) & (seen <= cameras.size[other])).all(1).any():
            return True
    return False
