"""Gaussians as samples: the dead move to where the living are, and all wander a little.

Kheradmand et al., "3D Gaussian Splatting as Markov Chain Monte Carlo", arXiv 2404.09591; schedule of
gsplat's. Stochastic gradient Langevin dynamics: after each step a mean moves by

    lr * noise * sigmoid(-100 (o - min_opacity)) * Sigma * eps,   eps ~ N(0, 1)

so faint ones explore along their own shape and opaque ones stay. With it go the paper's losses on opacities
and scales (`losses.OpacityConfig`, `losses.ScaleConfig`, 0.01 each).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.model import SplatModel, learning_rate
from sparse3d.gaussians.shapes import rotation_matrices
from sparse3d.gaussians.strategies.protocol import Changes, Statistics, check_positive
from sparse3d.gaussians.strategies.relocation import draw, relocated
from sparse3d.nn.threads import one_torch_thread

_STEEPNESS = 100.0  # of the gate that lets faint ones wander
_QUIET = 20.0  # exponent beyond which nothing moves: exp(-20) = 2e-9 of what moves faint ones


@dataclass(frozen=True)
class MCMCStrategy:
    """A fixed number of Gaussians, reached by growing slowly; none is lost, they move."""

    kind: Literal["mcmc"] = "mcmc"
    most: int = 1_000_000  # Gaussians
    growth: float = 0.05  # more Gaussians each time, in parts of those that there are
    min_opacity: float = 0.005  # what is fainter is dead
    noise: float = 5e5  # of the means' learning rate
    start_step: int = 500
    stop_step: int = 25_000
    refine_every: int = 100  # steps
    noise_stop_step: int = 30_000

    def __post_init__(self):
        check_positive(self, "most", "refine_every")
        if not 0 < self.min_opacity < 1:
            raise ValueError(f"min_opacity must lie in (0, 1), got {self.min_opacity}")
        if self.growth < 0 or self.noise < 0:
            raise ValueError(f"growth and noise must not be below 0, got {self.growth} and {self.noise}")

    @property
    def wants_absolute(self) -> bool:
        return False

    def before_backward(self, rendering: Statistics) -> None:
        """Nothing: the gradients on the screen are not looked at."""

    @torch.no_grad()
    def after_step(
        self,
        model: SplatModel,
        optimizer: torch.optim.Optimizer,
        step: int,
        renderings: Sequence[Statistics],
    ) -> Changes:
        changes = Changes()
        with one_torch_thread():
            if self.start_step < step < self.stop_step and step % self.refine_every == 0:
                moved = self._relocate(model, optimizer, step)
                changes = Changes(relocated=moved, grown=self._grow(model, optimizer, step))
            if self.noise > 0 and step < self.noise_stop_step and len(model):
                self._wander(model, learning_rate(optimizer, model.means), step)
        return changes

    def _relocate(self, model: SplatModel, optimizer: torch.optim.Optimizer, step: int) -> int:
        opacity = torch.sigmoid(model.opacities.detach())
        alive = opacity > self.min_opacity  # NaN is not
        dead = (~alive).nonzero()[:, 0]
        if not len(dead) or not bool(alive.any()):
            return 0
        sources = draw(opacity.where(alive, 0.0), len(dead), model.generator(step, 0))
        self._share(model, optimizer, sources)
        model.replace(optimizer, dead, {k: v.detach()[sources] for k, v in model.cloud.parameters().items()})
        return len(dead)

    def _grow(self, model: SplatModel, optimizer: torch.optim.Optimizer, step: int) -> int:
        more = min(self.most, int(len(model) * (1 + self.growth))) - len(model)
        opacity = torch.sigmoid(model.opacities.detach()).nan_to_num(0.0)
        if more <= 0 or not bool((opacity > 0).any()):
            return 0
        sources = draw(opacity, more, model.generator(step, 1))
        self._share(model, optimizer, sources)
        copies = {name: value.detach()[sources] for name, value in model.cloud.parameters().items()}
        model.grow(optimizer, GaussianCloud.of(copies))
        return more

    def _share(self, model: SplatModel, optimizer: torch.optim.Optimizer, sources: Tensor) -> None:
        """Give those of `sources` (which come once for each copy) the shape of one of several."""
        rows, times = torch.unique(sources, return_counts=True)
        values = {k: v.detach()[rows] for k, v in model.cloud.parameters().items()}
        opacities, scales = relocated(values["opacities"], values["scales"], times + 1)
        # As the paper's code: no copy is born dead.
        least = torch.logit(torch.tensor(self.min_opacity, dtype=torch.float64)).to(opacities)
        changed = {"opacities": torch.maximum(opacities, least), "scales": scales}
        model.replace(optimizer, rows, values | changed)

    def _wander(self, model: SplatModel, lr: float, step: int) -> None:
        """Opaque ones would move by nothing that a float notices, so numbers are drawn for the faint ones
        alone: which these are is part of the state, and so is what they draw."""
        exponent = _STEEPNESS * (torch.sigmoid(model.opacities) - self.min_opacity)
        rows = (exponent < _QUIET).nonzero()[:, 0]
        means = model.means[rows]
        noise = torch.randn(
            means.shape, generator=model.generator(step, 2), device=means.device, dtype=means.dtype
        )
        noise *= (lr * self.noise * torch.sigmoid(-exponent[rows]))[:, None]
        axes = rotation_matrices(model.quats[rows])[:, :, : model.scales.shape[1]]
        square = (2 * model.scales[rows]).exp()
        for k in range(axes.shape[2]):  # Sigma eps = sum over the axes a of s^2 a (a . eps)
            along = axes[:, :, k]
            part = square[:, k] * (along * noise).sum(1)
            means = means + part[:, None] * along
        model.means[rows] = means
