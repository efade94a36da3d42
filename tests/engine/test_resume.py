"""A run that was stopped and continued is bit for bit the run that was not."""

import random

import numpy as np
import pytest
import torch

from sparse3d.engine.checkpoint import CheckpointFolder, read_checkpoint
from sparse3d.engine.loop import TrainConfig
from sparse3d.engine.optim import SGDConfig
from sparse3d.engine.seed import rng_state, seed_everything, set_rng_state
from sparse3d.engine.state import capture, restore
from sparse3d.errors import DataError
from tests.engine.small import SmallLoader, SmallNet, small_trainer
from tests.stop_at import StopAt


def assert_same_state(one, other):
    assert one.state == other.state
    assert one.tensors.keys() == other.tensors.keys()
    for name, tensor in one.tensors.items():
        assert torch.equal(tensor, other.tensors[name]), name


@pytest.mark.parametrize("stop", [1, 5, 10, 13])  # within an epoch, at its last step, within the second
@pytest.mark.parametrize(
    ("config", "optimizer"),
    [
        (TrainConfig(steps=16, clip_grad_norm=1.0, ema_decay=0.9), None),
        (TrainConfig(epochs=5, accumulate=3, precision="bf16"), None),
        (TrainConfig(steps=16), SGDConfig(lr=0.01)),
    ],
    ids=["adamw-ema", "accumulate-bf16", "sgd"],
)
def test_resumed_run_is_bit_identical(tmp_path, config, optimizer, stop):
    other = {"optimizer": optimizer} if optimizer else {}
    straight = small_trainer(config, **other)
    assert straight.train() == "finished"

    stopped = small_trainer(config, hooks=[StopAt(stop)], **other)
    assert stopped.train() == "stopped by the test"
    folder = CheckpointFolder(tmp_path).save(capture(stopped))

    seed_everything(99)  # whatever the process did in between
    resumed = small_trainer(config, seed=5, **other)
    restore(resumed, read_checkpoint(folder), folder)
    assert resumed.step == stop
    assert resumed.train() == "finished"
    assert_same_state(capture(straight), capture(resumed))
    assert stopped.loader.handed_out + resumed.loader.handed_out == straight.loader.handed_out


def test_random_numbers_continue_after_a_round_trip():
    def draw():
        return [random.gauss(0, 1), np.random.standard_normal(), torch.rand(1).item(), random.random()]

    seed_everything(3)
    draw()  # leaves a spare normal number in both random and numpy
    state = rng_state()
    first = draw()
    draw()
    set_rng_state(state)
    assert draw() == first


def test_ranks_and_seeds_draw_different_numbers():
    draws = set()
    for seed in range(3):
        for rank in range(3):
            seed_everything(seed, rank)
            draws.add(torch.rand(1).item())
    assert len(draws) == 9


def test_another_length_of_run_is_refused(tmp_path):
    trainer = small_trainer(TrainConfig(steps=16), hooks=[StopAt(4)])
    trainer.train()
    longer = small_trainer(TrainConfig(steps=20))
    with pytest.raises(DataError, match="written by a run of 16 steps, this one has 20"):
        restore(longer, capture(trainer), tmp_path)


def test_another_model_is_refused_with_names_and_shapes(tmp_path):
    trainer = small_trainer(TrainConfig(steps=2))
    trainer.train()
    other = SmallNet(norm=False)
    other.head = torch.nn.Linear(8, 3)
    with pytest.raises(DataError) as caught:
        restore(small_trainer(TrainConfig(steps=2), model=other), capture(trainer), tmp_path)
    message = str(caught.value)
    assert "5 unexpected: body.1.weight" in message
    assert "head.weight is (2, 8), the model has (3, 8)" in message


def test_averaged_weights_on_one_side_only_are_refused(tmp_path):
    trainer = small_trainer(TrainConfig(steps=2, ema_decay=0.9))
    trainer.train()
    with pytest.raises(DataError, match="train.ema_decay"):
        restore(small_trainer(TrainConfig(steps=2)), capture(trainer), tmp_path)


def test_an_empty_loader_is_refused():
    with pytest.raises(ValueError, match="no batches"):
        small_trainer(loader=SmallLoader(rows=1))
