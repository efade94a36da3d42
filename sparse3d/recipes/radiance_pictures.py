"""Pictures of a trained field from any camera: along the cameras of its photos, or around the scene."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sparse3d.data.photos import PosedPhotos, open_photos
from sparse3d.fields import RadianceField
from sparse3d.geometry.cameras import Camera, Cameras
from sparse3d.geometry.orbits import orbit
from sparse3d.geometry.rays import depth_from_distance, rays_through
from sparse3d.recipes.radiance import LoadedField
from sparse3d.recipes.radiance_config import RadianceEvaluationConfig


class Picture(NamedTuple):
    """What a camera sees of a field: `color` (H, W, 3) in [0, 1], `depth` (H, W) metres along the optical
    axis, NaN where less than half of the light comes from the field, and `opacity` (H, W)."""

    color: np.ndarray
    depth: np.ndarray
    opacity: np.ndarray


class Shot(NamedTuple):
    """A camera with a name for its picture."""

    name: str
    camera: Camera


def photos_of(loaded: LoadedField, split: str, data_root: str | None = None) -> PosedPhotos:
    """The photos of a split, as the field's config says."""
    data = loaded.config.data if data_root is None else replace(loaded.config.data, root=data_root)
    return open_photos(data.root, scale=data.scale, split=split, views=data.views, format=data.format)


def shots_of_photos(photos: PosedPhotos, longer_side: int | None = None) -> list[Shot]:
    """The cameras of photos, `longer_side` pixels wide or high (their own size where None)."""
    shots = []
    for row, name in enumerate(photos.names):
        camera = photos.cameras[row]
        if longer_side is not None:
            scale = longer_side / max(camera.width, camera.height)
            size = (max(1, round(side * scale)) for side in (camera.width, camera.height))
            camera = camera.resized(*size)
        shots.append(Shot(Path(name).stem, camera))
    return shots


def shots_around(
    loaded: LoadedField, photos: PosedPhotos, frames: int, longer_side: int | None = None
) -> list[Shot]:
    """`geometry.orbits.orbit` around the middle of the field's cube."""
    space = loaded.field.config.space
    middle = np.array(space.low) + space.side / 2
    path = orbit(photos.cameras, middle, frames, longer_side)
    return [Shot(f"{number:04d}", camera) for number, camera in enumerate(path)]


def background_of(loaded: LoadedField, photos: PosedPhotos) -> tuple[float, float, float]:
    """What stands behind the field."""
    return loaded.config.data.background_color(photos.capture.background)


def depth_range(loaded: LoadedField, camera: Camera) -> tuple[float, float]:
    """Metres: the depths of the ball in the field's cube, as a camera sees it."""
    space = loaded.field.config.space
    middle = np.array(space.low) + space.side / 2
    away = float(np.linalg.norm(camera.camera_to_world[:3, 3] - middle))
    reach = space.side / 2
    return max(away - reach, 0.0), away + reach


@torch.no_grad()
def picture(
    field: RadianceField,
    camera: Camera,
    background: tuple[float, float, float],
    config: RadianceEvaluationConfig,
) -> Picture:
    """What a camera sees; each pixel is the mean of rays_per_side^2 rays."""
    side, cameras = config.rays_per_side, Cameras.stack([camera])
    device = next(iter(field.parameters())).device  # pyright: ignore[reportAttributeAccessIssue]
    behind = torch.tensor(background, device=device)
    y, x = np.divmod(np.arange(camera.width * camera.height), camera.width)
    v, u = np.divmod(np.arange(side**2), side)
    within = (np.stack([u, v], 1) + 0.5) / side
    parts = []
    for some in np.array_split(np.stack([x, y], 1), max(1, len(x) * side**2 // config.chunk)):
        places = (some[:, None] + within).reshape(-1, 2)
        rays = rays_through(cameras, np.zeros(len(places), dtype=np.int64), places).to(device)
        seen = field.render(rays.origins, rays.directions, behind)
        columns = torch.cat([seen.color, (seen.depth * seen.opacity)[:, None], seen.opacity[:, None]], 1)
        parts.append(columns.view(len(some), -1, 5).mean(1).cpu())
    image = torch.cat(parts).numpy().reshape(camera.height, camera.width, 5)
    opacity = image[..., 4]
    distance = np.where(opacity > 0.5, image[..., 3] / np.maximum(opacity, 1e-6), np.nan)
    return Picture(np.clip(image[..., :3], 0, 1), depth_from_distance(distance, camera), opacity)


def pictures(
    loaded: LoadedField, shots: list[Shot], background: tuple[float, float, float]
) -> Iterator[tuple[Shot, Picture]]:
    """Each shot with its picture, in turn."""
    for shot in shots:
        yield shot, picture(loaded.field, shot.camera, background, loaded.config.evaluation)
