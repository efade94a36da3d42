"""Batches for training: an order that follows from (seed, epoch) alone, sharded, resumable, with or without
workers.

The sampler hands out (epoch, index) pairs, so that workers that live through many epochs know which one they
serve; what they make of a pair must depend on nothing else. Then a run gives the same batches with any number
of workers, and a resumed run goes on with the batches that an uninterrupted one would have had.
"""

import copy
import math
import multiprocessing
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from sparse3d.errors import DataError
from sparse3d.frames import DetectionBatch, LidarFrame, SegmentationBatch, SegmentationFrame, collate

Frame = LidarFrame | SegmentationFrame
Batch = DetectionBatch | SegmentationBatch


class FrameDataset(Protocol):
    """What a loader needs: `dataset[(epoch, index)]` gives a frame that depends only on the pair."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: tuple[int, int]) -> Frame: ...


class NoShare(NamedTuple):
    """In place of the pairs of a batch without frames: the (epoch, row) of a frame of the same columns."""

    epoch: int
    row: int


class ShardedBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (epoch, index) pairs of one epoch, from sample `position` on, for one of `world_size`
    processes.

    A step takes `batch_size * world_size` samples of the order; rank r gets the r-th `batch_size` of them. So
    the batches of all ranks, one after the other, are the batch of a single process with `world_size` times
    the size. The samples left at the end of an epoch are dropped, or split among the ranks as evenly as
    possible: ranks may then differ by one sample. Where there are fewer samples than ranks, those without one
    get a `NoShare`: every rank has the same number of batches, so none waits for another at its end.
    """

    def __init__(
        self,
        length: int,
        batch_size: int,
        *,
        shuffle: bool,
        seed: int = 0,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ):
        if batch_size < 1 or not 0 <= rank < world_size:
            raise ValueError(
                f"batch_size must be at least 1 and rank in [0, world_size), "
                f"got {batch_size}, {rank} and {world_size}"
            )
        self.length = length
        self.batch_size = batch_size
        self.shuffle = shuffle
        self.seed = seed
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self.epoch = 0
        self.position = 0

    def order(self) -> np.ndarray:
        """(length,) the sample indices in the order of this epoch."""
        if not self.shuffle:
            return np.arange(self.length)
        # The third number keeps this stream apart from the augmentation's (seed, epoch, index).
        seed = np.random.SeedSequence([self.seed, self.epoch], spawn_key=(0,))
        return np.random.default_rng(seed).permutation(self.length)

    def steps(self) -> list[np.ndarray]:
        """The sample indices of each step that is left of this epoch, of all ranks together."""
        size = self.batch_size * self.world_size
        rest = self.order()[self.position :]
        steps = [rest[start : start + size] for start in range(0, len(rest), size)]
        return steps[:-1] if self.drop_last and steps and len(steps[-1]) < size else steps

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch, steps = self.epoch, self.steps()
        for step in steps:
            mine = np.array_split(step, self.world_size)[self.rank]
            yield [(epoch, int(index)) for index in mine] or [NoShare(epoch, int(step[0]))]

    def __len__(self) -> int:
        """Steps left of this epoch."""
        return self._count(max(self.length - self.position, 0))

    @property
    def steps_per_epoch(self) -> int:
        """Steps of a whole epoch."""
        return self._count(self.length)

    def _count(self, samples: int) -> int:
        size = self.batch_size * self.world_size
        return samples // size if self.drop_last else math.ceil(samples / size)


