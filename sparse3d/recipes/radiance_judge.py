"""How well a field shows photos that it was not trained on."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from rich.table import Table

from sparse3d.data.photos import PosedPhotos
from sparse3d.evaluation.images import ImageScores, mean_scores, score
from sparse3d.fields import RadianceField
from sparse3d.recipes.radiance_batches import through_pixels
from sparse3d.recipes.radiance_config import PhotosConfig, RadianceEvaluationConfig

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class View:
    """One rendered photo: colours (H, W, 3) in [0, 1] of the field and of the photo, depth and opacity (H,
    W), and its scores."""

    name: str
    rendered: np.ndarray
    photo: np.ndarray
    depth: np.ndarray
    opacity: np.ndarray
    scores: ImageScores


@dataclass(frozen=True)
class RadianceJudgement:
    """The scores of each photo."""

    views: dict[str, ImageScores]

    @property
    def mean(self) -> ImageScores:
        return mean_scores(list(self.views.values()))

    def to_dict(self) -> dict[str, Any]:
        mean = self.mean
        return {
            name: {
                "mean": getattr(mean, name),
                "views": {view: getattr(scores, name) for view, scores in self.views.items()},
            }
            for name in ("psnr", "ssim")
        }

    def tables(self) -> list[Table]:
        table = Table("view", "PSNR, dB", "SSIM")
        for name, scores in [*self.views.items(), ("mean", self.mean)]:
            table.add_row(name, f"{scores.psnr:.2f}", f"{scores.ssim:.3f}")
        return [table]


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
        scores = score(np.clip(rendered, 0, 1), photo, photos.mask(row))
        yield View(name, rendered, photo, depth, opacity, scores)
        if progress is not None:
            progress(row + 1, len(photos))
