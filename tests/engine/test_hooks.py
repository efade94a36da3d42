"""Hooks: when they act, what they write, and that they leave the training as it is."""

import io
import json
import os
import signal

import pytest
import torch
from rich.console import Console

from sparse3d.engine.checkpoint import CheckpointFolder, read_checkpoint
from sparse3d.engine.hooks import (
    CheckpointConfig,
    Evaluate,
    SaveCheckpoints,
    StopOnSignal,
    TimeBudget,
    WriteTensorBoard,
)
from sparse3d.engine.loop import Hook, TrainConfig
from sparse3d.engine.progress import ShowProgress, WriteMetrics, read_metrics
from sparse3d.engine.state import capture, restore
from tests.engine.small import small_trainer


def saved(folder):
    return sorted(int(path.name[5:]) for path in folder.glob("step_*"))


class Note(Hook):
    """What is on disk after each step."""

    def __init__(self, folder):
        self.folder, self.seen = folder, []

    def after_step(self, trainer):
        self.seen += [step for step in saved(self.folder) if step not in self.seen]

    after_epoch = after_train = after_step


def test_checkpoints_come_when_configured(tmp_path):
    """10 steps an epoch: every 4 steps, every epoch, and the end."""
    note = Note(tmp_path)
    config = CheckpointConfig(every_steps=4, keep=2)
    hooks = [SaveCheckpoints(CheckpointFolder(tmp_path, 2), config), note]
    small_trainer(TrainConfig(steps=23), hooks=hooks).train()
    assert note.seen == [4, 8, 10, 12, 16, 20, 23]
    assert saved(tmp_path) == [20, 23]


def test_the_best_checkpoint_is_the_one_with_the_best_metric(tmp_path):
    scores = iter([0.3, 0.9, 0.2, float("nan")])
    folder = CheckpointFolder(tmp_path, keep=1)
    hooks = [
        Evaluate(lambda model: {"ap": next(scores)}),
        SaveCheckpoints(folder, CheckpointConfig(), "ap"),
    ]
    small_trainer(TrainConfig(epochs=4), hooks=hooks).train()
    assert saved(tmp_path) == [20, 40]
    assert folder.find("best").name == "step_00000020" and folder.find("last").name == "step_00000040"


def test_a_metric_that_is_not_there_is_refused(tmp_path):
    save = SaveCheckpoints(CheckpointFolder(tmp_path), CheckpointConfig(), "ap")
    hooks = [Evaluate(lambda model: {"map": 1.0}), save]
    with pytest.raises(ValueError, match="no metric 'ap'.*there are: map"):
        small_trainer(TrainConfig(epochs=1), hooks=hooks).train()


def test_evaluation_leaves_no_trace_in_the_training():
    def evaluate(model):
        assert not model.training and not torch.is_grad_enabled()
        torch.rand(7)
        seen.append(model.head.weight.clone())
        return {"ap": 1.0}

    seen = []
    config = TrainConfig(epochs=2, ema_decay=0.9)
    with_evaluation = small_trainer(config, hooks=[Evaluate(evaluate)])
    with_evaluation.train()
    without = small_trainer(config)
    without.train()
    assert with_evaluation.ema is not None and torch.equal(
        seen[-1], with_evaluation.ema.tensors["head.weight"]
    )
    one, other = capture(with_evaluation), capture(without)
    assert all(torch.equal(one.tensors[name], other.tensors[name]) for name in other.tensors)


def test_a_run_that_ends_within_an_epoch_is_evaluated_at_its_end():
    steps = []
    trainer = small_trainer(
        TrainConfig(steps=13), hooks=[Evaluate(lambda model: steps.append(trainer.step) or {})]
    )
    trainer.train()
    assert steps == [10, 13]


def test_time_budget_stops_with_a_checkpoint(tmp_path):
    clock = iter(range(0, 600, 60))  # one minute a step
    hooks = [
        TimeBudget(3.0, clock=lambda: next(clock)),
        SaveCheckpoints(CheckpointFolder(tmp_path), CheckpointConfig()),
    ]
    trainer = small_trainer(TrainConfig(steps=50), hooks=hooks)
    assert trainer.train() == "max_minutes = 3 reached"
    assert trainer.step == 3 and saved(tmp_path) == [3]


def test_first_interrupt_ends_with_a_checkpoint_and_gives_the_handler_back(tmp_path):
    class Interrupt(Hook):
        def after_step(self, trainer):
            if trainer.step == 2:
                os.kill(os.getpid(), signal.SIGINT)

    former = signal.getsignal(signal.SIGINT)
    hooks = [Interrupt(), StopOnSignal(), SaveCheckpoints(CheckpointFolder(tmp_path), CheckpointConfig())]
    trainer = small_trainer(TrainConfig(steps=50), hooks=hooks)
    assert trainer.train() == StopOnSignal.REASON
    assert trainer.step in (2, 3) and saved(tmp_path) == [trainer.step]
    assert signal.getsignal(signal.SIGINT) is former


