"""How well a field shows photos that it was not trained on."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table

from sparse3d.data.photos import PosedPhotos
from sparse3d.fields import RadianceField
from sparse3d.recipes.radiance_batches import through_pixels
from sparse3d.recipes.radiance_config import PhotosConfig, RadianceEvaluationConfig

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class View:
    """One rendered photo: colours (H, W, 3) in [0, 1] of the field and of the photo, depth and opacity (H,
    W), and the peak signal-to-noise ratio in dB."""

    name: str
    rendered: np.ndarray
    photo: np.ndarray
    depth: np.ndarray
    opacity: np.ndarray
    psnr: float


@dataclass(frozen=True)
class RadianceJudgement:
    """The ratio of each photo, dB."""

    psnr: dict[str, float]

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.psnr.values()))) if self.psnr else math.nan

    def to_dict(self) -> dict[str, Any]:
        return {"psnr": {"mean": self.mean, "views": self.psnr}}

    def tables(self) -> list[Table]:
        table = Table("view", "PSNR, dB")
        for name, value in self.psnr.items():
            table.add_row(name, f"{value:.2f}")
        table.add_row("mean", f"{self.mean:.2f}", style="bold")
        return [table]


def psnr(rendered: np.ndarray, photo: np.ndarray) -> float:
    """Of colours in [0, 1], dB: -10 log10 of the mean squared error."""
    error = float(((np.clip(rendered, 0, 1) - photo) ** 2).mean())
    return math.inf if error == 0 else -10 * math.log10(error)


@torch.no_grad()
def render_view(
    field: RadianceField, photos: PosedPhotos, row: int, data: PhotosConfig, config: RadianceEvaluationConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Colours (H, W, 3), depth and opacity (H, W) from where a photo was taken."""
    camera = photos.cameras[row]
    y, x = np.divmod(np.arange(camera.width * camera.height), camera.width)
    parts = []
    device = next(iter(field.parameters())).device  # pyright: ignore[reportAttributeAccessIssue]
    background = torch.tensor(data.background_color(photos.capture.background), device=device)
    pixels = max(1, config.chunk // config.rays_per_side**2)
    for begin in range(0, len(x), pixels):
        places = np.stack([x[begin : begin + pixels], y[begin : begin + pixels]], 1)
        rays = through_pixels(photos, np.full(len(places), row), places, config.rays_per_side).to(device)
        seen = field.render(rays.origins, rays.directions, background)
        columns = torch.cat([seen.color, (seen.depth * seen.opacity)[:, None], seen.opacity[:, None]], 1)
        parts.append(columns.view(len(places), -1, 5).mean(1).cpu())
    image = torch.cat(parts).numpy().reshape(camera.height, camera.width, 5)
    opacity = image[..., 4]
    return image[..., :3], image[..., 3] / np.maximum(opacity, 1e-6), opacity


def judge_field(
    field: RadianceField,
    photos: PosedPhotos,
    data: PhotosConfig,
    config: RadianceEvaluationConfig,
    progress: Progress | None = None,
) -> Iterator[View]:
    """Each photo, rendered and measured."""
    for row, name in enumerate(photos.names):
        photo = photos.photo(row).over(data.background_color(photos.capture.background))
        rendered, depth, opacity = render_view(field, photos, row, data, config)
        yield View(name, rendered, photo, depth, opacity, psnr(rendered, photo))
        if progress is not None:
            progress(row + 1, len(photos))
