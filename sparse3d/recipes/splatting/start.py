"""The first Gaussians of a scene, and how large it is."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from sparse3d.data.photos import PosedPhotos
from sparse3d.data.whole_photos import undistorted
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.formats.table import read_splats
from sparse3d.gaussians.initial import from_depth, from_field, from_mesh, from_points, random_in_box
from sparse3d.gaussians.transform import merge, with_sh_degree
from sparse3d.geometry.cameras import Camera
from sparse3d.geometry.painted_points import PaintedPoints
from sparse3d.io.meshes import read_mesh
from sparse3d.io.painted_points import read_painted_points
from sparse3d.recipes.radiance.bounds import cube_in_view
from sparse3d.recipes.radiance.guides import between
from sparse3d.recipes.radiance.hull import cube_around
from sparse3d.recipes.radiance.reconstruct import load_field
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
    """What `config.kind` says; the `cube` is asked for only where it is needed. ValueError where points or
    depth maps are asked for and the files have none, DataError for a source that is damaged."""
    shape: dict[str, Any] = {
        "sh_degree": config.sh_degree,
        "opacity": config.opacity,
        "scale": config.scale,
        "surfels": config.shape == "surfels",
    }
    match config.kind:
        case "mesh":
            return from_mesh(read_mesh(config.source), config.count, seed=seed, **shape)
        case "field":
            return _of_field(config, seed, shape)
        case "cloud":
            return _of_cloud(config)
        case "depth":
            return _some(merge(_of_depth(config, photos, shape)), config.count, seed)
    painted = _points(config, photos)
    if painted is not None:
        rows = torch.from_numpy(_rows(len(painted), config.count, seed))
        colors = painted.colors
        shades = torch.full((len(painted), 3), 0.5) if colors is None else torch.from_numpy(colors) / 255
        return from_points(torch.from_numpy(painted.positions)[rows], shades[rows].float(), **shape)
    low, side = cube()
    corners = torch.tensor([low, [x + side for x in low]])
    return random_in_box(corners, config.count, seed=seed, **shape)


def _points(config: StartConfig, photos: PosedPhotos) -> PaintedPoints | None:
    """Those of a file, or of the photos; None where random Gaussians are asked for, or are better."""
    if config.kind == "random":
        return None
    if config.source:
        return read_painted_points(config.source)
    found = photos.capture.points
    have = 0 if found is None else len(found.positions)
    if config.kind == "points" and not have:
        raise ValueError("start.kind is points, but the photos come without any; use start.kind=random")
    if found is None or (config.kind == "auto" and have < ENOUGH_POINTS):
        return None
    return PaintedPoints(found.positions, found.colors)


def _of_depth(config: StartConfig, photos: PosedPhotos, shape: dict[str, Any]) -> list[GaussianCloud]:
    """A cloud of each photo that has a depth map, of about as many Gaussians as all together are to have."""
    rows = [row for row in range(len(photos)) if photos.views[row].depth is not None]
    if not rows:
        raise ValueError("start.kind is depth, but no photo has a depth map; name a folder: data.depth=DIR")
    clouds = []
    for row in rows:
        photo, camera = undistorted(photos.photo(row), photos.cameras[row])
        assert photo.depth is not None
        wanted = config.count / len(rows) if config.count else math.inf
        stride = max(1, math.floor(math.sqrt(camera.width * camera.height / wanted)))
        clouds.append(from_depth(camera, photo.depth, photo.rgb, stride=stride, **shape))
    return clouds


def _of_field(config: StartConfig, seed: int, shape: dict[str, Any]) -> GaussianCloud:
    """Of its density, with the colours that one sees who looks towards the middle of its cube."""
    field = load_field(config.source).field
    space = field.config.space
    low = np.array(space.low)
    middle = torch.tensor((low + space.side / 2).tolist())

    def color(points: torch.Tensor) -> torch.Tensor:
        return field.color(points, torch.nn.functional.normalize(middle - points, dim=1)).clamp(0, 1)

    box = low.tolist(), (low + space.side).tolist()
    with torch.no_grad():
        return from_field(field.density, *box, config.count, color=color, seed=seed, **shape)


def _of_cloud(config: StartConfig) -> GaussianCloud:
    """As it is in its file, but for the degree of its harmonics. ValueError for Gaussians where surfels are
    to be trained, or the other way around."""
    cloud = read_splats(config.source)
    if cloud.surfels != (config.shape == "surfels"):
        held = "surfels" if cloud.surfels else "Gaussians"
        raise ValueError(f"{config.source} holds {held}, but start.shape is {config.shape}")
    return with_sh_degree(cloud, config.sh_degree)


def _some(cloud: GaussianCloud, count: int, seed: int) -> GaussianCloud:
    return cloud[torch.from_numpy(_rows(len(cloud), count, seed))]


def _rows(have: int, count: int, seed: int) -> np.ndarray:
    """At most `count` of them in their order, all for 0."""
    if not 0 < count < have:
        return np.arange(have)
    return np.sort(np.random.default_rng(seed).choice(have, count, replace=False))


def cameras_between(photos: PosedPhotos, cube: Cube, seed: int, jitter: float) -> Callable[[int], Camera]:
    """A camera for each step that stands between two of the photos' (`radiance.guides.between`), give or
    take `jitter` distances from the middle of the `cube`; it follows from the seed and the step."""
    low, side = cube
    middle = np.array(low) + side / 2

    def camera(step: int) -> Camera:
        return between(photos.cameras, 1, middle, jitter, np.random.default_rng([seed, step, 2]))[0]

    return camera
