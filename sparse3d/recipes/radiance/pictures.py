"""Pictures of a trained field from any camera: along the cameras of its photos, or around the scene."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse3d.data.photos import PosedPhotos
from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.orbits import orbit
from sparse3d.recipes.radiance.config import Vector
from sparse3d.recipes.radiance.judge import render_view
from sparse3d.recipes.radiance.reconstruct import LoadedField, photos_of_split


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
    return photos_of_split(data, split)


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


def background_of(loaded: LoadedField, photos: PosedPhotos) -> Vector:
    """What stands behind the field."""
    return loaded.config.data.background_color(photos.capture.background)


def depth_range(loaded: LoadedField, camera: Camera) -> tuple[float, float]:
    """Metres: the depths of the ball in the field's cube, as a camera sees it."""
    space = loaded.field.config.space
    middle = np.array(space.low) + space.side / 2
    away = float(np.linalg.norm(camera.camera_to_world[:3, 3] - middle))
    reach = space.side / 2
    return max(away - reach, 0.0), away + reach


def pictures(loaded: LoadedField, shots: list[Shot], background: Vector) -> Iterator[tuple[Shot, Picture]]:
    """Each shot with its picture, in turn."""
    for shot in shots:
        color, depth, opacity = render_view(loaded.field, shot.camera, background, loaded.config.evaluation)
        yield shot, Picture(np.clip(color, 0, 1), np.where(opacity > 0.5, depth, np.nan), opacity)
