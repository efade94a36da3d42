"""Learning-rate schedules as plain functions of the step, so that a resumed run needs nothing but its step.

`step` counts optimiser steps from 0; `total` is the length of the run in steps. A factor scales the
optimiser's `lr`.
"""

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch


class ScheduleValue(NamedTuple):
    """`lr_factor` scales the peak learning rate; `momentum` (Adam's beta1) is None where it stays as
    configured.
    """

    lr_factor: float
    momentum: float | None = None


@dataclass(frozen=True)
class OneCycleConfig:
    """Cosine up from lr / start_divisor to lr, then cosine down to lr / (start_divisor * end_divisor).

    Momentum runs the other way. This is the "adam_onecycle" of the LiDAR detectors (Smith & Topin, arXiv
    1708.07120, with cosine ramps).
    """

    kind: Literal["one_cycle"] = "one_cycle"
    warmup: float = 0.4  # fraction of the run in which the rate rises
    start_divisor: float = 10.0
    end_divisor: float = 1e4
    momentum: tuple[float, float] = (0.95, 0.85)  # at the ends, at the peak

    def __post_init__(self):
        _check_fraction("warmup", self.warmup)

    def at(self, step: int, total: int) -> ScheduleValue:
        peak = int(total * self.warmup)
        low = 1.0 / self.start_divisor
        outer, inner = self.momentum
        if step < peak:
            part = step / peak
            return ScheduleValue(_cosine(low, 1.0, part), _cosine(outer, inner, part))
        part = (step - peak) / max(total - peak, 1)
        return ScheduleValue(_cosine(1.0, low / self.end_divisor, part), _cosine(inner, outer, part))


@dataclass(frozen=True)
class CosineConfig:
    """Linear up from 0, then half a cosine down to `end_factor` (Loshchilov & Hutter, arXiv 1608.03983)."""

    kind: Literal["cosine"] = "cosine"
    warmup: float = 0.0  # fraction of the run
    end_factor: float = 0.0

    def __post_init__(self):
        _check_fraction("warmup", self.warmup)

    def at(self, step: int, total: int) -> ScheduleValue:
        rise = int(total * self.warmup)
        if step < rise:
            return ScheduleValue((step + 1) / rise)
        return ScheduleValue(_cosine(1.0, self.end_factor, (step - rise) / max(total - rise, 1)))


@dataclass(frozen=True)
class ConstantConfig:
    """The same rate throughout, after a linear rise."""

    kind: Literal["constant"] = "constant"
    warmup: float = 0.0  # fraction of the run

    def __post_init__(self):
        _check_fraction("warmup", self.warmup)

    def at(self, step: int, total: int) -> ScheduleValue:
        return ScheduleValue(min(1.0, (step + 1) / max(int(total * self.warmup), 1)))


@dataclass(frozen=True)
class MultiStepConfig:
    """The rate drops by `factor` at each milestone."""

    kind: Literal["multistep"] = "multistep"
    milestones: tuple[float, ...] = (0.6, 0.9)  # fractions of the run, rising
    factor: float = 0.1

    def __post_init__(self):
        if list(self.milestones) != sorted(self.milestones) or not all(0 < m < 1 for m in self.milestones):
            raise ValueError(f"milestones must rise within (0, 1), got {self.milestones}")

    def at(self, step: int, total: int) -> ScheduleValue:
        return ScheduleValue(self.factor ** sum(step >= int(total * m) for m in self.milestones))


@dataclass(frozen=True)
class LevelsConfig:
    """A field that is refined: at each level the rate begins at a factor of its own and falls exponentially
    to `decay` of that."""

    kind: Literal["levels"] = "levels"
    begins: tuple[float, ...] = (0.0,)  # fractions of the run at which the levels begin, rising from 0
    factors: tuple[float, ...] = (1.0,)  # of the rate, one a level
    decay: float = 0.1

    def __post_init__(self):
        if not self.begins or self.begins[0] != 0 or list(self.begins) != sorted(set(self.begins)):
            raise ValueError(f"begins must rise from 0, got {self.begins}")
        if self.begins[-1] >= 1 or len(self.factors) != len(self.begins):
            raise ValueError(f"there must be as many factors as begins below 1, got {self.factors}")

    def steps(self, total: int) -> list[int]:
        """The steps at which the levels begin."""
        return [int(total * begin) for begin in self.begins]

    def at(self, step: int, total: int) -> ScheduleValue:
        begins = [*self.steps(total), total]
        level = max(n for n, begin in enumerate(begins[:-1]) if step >= begin)
        part = (step - begins[level]) / max(begins[level + 1] - begins[level], 1)
        return ScheduleValue(self.factors[level] * self.decay**part)


ScheduleConfig = OneCycleConfig | CosineConfig | ConstantConfig | MultiStepConfig | LevelsConfig


def apply_schedule(optimizer: torch.optim.Optimizer, value: ScheduleValue) -> float:
    """Set the rate (and momentum) of every parameter group; returns the rate of the first."""
    for group in optimizer.param_groups:
        group.setdefault("initial_lr", group["lr"])
        group["lr"] = group["initial_lr"] * value.lr_factor
        if value.momentum is not None:
            if "betas" in group:
                group["betas"] = (value.momentum, group["betas"][1])
            else:
                group["momentum"] = value.momentum
    return optimizer.param_groups[0]["lr"]


def _cosine(start: float, end: float, part: float) -> float:
    return end + (start - end) * 0.5 * (1.0 + math.cos(math.pi * min(part, 1.0)))


def _check_fraction(name: str, value: float) -> None:
    if not 0.0 <= value < 1.0:
        raise ValueError(f"{name} is a fraction of the run and must lie in [0, 1), got {value}")
