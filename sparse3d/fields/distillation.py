"""What a trained field teaches another one at points in space.

Title: One is all: bridging the gap between neural radiance fields architectures with progressive volume
distillation (arXiv 2211.15977). There a student learns features first, then densities and colours of points,
then rendered rays, from cameras anywhere. Where we differ: fields share no features, so that stage is left
out; opacities of a step stand beside the logarithms of densities, since they are what is seen; points are
drawn where the teacher is dense and not along rays; errors are mean squares; and a density beyond an end of
the clipped range has a slope as long as the teacher's is not beyond it, too.
"""

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from sparse3d.fields.build import Field
from sparse3d.fields.volsdf import VolSDF
from sparse3d.nn.sums import repeatable_mean

_LEAST = 1e-6  # per half side: the logarithm of a density has to end somewhere


@dataclass(frozen=True)
class DistillationConfig:
    """What teaches, and how much what counts beside the colours of rays, which have the weight 1. Weights,
    their decay, the clipping and the beginning of the rays are the paper's (of 30,000 steps; here parts of
    fewer)."""

    source: str  # folder of the teacher's run
    checkpoint: str = "last"  # of it; a run that has begun knows its number
    rays_from: float = 1 / 6  # part of the training that has points alone
    own: float | None = None  # part of the rays from the run's own cameras; null: half where they are there
    points: int = 4096  # a batch
    anywhere: float = 0.25  # part of the points that may lie anywhere in the cube; others where it is dense
    cells: int = 96  # along a side of the cube, of the grid that says where the teacher is dense
    step: float = 1 / 192  # of the side, whose opacity is compared
    threshold: float = 0.01  # opacity of a step from which on a cell is dense
    opacity: float = 0.1  # weight of the squared error of a step's opacity
    density: float = 0.002  # weight of the squared error of the density's logarithm
    color: float = 0.002  # weight of the squared error of colours, each by its opacity
    low: float = -2.0  # logarithms of densities per half side are clipped to low and high
    high: float = 7.0
    decay: float = 0.995  # of these weights, a step, from the first one with rays on
    least: float = 0.01  # points are left out when that is what has stayed of their weights

    def __post_init__(self):
        if not self.source:
            raise ValueError("source names the folder of the teacher's run, and is empty")
        for name in ("rays_from", "anywhere", "own"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ValueError(f"{name} is a part and lies in [0, 1], got {value}")
        for name in ("points", "cells", "step", "threshold", "decay"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if min(self.opacity, self.density, self.color) < 0 or self.decay > 1 or not self.low < self.high:
            raise ValueError(f"weights are at least 0, decay at most 1, and low is below high, got {self}")


class TaughtPoints(NamedTuple):
    """N points `places` (N, 3), world, with the `directions` (N, 3) that they are looked at along, and of the
    teacher its `density` (N,), 1 / metre, and `color` (N, 3). `share` is what has stayed of the weights."""

    places: Tensor
    directions: Tensor
    density: Tensor
    color: Tensor
    share: float

    def to(self, device: torch.device | str) -> "TaughtPoints":
        places, directions, density, color, share = self
        return TaughtPoints(
            places.to(device), directions.to(device), density.to(device), color.to(device), share
        )


def step_opacity(density: Tensor, side: float, config: DistillationConfig) -> Tensor:
    """(N,) 1 / metre -> (N,): how much of the light a step stops."""
    return -torch.expm1(-density * (config.step * side))


@torch.no_grad()
def ask(field: Field, places: Tensor, directions: Tensor, share: float) -> TaughtPoints:
    """What a teacher says of points."""
    return TaughtPoints(places, directions, field.density(places), field.color(places, directions), share)


def point_losses(field: Field, taught: TaughtPoints, config: DistillationConfig) -> dict[str, Tensor]:
    """How far a student is from its teacher, weighted: `taught_opacity`, `taught_density`, `taught_color`,
    and, of a signed distance, `taught_slope`, which keeps it one."""
    side = field.config.space.side
    density, color = field.density(taught.places), field.color(taught.places, taught.directions)
    wanted = step_opacity(taught.density, side, config)
    logs = [(d * (side / 2)).clamp(min=_LEAST).log() for d in (density, taught.density)]
    log, goal = logs[0], logs[1].clamp(config.low, config.high)
    apart = log - goal
    beyond = (log < config.low) & (goal <= config.low) | (log > config.high) & (goal >= config.high)
    losses = {
        "taught_opacity": config.opacity
        * repeatable_mean((step_opacity(density, side, config) - wanted).square()),
        "taught_density": config.density * repeatable_mean(apart.square().where(~beyond, 0.0)),
        "taught_color": config.color * repeatable_mean((color - taught.color).square().sum(1) * wanted),
    }
    losses = {name: taught.share * loss for name, loss in losses.items()}
    if isinstance(field, VolSDF):
        losses["taught_slope"] = field.eikonal(taught.places)
    return losses
