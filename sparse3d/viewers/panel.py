"""What stands beside the picture on a page that is served: curves, and words that are nothing but words."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

_PALETTE = ("#5ad7ff", "#ffaa33", "#ff5f8c", "#78eb96", "#be8cff", "#ffe66e")
_MARKUP = frozenset("\\`*_{}[]<>#!|~&$")


class Curve(NamedTuple):
    """A loss over steps: both (N,)."""

    name: str
    steps: np.ndarray
    values: np.ndarray


class LossPlot:
    """Curves over the same steps, on a logarithmic scale, in the panel of a viser server; there is none until
    there are curves."""

    def __init__(self, gui: Any):
        self._gui, self._names, self.chart = gui, (), None

    def show(self, curves: Sequence[Curve]) -> None:
        """Other curves, or the same ones with more steps."""
        from viser import uplot

        if not curves or not len(curves[0].steps):
            return
        data = (curves[0].steps.astype(np.float64), *(np.maximum(c.values, 1e-12) for c in curves))
        names = tuple(curve.name for curve in curves)
        if self.chart is not None and names == self._names:
            self.chart.data = data
            return
        if self.chart is not None:
            self.chart.remove()
        lines = [
            uplot.Series(label=name, stroke=_PALETTE[number % len(_PALETTE)], width=2)
            for number, name in enumerate(names)
        ]
        self._names = names
        self.chart = self._gui.add_uplot(
            data,
            (uplot.Series(label="step"), *lines),
            scales={"x": uplot.Scale(time=False), "y": uplot.Scale(distr=3)},
            title="losses",
            aspect=1.4,
        )


def plain(text: str) -> str:
    """Text that stays text within a line of viser's Markdown: the name of a file or of a class must not
    become a picture, which would be fetched, or anything else."""
    return "".join(f"\\{c}" if c in _MARKUP else c for c in text)
