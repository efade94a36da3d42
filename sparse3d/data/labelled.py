"""What all data sets of labelled LiDAR frames have in common: how a recorded frame becomes a training sample.

A data set says what a frame holds (`frame`); here it is cropped and augmented, with randomness that follows
from (seed, epoch, draw) alone.
"""

import multiprocessing
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from sparse3d.data.augment import AugmentConfig, RangeFilter
from sparse3d.data.gt_sampling import GroundTruthSampling
from sparse3d.data.kitti_index import cache_folder, find_root
from sparse3d.data.object_database import (
    FrameObjects,
    build_object_database,
    cut_out,
    open_object_database,
)
from sparse3d.errors import ConfigError, DataError
from sparse3d.frames import LidarFrame
from sparse3d_ops.boxes import points_per_box


class FramesConfig(Protocol):
    """The fields that every data set's config has."""

    @property
    def root(self) -> str: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    @property
    def bounds(self) -> tuple[float, ...] | None: ...
    @property
    def min_points(self) -> int: ...
    @property
    def seed(self) -> int: ...
    @property
    def cache_dir(self) -> str: ...


Config = TypeVar("Config", bound=FramesConfig, covariant=True)


class LabelledFrames(Dataset[LidarFrame], ABC, Generic[Config]):
    """Frames of one split.

    With an `AugmentConfig` the frames are for training: boxes with fewer than `config.min_points` points are
    dropped, then the steps are applied in order; `epochs`, the length of the training, tells which of them
    have faded out. With None the frames are for evaluation. Points and box centres out of `config.bounds` are
    removed in both.
    """

    def __init__(self, config: Config, split: str, epochs: int | None = None):
        self.config: Config = config
        self.split = split
        self.root = find_root(config.root)
        self.epochs = epochs
        self.epoch = 0
        self.augment: AugmentConfig | None = None

    def augment_with(self, augment: AugmentConfig | None) -> None:
        """Train with these steps; a subclass calls it when its frames can be read: the object database of
        `gt_sampling` is built from them where there is none yet."""
        self.augment = None if augment is None else self._with_database(augment)

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the labels: label i is `class_names[i]`."""
        return self.config.classes

    @property
    @abstractmethod
    def frame_ids(self) -> tuple[str, ...]:
        """The id of each frame, in order."""

    @abstractmethod
    def frame(self, index: int) -> LidarFrame:
        """The frame at `index` as recorded: all finite points, boxes of `class_names`, nothing cropped or
        augmented."""

    @abstractmethod
    def labels(self, index: int) -> np.ndarray:
        """(M,) int64 labels of a frame, from the index: no file is opened."""

    @abstractmethod
    def fingerprint(self) -> str:
        """Changes with everything that the frames of this data set depend on."""

    def seen(self, frame: LidarFrame) -> LidarFrame:
        """What of a recorded frame a network is shown."""
        return frame

    def difficulty(self, frame: LidarFrame) -> np.ndarray:
        """(M,) int64 of a recorded frame's boxes: how hard they are to see, -1 for too hard."""
        return np.zeros(len(frame.boxes), dtype=np.int64)

    def __len__(self) -> int:
        return len(self.frame_ids)

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose augmentation `dataset[index]` gives. Loaders pass (epoch, index) instead."""
        self.epoch = epoch

    def __getitem__(self, index: int | tuple[int, int]) -> LidarFrame:
        """The frame at `index`, or at (epoch, index): as it goes into a network."""
        epoch, index = index if isinstance(index, tuple) else (self.epoch, index)
        return self.sample(index, epoch, index % len(self))

    def sample(self, index: int, epoch: int, draw: int) -> LidarFrame:
        """The frame at `index` as draw number `draw` of an epoch: two draws are augmented differently."""
        frame = self.seen(self.frame(index))
        rng = np.random.default_rng(np.random.SeedSequence([self.config.seed, epoch, draw]))
        if self.augment is not None:
            frame = drop_sparse_boxes(frame, self.config.min_points)
            for step in self.augment.steps_in(epoch, self.epochs):
                frame = step(frame, rng)
        if self.config.bounds is not None:
            frame = RangeFilter(bounds=self.config.bounds)(frame, rng)
        return frame

    def _with_database(self, augment: AugmentConfig) -> AugmentConfig:
        """The steps with a database of objects of this split where one samples from none in particular."""
        steps = []
        for step in augment.steps:
            if isinstance(step, GroundTruthSampling):
                step = self._bound(step if step.database else replace(step, database=self.object_database()))
            steps.append(step)
        return replace(augment, steps=tuple(steps))

    def object_database(self, workers: int = 0, progress: Callable[[int, int], None] | None = None) -> str:
        """The folder with the points of every labelled object of this split, built where it is not there,
        frame by frame in this process or by some `workers`; it is the same with any number of them."""
        folder = build_object_database(
            lambda: self._objects(workers, progress),
            self.class_names,
            cache_folder(self.root, self.config.cache_dir),
            self.fingerprint(),
        )
        return str(folder)

    def _objects(self, workers: int, progress: Callable[[int, int], None] | None) -> Iterator[FrameObjects]:
        """The objects of each frame as training starts from it, in order."""
        cut = _Objects(self)
        found = _by_workers(cut, workers) if workers else (cut[index] for index in range(len(self)))
        for done, objects in enumerate(found, start=1):
            if isinstance(objects, DataError):
                raise objects
            yield objects
            if progress is not None:
                progress(done, len(self))

    def _bound(self, step: GroundTruthSampling) -> GroundTruthSampling:
        """The step itself, if its classes are those of this data set."""
        classes = list(self.class_names)
        unknown = [wanted.name for wanted in step.counts if wanted.name not in classes]
        if unknown:
            raise ConfigError(
                f"gt_sampling counts {unknown}, which are not among the data set's classes {classes}"
            )
        found = list(open_object_database(step.database).class_names)
        if found != classes:
            raise ConfigError(
                f"{step.database} was built for the classes {found}, the data set has {classes}"
            )
        return step


class _Objects(Dataset[FrameObjects | DataError]):
    """The objects of each frame of a data set; what goes wrong comes as a value, over processes too."""

    def __init__(self, dataset: LabelledFrames[Any]):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> FrameObjects | DataError:
        try:
            frame = self.dataset.frame(index)
            return cut_out(self.dataset.seen(frame), self.dataset.difficulty(frame))
        except DataError as error:
            return error


def _by_workers(cut: _Objects, workers: int) -> Iterator[FrameObjects | DataError]:
    """All of them in order. Workers are started anew: a child forked after a parallel numba region may
    abort."""
    methods = multiprocessing.get_all_start_methods()
    return iter(
        DataLoader(
            cut,
            batch_size=None,
            num_workers=workers,
            collate_fn=_as_it_is,
            multiprocessing_context="forkserver" if "forkserver" in methods else "spawn",
        )
    )


def _as_it_is(objects: Any) -> Any:
    return objects


def drop_sparse_boxes(frame: LidarFrame, min_points: int) -> LidarFrame:
    """The frame without boxes that hold fewer than `min_points` points."""
    if min_points <= 0 or not len(frame.boxes):
        return frame
    counts = points_per_box(
        torch.from_numpy(np.ascontiguousarray(frame.points[:, :3])), torch.from_numpy(frame.boxes)
    )
    return frame.select_boxes((counts >= min_points).numpy())
