"""A finished reconstruction, whatever it is made of: what any camera sees of it, and where it is."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sparse3d.fields.build import Field
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.geometry.cameras import Camera, Lens
from sparse3d.recipes.radiance import reconstruct as radiance
from sparse3d.recipes.radiance.config import PhotosConfig, Vector
from sparse3d.recipes.radiance.judge import Shown, render_view
from sparse3d.recipes.splatting import reconstruct as splatting
from sparse3d.recipes.tasks import task_of_run

MOST = 0.9  # of a cloud's Gaussians, along each axis, are what the scene is; others are strays


@dataclass(frozen=True)
class ReconstructedScene:
    """`draw` tells what a camera sees in front of a background; the scene lies around `middle` (3,), world,
    within `reach`, metres. `data` are the photos that it was made from, `split` those that it is judged
    on."""

    data: PhotosConfig
    split: str
    middle: np.ndarray
    reach: float
    draw: Callable[[Camera, Vector], Shown]
    made_of: Field | GaussianCloud


Loaded = radiance.LoadedField | splatting.LoadedCloud


def load_run(run: str | Path, checkpoint: str = "last", device: str | None = None) -> Loaded:
    """What a run of `sparse3d reconstruct` made. ConfigError for a run of another command."""
    if task_of_run(run, "render").name == "radiance":
        return radiance.load_field(run, checkpoint, device)
    return splatting.load_cloud(run, checkpoint, device)


def scene_of(loaded: Loaded) -> ReconstructedScene:
    """See `scene_of_field` and `scene_of_cloud`."""
    if isinstance(loaded, radiance.LoadedField):
        return scene_of_field(loaded)
    return scene_of_cloud(loaded)


def scene_of_field(loaded: radiance.LoadedField) -> ReconstructedScene:
    """A field fills its cube. What was learned to stand behind it does, whatever is asked for."""
    config, space = loaded.config, loaded.field.config.space

    def draw(camera: Camera, background: Vector) -> Shown:
        return Shown(*render_view(loaded.field, camera, loaded.background or background, config.evaluation))

    middle = np.array(space.low) + space.side / 2
    return ReconstructedScene(
        config.data, config.evaluation.split, middle, space.side / 2, draw, loaded.field
    )


def scene_of_cloud(loaded: splatting.LoadedCloud) -> ReconstructedScene:
    """A cloud is where most of its Gaussians are; surfels show of any lens what a pinhole would see.
    ValueError for an empty one."""
    config, means = loaded.config, loaded.cloud.means.detach().cpu().numpy()
    if not len(means):
        raise ValueError("the cloud is empty: nothing was left of it in training")

    def draw(camera: Camera, background: Vector) -> Shown:
        seen_by = replace(camera, lens=Lens()) if loaded.cloud.surfels else camera
        return splatting.show_cloud(loaded, seen_by, background)

    low, high = np.quantile(means, [(1 - MOST) / 2, (1 + MOST) / 2], axis=0)
    reach = max(float(np.linalg.norm(high - low)) / 2, 1e-6)
    return ReconstructedScene(
        config.data, config.evaluation.split, (low + high) / 2, reach, draw, loaded.cloud
    )
