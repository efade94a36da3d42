"""A page of a run that is still going: it shows each new checkpoint, and the losses, as they come."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np

from sparse3d.engine.progress import read_metrics
from sparse3d.errors import DataError
from sparse3d.recipes.run_folder import RunFolder
from sparse3d.viewers.panel import Curve, LossPlot

WAIT = 2.0  # seconds between two looks at a run's folder
MOST_CURVE_POINTS = 2000


class RunPage(Protocol):
    """What is served."""

    losses: LossPlot

    def note(self, text: str) -> None:
        """A line for who looks."""
        ...


class WatchedRun:
    """A run's folder, and which of its checkpoints is looked at. DataError for what is no run."""

    def __init__(self, run: Path, checkpoint: str):
        self.run, self.checkpoint, self.folder = run, checkpoint, RunFolder(run)
        self.folder.check()

    def newest(self) -> Path | None:
        """The checkpoint that is asked for, as it is now; None where there is none yet."""
        try:
            return self.folder.checkpoints.find(self.checkpoint)
        except FileNotFoundError:
            return None

    def curves(self) -> list[Curve]:
        """The losses so far."""
        return curves_of(self.folder.metrics)

    def follow(self, page: RunPage, show: Callable[[bool], None], until: Callable[[float], bool]) -> None:
        """`show(first)` is called for each new checkpoint. `until(seconds)` waits, and says whether that was
        all."""
        shown, length = self.newest(), -1
        while not until(WAIT):
            metrics = self.folder.metrics
            if metrics.is_file() and (now := metrics.stat().st_size) != length:
                length = now
                page.losses.show(self.curves())
            newest = self.newest()
            if newest == shown:
                continue
            try:
                show(shown is None)
            except (DataError, FileNotFoundError, ValueError) as error:
                # It may have been cleared away for a newer one while it was read: the next look finds that.
                page.note(str(error))
            else:
                shown = newest
                page.note("")


def curves_of(metrics: Path) -> list[Curve]:
    """The losses of a `metrics.jsonl` by name, the total first; of many steps a part, evenly."""
    lines = [line for line in read_metrics(metrics) if line["kind"] == "train"] if metrics.is_file() else []
    if not lines:
        return []
    lines = lines[:: -(-len(lines) // MOST_CURVE_POINTS)]
    steps = np.array([line["step"] for line in lines], dtype=np.float64)
    names = list(dict.fromkeys(name for line in lines for name in line["losses"]))
    parts = {name: [line["losses"].get(name, np.nan) for line in lines] for name in names}
    totals = {"loss": [line["loss"] for line in lines]}
    return [Curve(name, steps, np.array(values)) for name, values in {**totals, **parts}.items()]
