"""Samples along rays that bound the error of the opacity, for densities that are Laplace's distribution of a
signed distance.

Notation: t (R, n) rise along a ray from near to far, metres; d (R, n) are signed distances there, positive
outside, and delta_i = t_{i+1} - t_i; sigma = Psi(-d) / beta with Psi the cumulative Laplace distribution of
scale beta. The opacity by the left rectangle rule, 1 - exp(-sum_{i < k} delta_i sigma_i), is at t in interval
k wrong by at most

    exp(-R_k) (exp(E_{k+1}) - 1),  R_k = sum_{i < k} delta_i sigma_i,
    E_{k+1} = 1 / (4 beta^2) sum_{i <= k} delta_i^2 exp(-d*_i / beta)

where d*_i is the least distance from the surface that interval i can have. d must not change faster than t.
Source: VolSDF (arXiv 2106.12052), Theorem 1, Lemmas 1 and 2, Algorithm 1.
"""

from collections.abc import Callable
from dataclasses import dataclass
from math import log
from typing import NamedTuple

import torch
from torch import Tensor

from sparse3d_ops.sampling import importance

MOST_EXPONENT = 40.0  # of bounds: exp(40) is as good as infinity and float32 can still sum many of it


@dataclass(frozen=True)
class ErrorBoundConfig:
    """Algorithm 1; the paper's numbers in comments."""

    epsilon: float = 0.1  # error of the opacity that is allowed
    initial: int = 64  # even samples to start with, and samples that a round adds; 128
    rounds: int = 5
    bisections: int = 10
    samples: int = 32  # of those found by their opacity; 64
    even: int = 16  # spread over the whole ray; 32
    # nodes along a side of a grid that the search reads distances from, in the place of the network: many
    # times as fast, and wrong by little where the surface bends little within a cell. 0: the network itself
    grid: int = 0
    refresh_every: int = 16  # steps of the training after which the grid is filled anew

    def __post_init__(self):
        if not 0 < self.epsilon < 1 or min(self.initial, self.samples, self.even) < 2:
            raise ValueError(f"epsilon must be in (0, 1), and samples of each kind at least 2, got {self}")
        if self.grid == 1 or min(self.grid, self.refresh_every - 1) < 0:
            raise ValueError(f"grid must be 0 or at least 2, and refresh_every at least 1, got {self}")


class Bounded(NamedTuple):
    """t (R, n), d (R, n), and the least known scale (R,) for which the error is at most epsilon: beta itself
    where the search succeeded, more where it ran out of rounds."""

    t: Tensor
    d: Tensor
    scale: Tensor


def laplace_density(d: Tensor, beta: Tensor | float) -> Tensor:
    """Psi(-d) / beta: 1 / beta deep inside, 1 / (2 beta) on the surface, to 0 outside. Eq. 2, 3."""
    return (0.5 + 0.5 * d.sign() * torch.expm1(-d.abs() / beta)) / beta


def least_distance(d: Tensor, delta: Tensor) -> Tensor:
    """The least |distance| that intervals of length `delta` (R, n - 1) can have, given d (R, n) at their
    ends: 0 where the balls around the ends that are free of surface do not cover them. Eq. 13."""
    a, b = d[:, :-1].abs(), d[:, 1:].abs()
    half = (a + b + delta) / 2
    # Heron: twice the area of the triangle with these sides, over its base.
    area = (half * (half - a) * (half - b) * (half - delta)).clamp(min=0).sqrt()
    height = 2 * area / delta.clamp(min=1e-12)
    obtuse = (a.square() - b.square()).abs() >= delta.square()
    found = torch.where(obtuse, torch.minimum(a, b), height)
    return found.where(a + b > delta, 0.0)


def opacity_error(t: Tensor, d: Tensor, beta: Tensor | float) -> Tensor:
    """Bound (R, n - 1) of the error within each interval; `beta` a number or (R, 1)."""
    delta = t.diff(dim=1)
    errors = (delta.square() * torch.exp(-least_distance(d, delta) / beta)).cumsum(1) / (4 * beta * beta)
    steps = laplace_density(d[:, :-1], beta) * delta
    before = steps.cumsum(1) - steps
    return torch.exp((errors - before).clamp(max=MOST_EXPONENT)) - torch.exp(-before)


