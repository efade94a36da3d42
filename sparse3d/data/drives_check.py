"""Is this folder what the data set should look like? `sparse3d data check nuscenes | argoverse2 | waymo |
kitti_raw --root ROOT`."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparse3d.data.argoverse2 import Argoverse2Config
from sparse3d.data.box_report import BoxReport
from sparse3d.data.kitti_index import find_root
from sparse3d.data.kitti_raw import KittiRawConfig
from sparse3d.data.nuscenes import NuscenesConfig
from sparse3d.data.open import DataConfig, open_dataset
from sparse3d.data.sequences import SequenceConfig, SequenceDataset
from sparse3d.data.waymo import WaymoConfig
from sparse3d.errors import DataError
from sparse3d.io.points import drop_invalid
from sparse3d_ops.boxes import points_per_box

# Metres and m/s that no object on a road exceeds; beyond them a label is taken to be wrong.
_MAX_SIZE, _MAX_DISTANCE, _MAX_SPEED = 40.0, 400.0, 70.0

# Drives whose scans lie further apart than this have a gap.
_MAX_STEP = 0.75  # seconds; nuScenes' tables keep one of its 0.05 s apart, others 0.1 s


def splits_of(name: str, root: Path) -> Iterator[tuple[str, DataConfig, str]]:
    """The parts of a data set that are in a folder: what to call each, its config and its split."""
    match name:
        case "nuscenes":
            for folder in sorted(path for path in root.glob("v1.0-*") if path.is_dir()):
                yield folder.name, NuscenesConfig(root=str(root), version=folder.name), "trainval"
        case "argoverse2":
            for split in ("train", "val", "test"):
                if (root / split).is_dir():
                    yield split, Argoverse2Config(root=str(root)), split
        case "waymo":
            for split, folder in (("train", "training"), ("val", "validation"), ("test", "testing")):
                if (root / folder).is_dir():
                    yield split, WaymoConfig(root=str(root)), split
        case "kitti_raw":
            yield "all", KittiRawConfig(root=str(root)), "all"
        case _:
            raise ValueError(f"{name} is no data set of drives")


NAMES = ("nuscenes", "argoverse2", "waymo", "kitti_raw")


def check_drives(
    name: str, root: str | Path, every: int = 1, progress: Callable[[int, int], None] | None = None
) -> BoxReport:
    """Read every `every`-th frame of a data set of drives and say what is wrong. Writes the index, nothing
    else.

    Missing, truncated and unreadable files, boxes without a size and labels that cannot be are problems;
    boxes without points that should hold some, points that are not finite and gaps in time are notes. Raises
    DataError where the root itself is missing.
    """
    folder = find_root(root)
    found = _Findings()
    for title, config, split in splits_of(name, folder):
        assert isinstance(config, SequenceConfig)
        try:
            dataset = open_dataset(replace(config, skip_missing=True, sweeps=1), split)
        except DataError as error:
            found.problems.append(str(error))
            found.splits[title] = 0
            continue
        assert isinstance(dataset, SequenceDataset)
        found.splits[title] = len(dataset)
        found.problems += [f"{folder / file}: no such file, and a frame needs it" for file in dataset.absent]
        _check_table(dataset, found)
        _check_scans(dataset, found)
        rows = range(0, len(dataset), every)
        for done, index in enumerate(rows, start=1):
            _check_frame(dataset, index, found)
            if progress is not None:
                progress(done, len(rows))
    if not found.splits:
        found.problems.append(
            f"{folder}: nothing of {name} in it; datasets/README.md shows what it looks like"
        )
    return BoxReport(
        folder,
        found.splits,
        found.points,
        found.objects,
        found.empty,
        tuple(found.problems),
        tuple(found.notes),
    )


@dataclass
class _Findings:
    splits: dict[str, int] = field(default_factory=dict)
    points: int = 0
    objects: dict[str, int] = field(default_factory=dict)
    empty: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def _check_table(dataset: SequenceDataset[Any], found: _Findings) -> None:
    """Labels and times, for which no scan is needed."""
    table = dataset.table
    frame = np.repeat(np.arange(len(dataset)), np.diff(table.first_box))
    ids, names = dataset.frame_ids, table.category_names[table.category]
    for name, count in zip(*np.unique(names, return_counts=True), strict=True):
        found.objects[str(name)] = found.objects.get(str(name), 0) + int(count)
    finite = np.isfinite(table.boxes).all(axis=1)
    speed = np.nan_to_num(np.abs(table.velocity)).max(axis=1, initial=0)
    rules = (
        ("a place, size or yaw that is not finite", ~finite),
        ("a size that is not positive", (table.boxes[:, 3:6] <= 0).any(axis=1)),
        (f"a size above {_MAX_SIZE:g} m", (table.boxes[:, 3:6] > _MAX_SIZE).any(axis=1)),
        (f"a place beyond {_MAX_DISTANCE:g} m", (np.abs(table.boxes[:, :3]) > _MAX_DISTANCE).any(axis=1)),
        (f"a speed above {_MAX_SPEED:g} m/s", speed > _MAX_SPEED),
    )
    for what, bad in rules:
        found.problems += [
            f"{dataset.root}: frame {ids[frame[row]]}: object {row - table.first_box[frame[row]]} "
            f"({names[row]}) has {what}"
            for row in np.flatnonzero(bad)
        ]
    for name, rows in dataset.sequences.items():
        times = table.scan_time[table.frame_scan[rows.start : rows.stop]] * 1e-9
        steps = np.diff(times)
        if (steps <= 0).any():
            found.problems.append(f"{dataset.root}: {name}: times of its frames do not rise")
        elif len(steps) and steps.max() > _MAX_STEP:
            found.notes.append(f"{dataset.root}: {name}: {steps.max():.2f} s without a frame")


def _check_scans(dataset: SequenceDataset[Any], found: _Findings) -> None:
    """Scans that are no frames of their own but belong to the sweeps of one."""
    others = np.setdiff1d(np.arange(len(dataset.table.scan_time)), dataset.table.frame_scan)
    gone = others[dataset.missing(others)] if len(others) else others
    absent = [name.decode() for name in dataset.table.scan_file[gone]]
    found.problems += [
        f"{dataset.root / file}: no such file, and the sweeps of frames need it"
        for file in absent
        if file not in dataset.absent
    ]


def _check_frame(dataset: SequenceDataset[Any], index: int, found: _Findings) -> None:
    table = dataset.table
    scan = int(table.frame_scan[index])
    place = f"{dataset.root}: frame {dataset.frame_ids[index]}"
    try:
        points, dropped = drop_invalid(dataset.read_scan(scan))
    except DataError as error:
        found.problems.append(str(error))
        return
    found.points += len(points)
    if dropped or not len(points):
        found.notes.append(f"{place}: {len(points)} finite points, {dropped} others")
    rows = np.arange(table.first_box[index], table.first_box[index + 1])
    rows = rows[(table.boxes[rows, 3:6] > 0).all(axis=1) & np.isfinite(table.boxes[rows]).all(axis=1)]
    xyz = torch.from_numpy(np.ascontiguousarray(points[:, :3]))
    inside = points_per_box(xyz, torch.from_numpy(table.boxes[rows])).numpy()
    names = table.category_names[table.category[rows]]
    for name in names[inside == 0]:
        found.empty[str(name)] = found.empty.get(str(name), 0) + 1
    # Counts may include other sensors or times: that a box should have points and has none is what is odd.
    hollow = (inside == 0) & (table.points[rows] > 5)
    if hollow.any():
        found.notes.append(
            f"{place}: {hollow.sum()} boxes are empty that should hold points; do its labels belong to it?"
        )
