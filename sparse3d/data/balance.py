"""Class-balanced sampling of frames (CBGS): rare classes are seen as often as common ones.

Zhu et al., "Class-balanced Grouping and Sampling for Point Cloud 3D Object Detection" (arXiv 1908.09492),
section 3.1.
"""

import logging
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from sparse3d.data.labelled import LabelledFrames
from sparse3d.errors import DataError
from sparse3d.frames import LidarFrame

_log = logging.getLogger(__name__)


class ClassBalanced(Dataset[LidarFrame]):
    """A data set whose epoch draws equally many frames for each of its K classes.

    With n_c frames that hold class c, an epoch draws sum(n_c) / K frames for every class, out of those that
    hold it: all of them in turn and in a new order, so that none is drawn twice more often than another.
    Draws of one frame are augmented differently. Classes that no frame holds are left out, with a warning.
    What an epoch draws follows from (seed, epoch). DataError where no frame has an object.
    """

    def __init__(self, dataset: LabelledFrames[Any], seed: int = 0):
        self.dataset = dataset
        self.seed = seed
        frames: list[list[int]] = [[] for _ in dataset.class_names]
        for index in range(len(dataset)):
            for label in np.unique(dataset.labels(index)):
                frames[label].append(index)
        absent = [name for name, rows in zip(dataset.class_names, frames, strict=True) if not rows]
        self.frames = [np.array(rows, dtype=np.int64) for rows in frames if rows]
        if not self.frames:
            raise DataError(dataset.root, f"no frame of {dataset.split!r} has an object to balance by")
        if absent:
            _log.warning("%s: no frame of %r has %s", dataset.root, dataset.split, ", ".join(absent))
        self.per_class = sum(len(rows) for rows in self.frames) // len(self.frames)
        self._drawn: tuple[int, np.ndarray] = (-1, np.zeros(0, dtype=np.int64))

    def __len__(self) -> int:
        return self.per_class * len(self.frames)

    def __getitem__(self, index: tuple[int, int]) -> LidarFrame:
        """The frame of draw `index` = (epoch, number of the draw)."""
        epoch, draw = index
        return self.dataset.sample(int(self.draws(epoch)[draw]), epoch, draw)

    def draws(self, epoch: int) -> np.ndarray:
        """(len,) the frames of an epoch, class by class."""
        if self._drawn[0] != epoch:
            # The spawn key keeps this stream apart from the loader's order.
            rng = np.random.default_rng(np.random.SeedSequence([self.seed, epoch], spawn_key=(1,)))
            rounds = [-(-self.per_class // len(rows)) for rows in self.frames]
            drawn = [
                np.concatenate([rng.permutation(rows) for _ in range(count)])[: self.per_class]
                for rows, count in zip(self.frames, rounds, strict=True)
            ]
            self._drawn = (epoch, np.concatenate(drawn))
        return self._drawn[1]
