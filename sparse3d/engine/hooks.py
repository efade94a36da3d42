"""What happens beside the training. Usual order: Evaluate, WriteMetrics, WriteTensorBoard, ShowProgress,
TimeBudget, StopOnSignal, SaveCheckpoints: an evaluation is then on record before the checkpoint that it
belongs to.
"""

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from sparse3d.engine import distributed
from sparse3d.engine.checkpoint import CheckpointFolder, better
from sparse3d.engine.loop import Evaluation, Hook, Trainer
from sparse3d.engine.seed import isolated_rng
from sparse3d.engine.state import capture
from sparse3d.errors import require_extra

_nothing = contextlib.nullcontext


@dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are written, and how many stay."""

    every_epochs: int = 1
    every_steps: int | None = None  # also within an epoch
    keep: int = 2  # newest ones; the best one stays as well

    def __post_init__(self):
        for name in ("every_epochs", "every_steps", "keep"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")


class SaveCheckpoints(Hook):
    """Writes checkpoints as configured, when an evaluation is the best one so far, and at the end of the
    run.
    """

    def __init__(self, folder: CheckpointFolder, config: CheckpointConfig, best_metric: str | None = None):
        self.folder, self.config, self.best_metric = folder, config, best_metric
        self.saved_step = -1
        self.judged_step = -1
        self._due = False

    def before_train(self, trainer: Trainer) -> None:
        self.saved_step = trainer.step  # nothing new yet, neither in a fresh nor in a resumed run

    def after_step(self, trainer: Trainer) -> None:
        every = self.config.every_steps
        self._due = self._due or (every is not None and trainer.step % every == 0)
        # At the end of an epoch after_epoch follows at once, and saves the epoch as closed.
        if self._due and not trainer.epoch_is_over:
            self._save(trainer)

    def after_epoch(self, trainer: Trainer) -> None:
        if self._due or trainer.epoch % self.config.every_epochs == 0 or self._best(trainer) is not None:
            self._save(trainer)

    def after_train(self, trainer: Trainer) -> None:
        if trainer.step != self.saved_step or self._best(trainer) is not None:
            self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        checkpoint, best = capture(trainer), self._best(trainer)
        if distributed.is_main():
            self.folder.save(checkpoint, best)
        distributed.barrier()
        self.saved_step, self._due = trainer.step, False
        if best is not None:
            self.judged_step = trainer.step

    def _best(self, trainer: Trainer) -> tuple[str, float] | None:
        """The metric of a fresh evaluation that beats all former ones."""
        evaluation, name = trainer.evaluation, self.best_metric
        if name is None or evaluation is None or evaluation.step != trainer.step:
            return None
        if self.judged_step == trainer.step:
            return None
        if name not in evaluation.metrics:
            known = ", ".join(evaluation.metrics)
            raise ValueError(f"no metric '{name}' to choose the best checkpoint by; there are: {known}")
        value = evaluation.metrics[name]
        # Only the first process needs to see the folder, but all of them must agree to save.
        improved = distributed.is_main() and better(value, self.folder.best())
        return (name, value) if distributed.any_process(improved, trainer.device) else None


class Evaluate(Hook):
    """Calls `evaluate(model) -> metrics` after every few epochs and at the end, with averaged weights if
    there are any.

    The model is in eval mode without gradients, and random numbers drawn inside do not change the training.
    Every process calls it, with the first one's weights and statistics, so that they can share the frames
    (`distributed.share_out`); the metrics of the first process count, the others may give None.
    """

    def __init__(self, evaluate: Callable[[nn.Module], Mapping[str, float] | None], every_epochs: int = 1):
        self.evaluate, self.every_epochs = evaluate, every_epochs

    def after_epoch(self, trainer: Trainer) -> None:
        if trainer.epoch % self.every_epochs == 0:
            self._run(trainer)

    def after_train(self, trainer: Trainer) -> None:
        if trainer.stopped is None and (
            trainer.evaluation is None or trainer.evaluation.step != trainer.step
        ):
            self._run(trainer)

    def _run(self, trainer: Trainer) -> None:
        metrics = dict(evaluate_model(trainer, self.evaluate) or {})
        trainer.evaluation = Evaluation(trainer.step, distributed.from_main(metrics))


def evaluate_model(
    trainer: Trainer, evaluate: Callable[[nn.Module], Mapping[str, float] | None]
) -> Mapping[str, float] | None:
    """`evaluate(model)` on the run's present (averaged) weights, leaving no trace in the training."""
    model = trainer.model
    averaged = _nothing() if trainer.ema is None else trainer.ema.swapped_into(model)
    model.eval()
    try:
        with torch.no_grad(), isolated_rng(), averaged, distributed.buffers_of_main(model):
            return evaluate(model)
    finally:
        model.train()


