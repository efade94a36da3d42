"""The training loop: what happens in one step, one epoch, one run. Everything else is a hook (`hooks.py`).

A model is any nn.Module with `loss(batch) -> dict[str, Tensor]` of named scalars whose sum is minimised.
`step` counts optimiser steps, `epoch` finished epochs, `batch` the batches used of the present epoch. What a
step minimises is the mean over its batches, weighted by their numbers of samples (in all processes), of the
mean of the processes' losses (`distributed` says what losses must do for that to be the large batch's).
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from sparse3d.engine import distributed, diverged, parallel
from sparse3d.engine.ema import Ema
from sparse3d.engine.optim import OptimizerConfig, build_optimizer
from sparse3d.engine.schedule import ScheduleConfig, apply_schedule
from sparse3d.engine.seed import isolated_rng
from sparse3d.nn import convert_sync_batchnorm

_nothing = contextlib.nullcontext
# What a step is made of, for who measures it.
PHASES = ("data", "transfer", "forward", "backward", "optimizer")


class Loader(Protocol):
    """Batches (with `.to(device)` and `.batch_size`); each iteration gives the rest of the present epoch.

    `len` is the number of batches of a whole epoch. The state (JSON) says which batches were handed out;
    after the last one of an epoch it stands at the begin of the next.
    """

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class TrainConfig:
    """How long, on what and how a model is trained."""

    epochs: int = 80
    steps: int | None = None  # length of the run in optimiser steps, in place of epochs
    max_minutes: float | None = None  # stop cleanly with a checkpoint; --resume continues
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    accumulate: int = 1  # batches a step; their losses are averaged, weighted by their samples
    clip_grad_norm: float | None = 10.0
    ema_decay: float | None = None  # average the weights, e.g. 0.999
    seed: int = 0
    deterministic: bool = False  # refuse operations that torch cannot repeat bit for bit
    sync_batchnorm: bool = True  # several processes: batch norm over the samples of all of them
    # several processes: the whole model in each (ddp), or its weights spread over them, for large ones (fsdp)
    distributed: Literal["ddp", "fsdp"] = "ddp"

    def __post_init__(self):
        for name in ("epochs", "accumulate"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("steps", "max_minutes", "clip_grad_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0 or null, got {value}")
        if self.distributed == "fsdp" and self.precision == "fp16":
            raise ValueError("distributed fsdp has no loss scaling for fp16; use precision bf16 or fp32")
        if self.ema_decay is not None and not 0.0 < self.ema_decay < 1.0:
            raise ValueError(f"ema_decay must lie in (0, 1) or be null, got {self.ema_decay}")


class StepReport(NamedTuple):
    """One step in numbers; losses are means over the step's batches and over all processes."""

    losses: dict[str, float]
    total: float
    lr: float
    grad_norm: float
    samples: int  # of all processes
    seconds: float  # since the step before, so with the wait for data


class Evaluation(NamedTuple):
    """The latest evaluation: after which step, and its metrics."""

    step: int
    metrics: dict[str, float]


class Hook:
    """Something that happens beside the training. Hooks run in order; every process runs all of them."""

    def before_train(self, trainer: "Trainer") -> None:
        """Before the first step, also of a resumed run."""

    def after_step(self, trainer: "Trainer") -> None:
        """`trainer.report` has the numbers of the step."""

    def after_epoch(self, trainer: "Trainer") -> None:
        """`trainer.epoch` already counts the finished epoch."""

    def after_train(self, trainer: "Trainer") -> None:
        """After the last step of a run that ended or was stopped, not of one that raised."""

    def close(self) -> None:
        """Always, also after an error: give back what was opened."""


