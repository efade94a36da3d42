"""Hooks that tell what happens: `metrics.jsonl` for machines, a progress bar or plain lines for people."""

import json
import math
from collections import defaultdict
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from sparse3d.engine import distributed
from sparse3d.engine.loop import Hook, StepReport, Trainer
from sparse3d.io.files import write_text


class _Window:
    """Means over the steps since the last line."""

    def __init__(self):
        self.reports: list[StepReport] = []

    def take(self) -> dict[str, Any]:
        """The means, and an empty window again."""
        reports, self.reports = self.reports, []
        sums: dict[str, float] = defaultdict(float)
        for report in reports:
            for name, value in report.losses.items():
                sums[name] += value / len(reports)
        seconds = sum(report.seconds for report in reports)
        return {
            "loss": sum(report.total for report in reports) / len(reports),
            "losses": dict(sums),
            "lr": reports[-1].lr,
            "grad_norm": sum(report.grad_norm for report in reports) / len(reports),
            "samples_per_second": sum(report.samples for report in reports) / max(seconds, 1e-9),
        }


class WriteMetrics(Hook):
    """Appends one JSON line every few steps (`kind` "train", means since the last one) and one an evaluation.

    A resumed run drops the lines that were written after its checkpoint, so that each step stands there once.
    """

    def __init__(self, path: str | Path, every: int = 10):
        self.path, self.every = Path(path), every
        self._window = _Window()
        self._evaluated = -1

    def before_train(self, trainer: Trainer) -> None:
        if distributed.is_main() and self.path.is_file():
            kept = [line for line in read_metrics(self.path) if line["step"] <= trainer.step]
            write_text(self.path, "".join(json.dumps(line) + "\n" for line in kept))
            steps = [line["step"] for line in kept if line["kind"] == "evaluation"]
            self._evaluated = max(steps, default=-1)

    def after_step(self, trainer: Trainer) -> None:
        assert trainer.report is not None
        self._window.reports.append(trainer.report)
        if trainer.step % self.every == 0:
            self._write("train", trainer, self._window.take())

    def after_epoch(self, trainer: Trainer) -> None:
        evaluation = trainer.evaluation
        if evaluation is not None and evaluation.step > self._evaluated:
            self._evaluated = evaluation.step
            # NaN (no ground truth) is not JSON.
            metrics = {name: v if math.isfinite(v) else None for name, v in evaluation.metrics.items()}
            self._write("evaluation", trainer, {"metrics": metrics})

    def after_train(self, trainer: Trainer) -> None:
        if self._window.reports:
            self._write("train", trainer, self._window.take())
        self.after_epoch(trainer)

    def _write(self, kind: str, trainer: Trainer, values: dict[str, Any]) -> None:
        if distributed.is_main():
            line = {"kind": kind, "step": trainer.step, "epoch": trainer.epoch, **values}
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """The lines of a `metrics.jsonl`; a last line that a kill cut short is left out."""
    lines: list[dict[str, Any]] = []
    for text in Path(path).read_text(encoding="utf-8").splitlines():
        try:
            lines.append(json.loads(text))
        except ValueError:
            continue
    return lines


class ShowProgress(Hook):
    """A bar with the time left on a terminal; elsewhere one line every `every` steps."""

    def __init__(self, every: int = 10, console: Console | None = None):
        self.every = every
        self.console = console or Console(stderr=True)
        self._window = _Window()
        self._bar: Progress | None = None
        self._shown = -1

    def before_train(self, trainer: Trainer) -> None:
        if not distributed.is_main():
            self.console = Console(quiet=True)
        if self.console.is_terminal and distributed.is_main():
            columns = (
                TextColumn("[bold]epoch {task.fields[epoch]}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[text]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
            )
            self._bar = Progress(*columns, console=self.console)
            self._bar.start()
            self._bar.add_task(
                "train", total=trainer.total_steps, completed=trainer.step, epoch=trainer.epoch + 1, text=""
            )

    def after_step(self, trainer: Trainer) -> None:
        assert trainer.report is not None
        self._window.reports.append(trainer.report)
        report = trainer.step % self.every == 0 or trainer.step == trainer.total_steps
        text = _numbers(self._window.take()) if report else None
        if self._bar is not None:
            changes: dict[str, Any] = {"text": text} if text else {}
            self._bar.update(
                self._bar.task_ids[0], completed=trainer.step, epoch=trainer.epoch + 1, **changes
            )
        elif text:
            self._line(f"step {trainer.step}/{trainer.total_steps}  epoch {trainer.epoch + 1}  {text}")

    def after_epoch(self, trainer: Trainer) -> None:
        evaluation = trainer.evaluation
        if evaluation is not None and evaluation.step > self._shown:
            self._shown = evaluation.step
            values = "  ".join(f"{name} {value:.4g}" for name, value in evaluation.metrics.items())
            self._line(f"evaluation after step {evaluation.step}: {values}")

    def after_train(self, trainer: Trainer) -> None:
        self.after_epoch(trainer)
        if trainer.stopped:
            self._line(f"stopped at step {trainer.step}/{trainer.total_steps}: {trainer.stopped}")

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def _line(self, text: str) -> None:
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _numbers(means: dict[str, Any]) -> str:
    return f"loss {means['loss']:.4g}  lr {means['lr']:.2e}  {means['samples_per_second']:.1f} samples/s"
