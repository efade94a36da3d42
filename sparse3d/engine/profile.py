"""Where the time of a training goes: `sparse3d train --profile`.

A step is cut into phases: the wait for data, the transfer to the device, forward, backward, optimiser; the
rest is what hooks and Python take. On CUDA the device is waited for at the end of each phase, which makes a
profiled step a little slower than others. Nothing that is learned changes.
"""

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich.table import Table

from sparse3d.data.loader import BatchLoader
from sparse3d.engine import distributed, memory
from sparse3d.engine.loop import PHASES, Hook, Trainer
from sparse3d.engine.seed import isolated_rng

# Steps that are not counted: numba compiles, workers start, the allocator grows.
WARM_UP = 5
TRACED_STEPS = 3
SECONDS_OF_LOADER = 10.0


class LoaderSpeed(NamedTuple):
    """Frames a second that the loader gives when nothing else runs, with how many workers."""

    frames_per_second: float
    workers: int


@dataclass(frozen=True)
class Profile:
    """Measured steps of this process: seconds (S, len(PHASES)) of each phase, (S,) of whole steps, (S,)
    frames of all processes; bytes of memory, None where unknown."""

    phases: np.ndarray
    steps: np.ndarray
    samples: np.ndarray
    loader: LoaderSpeed | None
    peak_resident: int | None
    peak_workers: tuple[int, ...]
    peak_device: int | None

    @property
    def waiting(self) -> float:
        """The share of the time in which training waits for data."""
        return float(self.phases[:, PHASES.index("data")].sum() / self.steps.sum())

    def table(self) -> Table:
        """For a terminal."""
        table = Table("phase", "ms a step", "share", title=f"{len(self.steps)} steps")
        whole = self.steps.sum()
        rest = self.steps - self.phases.sum(axis=1)
        for name, seconds in [*zip(PHASES, self.phases.T, strict=True), ("rest", rest)]:
            table.add_row(
                _TITLES[name], f"{1e3 * np.median(seconds):.1f}", f"{100 * seconds.sum() / whole:.1f} %"
            )
        table.add_section()
        table.add_row("step", f"{1e3 * np.median(self.steps):.1f}", "median")
        for column in table.columns[1:]:
            column.justify = "right"
        return table

    def lines(self) -> list[str]:
        """What the table does not hold, a sentence each."""
        lines = [f"training: {self.samples.sum() / self.steps.sum():.1f} frames/s"]
        if self.loader is not None:
            speed, workers = self.loader
            lines.append(f"loader alone: {speed:.1f} frames/s with {workers} workers")
        lines.append(f"training waits for data {100 * self.waiting:.1f} % of the time")
        held = [f"{_gib(self.peak_resident)} in this process"] if self.peak_resident else []
        if self.peak_workers:
            held.append(f"{_gib(max(self.peak_workers))} in the largest of {len(self.peak_workers)} workers")
        held += [f"{_gib(self.peak_device)} on the device"] if self.peak_device is not None else []
        return [*lines, *([f"peak memory: {', '.join(held)}"] if held else [])]


_TITLES = {
    "data": "wait for data",
    "transfer": "transfer",
    "forward": "forward",
    "backward": "backward",
    "optimizer": "optimiser",
    "rest": "rest (hooks, reports)",
}