class BatchLoader:
    """Iterating gives the rest of the current epoch as batches and then moves on to the next epoch.

    `state_dict` between two batches says which samples were handed out, however far workers have read ahead.
    """

    def __init__(self, dataset: FrameDataset, batches: ShardedBatches, workers: int, prefetch: int = 2):
        self.dataset = dataset
        self.batches = batches
        self.workers, self.prefetch = workers, prefetch
        if workers:
            # Never fork: a child forked after a parallel numba region may abort.
            methods = multiprocessing.get_all_start_methods()
            options: dict[str, Any] = {
                "multiprocessing_context": "forkserver" if "forkserver" in methods else "spawn",
                "persistent_workers": True,
                "prefetch_factor": prefetch,
                "worker_init_fn": _start_worker,
            }
        else:
            options = {}
        self._loader: DataLoader[Any] = DataLoader(
            _FaultsAsValues(dataset),
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_collate,
            # torch draws a seed for the workers at each iteration: from here, not from the generator of the
            # training.
            generator=torch.Generator(),
            **options,
        )

    def again(self) -> "BatchLoader":
        """Another loader of the same data, at the begin of the present epoch, with workers of its own."""
        batches = copy.copy(self.batches)
        batches.position = 0
        return BatchLoader(self.dataset, batches, self.workers, self.prefetch)

    @property
    def epoch(self) -> int:
        """The epoch that the next iteration serves."""
        return self.batches.epoch

    def set_epoch(self, epoch: int) -> None:
        """Go to the begin of an epoch; the current one goes on where it stands."""
        if epoch != self.batches.epoch:
            self.batches.epoch, self.batches.position = epoch, 0

    def __iter__(self) -> Iterator[Batch]:
        batches = self.batches
        size = batches.batch_size * batches.world_size
        start, epoch = batches.position, batches.epoch
        for step, batch in enumerate(self._loader, start=1):
            if isinstance(batch, DataError):
                raise batch
            batches.position = min(start + step * size, batches.length)
            yield batch
        batches.epoch, batches.position = epoch + 1, 0

    def __len__(self) -> int:
        """Steps of a whole epoch, wherever the current one stands."""
        return self.batches.steps_per_epoch

    def state_dict(self) -> dict[str, int]:
        """Epoch and samples handed out of it, over all ranks; the batch size and world size may change on
        resuming.
        """
        if self.batches.position and not len(self.batches):
            return {"epoch": self.batches.epoch + 1, "position": 0}
        return {"epoch": self.batches.epoch, "position": self.batches.position}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where `state` was taken; a ValueError where it does not fit the data set."""
        epoch, position = int(state["epoch"]), int(state["position"])
        if epoch < 0 or not 0 <= position <= self.batches.length:
            raise ValueError(
                f"position {position} of epoch {epoch} does not fit {self.batches.length} samples"
            )
        self.batches.epoch, self.batches.position = epoch, position


def make_loader(
    dataset: FrameDataset,
    batch_size: int,
    *,
    workers: int = 0,
    shuffle: bool = False,
    seed: int = 0,
    drop_last: bool = False,
    rank: int = 0,
    world_size: int = 1,
) -> BatchLoader:
    """A loader of `batch_size` samples a step and process. `workers=0` loads in this process.

    Workers are started anew (not forked): the main module must be importable, its code under `if __name__ ==
    "__main__":`.
    """
    batches = ShardedBatches(
        len(dataset),
        batch_size,
        shuffle=shuffle,
        seed=seed,
        drop_last=drop_last,
        rank=rank,
        world_size=world_size,
    )
    return BatchLoader(dataset, batches, workers)


class _FaultsAsValues(Dataset["Frame | _Pattern | DataError"]):
    """A data set that returns its DataErrors: torch would turn what a worker raises into a RuntimeError
    around a traceback."""

    def __init__(self, dataset: FrameDataset):
        self.dataset = dataset

    def __getitem__(self, index: tuple[int, int]) -> "Frame | _Pattern | DataError":
        try:
            if isinstance(index, NoShare):
                return _Pattern(self.dataset[index.epoch, index.row])
            return self.dataset[index]
        except DataError as error:
            return error


class _Pattern(NamedTuple):
    """A frame that only says what columns a batch without frames has."""

    frame: Frame


def _collate(frames: list[Frame | _Pattern | DataError]) -> Batch | DataError:
    whole: list[Any] = []
    for frame in frames:
        if isinstance(frame, DataError):
            return frame
        if isinstance(frame, _Pattern):
            return collate(_alone(frame.frame)).without_frames()
        whole.append(frame)
    return collate(whole)


def _alone(frame: Frame) -> list[Any]:
    return [frame]


def _start_worker(worker: int) -> None:
    """One thread a worker: the workers themselves are what runs in parallel."""
    import numba

    torch.set_num_threads(1)
    numba.set_num_threads(1)