class TimeBudget(Hook):
    """Ends the run cleanly when `minutes` have passed since it was started (or resumed)."""

    def __init__(self, minutes: float, clock: Callable[[], float] = time.monotonic):
        self.seconds, self.clock = minutes * 60.0, clock
        self.start = math.inf

    def before_train(self, trainer: Trainer) -> None:
        self.start = self.clock()

    def after_step(self, trainer: Trainer) -> None:
        over = self.clock() - self.start >= self.seconds
        # Processes ask each other every step: one that stops alone leaves the others waiting for its
        # gradients.
        if distributed.any_process(over, trainer.device):
            trainer.stop(f"max_minutes = {self.seconds / 60.0:g} reached")


class StopOnSignal(Hook):
    """The first Ctrl-C (or SIGTERM) ends the run after the present step, with a checkpoint; the second one
    at once.
    """

    REASON = "interrupted"

    def __init__(self):
        self.received = False
        self._former: dict[int, Any] = {}

    def before_train(self, trainer: Trainer) -> None:
        if threading.current_thread() is threading.main_thread():  # Python allows handlers nowhere else
            for number in (signal.SIGINT, signal.SIGTERM):
                self._former[number] = signal.signal(number, self._receive)

    def after_step(self, trainer: Trainer) -> None:
        if distributed.any_process(self.received, trainer.device):
            trainer.stop(self.REASON)

    def close(self) -> None:
        while self._former:
            signal.signal(*self._former.popitem())

    def _receive(self, number: int, frame: Any) -> None:
        if self.received:
            raise KeyboardInterrupt
        self.received = True


class WriteTensorBoard(Hook):
    """Losses, rate and metrics for TensorBoard (extra `tensorboard`)."""

    def __init__(self, folder: str | Path, every: int = 10):
        self.folder, self.every = Path(folder), every
        self._writer: Any = None
        self._written = -1
        if distributed.is_main():
            require_extra("tensorboard", "tensorboard")

    def before_train(self, trainer: Trainer) -> None:
        if distributed.is_main():
            from torch.utils.tensorboard import SummaryWriter

            self._writer = SummaryWriter(str(self.folder), purge_step=trainer.step)

    def after_step(self, trainer: Trainer) -> None:
        report = trainer.report
        if self._writer is None or report is None or trainer.step % self.every:
            return
        values = {"loss": report.total, "lr": report.lr, "grad_norm": report.grad_norm}
        values |= {f"loss/{name}": value for name, value in report.losses.items()}
        for name, value in values.items():
            self._writer.add_scalar(f"train/{name}", value, trainer.step)

    def after_epoch(self, trainer: Trainer) -> None:
        if self._writer is not None and trainer.evaluation and trainer.evaluation.step != self._written:
            self._written = trainer.evaluation.step
            for name, value in trainer.evaluation.metrics.items():
                self._writer.add_scalar(f"evaluation/{name}", value, self._written)

    def after_train(self, trainer: Trainer) -> None:
        self.after_epoch(trainer)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()
