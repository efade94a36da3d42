"""What a strategy is asked for, and what it is told.

One step of a training: render, `before_backward` of each rendering, backward, the optimiser's step, then
`after_step` with the number of steps that are done (1 after the first one). Paper schedules count steps of a
training of 30,000; `shortened` fits them to another length.
"""

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from sparse3d.gaussians.model import SplatModel


class Statistics(Protocol):
    """What a rendering of N Gaussians tells: `means2d` (N, 2) pixels, `.grad` d loss / d means2d after the
    backward pass; `absolute` (N, 2), whose `.grad` is the sum over pixels of the parts' absolute values (None
    where it was not asked for); `reach` (N, 2) pixels, half of what each covers, 0 where it was not seen;
    `size` of the picture, (width, height) pixels."""

    @property
    def means2d(self) -> Tensor: ...
    @property
    def absolute(self) -> Tensor | None: ...
    @property
    def reach(self) -> Tensor: ...
    @property
    def size(self) -> tuple[int, int]: ...


class Changes(NamedTuple):
    """What a step did to the Gaussians, in numbers of them."""

    cloned: int = 0
    split: int = 0
    grown: int = 0
    relocated: int = 0
    pruned: int = 0
    reset: bool = False  # whether all opacities were lowered

    @property
    def resized(self) -> bool:
        """Whether parameters were replaced by others, of another number of rows."""
        return self.cloned + self.split + self.grown + self.pruned > 0


class Strategy(Protocol):
    """Densification, as `DefaultStrategy`, `MCMCStrategy` and `VoxelAnchorStrategy` do it."""

    @property
    def wants_absolute(self) -> bool:
        """Whether renderings need `absolute`."""
        ...

    def before_backward(self, rendering: Statistics) -> None:
        """Ask for the gradients that will be counted."""
        ...

    def after_step(
        self,
        model: SplatModel,
        optimizer: torch.optim.Optimizer,
        step: int,
        renderings: Sequence[Statistics],
    ) -> Changes:
        """Count, and now and then change, the Gaussians of a model after `step` steps."""
        ...


Config = TypeVar("Config")


class ByGradient:
    """What strategies share that grow Gaussians by the gradients of their places on the screen."""

    absolute: bool

    @property
    def wants_absolute(self) -> bool:
        return self.absolute

    def before_backward(self, rendering: Statistics) -> None:
        if not self.absolute:
            rendering.means2d.retain_grad()


def shortened(strategy: Config, factor: float) -> Config:
    """The same strategy for a training of `factor` times the length: all fields that end in _step or _every
    are multiplied, and are at least 1 where they were."""
    steps: dict[str, Any] = {
        field.name: max(min(1, getattr(strategy, field.name)), round(getattr(strategy, field.name) * factor))
        for field in fields(strategy)  # pyright: ignore[reportArgumentType]
        if field.name.endswith(("_step", "_every"))
    }
    return replace(strategy, **steps)  # pyright: ignore[reportArgumentType,reportCallIssue]


def check_positive(config: object, *names: str) -> None:
    """ValueError unless these fields are above 0."""
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be above 0, got {getattr(config, name)}")


def count_gradients(model: SplatModel, renderings: Sequence[Statistics], absolute: bool) -> None:
    """Add the lengths of the means' gradients on the screen to the statistics `gradient` (N,), and one to
    `seen` (N,) for each view that shows a Gaussian; `extent` (N,) keeps the largest reach, in longer sides of
    a picture.

    Lengths are in halves of a picture's sides (NDC), for a loss that is a mean over the pixels of one
    picture: the thresholds of papers do not change with the resolution. Several renderings share one loss,
    their mean.
    """
    gradient, seen, extent = (model.counted(name) for name in ("gradient", "seen", "extent"))
    for rendering in renderings:
        source = rendering.absolute if absolute else rendering.means2d
        if source is None or source.grad is None:
            raise ValueError(
                "a rendering has no gradient of its means: call before_backward on it"
                + (" and render with `absolute`" if absolute else "")
            )
        width, height = rendering.size
        x, y = source.grad.unbind(1)
        half = len(renderings) / 2
        length = ((x * (width * half)).square() + (y * (height * half)).square()).sqrt()
        reach = rendering.reach.detach().amax(1)
        visible = reach > 0
        gradient += length.where(visible, 0.0)
        seen += visible
        torch.maximum(extent, reach / max(width, height), out=extent)


def mean_gradient(model: SplatModel) -> Tensor:
    """(N,): of what was counted, the mean over the views that showed a Gaussian; 0 where none did."""
    return model.counted("gradient") / model.counted("seen").clamp(min=1)


def forget(model: SplatModel) -> None:
    """Begin to count anew."""
    for counted in model.statistics.buffers():
        counted.zero_()