def test_second_interrupt_ends_at_once():
    class Impatient(Hook):
        def after_step(self, trainer):
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)

    former = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        small_trainer(TrainConfig(steps=50), hooks=[Impatient(), StopOnSignal()]).train()
    assert signal.getsignal(signal.SIGINT) is former


def test_metrics_are_means_since_the_last_line(tmp_path):
    reports = []

    class Keep(Hook):
        def after_step(self, trainer):
            reports.append(trainer.report)

    path = tmp_path / "metrics.jsonl"
    hooks = [Keep(), Evaluate(lambda model: {"ap": 0.5, "none": float("nan")}), WriteMetrics(path, every=4)]
    small_trainer(TrainConfig(epochs=1), hooks=hooks).train()
    lines = read_metrics(path)
    assert [(line["kind"], line["step"]) for line in lines] == [
        ("train", 4),
        ("train", 8),
        ("evaluation", 10),
        ("train", 10),
    ]
    assert lines[1]["loss"] == pytest.approx(sum(report.total for report in reports[4:8]) / 4)
    assert lines[1]["losses"]["first"] == pytest.approx(sum(r.losses["first"] for r in reports[4:8]) / 4)
    assert lines[2]["metrics"] == {"ap": 0.5, "none": None}
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_resumed_metrics_have_each_step_once(tmp_path):
    path, config = tmp_path / "metrics.jsonl", TrainConfig(steps=12)

    class StopAt6(Hook):
        def after_step(self, trainer):
            if trainer.step == 6:
                self.checkpoint = capture(trainer)

    stop = StopAt6()
    small_trainer(config, hooks=[stop, WriteMetrics(path, every=2)]).train()
    straight = [line["step"] for line in read_metrics(path)]
    with open(path, "a") as file:
        file.write('{"kind": "train", "st')  # a kill in the middle of a line
    resumed = small_trainer(config, hooks=[WriteMetrics(path, every=2)])
    restore(resumed, stop.checkpoint, tmp_path)
    resumed.train()
    assert [line["step"] for line in read_metrics(path)] == straight == [2, 4, 6, 8, 10, 12]


def test_progress_without_a_terminal_is_plain_lines():
    text = io.StringIO()
    console = Console(file=text, force_terminal=False)
    hooks = [Evaluate(lambda model: {"ap": 0.5}), ShowProgress(5, console)]
    small_trainer(TrainConfig(epochs=1), hooks=hooks).train()
    lines = text.getvalue().splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "step 5/10",
        "step 10/10",
        "evaluation after step 10: ap 0.5",
    ]
    for word in ("epoch 1", "loss ", "lr ", "samples/s"):
        assert word in lines[0]
    assert "\x1b" not in text.getvalue()


def test_progress_on_a_terminal_shows_a_bar():
    text = io.StringIO()
    console = Console(file=text, force_terminal=True, width=120)
    small_trainer(TrainConfig(epochs=1), hooks=[ShowProgress(5, console)]).train()
    assert "10/10" in text.getvalue() and "samples/s" in text.getvalue()


def test_tensorboard_files_hold_losses_and_metrics(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    hooks = [Evaluate(lambda model: {"ap": 0.5}), WriteTensorBoard(tmp_path, every=5)]
    small_trainer(TrainConfig(epochs=1), hooks=hooks).train()
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("train/loss/first")] == [5, 10]
    assert [event.value for event in events.Scalars("evaluation/ap")] == [0.5]


def test_checkpoint_of_a_run_is_complete(tmp_path):
    folder = CheckpointFolder(tmp_path)
    small_trainer(
        TrainConfig(steps=3, ema_decay=0.9), hooks=[SaveCheckpoints(folder, CheckpointConfig())]
    ).train()
    stored = read_checkpoint(folder.find("last"))
    assert stored.state["step"] == 3 and stored.state["batch"] == 3
    assert {name.split(".")[0] for name in stored.tensors} == {"model", "ema", "optimizer", "rng"}
    assert "optimizer.head.weight.exp_avg" in stored.tensors
    assert set(stored.state["versions"]) == {"sparse3d", "torch", "python"}


@pytest.mark.parametrize("name", ["every_epochs", "every_steps", "keep"])
def test_checkpoint_settings_below_one_are_refused(name):
    with pytest.raises(ValueError, match=f"{name} must be at least 1"):
        CheckpointConfig(**{name: 0})
