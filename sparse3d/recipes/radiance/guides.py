"""The rays that priors ask for beside those of a batch's pixels: pixels of known depth order, points that
structure from motion found, and patches of views that nobody took.

What a batch gets follows from the seed and the batch's place in the stream of rays alone, so that a resumed
run goes on with the same bits.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparse3d.data.photos import PosedPhotos
from sparse3d.data.ray_loader import RayLoader
from sparse3d.fields.depth_priors import DepthRankingConfig, ScenePointsConfig, UnseenViewsConfig
from sparse3d.fields.space import SpaceConfig
from sparse3d.geometry.cameras import Cameras
from sparse3d.geometry.rays import Rays, rays_through
from sparse3d.recipes.radiance.config import PriorsConfig

_KEY = 2  # of the random stream; the loader's order of pixels is 1


class Aimed(NamedTuple):
    """G rays, and the cosine (G,) of each from its camera's axis: what turns distance into depth."""

    rays: Rays
    cosine: Tensor

    def to(self, device: torch.device | str) -> "Aimed":
        return Aimed(self.rays.to(device), self.cosine.to(device))


class SeenPoints(NamedTuple):
    """Rays to scene points, the points' `distance` (G,) along them, and how sure that is: `spread` (G,), both
    metres."""

    rays: Rays
    distance: Tensor
    spread: Tensor

    def to(self, device: torch.device | str) -> "SeenPoints":
        return SeenPoints(self.rays.to(device), self.distance.to(device), self.spread.to(device))


class Guides(NamedTuple):
    """`ranked`: groups of four rays one after the other, the nearer pixel, the farther one, and of each a
    pixel next to it of like depth. `points`. `unseen`: patches of side^2 rays, row after row. None for what
    is not asked for."""

    ranked: Aimed | None = None
    points: SeenPoints | None = None
    unseen: Aimed | None = None

    def rays(self) -> list[Rays]:
        """Of all that there are, in this order."""
        return [part.rays for part in self if part is not None]

    def to(self, device: torch.device | str) -> "Guides":
        ranked, points, unseen = self
        return Guides(
            ranked and ranked.to(device), points and points.to(device), unseen and unseen.to(device)
        )


@dataclass(frozen=True, eq=False)
class _Track:
    """Observations: photo (O,), pixel (O, 2) at the photos' scale, distance (O,) and error (O,), a share of
    the mean one."""

    photo: np.ndarray
    pixel: np.ndarray
    distance: np.ndarray
    error: np.ndarray


class GuideSource:
    """Guides for batches of `loader`, for a field in `space`. ValueError where a prior asks for what the
    photos do not have."""

    def __init__(self, loader: RayLoader, priors: PriorsConfig, space: SpaceConfig):
        self.loader, self.photos, self.priors = loader, loader.photos, priors
        self.side = space.side
        self.middle = np.array(space.low) + space.side / 2
        self._track = None
        for name in ("ranking", "depth"):
            if getattr(priors, name) and all(view.depth is None for view in self.photos.views):
                raise ValueError(f"priors.{name} needs depth maps, these photos have none; data.depth=DIR")
        if priors.silhouette and not any(self.photos.has_alpha(row) for row in range(len(self.photos))):
            raise ValueError("priors.silhouette needs photos with an opacity (RGBA); these have none")
        if priors.points:
            self._track = _observations(self.photos)

    def at(self, position: int) -> Guides:
        """For the batch that begins at this place of the stream."""
        random = np.random.default_rng([self.loader.seed, position, _KEY])
        priors = self.priors
        return Guides(
            _ranked(self.loader, priors.ranking, random) if priors.ranking else None,
            self._points(priors.points, random) if priors.points else None,
            _unseen(self.photos.cameras, priors.unseen, self.middle, random) if priors.unseen else None,
        )

    def _points(self, config: ScenePointsConfig, random: np.random.Generator) -> SeenPoints:
        assert self._track is not None
        rows = random.integers(len(self._track.photo), size=config.rays)
        track = self._track
        rays = rays_through(self.photos.cameras, track.photo[rows], track.pixel[rows])
        spread = config.spread * self.side * np.clip(track.error[rows], 0.25, 4)
        return SeenPoints(
            rays, *(torch.from_numpy(x.astype(np.float32)) for x in (track.distance[rows], spread))
        )


def _ranked(loader: RayLoader, config: DepthRankingConfig, random: np.random.Generator) -> Aimed:
    """Pairs whose order the map tells; of the `groups` that are drawn, others are left out."""
    photos, count = loader.photos, config.groups
    first = loader.places(random.integers(loader.rays_per_epoch, size=count))
    photo = first.photo
    offset = random.integers(-config.reach, config.reach + 1, size=(count, 2))
    second = np.clip(first.pixel + offset, 0, photos.cameras.size[photo] - 1)
    ends = np.stack([first.pixel, second])
    value, beside = (
        np.stack(x) for x in zip(*(_with_neighbour(loader, photo, p) for p in ends), strict=True)
    )
    with np.errstate(invalid="ignore"):
        known = np.isfinite(value).all(0) & (beside >= 0).all((0, 2))
        known &= np.abs(value[0] - value[1]) >= config.least * value.min(0)
        second_is_nearer = (value[0] > value[1]) == (config.map == "depth")
    turn = np.stack([second_is_nearer, ~second_is_nearer]).astype(np.int64)[..., None]
    ends, beside = (np.take_along_axis(x, turn, 0) for x in (ends, beside))
    pixel = np.concatenate([ends, beside])[:, known].transpose(1, 0, 2)
    rows = np.repeat(photo[known], 4)
    return _aimed(photos.cameras, rows, pixel.reshape(-1, 2) + 0.5)


