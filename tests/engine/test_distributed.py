"""Two processes with half of a batch each take the steps of one process with the whole batch."""

import multiprocessing
import os
import socket
import sys

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from sparse3d.engine import distributed
from sparse3d.engine.checkpoint import CheckpointFolder
from sparse3d.engine.hooks import CheckpointConfig, Evaluate, SaveCheckpoints
from sparse3d.engine.loop import TrainConfig
from sparse3d.engine.optim import SGDConfig
from sparse3d.engine.schedule import ConstantConfig
from sparse3d.engine.state import capture
from tests.engine.small import SmallLoader, SmallNet, small_trainer

CONFIG = TrainConfig(steps=6, accumulate=2, clip_grad_norm=0.5)


def judged_by_all(model):
    """The first one knows the result; it counts for all of them."""
    return {"ap": 0.5} if distributed.is_main() else None


def run(loader, folder):
    """(losses of the last step, all weights, rows of random states in a checkpoint)."""
    torch.manual_seed(1)
    trainer = small_trainer(
        CONFIG,
        hooks=[
            Evaluate(judged_by_all),
            SaveCheckpoints(CheckpointFolder(folder), CheckpointConfig(every_epochs=100), "ap"),
        ],
        model=SmallNet(dropout=0.0, norm=False),
        loader=loader,
        optimizer=SGDConfig(lr=0.05),
        schedule=ConstantConfig(),
    )
    trainer.train()
    assert trainer.report is not None
    assert trainer.evaluation is not None and trainer.evaluation.metrics == {"ap": 0.5}
    weights = torch.cat([p.detach().flatten() for p in trainer.model.parameters()])
    return trainer.report.total, weights.tolist(), len(capture(trainer).tensors["rng.torch"])


def environment_of(rank, port):
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    torch.set_num_threads(1)


def one_of_two(rank, port, results, folder):
    environment_of(rank, port)
    with distributed.process_group("cpu") as device:
        assert (distributed.rank(), distributed.world_size(), device.type) == (rank, 2, "cpu")
        assert distributed.any_process(rank == 1, device)
        results.put((rank, run(SmallLoader(24, 2, rank=rank, world_size=2), folder)))
    assert not distributed.is_distributed()


def in_two_processes(work, folder, collect=True):
    """What each of two processes put into the queue: `work(rank, port, queue, folder)`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("spawn")
    results = context.Queue()
    processes = [context.Process(target=work, args=(rank, port, results, folder)) for rank in range(2)]
    for process in processes:
        process.start()
    found = dict(results.get(timeout=120) for _ in processes) if collect else {}
    for process in processes:
        process.join(timeout=60)
        assert process.exitcode == 0
    return found


@pytest.mark.slow
def test_two_processes_equal_one_with_the_double_batch(tmp_path):
    found = in_two_processes(one_of_two, tmp_path / "two")
    loss, weights, _ = run(SmallLoader(24, 4), tmp_path / "one")
    names = [sorted(path.name for path in (tmp_path / side).iterdir()) for side in ("one", "two")]
    assert names[0] == names[1] and "best" in names[0]
    for rank in range(2):
        assert found[rank][0] == pytest.approx(loss, rel=1e-5)
        assert found[rank][1] == pytest.approx(weights, rel=1e-5, abs=1e-6)
        assert found[rank][2] == 2, "one row of random states a process"
    assert found[0][1] == found[1][1], "both processes hold the same weights, bit for bit"


def leave_after_a_collective(rank, port, _results, _folder):
    environment_of(rank, port)
    sys.setswitchinterval(1000)  # gloo's threads get the interpreter only when it is given up
    with distributed.process_group("cpu"):
        kept = DistributedDataParallel(torch.nn.Linear(1, 1))  # holds the group and so its threads
        for _ in range(50):
            value = torch.ones(1)
            torch.distributed.all_reduce(value)
    assert value._use_count() == 1, "a thread of gloo's still holds a tensor"
    del kept


@pytest.mark.slow
def test_gloo_has_let_go_of_all_tensors_when_the_group_is_left():
    """Or else: "terminate called without an active exception", in one of five trainings."""
    in_two_processes(leave_after_a_collective, None, collect=False)


def test_half_a_torchrun_environment_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with pytest.raises(ValueError, match="start with torchrun"):
        with distributed.process_group("cpu"):
            pass


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_cuda_without_a_device_is_refused():
    with pytest.raises(ValueError, match="use device=cpu"):
        with distributed.process_group("cuda"):
            pass
