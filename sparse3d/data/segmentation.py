"""Labelled scans for semantic segmentation: SemanticKITTI's sequences, and KITTI-layout folders with .label
files (minidrive). Expected trees: datasets/README.md.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from torch.utils.data import Dataset

from sparse3d.data.kitti_index import find_root, read_split
from sparse3d.data.segmentation_augment import MIXES, SegmentationAugmentConfig
from sparse3d.data.semantic_classes import SEMANTICKITTI_CLASSES, LabelMap
from sparse3d.errors import DataError
from sparse3d.frames import SegmentationFrame
from sparse3d.io.points import read_points
from sparse3d.io.semantickitti import PointLabels, read_labels


class ScanFiles(NamedTuple):
    """One scan on disk; `labels` is None where it has none by nature (test sequences)."""

    frame_id: str
    points: Path
    labels: Path | None


@dataclass(frozen=True)
class SemanticKittiConfig:
    """`root/sequences/xx/velodyne/*.bin` and `labels/*.label`."""

    kind: Literal["semantickitti"] = "semantickitti"
    root: str = "semantickitti"  # a folder, or the name of one in $SPARSE3D_DATASETS
    classes: tuple[str, ...] = SEMANTICKITTI_CLASSES  # points of other classes are not asked for
    train: tuple[str, ...] = ("00", "01", "02", "03", "04", "05", "06", "07", "09", "10")  # sequences
    val: tuple[str, ...] = ("08",)
    test: tuple[str, ...] = tuple(str(n) for n in range(11, 22))  # without labels
    seed: int = 0  # of the augmentation

    def __post_init__(self):
        LabelMap(self.classes)

    def scans(self, split: str) -> list[ScanFiles]:
        """The scans of a split in order. DataError for missing sequences, scans without labels or the
        reverse."""
        sequences = {"train": self.train, "val": self.val, "test": self.test}
        root = find_root(self.root)
        if split not in sequences:
            raise DataError(root, f"no such split '{split}'; there are train, val, test")
        found: list[ScanFiles] = []
        for name in sequences[split]:
            found += sequence_scans(root, name, labelled=split != "test")
        return found


def sequence_scans(root: Path, name: str, labelled: bool = True) -> list[ScanFiles]:
    """The scans of one sequence of SemanticKITTI."""
    folder = root / "sequences" / name
    if not (folder / "velodyne").is_dir():
        there = sorted(p.name for p in (root / "sequences").glob("*") if (p / "velodyne").is_dir())
        raise DataError(
            folder,
            f"no velodyne folder of this sequence (there are: {', '.join(there) or 'none'}); see "
            "datasets/README.md for the tree, or name your sequences in data.train and data.val",
        )
    scans = sorted((folder / "velodyne").glob("*.bin"))
    if not scans:
        raise DataError(folder / "velodyne", "no scans (*.bin) in it")
    if not labelled:
        return [ScanFiles(f"{name}/{path.stem}", path, None) for path in scans]
    labels = {path.stem for path in (folder / "labels").glob("*.label")}
    missing = [path.stem for path in scans if path.stem not in labels]
    if missing:
        raise DataError(
            folder / "labels",
            f"{len(missing)} of {len(scans)} scans have no .label file, the first is {missing[0]}; "
            f"see `sparse3d data check semantickitti --root {root}`",
        )
    return [ScanFiles(f"{name}/{p.stem}", p, folder / "labels" / f"{p.stem}.label") for p in scans]


@dataclass(frozen=True)
class LabelledKittiConfig:
    """A folder in the layout of KITTI's object benchmark, with point labels in `training/labels`."""

    kind: Literal["kitti"] = "kitti"
    root: str = "data/minidrive"  # a folder, or the name of one in $SPARSE3D_DATASETS
    classes: tuple[str, ...] = SEMANTICKITTI_CLASSES  # points of other classes are not asked for
    seed: int = 0  # of the augmentation

    def __post_init__(self):
        LabelMap(self.classes)

    def scans(self, split: str) -> list[ScanFiles]:
        """The scans of ImageSets/<split>.txt. DataError where one has no labels."""
        root = find_root(self.root)
        folder = root / "training"
        found = [
            ScanFiles(i, folder / "velodyne" / f"{i}.bin", folder / "labels" / f"{i}.label")
            for i in read_split(root, split)
        ]
        missing = [scan.frame_id for scan in found if scan.labels is None or not scan.labels.is_file()]
        if missing:
            raise DataError(
                folder / "labels",
                f"{len(missing)} of {len(found)} scans of '{split}' have no .label file, the first is "
                f"{missing[0]}; `sparse3d data make minidrive --labels --out DIR` writes them",
            )
        return found


SegmentationDataConfig = SemanticKittiConfig | LabelledKittiConfig


class SegmentationDataset(Dataset[SegmentationFrame]):
    """Labelled scans of one split.

    With an augmentation the frames are for training: its steps are applied in order with a generator that
    depends only on (seed, epoch, index). A step that mixes two scans gets another scan of the split, which
    has been through the steps before. Points that are not finite are dropped with their labels.
    """

    def __init__(
        self, config: SegmentationDataConfig, split: str, augment: SegmentationAugmentConfig | None = None
    ):
        self.config, self.split, self.augment = config, split, augment
        self.label_map = LabelMap(config.classes)
        self.scans = config.scans(split)

    @property
    def frame_ids(self) -> tuple[str, ...]:
        """The id of each scan in order; SemanticKITTI's are "sequence/scan"."""
        return tuple(scan.frame_id for scan in self.scans)

    def __len__(self) -> int:
        return len(self.scans)

    def __getitem__(self, index: int | tuple[int, int]) -> SegmentationFrame:
        """The frame at `index` (of epoch 0), or at (epoch, index): as it goes into a network."""
        epoch, index = index if isinstance(index, tuple) else (0, index)
        if self.augment is None:
            return self.frame(index)
        rng = np.random.default_rng(np.random.SeedSequence([self.config.seed, epoch, index % len(self)]))
        return self._augmented(index, len(self.augment.steps), rng)

    def frame(self, index: int) -> SegmentationFrame:
        """The frame at `index` as recorded."""
        if not -len(self) <= index < len(self):
            raise IndexError(f"frame {index} of {len(self)}")
        return read_scan(self.scans[index], self.label_map)

    def _augmented(self, index: int, steps: int, rng: np.random.Generator) -> SegmentationFrame:
        """The frame after the first `steps` steps."""
        assert self.augment is not None
        frame = self.frame(index)
        for position, step in enumerate(self.augment.steps[:steps]):
            if not isinstance(step, MIXES):
                frame = step(frame, rng)
            elif rng.random() < step.probability:
                partner = int(rng.integers(len(self)))
                frame = step.mix(frame, self._augmented(partner, position, rng), rng)
        return frame


def read_scan(scan: ScanFiles, label_map: LabelMap) -> SegmentationFrame:
    """Points and labels of one scan; without a label file every label is IGNORE."""
    points = read_points(scan.points)
    if scan.labels is None:
        frame = SegmentationFrame.unlabelled(scan.frame_id, points)
    else:
        raw: PointLabels = read_labels(scan.labels, len(points))
        try:
            labels = label_map.to_labels(raw.semantic)
        except ValueError as error:
            raise DataError(scan.labels, str(error)) from error
        frame = SegmentationFrame(scan.frame_id, points, labels, raw.instance)
    finite = np.flatnonzero(np.isfinite(points).all(axis=1))
    return frame if len(finite) == len(points) else frame.select_points(finite)
