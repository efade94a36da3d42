"""How well a field shows photos that it was not trained on, and how far off its depth is where that is
known."""

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from rich.table import Table

from sparse3d.data.photos import Photo, PosedPhotos
from sparse3d.evaluation.images import (
    DepthScores,
    ImageScores,
    error_map,
    mean_depth_scores,
    mean_scores,
    score,
    score_depth,
)
from sparse3d.evaluation.lpips import Lpips
from sparse3d.fields import RadianceField
from sparse3d.fields.background import Background, LearnedBackground, behind
from sparse3d.geometry.cameras import Camera, Cameras
from sparse3d.geometry.rays import depth_from_distance
from sparse3d.io.files import atomic_path, write_text
from sparse3d.recipes.radiance.batches import through_pixels
from sparse3d.recipes.radiance.config import PhotosConfig, RadianceEvaluationConfig, Vector

Progress = Callable[[int, int], None]


class ViewScores(NamedTuple):
    """Of one photo; `depth` is None where the photo has no depth map."""

    image: ImageScores
    depth: DepthScores | None = None


@dataclass(frozen=True)
class View:
    """One rendered photo: colours (H, W, 3) in [0, 1] of the field and of the photo, depth along the optical
    axis and opacity (H, W), the photo's mask or None, and its scores."""

    name: str
    rendered: np.ndarray
    photo: np.ndarray
    depth: np.ndarray
    opacity: np.ndarray
    mask: np.ndarray | None
    scores: ViewScores


class _Column(NamedTuple):
    """A figure: its name in files, its heading and format in the table, and where it is."""

    name: str
    heading: str
    digits: str
    of: Callable[[ViewScores], float]


_COLUMNS = (
    _Column("psnr", "PSNR, dB", ".2f", lambda s: s.image.psnr),
    _Column("ssim", "SSIM", ".3f", lambda s: s.image.ssim),
    _Column("lpips", "LPIPS", ".3f", lambda s: s.image.lpips),
    _Column("depth_relative", "depth, rel.", ".4f", lambda s: s.depth.relative if s.depth else np.nan),
    _Column("depth_rmse", "RMSE, m", ".4f", lambda s: s.depth.root_mean_square if s.depth else np.nan),
)


@dataclass(frozen=True)
class RadianceJudgement:
    """The scores of each photo."""

    views: dict[str, ViewScores]

    @property
    def mean(self) -> ViewScores:
        """Means over the photos; depth over those that have it."""
        scores = list(self.views.values())
        depths = [s.depth for s in scores if s.depth is not None]
        return ViewScores(
            mean_scores([s.image for s in scores]), mean_depth_scores(depths) if depths else None
        )

    def to_dict(self) -> dict[str, Any]:
        mean = self.mean
        return {
            column.name: {
                "mean": column.of(mean),
                "views": {view: column.of(scores) for view, scores in self.views.items()},
            }
            for column in self._known()
        }

    def tables(self) -> list[Table]:
        known = self._known()
        table = Table("view", *(column.heading for column in known))
        for name, scores in [*self.views.items(), ("mean", self.mean)]:
            table.add_row(name, *(format(column.of(scores), column.digits) for column in known))
        return [table]

    def _known(self) -> Sequence[_Column]:
        """LPIPS needs weights, depth a map: left out where there are none."""
        mean = self.mean
        return [c for c in _COLUMNS if c.name in ("psnr", "ssim") or not np.isnan(c.of(mean))]


