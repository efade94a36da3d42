"""Pixels of posed photos with the rays through them, as the training loop takes them."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparse3d.data.ray_loader import RayLoader
from sparse3d.geometry.cameras import Cameras
from sparse3d.geometry.rays import Rays, rays_through
from sparse3d.recipes.radiance.config import LevelConfig
from sparse3d.recipes.radiance.guides import Guides, GuideSource


class PixelBatch(NamedTuple):
    """P pixels: `rays`, n^2 a pixel one after the other, their `colors` (P, 3) over a `background` (3,), the
    row of the photo (P n^2,) that each ray belongs to, the photos' opacity `alpha` (P,) and measured
    `distance` (P,) along the ray, metres, NaN where unknown (None where the photos have none); and rays for
    the priors."""

    rays: Rays
    colors: Tensor
    background: Tensor
    photo: Tensor
    alpha: Tensor | None = None
    distance: Tensor | None = None
    guides: Guides = Guides()

    @property
    def batch_size(self) -> int:
        return len(self.colors)

    def to(self, device: torch.device | str) -> "PixelBatch":
        rest = (None if part is None else part.to(device) for part in self[1:])
        return PixelBatch(self.rays.to(device), *rest)  # type: ignore[arg-type]


class PixelLoader:
    """A RayLoader in epochs, with n^2 rays a pixel on a regular grid, and the priors' rays from `guides`.
    `level` may be changed between batches; an epoch has as many as all pixels take in those of the first."""

    def __init__(
        self,
        loader: RayLoader,
        background: tuple[float, float, float],
        level: LevelConfig,
        guides: GuideSource | None = None,
    ):
        self.loader, self.level, self.guides = loader, level, guides
        self.background = torch.tensor(background)
        self._length = max(1, math.ceil(loader.rays_per_epoch / level.pixels))
        self._given = 0  # batches of the present epoch

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[PixelBatch]:
        for number in range(self._given + 1, self._length + 1):
            self._given = number % self._length
            self.loader.batch_size = self.level.pixels
            guides = self.guides.at(self.loader.position) if self.guides is not None else Guides()
            batch = next(self.loader)
            rays = batch.rays
            if self.level.rays_per_side > 1:
                cameras, per_side = self.loader.photos.cameras, self.level.rays_per_side
                rays = through_pixels(cameras, batch.photo.numpy(), batch.pixel.numpy(), per_side)
            photo = batch.photo.repeat_interleave(self.level.rays_per_side**2)
            colors, background = batch.over(self.background), self.background
            yield PixelBatch(rays, colors, background, photo, batch.alpha, batch.distance, guides)

    def state_dict(self) -> dict[str, Any]:
        return {**self.loader.state_dict(), "given": self._given}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)
        self._given = int(state["given"])


def through_pixels(cameras: Cameras, rows: np.ndarray, pixel: np.ndarray, per_side: int) -> Rays:
    """per_side^2 rays through each pixel (P, 2) of cameras `rows` (P,), on a regular grid, row after row."""
    inside = (np.arange(per_side) + 0.5) / per_side
    x, y = np.meshgrid(inside, inside)
    places = pixel[:, None] + np.stack([x.ravel(), y.ravel()], 1)
    return rays_through(cameras, np.repeat(rows, per_side**2), places.reshape(-1, 2))
