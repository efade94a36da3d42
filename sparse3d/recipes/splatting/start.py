"""The first Gaussians of a scene, and how large it is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sparse3d.data.photos import PosedPhotos
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.initial import from_points, random_in_box
from sparse3d.geometry.cameras import Camera
from sparse3d.recipes.radiance.bounds import cube_in_view
from sparse3d.recipes.radiance.guides import between
from sparse3d.recipes.radiance.hull import cube_around
from sparse3d.recipes.splatting.config import StartConfig

Cube = tuple[tuple[float, float, float], float]  # the corner with the smallest coordinates, and the side
ENOUGH_POINTS = 100  # of structure from motion, below which random ones are better


def scene_scale(photos: PosedPhotos) -> float:
    """Metres: 1.1 times the largest distance of a camera from the cameras' middle (arXiv 2308.04079); of a
    single camera, or many in one place, 1."""
    centres = photos.cameras.camera_to_world[:, :3, 3]
    reach = float(np.linalg.norm(centres - centres.mean(0), axis=1).max())
    return 1.1 * reach if reach > 1e-6 else 1.0


def scene_cube(photos: PosedPhotos) -> Cube:
    """Around what the photos show, carved from their opacity where they have one. Looks into files."""
    return cube_around(photos, *cube_in_view(photos))


def first_cloud(
    config: StartConfig, photos: PosedPhotos, seed: int, cube: Callable[[], Cube]
) -> GaussianCloud:
    """Points, or random ones in the `cube`, which is asked for only then. ValueError where points are asked
    for and the files have none."""
    shape: dict[str, Any] = {
        "sh_degree": config.sh_degree,
        "opacity": config.opacity,
        "scale": config.scale,
        "surfels": config.shape == "surfels",
    }
    points = photos.capture.points
    have = 0 if points is None else len(points.positions)
    if config.kind == "points" and not have:
        raise ValueError("start.kind is points, but the photos come without any; use start.kind=random")
    if config.kind == "points" or (config.kind == "auto" and have >= ENOUGH_POINTS):
        assert points is not None
        rows = np.arange(have)
        if 0 < config.count < have:
            rows = np.sort(np.random.default_rng(seed).choice(have, config.count, replace=False))
        means = torch.from_numpy(points.positions[rows]).float()
        colors = torch.from_numpy(points.colors[rows]).float() / 255
        return from_points(means, colors, **shape)
    low, side = cube()
    corners = torch.tensor([low, [x + side for x in low]])
    return random_in_box(corners, config.count, seed=seed, **shape)


def cameras_between(photos: PosedPhotos, cube: Cube, seed: int, jitter: float) -> Callable[[int], Camera]:
    """A camera for each step that stands between two of the photos' (`radiance.guides.between`), give or
    take `jitter` distances from the middle of the `cube`; it follows from the seed and the step."""
    low, side = cube
    middle = np.array(low) + side / 2

    def camera(step: int) -> Camera:
        return between(photos.cameras, 1, middle, jitter, np.random.default_rng([seed, step, 2]))[0]

    return camera
