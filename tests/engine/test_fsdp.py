"""A model that is spread over two processes trains as one that is whole in both, and is whole on disk."""

from pathlib import Path

import pytest
import torch
from torch import nn

from sparse3d.data.loader import make_loader
from sparse3d.engine import distributed
from sparse3d.engine.checkpoint import CheckpointFolder, load_weights, read_checkpoint
from sparse3d.engine.hooks import CheckpointConfig, Evaluate, SaveCheckpoints
from sparse3d.engine.loop import Hook, TrainConfig, Trainer
from sparse3d.engine.optim import AdamWConfig
from sparse3d.engine.schedule import OneCycleConfig
from sparse3d.engine.state import capture, restore
from sparse3d.frames import LidarFrame
from sparse3d.nn import SyncBatchNorm
from sparse3d.nn.collectives import mean_over_ranks
from tests.engine.test_uneven import Rows
from tests.two_ranks import on_two_ranks


class Block(nn.Module):
    """A child of its own, with a list of layers in it and a buffer."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 9), nn.Linear(9, 9)])
        self.norm = SyncBatchNorm(9)

    def forward(self, x):
        for layer in self.layers:
            x = layer(x).relu()
        return self.norm(x)


class Net(nn.Module):
    """`loss` goes through `forward`, as detectors do; one parameter belongs to no child."""

    def __init__(self):
        super().__init__()
        self.body = Block()
        self.heads = nn.ModuleList([nn.Linear(9, 1), nn.Linear(9, 1)])
        self.scale = nn.Parameter(torch.ones(1))
        self.double()

    def forward(self, batch):
        x = self.body(batch.points.double())
        return torch.cat([head(x) for head in self.heads], dim=1) * self.scale

    def loss(self, batch):
        error = (self(batch)[:, 0] - batch.points.double().sum(1)).square().sum()
        return {"error": mean_over_ranks(error, batch.batch_size)}

    def predict(self, batch):
        return self(batch)


class Note(Hook):
    def __init__(self, stop):
        self.stop, self.losses, self.norms = stop, [], []

    def after_step(self, trainer):
        self.losses.append(trainer.report.total)
        self.norms.append(trainer.report.grad_norm)
        if trainer.step == self.stop:
            trainer.stop("test")


def trainer_of(kind, rank, folder, stop=None):
    """11 rows a step of 4 (2 a process), two accumulated: the last step is uneven."""
    torch.manual_seed(rank)  # each process makes weights of its own
    model, note, judged = Net(), Note(stop), []

    def judge(model):
        frames = [Rows(3)[0, i] for i in range(3)]
        found = distributed.share_out(
            3, 1, lambda rows: [model.predict(LidarBatch(frames[rows[0]])).sum().item()]
        )
        if found is not None:
            judged.append(found)
        return None if found is None else {"sum": sum(found)}

    trainer = Trainer(
        model,
        make_loader(Rows(11), 2, shuffle=True, drop_last=False, rank=rank, world_size=2),
        TrainConfig(epochs=3, accumulate=2, clip_grad_norm=1.0, ema_decay=0.9, distributed=kind),
        AdamWConfig(lr=0.02),
        OneCycleConfig(),
        hooks=[note, Evaluate(judge), SaveCheckpoints(CheckpointFolder(folder), CheckpointConfig(), "sum")],
    )
    return trainer, note, judged


def LidarBatch(frame: LidarFrame):
    from sparse3d.frames import DetectionBatch

    return DetectionBatch.collate([frame])


def train_both_ways(rank, folder):
    found = {}
    for kind in ("ddp", "fsdp"):
        trainer, note, judged = trainer_of(kind, rank, Path(folder) / kind)
        here = sum(
            (p.to_local() if kind == "fsdp" else p).numel()  # pyright: ignore[reportCallIssue]
            for p in trainer.model.parameters()
        )
        trainer.train()
        found[f"{kind}.losses"] = torch.tensor(note.losses, dtype=torch.float64)
        found[f"{kind}.norms"] = torch.tensor(note.norms, dtype=torch.float64)
        found[f"{kind}.judged"] = torch.tensor(judged, dtype=torch.float64)
        found[f"{kind}.held"] = torch.tensor(here)
    stopped, _, _ = trainer_of("fsdp", rank, Path(folder) / "stopped", stop=3)
    stopped.train()
    resumed, note, _ = trainer_of("fsdp", rank, Path(folder) / "resumed")
    last = CheckpointFolder(Path(folder) / "stopped").find("last")
    restore(resumed, read_checkpoint(last), last)
    resumed.train()
    found["resumed.losses"] = torch.tensor(note.losses, dtype=torch.float64)
    assert bool(capture(resumed).part("model")) is True, "buffers are whole in every process"
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs")
    return folder, on_two_ranks(train_both_ways, folder, str(folder))


def last(folder, run):
    return read_checkpoint(CheckpointFolder(folder / run).find("last"))


@pytest.mark.slow
def test_the_losses_are_those_of_whole_models(runs):
    for rank in runs[1]:
        assert len(rank["ddp.losses"]) == 6 and rank["ddp.losses"].std() > 0
        # Gradients are summed in another order.
        torch.testing.assert_close(rank["fsdp.losses"], rank["ddp.losses"], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(rank["fsdp.norms"], rank["ddp.norms"], rtol=1e-10, atol=1e-10)
        torch.testing.assert_close(rank["fsdp.judged"], rank["ddp.judged"], rtol=1e-10, atol=1e-10)
    assert runs[1][0]["ddp.judged"].shape == (3, 3) and not len(runs[1][1]["ddp.judged"])


@pytest.mark.slow
def test_each_process_holds_a_part(runs):
    held = [int(rank["fsdp.held"]) for rank in runs[1]]
    whole = sum(p.numel() for p in Net().parameters())
    assert sum(held) == whole == int(runs[1][0]["ddp.held"])
    assert max(held) < 0.65 * whole, "rows of 9 and of 1 do not halve"


@pytest.mark.slow
def test_checkpoints_are_whole_and_load_in_one_process(runs):
    spread, whole = (last(runs[0], kind) for kind in ("fsdp", "ddp"))
    assert spread.state == whole.state
    assert spread.tensors.keys() == whole.tensors.keys()
    for name, tensor in whole.tensors.items():
        torch.testing.assert_close(spread.tensors[name], tensor, rtol=1e-8, atol=1e-8, msg=name)
    for part in ("model", "ema"):
        load_weights(Net(), spread.part(part), "run")


@pytest.mark.slow
def test_a_resumed_run_is_bit_for_bit_the_one_that_was_not_stopped(runs):
    straight, resumed = last(runs[0], "fsdp"), last(runs[0], "resumed")
    assert straight.state == resumed.state
    for name, tensor in straight.tensors.items():
        assert torch.equal(tensor, resumed.tensors[name]), name
    assert runs[1][0]["resumed.losses"].tolist() == runs[1][0]["fsdp.losses"].tolist()[3:]


def test_half_precision_with_loss_scaling_is_refused():
    with pytest.raises(ValueError, match="use precision bf16 or fp32"):
        TrainConfig(distributed="fsdp", precision="fp16")


def test_alone_a_model_is_whole():
    trainer = Trainer(
        Net(),
        make_loader(Rows(4), 2),
        TrainConfig(steps=2, distributed="fsdp"),
        AdamWConfig(),
        OneCycleConfig(),
    )
    assert trainer.train() == "finished"
