"""Which part of the world photos show: the cube or the frustum that a field fills, and the voxels of it."""

import numpy as np
import torch
from torch import Tensor

from sparse3d.data.photos import PosedPhotos
from sparse3d.fields.frustum import FrustumConfig
from sparse3d.fields.voxel_field import VoxelField
from sparse3d.geometry.cameras import Cameras

Vector = tuple[float, float, float]

_FORWARD = 0.5  # cosine of the most that a camera may look away from the mean


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
    return _vector(middle - side / 2), side


def frustum_in_view(photos: PosedPhotos) -> FrustumConfig:
    """What photos show that all face forward: as a viewer sees it who stands between the cameras, from a
    little before the nearest thing on, wide enough for all photos. ValueError where the cameras look in
    different directions, or where nothing says how near things are."""
    cameras, poses = photos.cameras, photos.cameras.camera_to_world
    forward = _unit(poses[:, :3, 2].mean(0))
    if (poses[:, :3, 2] @ forward).min() < _FORWARD:
        raise ValueError(
            "the cameras look in different directions: a frustum is for photos that face forward; "
            "model.space.contraction=merf takes all space around a cube"
        )
    right = poses[:, :3, 0].mean(0)
    right = _unit(right - (right @ forward) * forward)
    frame = np.stack([right, np.cross(forward, right), forward])
    places = (poses[:, :3, 3] - poses[:, :3, 3].mean(0)) @ frame.T
    near, far = _depths(photos, places[:, 2], frame)
    # The corners of each photo, at both ends: their image lies within what is between them.
    slopes = np.zeros(2)
    for row in range(len(photos)):
        width, height = cameras.size[row]
        corners = np.array([(x, y) for x in (0, width) for y in (0, height)], dtype=float)
        local = cameras.unproject(corners, np.full(4, row)) @ poses[row, :3, :3].T @ frame.T
        local = local[np.isfinite(local).all(1) & (local[:, 2] > 0.1)]
        for depth in (near, far):
            reach = places[row, :2] + (depth - places[row, 2]) * local[:, :2] / local[:, 2:]
            slopes = np.maximum(slopes, np.abs(reach).max(0) / depth)
    return FrustumConfig(
        _vector(poses[:, :3, 3].mean(0)),
        _vector(frame[0]),
        _vector(frame[1]),
        (float(slopes[0]), float(slopes[1])),
        near,
        far,
    )


def cube_of_frustum(frustum: FrustumConfig) -> tuple[Vector, float]:
    """The corner with the smallest coordinates, and the side, of a cube around what lies near in it: up to
    four times as far away as its beginning."""
    frame = np.stack([frustum.right, frustum.down, np.cross(frustum.right, frustum.down)])
    far = min(4 * frustum.near, frustum.far)
    reach = np.array([frustum.slopes[0] * far, frustum.slopes[1] * far, (far - frustum.near) / 2])
    middle = np.array(frustum.origin) + frame[2] * (frustum.near + far) / 2
    side = 2 * float(reach.max())
    return _vector(middle - side / 2), side


def seen_voxels(field: VoxelField, cameras: Cameras, least: int = 1) -> Tensor:
    """(N,) bool: which voxels of a field `least` cameras or more show, with their middle or a corner, or
    stand in. What none shows can never be learned, and would show what the field began as; where a single one
    looks, anything may stand that it alone explains."""
    coordinates = field.lattice.coordinates[:, 1:].cpu().numpy()
    space, size = field.config.space, field.voxel_size
    low = np.array(space.own_low)
    stand = space.to_own(torch.from_numpy(cameras.origins))[0].numpy()
    places = np.array([(0.5, 0.5, 0.5), *np.ndindex(2, 2, 2)])
    count = np.zeros(len(coordinates), dtype=np.int64)
    for row in range(len(cameras)):
        left = np.flatnonzero(count < least)
        own = low + size * (coordinates[left, None] + places)
        points = space.from_own(torch.from_numpy(own.reshape(-1, 3))).numpy()
        pixels, depth = cameras.project(points, np.full(len(points), row))
        with np.errstate(invalid="ignore"):
            inside = ((pixels >= 0) & (pixels <= cameras.size[row])).all(1) & (depth > 0)
        within = (coordinates[left] == np.floor((stand[row] - low) / size)).all(1)
        count[left] += inside.reshape(-1, len(places)).any(1) | within
    # A photo's edge may cut a voxel between its corners: one more all around.
    return field.lattice.dilate(torch.from_numpy(count >= least).to(field.coordinates.device))


def _depths(photos: PosedPhotos, places: np.ndarray, frame: np.ndarray) -> tuple[float, float]:
    """Metres along the mean optical axis: before all that photos show, and behind nearly all of it; `places`
    (N,) of the cameras along it."""
    known = [(place, view.near_far) for place, view in zip(places, photos.views, strict=True)]
    bounds = [(place + ends[0], place + ends[1]) for place, ends in known if ends is not None]
    if bounds:
        near, far = min(b[0] for b in bounds), max(b[1] for b in bounds)
    elif photos.capture.points is not None and len(photos.capture.points.positions):
        origin = photos.cameras.origins.mean(0)
        near, far = np.percentile((photos.capture.points.positions - origin) @ frame[2], [1, 99])
    else:
        raise ValueError(
            "nothing says how far away things are; say model.space.frustum and data.bounds=config"
        )
    near = 0.9 * near
    if near <= max(places.max(), 0):
        raise ValueError("some cameras stand beyond the nearest thing: a frustum has all before them")
    return float(near), float(max(2 * far, 4 * near))


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _vector(values: np.ndarray) -> Vector:
    return (float(values[0]), float(values[1]), float(values[2]))


def _from_axes(photos: PosedPhotos) -> tuple[np.ndarray, float]:
    poses = photos.cameras.camera_to_world
    places, axes = poses[:, :3, 3], poses[:, :3, 2]
    # Sum of squared distances from the axes: (I - a a^T) projects onto what is across an axis.
    across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
    total = across.sum(0)
    advice = (
        "photos that face forward: --config voxels_forward; or say what the field fills: "
        "model.space.low=[x, y, z] model.space.side=S data.bounds=config"
    )
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