def _with_neighbour(loader: RayLoader, photo: np.ndarray, pixel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What the map says at pixels (N, 2), NaN where it does not know, and for each that pixel of the four
    around it whose value is the most like it, -1 where there is none."""
    around = pixel[:, None] + np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
    value = loader.depth_at(photo, pixel)
    others = loader.depth_at(np.repeat(photo, 4), around.reshape(-1, 2)).reshape(-1, 4)
    apart = np.abs(others - value[:, None])
    apart[~np.isfinite(apart)] = np.inf
    best = apart.argmin(1)
    rows = np.arange(len(pixel))
    return value, np.where(np.isfinite(apart[rows, best])[:, None], around[rows, best], -1)


def _observations(photos: PosedPhotos) -> _Track:
    """What the photos saw of the scene's points. Points that fewer than two of them saw do not count: their
    place follows from photos that are held out."""
    points = photos.capture.points
    if points is None or not len(points.track_view):
        raise ValueError(
            "priors.points needs scene points with the photos that saw them (a COLMAP model with its "
            "images.bin or images.txt); there are none here"
        )
    row_of = {id(view): row for row, view in enumerate(photos.views)}
    rows = np.array([row_of.get(id(view), -1) for view in photos.capture.views])[points.track_view]
    seen = np.bincount(points.track_point[rows >= 0], minlength=len(points.positions))
    use = (rows >= 0) & (seen[points.track_point] >= 2)
    if not use.any():
        raise ValueError("priors.points: no scene point was seen by two of the training photos")
    photo, point = rows[use], points.track_point[use]
    full = np.array([(view.camera.width, view.camera.height) for view in photos.views])
    pixel = points.track_pixel[use] * (photos.cameras.size / full)[photo]
    distance = np.linalg.norm(points.positions[point] - photos.cameras.origins[photo], axis=1)
    error = points.error[point]
    known = np.isfinite(error)
    error = np.where(known, error, 1.0) / (error[known].mean() if known.any() else 1.0)
    reached = np.isfinite(photos.cameras.unproject(pixel, photo)).all(1)
    return _Track(photo[reached], pixel[reached], distance[reached], error[reached])


def _unseen(
    cameras: Cameras, config: UnseenViewsConfig, middle: np.ndarray, random: np.random.Generator
) -> Aimed:
    views = between(cameras, config.patches, middle, config.jitter, random)
    reach = (config.side - 1) * config.stride + 1
    room = np.maximum(views.size - reach, 0)
    corner = np.floor(random.random((config.patches, 2)) * (room + 1))
    step = np.arange(config.side) * config.stride
    x, y = np.meshgrid(step, step)
    pixel = corner[:, None] + np.stack([x.ravel(), y.ravel()], -1) + 0.5
    return _aimed(views, np.repeat(np.arange(config.patches), config.side**2), pixel.reshape(-1, 2))


def between(
    cameras: Cameras, count: int, middle: np.ndarray, jitter: float, random: np.random.Generator
) -> Cameras:
    """Pinhole cameras between pairs of cameras: their direction and distance from `middle` (3,) lies between
    those of the two, give or take `jitter` distances, and they look at what lies between what the two look
    at. Of a pair on opposite sides the first one is taken."""
    first, second = random.integers(len(cameras), size=(2, count))
    part = random.random((count, 1))

    def mixed(values: np.ndarray) -> np.ndarray:
        return values[first] * (1 - part) + values[second] * part

    away = cameras.origins - middle
    distance = np.linalg.norm(away, axis=1, keepdims=True)
    direction = mixed(away / np.maximum(distance, 1e-12))
    length = np.linalg.norm(direction, axis=1, keepdims=True)
    direction = np.where(length > 0.1, direction / np.maximum(length, 1e-12), (away / distance)[first])
    place = middle + direction * mixed(distance) + jitter * mixed(distance) * random.normal(size=(count, 3))
    forward, down = cameras.camera_to_world[:, :3, 2], cameras.camera_to_world[:, :3, 1]
    target = mixed(cameras.origins + forward * distance)
    poses = np.tile(np.eye(4), (count, 1, 1))
    poses[:, :3, 2] = _unit(target - place, forward[first])
    poses[:, :3, 0] = _unit(np.cross(mixed(down), poses[:, :3, 2]), cameras.camera_to_world[first, :3, 0])
    poses[:, :3, 1] = np.cross(poses[:, :3, 2], poses[:, :3, 0])
    poses[:, :3, 3] = place
    zeros = np.zeros_like
    return Cameras(
        poses,
        cameras.focal[first],
        cameras.centre[first],
        cameras.size[first],
        zeros(cameras.kind[first]),
        zeros(cameras.distortion[first]),
    )


def _unit(vectors: np.ndarray, otherwise: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.where(length > 1e-9, vectors / np.maximum(length, 1e-12), otherwise)


def _aimed(cameras: Cameras, rows: np.ndarray, pixels: np.ndarray) -> Aimed:
    cosine = cameras.unproject(pixels, rows)[:, 2]
    return Aimed(rays_through(cameras, rows, pixels), torch.from_numpy(cosine.astype(np.float32)))