@torch.no_grad()
def render_view(
    field: RadianceField, camera: Camera, background: Background, config: RadianceEvaluationConfig
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What a camera sees: colours (H, W, 3), depth along the optical axis, metres, and opacity (H, W). A
    pixel is the mean of rays_per_side^2 rays, its depth that of what they see."""
    cameras, side = Cameras.stack([camera]), config.rays_per_side
    device = next(iter(field.parameters())).device  # pyright: ignore[reportAttributeAccessIssue]
    y, x = np.divmod(np.arange(camera.width * camera.height), camera.width)
    pixels, at_once = np.stack([x, y], 1), max(1, config.chunk // side**2)
    parts = []
    for begin in range(0, len(pixels), at_once):
        some = pixels[begin : begin + at_once]
        rays = through_pixels(cameras, np.zeros(len(some), dtype=np.int64), some, side).to(device)
        seen = field.render(*rays, behind(background, rays.directions))
        columns = torch.cat([seen.color, (seen.depth * seen.opacity)[:, None], seen.opacity[:, None]], 1)
        parts.append(columns.view(len(some), -1, 5).mean(1).cpu())
    image = torch.cat(parts).numpy().reshape(camera.height, camera.width, 5)
    opacity = image[..., 4]
    distance = image[..., 3] / np.maximum(opacity, 1e-6)
    return image[..., :3], depth_from_distance(distance, camera).astype(np.float32), opacity


def judge_field(
    field: RadianceField,
    photos: PosedPhotos,
    data: PhotosConfig,
    config: RadianceEvaluationConfig,
    progress: Progress | None = None,
    learned: LearnedBackground | None = None,
) -> Iterator[View]:
    """Each photo, rendered and measured; before the background that was `learned`, if there is one."""
    background = data.background_color(photos.capture.background)

    def show(camera: Camera) -> Shown:
        return Shown(*render_view(field, camera, learned or background, config))

    wanted = ((name, photos.photo(row), photos.cameras[row]) for row, name in enumerate(photos.names))
    return judge_views(show, wanted, len(photos), background, config.lpips, progress)


class Shown(NamedTuple):
    """What a camera sees: `color` (H, W, 3), `depth` (H, W) metres along the optical axis, and `opacity`
    (H, W)."""

    color: np.ndarray
    depth: np.ndarray
    opacity: np.ndarray


def judge_views(
    show: Callable[[Camera], Shown],
    wanted: Iterable[tuple[str, Photo, Camera]],
    count: int,
    background: Vector,
    lpips_files: Sequence[str] = (),
    progress: Progress | None = None,
) -> Iterator[View]:
    """Each photo that is wanted (of `count`), shown and measured. Depth counts where more of the light comes
    from the scene than not."""
    lpips = Lpips.load(lpips_files[0], lpips_files[-1]) if lpips_files else None
    for number, (name, photo, camera) in enumerate(wanted, 1):
        image = photo.over(background)
        rendered, depth, opacity = show(camera)
        measured = None
        if photo.depth is not None:
            measured = score_depth(np.where(opacity > 0.5, depth, np.nan), photo.depth, photo.mask)
        scores = ViewScores(score(np.clip(rendered, 0, 1), image, photo.mask, lpips), measured)
        yield View(name, rendered, image, depth, opacity, photo.mask, scores)
        if progress is not None:
            progress(number, count)


@dataclass(frozen=True)
class Outcome:
    """What was found, the folder that it was written to, and the checkpoint that was judged."""

    judgement: RadianceJudgement
    folder: Path
    checkpoint: Path


def write_views(folder: Path, checkpoint: Path, views: Iterable[View], **more: Any) -> Outcome:
    """Write `views/`, a picture of each as `side_by_side` has it, and `metrics.json`, with the split (the
    folder's name), the checkpoint, the number of views and what is said beside."""
    found = {}
    for view in views:
        found[view.name] = view.scores
        (folder / "views").mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / "views" / (Path(view.name).stem + ".png")) as temporary:
            Image.fromarray(side_by_side(view)).save(temporary, format="PNG")
    judgement = RadianceJudgement(found)
    summary = {"split": folder.name, "checkpoint": checkpoint.name, "views": len(found), **more}
    write_text(folder / "metrics.json", json.dumps(summary | judgement.to_dict(), indent=1) + "\n")
    return Outcome(judgement, folder, checkpoint)


def side_by_side(view: View) -> np.ndarray:
    """(H, 4 W, 3) uint8: photo, rendering, error (`error_map`; black where a mask hides it), depth (near is
    bright)."""
    rendered = np.clip(view.rendered, 0, 1).astype(np.float32)
    error = error_map(rendered, view.photo.astype(np.float32))
    if view.mask is not None:
        error = error * view.mask[..., None]
    seen = view.opacity > 0.5
    depth = np.zeros_like(view.depth)
    if seen.any():
        near, far = np.percentile(view.depth[seen], [1, 99])
        depth[seen] = 1 - 0.9 * np.clip((view.depth[seen] - near) / max(far - near, 1e-6), 0, 1)
    pictures = [np.rint(255 * np.clip(x, 0, 1)).astype(np.uint8) for x in (view.photo, rendered, depth)]
    return np.concatenate([*pictures[:2], error, np.repeat(pictures[2][..., None], 3, 2)], 1)
