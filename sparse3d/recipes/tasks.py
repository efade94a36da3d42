"""Which recipe a config is for: its key `task` says it, detection where it is not written."""

import difflib
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from sparse3d import config as configs
from sparse3d.config_yaml import Scalar, find_config, merge, override_tree, read_tree
from sparse3d.errors import ConfigError
from sparse3d.recipes import detection, segmentation
from sparse3d.recipes.detection_config import DetectionConfig
from sparse3d.recipes.radiance import reconstruct as radiance
from sparse3d.recipes.radiance.config import RadianceConfig
from sparse3d.recipes.run_folder import RunFolder
from sparse3d.recipes.segmentation_config import SegmentationConfig
from sparse3d.recipes.splatting import reconstruct as splatting
from sparse3d.recipes.splatting.config import SplattingConfig

Config = DetectionConfig | SegmentationConfig | RadianceConfig | SplattingConfig


class Task(NamedTuple):
    """A task's schema of configs, its recipe (a module with `train` and `evaluate`), and the command that
    applies a trained model to files."""

    name: str
    config: type[Config]
    recipe: ModuleType
    command: str


TASKS = {
    task.name: task
    for task in (
        Task("detection", DetectionConfig, detection, "detect"),
        Task("segmentation", SegmentationConfig, segmentation, "segment"),
        Task("radiance", RadianceConfig, radiance, "render"),
        Task("splatting", SplattingConfig, splatting, "render"),
    )
}


def task_of(source: str | Path, overrides: Sequence[str] = ()) -> Task:
    """The task of a config (a path or a name). ConfigError for one that is unknown."""
    tree = read_tree(find_config(source))
    for override in overrides:
        tree = merge(tree, override_tree(override))
    node = tree.values.get("task")
    if node is None:
        return TASKS["detection"]
    name = node.text if isinstance(node, Scalar) else None
    if name not in TASKS:
        near = difflib.get_close_matches(name or "", TASKS, n=1)
        hint = f"did you mean '{near[0]}'?" if near else f"there are: {', '.join(TASKS)}"
        raise ConfigError(f"{tree.key_places['task']}: unknown task {name!r}; {hint}")
    return TASKS[name]


def load(source: str | Path, overrides: Sequence[str] = ()) -> Config:
    """Read a config into the schema of its task."""
    return configs.load(task_of(source, overrides).config, source, overrides)


def task_of_run(run: str | Path, command: str | None = None) -> Task:
    """The task of a run's config. ConfigError where `command` is that of another task; DataError for folders
    that are no run."""
    folder = RunFolder(run)
    folder.check()
    task = task_of(folder.config)
    if command not in (None, task.command):
        raise ConfigError(
            f"{run} is a run of {task.name}, and '{command}' is for another task; "
            f"use: sparse3d {task.command} {run} INPUT --out DIR"
        )
    return task
