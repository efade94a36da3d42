"""Scenes as a folder in KITTI's layout that grows scene by scene and outlives any interruption.

A scene's label file is written last, so a scene is there when its label file is. `minidrive.json` says what
the folder holds.
"""

import dataclasses
import errno
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np

from sparse3d.data.minidrive.config import MinidriveConfig
from sparse3d.data.minidrive.labels import calibration, label_objects
from sparse3d.data.minidrive.scene import MinidriveScene, simulate
from sparse3d.errors import DataError
from sparse3d.io.files import write_bytes, write_text
from sparse3d.io.kitti import write_calibration, write_objects

VERSION = 1  # of the generator: scenes of one seed are the same for one version
MANIFEST = "minidrive.json"


def in_validation(index: int, val_fraction: float) -> bool:
    """Whether a scene is for validation: evenly spread, and unchanged when more scenes follow."""
    # The small number forgives products such as 0.29 * 100 = 28.999999999999996.
    return math.floor((index + 1) * val_fraction + 1e-9) > math.floor(index * val_fraction + 1e-9)


def write_minidrive(
    out: str | Path,
    scenes: int,
    seed: int,
    config: MinidriveConfig | None = None,
    *,
    first: int = 0,
    val_fraction: float = 0.2,
    labels: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write scenes `first` .. `first + scenes - 1` of `seed` into the folder `out`; what is there is kept.

    `val_fraction` in [0, 1]: share of the scenes listed in `ImageSets/val.txt`, the others stand in
    `train.txt`. `labels`: also write SemanticKITTI's `training/labels/*.label` (uint32, instance << 16 |
    class). `progress(done, scenes)` is called after each scene. The image lists name all scenes in the
    folder, so several processes may each write their own range into it.

    Raises DataError when `out` holds something else (another seed, config or version), or when the disk is
    full: in that case the same call continues once there is room.
    """
    if scenes < 0 or first < 0 or seed < 0:
        raise ValueError(f"scenes, first and seed must not be negative, got {scenes}, {first}, {seed}")
    if not 0 <= val_fraction <= 1:
        raise ValueError(f"val_fraction must lie in [0, 1], got {val_fraction}")
    out, config = Path(out), MinidriveConfig() if config is None else config
    try:
        _claim(out, seed, config, val_fraction)
        _sweep(out, first, scenes)
        for k in range(scenes):
            _write_scene(out, first + k, seed, config, labels)
            if progress is not None:
                progress(k + 1, scenes)
        _write_lists(out, val_fraction)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DataError(
                out, "the disk is full; make room and give the same command again: it continues"
            ) from error
        raise


def _claim(out: Path, seed: int, config: MinidriveConfig, val_fraction: float) -> None:
    """Write the manifest of a new folder, or check that an existing folder holds the same."""
    path = out / MANIFEST
    manifest = {
        "format": "minidrive",
        "version": VERSION,
        "seed": seed,
        "val_fraction": val_fraction,
        "config": dataclasses.asdict(config),
    }
    text = json.dumps(manifest, indent=2, sort_keys=True) + "\n"
    if not path.exists():
        if out.exists() and any(p.name != MANIFEST and not p.name.endswith(".tmp") for p in out.iterdir()):
            raise DataError(out, f"the folder is not empty and has no {MANIFEST}; choose a new folder")
        write_text(path, text)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DataError(path, f"not JSON ({error}); choose a new folder") from error
    wanted = json.loads(text)
    if found != wanted:
        keys = sorted(k for k in wanted if not isinstance(found, dict) or found.get(k) != wanted[k])
        raise DataError(path, f"the folder holds scenes of another {', '.join(keys)}; choose a new folder")


def _sweep(out: Path, first: int, scenes: int) -> None:
    """Remove temporary files that a killed process left of these scenes."""
    for path in (out / "training").glob("*/.[0-9]*.tmp"):
        index = path.name.split(".")[1]
        if index.isdigit() and first <= int(index) < first + scenes:
            path.unlink(missing_ok=True)


def _write_scene(out: Path, index: int, seed: int, config: MinidriveConfig, labels: bool) -> None:
    training, name = out / "training", f"{index:06d}"
    label_path, semantic_path = training / "label_2" / f"{name}.txt", training / "labels" / f"{name}.label"
    if label_path.exists() and (semantic_path.exists() or not labels):
        return
    scene = simulate(seed, index, config)
    write_bytes(training / "velodyne" / f"{name}.bin", scene.points.astype("<f4").tobytes())
    write_calibration(training / "calib" / f"{name}.txt", calibration())
    if labels:
        write_bytes(semantic_path, semantic_label(scene).tobytes())
    write_objects(label_path, label_objects(scene, config.labels)[0], with_scores=False)


def semantic_label(scene: MinidriveScene) -> np.ndarray:
    """(N,) uint32 of SemanticKITTI: instance in the upper 16 bits, class in the lower."""
    return ((scene.instance.astype("<u4") << 16) | scene.semantic.astype("<u4")).astype("<u4")


def _write_lists(out: Path, val_fraction: float) -> None:
    """ImageSets from what is in the folder."""
    found = sorted(int(p.stem) for p in (out / "training" / "label_2").glob("[0-9]*.txt"))
    val = [k for k in found if in_validation(k, val_fraction)]
    train = [k for k in found if not in_validation(k, val_fraction)]
    for name, part in (("train", train), ("val", val), ("trainval", found)):
        write_text(out / "ImageSets" / f"{name}.txt", "".join(f"{k:06d}\n" for k in part))
