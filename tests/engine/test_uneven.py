"""Unequal batches, accumulated or dealt to two processes, step as the large batch does, in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from sparse3d.data.loader import make_loader
from sparse3d.engine import distributed
from sparse3d.engine.hooks import Evaluate
from sparse3d.engine.loop import Hook, TrainConfig, Trainer
from sparse3d.engine.optim import SGDConfig
from sparse3d.engine.schedule import ConstantConfig
from sparse3d.frames import LidarFrame
from sparse3d.nn import SyncBatchNorm
from sparse3d.nn.collectives import mean_over_ranks
from tests.two_ranks import on_two_ranks


class Rows:
    """Frames of one point each, with a number to learn from it."""

    def __init__(self, length: int):
        self.length = length

    def __len__(self):
        return self.length

    def __getitem__(self, pair):
        epoch, index = pair
        points = np.random.default_rng([epoch, index]).standard_normal((1, 4)).astype(np.float32)
        return LidarFrame(str(index), points, np.zeros((0, 7), np.float32), np.zeros(0, np.int64))


class Net(nn.Module):
    """Two losses that compose; the norm sees the rows of all processes."""

    def __init__(self, norm: bool):
        super().__init__()
        torch.manual_seed(3)
        self.body = nn.Sequential(nn.Linear(4, 8), SyncBatchNorm(8) if norm else nn.Identity(), nn.ReLU())
        self.head = nn.Linear(8, 2)
        self.double()

    def loss(self, batch):
        points = batch.points.double()
        out = self.head(self.body(points))
        error = (out[:, 0] - points.sum(1)).square().sum()
        return {
            "first": mean_over_ranks(error, batch.batch_size),
            "second": mean_over_ranks(out[:, 1].abs().sum(), batch.batch_size),
        }


class Note(Hook):
    def __init__(self):
        self.losses, self.samples = [], []

    def after_step(self, trainer):
        self.losses.append(trainer.report.total)
        self.samples.append(trainer.report.samples)


def trained(length, batch_size, accumulate=1, norm=False, rank=0, world_size=1, **config):
    """Losses, samples a step and final weights of two epochs over `length` rows."""
    note = Note()
    trainer = Trainer(
        Net(norm),
        make_loader(
            Rows(length), batch_size, shuffle=True, drop_last=False, rank=rank, world_size=world_size
        ),
        TrainConfig(epochs=2, accumulate=accumulate, clip_grad_norm=1.0, **config),
        SGDConfig(lr=0.05),
        ConstantConfig(),
        hooks=[note, Evaluate(lambda model: {"rows": 1.0} if rank == 0 else None)],
    )
    assert trainer.train() == "finished"
    assert trainer.evaluation is not None and trainer.evaluation.metrics == {"rows": 1.0}
    state = trainer.model.state_dict()
    return {
        "losses": torch.tensor(note.losses, dtype=torch.float64),
        "samples": torch.tensor(note.samples),
        "weights": torch.cat([value.double().flatten() for value in state.values()]),
    }


def assert_same(one, other):
    assert one["samples"].tolist() == other["samples"].tolist()
    # Sums in another order.
    torch.testing.assert_close(one["losses"], other["losses"], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(one["weights"], other["weights"], rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize(
    ("length", "batch_size", "accumulate", "samples"),
    [(12, 2, 3, [6, 6]), (11, 4, 3, [11]), (9, 4, 3, [9]), (13, 4, 2, [8, 5])],
    ids=["equal", "3 of 4 in the last", "1 of 4 in the last", "1 of 4, in a group of two"],
)
def test_accumulated_batches_are_the_large_batch(length, batch_size, accumulate, samples):
    small = trained(length, batch_size, accumulate)
    assert_same(small, trained(length, batch_size * accumulate))
    assert small["samples"].tolist() == 2 * samples


# Rows, batch size of a process, accumulated batches. The last steps of an epoch of these: 3 rows (2 and 1),
# one row (1 and none), a group of 4 and 1 rows (3 and 2), a group whose last batch one process lacks.
DEALT = {
    "uneven": (11, 2, 1),
    "none on one": (9, 2, 1),
    "accumulated": (13, 2, 2),
    "none in a group": (9, 1, 3),
}


def dealt(rank):
    found = {}
    for name, (length, batch_size, accumulate) in DEALT.items():
        for norm in (False, True):
            run = trained(length, batch_size, accumulate, norm, rank, 2)
            found |= {f"{name}.{norm}.{key}": value for key, value in run.items()}
    shared = distributed.share_out(7, 2, lambda rows: [row * row for row in rows])
    found["shared"] = torch.tensor([-1] if shared is None else shared)
    empty = distributed.share_out(0, 2, lambda rows: [1])
    found["shared nothing"] = torch.tensor([-1] if empty is None else empty)
    return found


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return on_two_ranks(dealt, tmp_path_factory.mktemp("ranks"))


@pytest.mark.slow
@pytest.mark.parametrize("norm", [False, True], ids=["plain", "sync norm"])
@pytest.mark.parametrize("name", DEALT)
def test_two_processes_with_unequal_shares_are_one_with_all(ranks, name, norm):
    length, batch_size, accumulate = DEALT[name]
    alone = trained(length, 2 * batch_size, accumulate, norm)
    for rank in ranks:
        assert_same({key: rank[f"{name}.{norm}.{key}"] for key in alone}, alone)
    assert torch.equal(ranks[0][f"{name}.{norm}.weights"], ranks[1][f"{name}.{norm}.weights"])


@pytest.mark.slow
def test_rows_that_are_shared_out_come_back_once_and_in_order(ranks):
    assert ranks[0]["shared"].tolist() == [0, 1, 4, 9, 16, 25, 36]
    assert ranks[0]["shared nothing"].tolist() == []
    assert ranks[1]["shared"].tolist() == ranks[1]["shared nothing"].tolist() == [-1], (
        "only the first has them"
    )


def test_alone_every_row_is_done_once_and_progress_ends_with_all():
    seen, calls = [], []

    def work(rows):
        seen.append(list(rows))
        return list(rows)

    assert distributed.share_out(5, 2, work, lambda *done: calls.append(done)) == [0, 1, 2, 3, 4]
    assert seen == [[0, 1], [2, 3], [4]] and calls == [(2, 5), (4, 5), (5, 5)]
