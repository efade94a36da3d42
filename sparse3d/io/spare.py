"""SpaRe, the benchmark of sparse neural rendering (AIM 2024; arXiv 2409.15041): its scenes and split files.

A split file of the track (Track1_split_test.json) names for each scene `input_views`, `test_views` and
`dataset` (DTU or the synthetic part); photos are SCENE/rect_{i+1:03d}_{light}_r5000.png or
SCENE/cam_{i+1:03d}_{light}_0000.png for view i, and light 3 is the one that is judged. Cameras are projection
matrices (3, 4), pos_{i+1:03d}.txt, in a calibration folder of each part.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np

from sparse3d.errors import DataError
from sparse3d.io.captures import Capture, Skipped, View, Withheld, checked_capture
from sparse3d.io.dtu import HALF_PIXEL, camera_of_projection
from sparse3d.io.images import image_size
from sparse3d.io.reading import read_text

LIGHT = 3


def find_split(scene: Path, views: int | None) -> Path | None:
    """The split file above a scene's folder that names the scene: the one with `views` input views where that
    is given, else the first by name. None where no file names it."""
    for path in sorted(scene.parent.glob("*.json")):
        entry = _entries(path).get(scene.name)
        if isinstance(entry, dict) and isinstance(entry.get("input_views"), list):
            if views is None or len(entry["input_views"]) == views:
                return path
    return None


def read_spare(scene: str | Path, views: int | None = None, light: int = LIGHT) -> Capture:
    """One scene: its input views train, its test views test. Test views whose photo is hidden are listed in
    `skipped`, with the cameras that a submission renders in `withheld`."""
    scene = Path(scene)
    path = find_split(scene, views)
    if path is None:
        many = "" if views is None else f" with {views} input views"
        raise DataError(scene, f"no split file (.json) beside it names this scene{many}")
    entry = _entries(path)[scene.name]
    numbers = {
        "train": _numbers(path, scene.name, entry, "input_views"),
        "test": _numbers(path, scene.name, entry, "test_views"),
    }
    dtu = str(entry.get("dataset", "")).lower() == "dtu"
    folder = _calibration(scene, dtu)
    found, skipped, withheld, splits = [], [], [], {}
    size = None
    for split in ("train", "test"):
        rows = []
        for number in numbers[split]:
            name = (
                f"rect_{number + 1:03d}_{light}_r5000.png"
                if dtu
                else f"cam_{number + 1:03d}_{light}_0000.png"
            )
            photo, matrix = scene / name, folder / f"pos_{number + 1:03d}.txt"
            if photo.is_file():
                size = image_size(photo)
            elif split == "train" or size is None:
                raise DataError(photo, "no such file; all input views must be there")
            try:
                projection = np.array(read_text(matrix).split(), dtype=np.float64).reshape(3, 4)
                camera = camera_of_projection(projection, size, HALF_PIXEL if dtu else 0.0)
            except ValueError as error:
                if isinstance(error, DataError):
                    raise
                raise DataError(matrix, f"not a projection matrix of 3 x 4: {error}") from error
            if photo.is_file():
                rows.append(len(found))
                found.append(View(name, photo, camera, number))
            else:
                skipped.append(Skipped(name, "no such file"))
                withheld.append(Withheld(name, number, camera))
        splits[split] = tuple(rows)
    return checked_capture(
        scene, Capture("spare", tuple(found), tuple(skipped), splits, withheld=tuple(withheld))
    )


def _entries(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(read_text(path))
    except (ValueError, RecursionError):
        return {}  # another tool's file beside the scenes
    return table if isinstance(table, dict) else {}


def _numbers(path: Path, scene: str, entry: dict[str, Any], key: str) -> list[int]:
    listed = entry.get(key, [])
    if not isinstance(listed, list) or not all(isinstance(n, int) and 0 <= n < 1000 for n in listed):
        raise DataError(path, f"{scene}: {key} is not a list of view numbers")
    return listed


def _calibration(scene: Path, dtu: bool) -> Path:
    """The folder with pos_001.txt: the scene's own, or one beside the scenes, of the right part."""
    folders = [scene, *sorted(p.parent for p in scene.parent.glob("*/pos_001.txt"))]
    folders += sorted(p.parent for p in scene.parent.glob("*/*/pos_001.txt"))
    there = [folder for folder in folders if (folder / "pos_001.txt").is_file()]
    words = ("dtu", "cal18") if dtu else ("synth", "spare")
    named = [f for f in there if any(word in str(f.relative_to(scene.parent)).lower() for word in words)]
    if not there or (len(there) > 1 and not named):
        raise DataError(
            scene.parent, f"{len(there)} calibration folders with pos_001.txt, none named after {words}"
        )
    return (named or there)[0]
