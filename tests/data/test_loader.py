"""Batches: the order follows from seed and epoch, ranks share a step, and a resumed run goes on where it
stood.
"""

import itertools

import numpy as np
import pytest
import torch

from sparse3d.data.augment import AugmentConfig, PointShuffle, RandomFlip, RandomRotation
from sparse3d.data.kitti import KittiDataset, KittiDatasetConfig
from sparse3d.data.loader import ShardedBatches, make_loader
from sparse3d.frames import LidarFrame
from tests.data.kitti_folder import write_folder


class Numbered:
    """A data set whose frame says which (epoch, index) it was asked for."""

    def __init__(self, length: int):
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: tuple[int, int]) -> LidarFrame:
        epoch, index = index
        points = np.full((1, 4), index, dtype=np.float32)
        return LidarFrame(f"{epoch}:{index}", points, np.zeros((0, 7), np.float32), np.zeros(0, np.int64))


def loader(length: int = 11, batch_size: int = 2, **options):
    return make_loader(Numbered(length), batch_size, **({"shuffle": True, "seed": 7} | options))


def ids(batches) -> list[tuple[str, ...]]:
    return [batch.frame_ids for batch in batches]


def test_an_epoch_has_every_sample_once_and_each_epoch_its_own_order():
    batches = loader()
    first, second = ids(batches), ids(batches)
    assert sorted(itertools.chain(*first)) == sorted(f"0:{i}" for i in range(11))
    assert sorted(itertools.chain(*second)) == sorted(f"1:{i}" for i in range(11))
    assert [i[2:] for i in itertools.chain(*first)] != [i[2:] for i in itertools.chain(*second)]
    assert batches.epoch == 2


def test_the_order_follows_from_seed_and_epoch_alone():
    straight, jumped, other = loader(), loader(), loader(seed=8)
    ids(straight)
    jumped.set_epoch(1)
    assert ids(straight) == ids(jumped)
    other.set_epoch(1)
    straight.set_epoch(1)
    assert ids(other) != ids(straight)


def test_without_shuffling_the_order_is_the_data_sets():
    assert ids(loader(5, shuffle=False)) == [("0:0", "0:1"), ("0:2", "0:3"), ("0:4",)]
    assert ids(loader(5, shuffle=False, drop_last=True)) == [("0:0", "0:1"), ("0:2", "0:3")]


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("length, world_size", [(11, 2), (12, 2), (13, 3), (7, 4), (1, 2), (0, 2)])
def test_the_union_over_ranks_is_the_batch_of_one_process(length, world_size, drop_last):
    options = {"drop_last": drop_last}
    single = ids(loader(length, 2 * world_size, **options))
    ranks = [ids(loader(length, 2, rank=r, world_size=world_size, **options)) for r in range(world_size)]
    joined = [tuple(itertools.chain(*step)) for step in itertools.zip_longest(*ranks, fillvalue=())]
    assert joined == single
    assert all(len(b) == 2 for b in itertools.chain(*ranks)) or not drop_last


@pytest.mark.parametrize("world_size", [1, 2])
@pytest.mark.parametrize("taken", [0, 1, 2, 3, 4, 9])
def test_a_resumed_loader_gives_what_was_still_to_come(world_size, taken):
    def endless(batches):
        while True:
            yield from batches

    options = {"world_size": world_size, "rank": world_size - 1}
    whole = ids(itertools.islice(endless(loader(12, **options)), taken + 8))
    interrupted = loader(12, **options)
    begun = ids(itertools.islice(endless(interrupted), taken))
    resumed = loader(12, **options)
    resumed.load_state_dict(interrupted.state_dict())
    assert begun + ids(itertools.islice(endless(resumed), 8)) == whole


def test_a_run_may_be_interrupted_again_and_again():
    whole = ids(itertools.chain(*itertools.repeat(loader(), 2)))
    state, got = loader().state_dict(), []
    for _ in range(len(whole)):
        resumed = loader()
        resumed.load_state_dict(state)
        got += ids(itertools.islice(iter(resumed), 1))
        state = resumed.state_dict()
    assert got == whole


def test_resuming_may_change_batch_and_world_size():
    first = loader(12, 4)
    begun = ids(itertools.islice(iter(first), 1))
    resumed = loader(12, 2)
    resumed.load_state_dict(first.state_dict())
    assert list(itertools.chain(*begun, *ids(resumed))) == list(itertools.chain(*ids(loader(12, 12))))


def test_state_after_the_last_batch_is_the_next_epoch():
    batches = loader(5, drop_last=True)
    for _ in batches:
        state = batches.state_dict()
    assert state == batches.state_dict() == {"epoch": 1, "position": 0}


def test_length_is_that_of_a_whole_epoch():
    batches = loader(11)
    assert len(batches) == 6 and len(loader(11, drop_last=True)) == 5
    next(iter(batches))
    assert len(batches) == 6 and len(batches.batches) == 5


@pytest.mark.parametrize("state", [{"epoch": 0, "position": 12}, {"epoch": -1, "position": 0}])
def test_states_of_another_data_set_are_refused(state):
    with pytest.raises(ValueError, match="does not fit 11 samples"):
        loader().load_state_dict(state)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"rank": 2, "world_size": 2}, {"rank": -1}])
def test_impossible_shards_are_refused(options):
    with pytest.raises(ValueError, match="batch_size must be at least 1 and rank in"):
        ShardedBatches(4, **({"batch_size": 1, "shuffle": False} | options))


def equal(a, b) -> bool:
    names = ("points", "point_frame", "boxes", "labels", "box_frame")
    return a.frame_ids == b.frame_ids and all(torch.equal(getattr(a, n), getattr(b, n)) for n in names)


@pytest.mark.slow
def test_workers_give_the_same_augmented_batches_over_epochs_and_resumption(tmp_path):
    root = write_folder(tmp_path / "kitti", frames=5)
    steps = AugmentConfig((RandomFlip(), RandomRotation(), PointShuffle()))
    data = KittiDataset(KittiDatasetConfig(root=str(root)), "train", steps)

    def load(workers: int):
        return make_loader(data, 2, workers=workers, shuffle=True, seed=3)

    alone, helped = load(0), load(2)
    expected = [*alone, *alone]
    got = [*helped]
    second = iter(helped)
    got.append(next(second))
    # Workers have read ahead by now; the state counts only what was handed out.
    state = helped.state_dict()
    assert state == {"epoch": 1, "position": 2}
    got += list(second)
    assert len(got) == len(expected) == 6 and all(map(equal, got, expected))
    resumed = load(0)
    resumed.load_state_dict(state)
    assert all(map(equal, resumed, expected[4:]))
    helped.load_state_dict(state)
    assert all(map(equal, helped, expected[4:]))
    assert not equal(expected[0], expected[3])
