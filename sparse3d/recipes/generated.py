"""Scenes that a config asks to be generated where its data are missing."""

from collections.abc import Callable
from pathlib import Path

from sparse3d.data.kitti_index import find_root
from sparse3d.data.minidrive import write_minidrive
from sparse3d.data.minidrive.write import MANIFEST
from sparse3d.errors import DataError
from sparse3d.recipes.detection_config import GenerateConfig


def generate_scenes(
    root: str | Path,
    recipe: GenerateConfig,
    point_labels: bool,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write the scenes of `recipe` into `root`, with a label for each point on request; what is there stays,
    a started generation is continued, and a folder of somebody's own data is left alone."""
    try:
        folder = find_root(root)
    except DataError:
        folder = Path(root).expanduser()
    if folder.exists() and not (folder / MANIFEST).exists():
        return
    write_minidrive(
        folder,
        recipe.scenes,
        recipe.seed,
        recipe.simulator,
        val_fraction=recipe.val_fraction,
        labels=point_labels,
        progress=progress,
    )
