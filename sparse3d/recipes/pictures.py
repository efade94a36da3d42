"""Pictures of a reconstructed scene from any camera: those of its photos, or of a path through it."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse3d.data.photos import PosedPhotos
from sparse3d.gaussians.geometry import normals_of_depth
from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.orbits import orbit, spiral
from sparse3d.io.camera_paths import read_camera_path
from sparse3d.recipes.radiance.config import Vector
from sparse3d.recipes.radiance.reconstruct import photos_of_split
from sparse3d.recipes.scenes import ReconstructedScene


class Picture(NamedTuple):
    """What a camera sees of a scene: `color` (H, W, 3) in [0, 1], `depth` (H, W) metres along the optical
    axis and unit `normal` (H, W, 3) of what is seen, world, towards the camera, both NaN where less than half
    of the light comes from the scene; and `opacity` (H, W)."""

    color: np.ndarray
    depth: np.ndarray
    normal: np.ndarray
    opacity: np.ndarray


class Shot(NamedTuple):
    """A camera with a name for its picture."""

    name: str
    camera: Camera


def photos_of(scene: ReconstructedScene, split: str, data_root: str | None = None) -> PosedPhotos:
    """The photos of a split, as the run's config says."""
    data = scene.data if data_root is None else replace(scene.data, root=data_root)
    return photos_of_split(data, split)


def shots_of_photos(photos: PosedPhotos, longer_side: int | None = None) -> list[Shot]:
    """The cameras of photos, `longer_side` pixels wide or high (their own size where None)."""
    shots = []
    for row, name in enumerate(photos.names):
        camera = photos.cameras[row]
        camera = camera if longer_side is None else _sized(camera, longer_side)
        shots.append(Shot(Path(name).stem, camera))
    return shots


def shots_along(
    trajectory: str,
    scene: ReconstructedScene,
    photos: PosedPhotos,
    frames: int,
    longer_side: int | None = None,
) -> list[Shot]:
    """Cameras along `orbit` (around the scene) or `spiral` (before it), `frames` of them, as
    `geometry.orbits` has them; or those of a .json file (`io.camera_paths`), all of them. ValueError for
    another name."""
    if trajectory == "orbit":
        path = orbit(photos.cameras, scene.middle, frames, longer_side)
    elif trajectory == "spiral":
        path = spiral(photos.cameras, scene.middle, frames, longer_side)
    elif trajectory.endswith(".json"):
        path = read_camera_path(trajectory)
        if longer_side is not None:
            path = [_sized(camera, longer_side) for camera in path]
    else:
        raise ValueError(f"no trajectory {trajectory!r}: say orbit, spiral or the name of a .json file")
    return [Shot(f"{number:04d}", camera) for number, camera in enumerate(path)]


def _sized(camera: Camera, longer_side: int) -> Camera:
    scale = longer_side / max(camera.width, camera.height)
    return camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))


def background_of(scene: ReconstructedScene, photos: PosedPhotos) -> Vector:
    """What stands behind the scene."""
    return scene.data.background_color(photos.capture.background)


def depth_range(scene: ReconstructedScene, camera: Camera) -> tuple[float, float]:
    """Metres: the depths of the ball that the scene lies in, as a camera sees it."""
    away = float(np.linalg.norm(camera.camera_to_world[:3, 3] - scene.middle))
    return max(away - scene.reach, 0.0), away + scene.reach


def pictures(
    scene: ReconstructedScene, shots: list[Shot], background: Vector
) -> Iterator[tuple[Shot, Picture]]:
    """Each shot with its picture, in turn."""
    for shot in shots:
        color, depth, opacity = scene.draw(shot.camera, background)
        known = np.where(opacity > 0.5, depth, np.nan)
        normal = normals_of_depth(known, shot.camera)
        yield shot, Picture(np.clip(color, 0, 1), known, normal, opacity)
