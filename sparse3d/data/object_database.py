"""The labelled objects of a split, cut out once and kept in a folder for `gt_sampling`.

`points.bin` has the float32 points of all objects one after the other and is mapped, not read; `objects.npz`
is its index: boxes, labels and offsets. With several sweeps a frame, an object has its points of all of them,
each with its time lag.
"""

import functools
import hashlib
import logging
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from sparse3d.errors import DataError
from sparse3d.frames import LidarFrame
from sparse3d.io.files import atomic_path
from sparse3d_ops.boxes import points_in_boxes

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ObjectDatabase:
    """K objects: `boxes` (K, 7) float32, `labels` (K,) int64, `difficulty` (K,) int64 (-1 unrated),
    `velocities` (K, 2) float32 (NaN unknown), their class names.

    The points of object k are `points[offsets[k]:offsets[k + 1]]`, (n, F) float32, in the frame of its box.
    """

    class_names: tuple[str, ...]
    boxes: np.ndarray
    labels: np.ndarray
    difficulty: np.ndarray
    velocities: np.ndarray
    offsets: np.ndarray
    points: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)


class FrameObjects(NamedTuple):
    """The M objects of one frame: `points` (P, F) float32 of all of them, object after object, `counts` (M,)
    points of each; `difficulty` (M,), `velocities` (M, 2) and the boxes and labels of the frame."""

    boxes: np.ndarray
    labels: np.ndarray
    difficulty: np.ndarray
    velocities: np.ndarray
    points: np.ndarray
    counts: np.ndarray


def cut_out(frame: LidarFrame, difficulty: np.ndarray) -> FrameObjects:
    """The objects of a frame; a point in two boxes belongs to the first."""
    owner = points_in_boxes(
        torch.from_numpy(np.ascontiguousarray(frame.points[:, :3])), torch.from_numpy(frame.boxes)
    ).numpy()
    order = np.argsort(owner, kind="stable")
    inside = order[np.searchsorted(owner[order], 0) :]
    return FrameObjects(
        frame.boxes,
        frame.labels,
        difficulty,
        frame.known_velocities,
        np.ascontiguousarray(frame.points[inside], dtype="<f4"),
        np.bincount(owner[inside], minlength=len(frame.boxes)),
    )


def build_object_database(
    frames: Callable[[], Iterable[FrameObjects]], class_names: tuple[str, ...], parent: Path, key: str
) -> Path:
    """The folder of the database with this `key` inside of `parent`, built if it is not there or not whole.

    `frames` gives the objects of each frame; it is called only when the database is built. `key` says all
    that the objects depend on. Processes that build it at once write the same bytes.
    """
    folder = parent / f"sparse3d_objects_{hashlib.sha256(key.encode()).hexdigest()[:12]}"
    if (folder / "objects.npz").exists():
        try:
            _read_database(folder)
            return folder
        except DataError as error:
            _log.warning("%s; built anew", error)
    found: list[FrameObjects] = []
    columns = 4
    with atomic_path(folder / "points.bin") as temporary, open(temporary, "wb") as file:
        for objects in frames():
            columns = objects.points.shape[1]
            file.write(objects.points.tobytes())
            found.append(objects._replace(points=objects.points[:0]))
    offsets = np.concatenate([[0], *(objects.counts for objects in found)]).astype(np.int64).cumsum()
    with atomic_path(folder / "objects.npz") as temporary, open(temporary, "wb") as file:
        np.savez(
            file,
            class_names=np.array(class_names, dtype=np.str_),
            boxes=np.concatenate([np.empty((0, 7)), *(o.boxes for o in found)]).astype(np.float32),
            labels=np.concatenate([np.empty(0), *(o.labels for o in found)]).astype(np.int64),
            difficulty=np.concatenate([np.empty(0), *(o.difficulty for o in found)]).astype(np.int64),
            velocities=np.concatenate([np.empty((0, 2)), *(o.velocities for o in found)]).astype(np.float32),
            offsets=offsets,
            columns=np.array(columns),
        )
    _log.info("%s: %d objects, %d points", folder, len(offsets) - 1, offsets[-1])
    return folder


@functools.lru_cache(maxsize=8)
def open_object_database(folder: str) -> ObjectDatabase:
    """Open a database once a process; its points stay on disk and are mapped. Raises DataError."""
    if not folder:
        raise DataError("gt_sampling", "no database; a data set gives its own, or set `database` to a folder")
    return _read_database(Path(folder))


def _read_database(folder: Path) -> ObjectDatabase:
    path = folder / "objects.npz"
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as table:
            arrays = {name: table[name] for name in table.files}
        columns, offsets = int(arrays.pop("columns")), arrays["offsets"]
        names = tuple(str(name) for name in arrays.pop("class_names"))
        count = len(arrays["labels"])
        whole = arrays["boxes"].shape == (count, 7) and arrays["velocities"].shape == (count, 2)
        if not whole or len(offsets) != count + 1 or (np.diff(offsets) < 0).any():
            raise ValueError("its arrays do not fit each other")
        size = (folder / "points.bin").stat().st_size
        if size != int(offsets[-1]) * columns * 4:
            raise ValueError(f"points.bin has {size} bytes, expected {int(offsets[-1]) * columns * 4}")
        points = np.zeros((0, columns), dtype=np.float32)
        if size:
            points = np.memmap(
                folder / "points.bin", dtype="<f4", mode="r", shape=(int(offsets[-1]), columns)
            )
        return ObjectDatabase(class_names=names, points=points, **arrays)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(path, f"not an object database: {error}") from error