class Trainer:
    """One training run. `train()` returns "finished", or the reason that a hook gave to `stop`."""

    def __init__(
        self,
        model: nn.Module,
        loader: Loader,
        config: TrainConfig,
        optimizer: OptimizerConfig,
        schedule: ScheduleConfig,
        hooks: Sequence[Hook] = (),
        device: torch.device | str = "cpu",
    ):
        self.config, self.schedule, self.loader, self.hooks = config, schedule, loader, list(hooks)
        self.device = torch.device(device)
        if config.precision == "fp16" and self.device.type != "cuda":
            raise ValueError("precision fp16 needs a CUDA device; use train.precision=bf16 or fp32")
        if len(loader) == 0:
            raise ValueError("the data loader has no batches; is the training split empty?")
        if config.sync_batchnorm and distributed.world_size() > 1:
            model = convert_sync_batchnorm(model)  # the names and values of the weights stay
        self.model = model.to(self.device)
        parallel.same_everywhere(self.model)
        if config.distributed == "fsdp" and distributed.is_distributed():
            parallel.spread(self.model, self.device)
        self._optimizer_config = optimizer
        self.optimizer = build_optimizer(optimizer, self.model)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=config.precision == "fp16")
        self.ema = Ema(self.model, config.ema_decay) if config.ema_decay is not None else None
        self.batches_per_epoch = len(loader)
        self.total_steps = config.steps or config.epochs * math.ceil(
            self.batches_per_epoch / config.accumulate
        )
        self.step = self.epoch = self.batch = 0
        self.stopped: str | None = None
        self.report: StepReport | None = None
        self.evaluation: Evaluation | None = None
        self.phase: Callable[[str], contextlib.AbstractContextManager[Any]] = (
            _nothing  # around each of PHASES
        )
        self._clock = 0.0
        self._losses = parallel.wrap(self.model, config.distributed, self.device)

    def train(self) -> str:
        """Run until the budget is used up or a hook stops it."""
        try:
            self._call("before_train")
            self.model.train()
            self._clock = time.perf_counter()
            while not self._done():
                for batches in self._groups():
                    self._step(batches)
                    self._call("after_step")
                    if self._done():
                        break
                if self.epoch_is_over:
                    self.epoch, self.batch = self.epoch + 1, 0
                    self._call("after_epoch")
            self._call("after_train")
        finally:
            for hook in self.hooks:
                hook.close()
        return self.stopped or "finished"

    def renew_optimizer(self) -> None:
        """A new optimiser, without memory, after the model replaced its parameters (a field that grew)."""
        if distributed.world_size() > 1 or self.ema is not None:
            raise ValueError("a model that changes its shape trains in one process and without averages")
        self.optimizer = build_optimizer(self._optimizer_config, self.model)

    def stop(self, reason: str) -> None:
        """End the run cleanly after the present step."""
        self.stopped = reason

    @property
    def epoch_is_over(self) -> bool:
        """True between the last step of an epoch and the hooks that follow it."""
        return self.batch >= self.batches_per_epoch

    def _done(self) -> bool:
        return self.stopped is not None or self.step >= self.total_steps

    def _call(self, moment: Literal["before_train", "after_step", "after_epoch", "after_train"]) -> None:
        for hook in self.hooks:
            getattr(hook, moment)(self)

    def _groups(self) -> Iterator[list[Any]]:
        """The rest of the present epoch, `accumulate` batches at a time."""
        if self.epoch_is_over:  # resumed between the last step of an epoch and its end
            return
        with (
            isolated_rng()
        ):  # a loader draws seeds for its workers: a resumed epoch must not draw a second time
            with self.phase("data"):
                iterator = iter(self.loader)
                group = [batch for batch in [next(iterator, None)] if batch is not None]
        while group:
            with self.phase("data"):
                while len(group) < self.config.accumulate and (batch := next(iterator, None)) is not None:
                    group.append(batch)
            self.batch += len(group)
            yield group
            with self.phase("data"):
                group = [batch for batch in [next(iterator, None)] if batch is not None]
        self.batch = self.batches_per_epoch  # also where the loader gave fewer than it promised

    def _step(self, batches: list[Any]) -> None:
        lr = apply_schedule(self.optimizer, self.schedule.at(self.step, self.total_steps))
        self.optimizer.zero_grad(set_to_none=True)
        with self.phase("transfer"):
            moved = [batch.to(self.device) for batch in batches]
        samples = distributed.sums([batch.batch_size for batch in moved], self.device)
        # A last batch may be smaller; where no process has a sample all weigh the same.
        weights = [count / sum(samples) if any(samples) else 1 / len(moved) for count in samples]
        parts = [
            self._backward(batch, weight, last=batch is moved[-1])
            for batch, weight in zip(moved, weights, strict=True)
        ]
        names = list(parts[0])
        rows = [
            torch.stack([part[name] for name in names]) * w for part, w in zip(parts, weights, strict=True)
        ]
        losses = torch.stack(rows).sum(0)
        with self.phase("optimizer"):
            self.scaler.unscale_(self.optimizer)
            gradients = [p.grad for p in self.model.parameters() if p.grad is not None]
            norm = torch.nn.utils.get_total_norm(gradients).to(losses.dtype)
            means = distributed.all_reduce_mean(losses)
            # One transfer from the device a step, after everything was queued and before the weights change.
            *values, grad_norm = torch.cat([means, parallel.whole_scalar(norm).to(means).reshape(1)]).tolist()
            report = dict(zip(names, values, strict=True))
            self._check_finite(report, grad_norm, moved)
            if gradients:
                if self.config.clip_grad_norm is not None:
                    torch.nn.utils.clip_grads_with_norm_(
                        self.model.parameters(), self.config.clip_grad_norm, norm
                    )
                self.scaler.step(self.optimizer)
                self.scaler.update()
            if self.ema:
                self.ema.update(self.model)
        self.step += 1
        seconds, self._clock = time.perf_counter() - self._clock, time.perf_counter()
        self.report = StepReport(report, sum(values), lr, grad_norm, round(sum(samples)), seconds)

    def _backward(self, batch: Any, weight: float, last: bool) -> dict[str, Tensor]:
        """Forward and backward of one batch; returns its losses without their graph."""
        # Gradients are exchanged between processes once a step, with its last batch.
        with parallel.exchange(self._losses, now=last):
            with self.phase("forward"), self._autocast():
                losses = self._losses(batch)
            with self.phase("backward"):
                total = torch.stack([_wide(loss) for loss in losses.values()]).sum() * weight
                if total.requires_grad:  # a batch without points may have nothing to learn from
                    self.scaler.scale(total).backward()
        return {name: _wide(loss.detach()) for name, loss in losses.items()}

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.config.precision == "fp32":
            return _nothing()
        dtype = torch.bfloat16 if self.config.precision == "bf16" else torch.float16
        return torch.autocast(self.device.type, dtype=dtype)

    def _check_finite(self, losses: dict[str, float], grad_norm: float, batches: list[Any]) -> None:
        bad = [f"{name} = {value}" for name, value in losses.items() if not math.isfinite(value)]
        # fp16 overflows now and then by design; the scaler skips the step and lowers its scale.
        overflow = self.scaler.is_enabled() and self.scaler.get_scale() > 1.0
        if bad or not (math.isfinite(grad_norm) or overflow):
            raise diverged.TrainingDiverged(self._diagnosis(bad, batches))

    def _diagnosis(self, bad: list[str], batches: list[Any]) -> str:
        what = f"loss {', '.join(bad)}" if bad else "all losses are finite but the gradient is not"
        wrong = diverged.blame_gradients(self.model)
        causes = [
            ("the batch itself is not finite", next(filter(None, map(diverged.blame_batch, batches)), None)),
            ("a weight is not finite", diverged.blame_parameter(self.model)),
            ("first layer with a non-finite output", self._blame_layer(batches)),
            ("gradients that are not finite", ", ".join(wrong[:5]) if not bad else None),
        ]
        found = [f"{cause}: {name}" for cause, name in causes if name]
        frames = [str(name) for batch in batches for name in getattr(batch, "frame_ids", ())]
        return "; ".join(
            [f"training diverged at step {self.step}: {what}", *found]
            + ([f"frames: {', '.join(frames[:8])}"] if frames else [])
            + [
                "the weights were not changed by this step; continue from the last checkpoint with a lower "
                "optimizer.lr, a lower train.clip_grad_norm or train.precision=fp32"
            ]
        )

    def _blame_layer(self, batches: list[Any]) -> str | None:
        def run() -> None:
            with self._autocast():
                for batch in batches:
                    self.model.loss(batch)  # pyright: ignore[reportCallIssue]

        return diverged.blame_layer(self.model, run)


def _wide(loss: Tensor) -> Tensor:
    """In float32 at least."""
    return loss.to(torch.promote_types(loss.dtype, torch.float32))
