"""Which part of the world photos show: the cube that a field fills, and the voxels of it."""

import numpy as np
import torch
from torch import Tensor

from sparse3d.data.photos import PosedPhotos
from sparse3d.fields.voxel_field import VoxelField
from sparse3d.geometry.cameras import Cameras

Vector = tuple[float, float, float]


def cube_in_view(photos: PosedPhotos) -> tuple[Vector, float]:
    """The corner with the smallest coordinates, and the side, metres, of a cube around what the photos show.

    Around the box that the files name, where they do. Else its middle is the point nearest to all optical
    axes, and it is as wide as what the median camera sees there. ValueError where the axes are parallel or
    the cameras look away from each other: then the config must say it (model.space.low, model.space.side
    and data.bounds=config).
    """
    if photos.capture.box is not None:
        low, high = np.asarray(photos.capture.box, dtype=float)
        side = float((high - low).max())
        middle = (low + high) / 2
    else:
        middle, side = _from_axes(photos)
    corner = middle - side / 2
    return (float(corner[0]), float(corner[1]), float(corner[2])), side


def seen_voxels(field: VoxelField, cameras: Cameras, least: int = 1) -> Tensor:
    """(N,) bool: which voxels of a field `least` cameras or more show, with their middle or a corner, or
    stand in. What none shows can never be learned, and would show what the field began as; where a single one
    looks, anything may stand that it alone explains."""
    coordinates = field.lattice.coordinates[:, 1:].cpu().numpy()
    low, size = np.array(field.config.space.low), field.voxel_size
    places = np.array([(0.5, 0.5, 0.5), *np.ndindex(2, 2, 2)])
    count = np.zeros(len(coordinates), dtype=np.int64)
    for row in range(len(cameras)):
        left = np.flatnonzero(count < least)
        points = low + size * (coordinates[left, None] + places)
        pixels, depth = cameras.project(points.reshape(-1, 3), np.full(len(left) * len(places), row))
        with np.errstate(invalid="ignore"):
            inside = ((pixels >= 0) & (pixels <= cameras.size[row])).all(1) & (depth > 0)
        within = (coordinates[left] == np.floor((cameras.origins[row] - low) / size)).all(1)
        count[left] += inside.reshape(-1, len(places)).any(1) | within
    # A photo's edge may cut a voxel between its corners: one more all around.
    return field.lattice.dilate(torch.from_numpy(count >= least).to(field.coordinates.device))


def _from_axes(photos: PosedPhotos) -> tuple[np.ndarray, float]:
    poses = photos.cameras.camera_to_world
    places, axes = poses[:, :3, 3], poses[:, :3, 2]
    # Sum of squared distances from the axes: (I - a a^T) projects onto what is across an axis.
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    total = across.sum(0)
    advice = "say what the field fills: model.space.low=[x, y, z] model.space.side=S data.bounds=config"
    if np.linalg.eigvalsh(total)[0] < 1e-3 * len(axes):
        raise ValueError(f"the cameras' axes are parallel, so where they look cannot be found; {advice}")
    middle = np.linalg.solve(total, np.einsum("nij,nj->i", across, places))
    depth = ((middle - places) * axes).sum(1)
    if np.median(depth) <= 0:
        raise ValueError(f"the cameras look away from each other; {advice}")
    rows = range(len(photos))
    views = [
        max(photos.cameras[r].width / photos.cameras[r].fx, photos.cameras[r].height / photos.cameras[r].fy)
        for r in rows
    ]
    return middle, float(np.median(depth * views))