class ProfileSteps(Hook):
    """Measures `steps` steps after a few that warm up (or what the run has), then `tell`s and steps aside.

    The loader is first tried by itself, on batches that the training gets anew. With `trace`, three of the
    steps are written there for chrome://tracing or ui.perfetto.dev.
    """

    def __init__(self, steps: int, tell: Callable[[Profile], None], trace: Path | None = None):
        if steps < 1:
            raise ValueError(f"a profile needs at least 1 step, got {steps}")
        self.steps, self.tell, self.trace = steps, tell, trace
        self._spent: dict[str, float] = dict.fromkeys(PHASES, 0.0)
        self._rows: list[tuple[float, ...]] = []
        self._reports: list[tuple[float, int]] = []
        self._loader: LoaderSpeed | None = None
        self._tracer: Any = None
        self._seen = 0
        self._told = False

    def before_train(self, trainer: Trainer) -> None:
        if isinstance(trainer.loader, BatchLoader):
            with isolated_rng():
                self._loader = loader_speed(trainer.loader.again())
        trainer.phase = lambda name: self._phase(trainer.device, name)
        if trainer.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(trainer.device)

    def after_step(self, trainer: Trainer) -> None:
        if self._told:
            return
        self._seen += 1
        row = tuple(self._spent.values())
        self._spent = dict.fromkeys(self._spent, 0.0)
        # A run shorter than the warm-up is measured all the same, but for its first step.
        if self._seen > min(WARM_UP, trainer.total_steps - 1):
            assert trainer.report is not None
            self._rows.append(row)
            self._reports.append((trainer.report.seconds, trainer.report.samples))
        if self.trace is not None and distributed.is_main():
            self._follow(trainer)
        if len(self._rows) >= self.steps:
            self._finish(trainer)

    def after_train(self, trainer: Trainer) -> None:
        self._finish(trainer)

    def close(self) -> None:
        if self._tracer is not None:
            self._tracer.__exit__(None, None, None)
            self._tracer = None

    def _finish(self, trainer: Trainer) -> None:
        if self._told or not self._rows:
            return
        self._told = True
        trainer.phase = contextlib.nullcontext
        if self._tracer is not None:
            self._write_trace()
        if not distributed.is_main():
            return
        seconds, samples = zip(*self._reports, strict=True)
        cuda = trainer.device.type == "cuda"
        peaks = (memory.peak_resident(pid) for pid in memory.workers())
        self.tell(
            Profile(
                np.array(self._rows),
                np.array(seconds),
                np.array(samples),
                self._loader,
                memory.peak_resident(),
                tuple(peak for peak in peaks if peak is not None),
                torch.cuda.max_memory_allocated(trainer.device) if cuda else None,
            )
        )

    @contextlib.contextmanager
    def _phase(self, device: torch.device, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        with torch.profiler.record_function(f"sparse3d::{name}"):
            try:
                yield
            finally:
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                self._spent[name] += time.perf_counter() - begin

    def _follow(self, trainer: Trainer) -> None:
        first = min(WARM_UP, max(trainer.total_steps - 1 - TRACED_STEPS, 1))
        if self._seen == first:
            kinds = [torch.profiler.ProfilerActivity.CPU]
            if trainer.device.type == "cuda":
                kinds.append(torch.profiler.ProfilerActivity.CUDA)
            self._tracer = torch.profiler.profile(activities=kinds)
            self._tracer.__enter__()
        elif self._seen == first + TRACED_STEPS and self._tracer is not None:
            self._write_trace()

    def _write_trace(self) -> None:
        tracer, self._tracer = self._tracer, None
        tracer.__exit__(None, None, None)
        assert self.trace is not None
        self.trace.parent.mkdir(parents=True, exist_ok=True)
        tracer.export_chrome_trace(str(self.trace))


def loader_speed(loader: BatchLoader, seconds: float = SECONDS_OF_LOADER) -> LoaderSpeed | None:
    """How fast a loader is by itself, measured for so long or to the end of its epoch; None where the epoch
    ends before its workers have found their pace."""
    # What workers have ready when the first batch is taken was made before the clock started.
    ready = 1 + loader.workers * loader.prefetch
    begin = end = frames = 0
    for number, batch in enumerate(loader, start=1):
        end = time.perf_counter()
        if number == ready:
            begin = end
        elif number > ready:
            frames += batch.batch_size
            if end - begin > seconds:
                break
    return LoaderSpeed(frames / (end - begin), loader.workers) if frames else None


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