def enough_scale(length: Tensor, count: int, epsilon: float) -> Tensor:
    """A scale for which `count` even samples of a ray of this length (R,) suffice, whatever the surface
    (Lemma 2)."""
    return length / (4 * (count - 1) * log(1 + epsilon)) ** 0.5


@torch.no_grad()
def bound_error(
    distance: Callable[[Tensor, Tensor], Tensor],
    near: Tensor,
    far: Tensor,
    beta: float,
    config: ErrorBoundConfig,
) -> Bounded:
    """Add samples to rays from near to far (R,) until the opacity is known to epsilon, for `distance`: t (K,
    m) on the rays with these numbers (K,) -> d (K, m)."""
    count = config.initial
    unit = torch.linspace(0, 1, count, dtype=near.dtype, device=near.device)
    t = near[:, None] + (far - near)[:, None] * unit
    active = torch.arange(len(t), device=t.device)  # the rays that are still searched
    d = distance(t, active)
    scale = enough_scale(far - near, count, config.epsilon).clamp(min=beta)
    levels = (torch.arange(count, device=t.device) + 0.5).to(t) / count
    for left in range(config.rounds, -1, -1):
        scale[active] = _least_scale(t[active], d[active], beta, scale[active], config)
        active = active[scale[active] > beta]
        if left == 0 or len(active) == 0:
            break
        errors = opacity_error(t[active], d[active], scale[active, None])
        found = importance(t[active], errors, levels.expand(len(active), count))
        # Rays that are done get as many samples of no length at their ends.
        added, at = far[:, None].repeat(1, count), d[:, -1:].repeat(1, count)
        added[active] = found
        at[active] = distance(found, active)
        t, order = torch.cat([t, added], 1).sort(1)
        d = torch.cat([d, at], 1).gather(1, order)
    return Bounded(t, d, scale)


def _least_scale(t: Tensor, d: Tensor, beta: float, scale: Tensor, config: ErrorBoundConfig) -> Tensor:
    """Bisection between beta and a scale that is known to do."""

    def does(trial: Tensor) -> Tensor:
        return (opacity_error(t, d, trial[:, None]) <= config.epsilon).all(1)

    low, high = torch.full_like(scale, beta), scale
    high = torch.where(does(low), low, high)
    for _ in range(config.bisections):
        middle = (low + high) / 2
        fits = does(middle)
        low, high = torch.where(fits, low, middle), torch.where(fits, middle, high)
    return high


def place_samples(bounded: Bounded, config: ErrorBoundConfig, offsets: Tensor) -> Tensor:
    """Samples (R, samples + even) to render with: at even steps of the opacity, and of the ray; `offsets`
    (R,) in [0, 1) jitter them. The first lies where the ray begins."""
    t, d, scale = bounded
    depth = laplace_density(d[:, :-1], scale[:, None]) * t.diff(dim=1)
    before = depth.cumsum(1) - depth
    weights = torch.exp(-before) * -torch.expm1(-depth)

    def levels(count: int) -> Tensor:
        return (torch.arange(count, device=t.device) + offsets[:, None]) / count

    by_opacity = importance(t, weights, levels(config.samples))
    near, far = t[:, :1], t[:, -1:]
    evenly = near + (far - near) * levels(config.even)
    evenly[:, 0] = near[:, 0]
    return torch.cat([by_opacity, evenly], 1).sort(1).values


def seen_samples(
    d: Tensor, dt: Tensor, slack: float, beta: float, least_alpha: float = 1e-4, stop: float = 1e-3
) -> Tensor:
    """Which of the samples (R, n) may be seen, of distances d that are known to `slack`: those with an alpha
    of at least `least_alpha`, before which at least `stop` of the light may be left."""
    depth = laplace_density(d + slack, beta) * dt
    left = torch.exp(depth - depth.cumsum(1))
    return (laplace_density(d - slack, beta) * dt >= least_alpha) & (left >= stop)
