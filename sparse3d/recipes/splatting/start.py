"""The first Gaussians of a scene, and how large it is."""

import math

import numpy as np
import torch

from sparse3d.data.photos import PosedPhotos
from sparse3d.gaussians.cloud import SH0, GaussianCloud
from sparse3d.recipes.radiance.bounds import cube_in_view
from sparse3d.recipes.radiance.hull import cube_around
from sparse3d.recipes.splatting.config import StartConfig

ENOUGH_POINTS = 100  # of structure from motion, below which random ones are better


def scene_scale(photos: PosedPhotos) -> float:
    """Metres: 1.1 times the largest distance of a camera from the cameras' middle (arXiv 2308.04079); of a
    single camera, or many in one place, 1."""
    centres = photos.cameras.camera_to_world[:, :3, 3]
    reach = float(np.linalg.norm(centres - centres.mean(0), axis=1).max())
    return 1.1 * reach if reach > 1e-6 else 1.0


def first_cloud(config: StartConfig, photos: PosedPhotos, seed: int) -> GaussianCloud:
    """ValueError where points are asked for and the files have none."""
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
        return _cloud(config, means, colors, _distances(means))
    low, side = cube_around(photos, *cube_in_view(photos))
    generator = torch.Generator().manual_seed(seed)
    means = torch.tensor(low) + side * torch.rand(config.count, 3, generator=generator)
    colors = torch.rand(config.count, 3, generator=generator)
    apart = torch.full((config.count,), 0.55 * side / max(config.count, 1) ** (1 / 3))
    return _cloud(config, means, colors, apart)


def _distances(points: torch.Tensor) -> torch.Tensor:
    """(N,): mean distance of each point to its three nearest."""
    nearest = [
        torch.cdist(part, points).topk(min(4, len(points)), largest=False).values[:, 1:].mean(1)
        for part in points.split(1024)
    ]
    return torch.cat(nearest).nan_to_num(1.0)


def _cloud(
    config: StartConfig, means: torch.Tensor, colors: torch.Tensor, apart: torch.Tensor
) -> GaussianCloud:
    """Balls as large as their neighbours are away, of one colour from everywhere."""
    count, harmonics = len(means), (config.sh_degree + 1) ** 2 - 1
    scales = torch.log(config.scale * apart.clamp(min=1e-7))
    return GaussianCloud(
        means,
        scales[:, None].repeat(1, 3),
        torch.tensor([[1.0, 0.0, 0.0, 0.0]]).repeat(count, 1),
        torch.full((count,), math.log(config.opacity / (1 - config.opacity))),
        ((colors - 0.5) / SH0)[:, None],
        torch.zeros(count, harmonics, 3),
    )
