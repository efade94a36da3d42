"""The densification of 3-D Gaussian splatting: clone what is small, split what is large, prune, reset.

Kerbl et al., arXiv 2308.04079, Sec. 5; numbers of its code. `absolute`: gradients of pixels that pull in
opposite directions do not cancel (AbsGS, arXiv 2404.10484, which takes thresholds of 4e-4 to 8e-4).
`keep_opacity`: a Gaussian and its copy together are as opaque as it was alone (Rota Bulo et al., "Revising
Densification in Gaussian Splatting", arXiv 2404.06109, Sec. 4.2). Where we differ: what is pruned is not
cloned first, and `most` bounds the number.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sparse3d.gaussians.model import SplatModel
from sparse3d.gaussians.shapes import spread
from sparse3d.gaussians.strategies.protocol import (
    ByGradient,
    Changes,
    Statistics,
    check_positive,
    count_gradients,
    forget,
    mean_gradient,
)
from sparse3d.nn.threads import one_torch_thread


@dataclass(frozen=True)
class DefaultStrategy(ByGradient):
    """Gaussians grow where the mean gradient of their places on the screen is large."""

    kind: Literal["default"] = "default"
    gradient: float = (
        2e-4  # that grows a Gaussian: d loss / d half a picture, mean over the views that see it
    )
    absolute: bool = False  # sum the absolute values over pixels; then take a gradient of 8e-4
    clone_scale: float = 0.01  # of the scene: up to this deviation a Gaussian is cloned, above it is split
    split_by: float = 1.6  # that the deviations of the two halves are divided by
    split_extent: float | None = None  # longer sides of a picture: what covers more is split, too
    prune_opacity: float = 0.005  # what is fainter goes
    prune_scale: float = 0.1  # of the scene: what is larger goes, after the first reset
    prune_extent: float | None = None  # longer sides of a picture, likewise; the paper's code has 0.15
    keep_opacity: bool = False  # a clone and a split share the opacity of what they come from
    start_step: int = 500
    stop_step: int = 15_000
    refine_every: int = 100  # steps
    reset_every: int = 3000  # steps: all opacities are lowered to twice prune_opacity
    pause_step: int = 0  # steps after a reset without growing or pruning
    most: int | None = None  # Gaussians, at most: those of the largest gradients grow

    def __post_init__(self):
        check_positive(self, "gradient", "clone_scale", "prune_scale", "refine_every", "reset_every")
        if not self.split_by > 1:
            raise ValueError(f"split_by must be above 1, got {self.split_by}")
        if not 0 < self.prune_opacity < 0.5:
            raise ValueError(f"prune_opacity must lie in (0, 0.5), got {self.prune_opacity}")

    @torch.no_grad()
    def after_step(
        self,
        model: SplatModel,
        optimizer: torch.optim.Optimizer,
        step: int,
        renderings: Sequence[Statistics],
    ) -> Changes:
        if step >= self.stop_step:
            return Changes()
        with one_torch_thread():
            count_gradients(model, renderings, self.absolute)
            changes = Changes()
            paused = step >= self.reset_every and step % self.reset_every < self.pause_step
            if step > self.start_step and step % self.refine_every == 0 and not paused:
                changes = self._refine(model, optimizer, step)
                forget(model)
            if step % self.reset_every == 0:
                self._reset(model, optimizer)
                changes = changes._replace(reset=True)
            return changes

    def _refine(self, model: SplatModel, optimizer: torch.optim.Optimizer, step: int) -> Changes:
        scale = float(model.scene_scale)
        widest = model.scales.exp().amax(1)
        dead = torch.sigmoid(model.opacities) < self.prune_opacity
        hot = (mean_gradient(model) > self.gradient) & ~dead
        split = hot & (widest > self.clone_scale * scale)
        if self.split_extent is not None:
            split |= (model.counted("extent") > self.split_extent) & ~dead
        if step > self.reset_every:
            large = widest > self.prune_scale * scale
            if self.prune_extent is not None:
                large |= model.counted("extent") > self.prune_extent
            dead |= large & ~split  # what is split gets smaller, and is looked at again
        clone, split = _within(hot & ~split & ~dead, split & ~dead, model, self.most)
        changes = Changes(int(clone.sum()), int(split.sum()), pruned=int(dead.sum()))
        if not changes.resized:
            return changes
        old = model.cloud
        added = {
            name: torch.cat([v[clone], v[split], v[split]]).detach() for name, v in old.parameters().items()
        }
        if self.keep_opacity:
            shared = _shared_logit(model.opacities.detach())
            added["opacities"] = torch.cat([shared[clone], shared[split], shared[split]])
            model.replace(None, clone.nonzero()[:, 0], {"opacities": shared[clone]})
        halves = slice(changes.cloned, None)
        normal = torch.randn(
            2 * changes.split,
            3,
            generator=model.generator(step, 0),
            device=old.means.device,
            dtype=old.means.dtype,
        )
        added["means"][halves] += spread(added["scales"][halves], added["quats"][halves], normal)
        added["scales"][halves] -= torch.tensor(self.split_by, dtype=torch.float64).log().to(old.means.dtype)
        model.exchange(optimizer, ~(split | dead), type(old).of(added))
        return changes

    def _reset(self, model: SplatModel, optimizer: torch.optim.Optimizer) -> None:
        low = torch.logit(torch.tensor(2 * self.prune_opacity, dtype=torch.float64)).to(model.opacities)
        everyone = torch.arange(len(model), device=low.device)
        model.replace(optimizer, everyone, {"opacities": torch.minimum(model.opacities.detach(), low)})


def _within(clone: Tensor, split: Tensor, model: SplatModel, most: int | None) -> tuple[Tensor, Tensor]:
    """Those of the largest mean gradients, so many that the model has at most `most` Gaussians. Each of both
    kinds makes one more; ties go to the lowest row."""
    grows = clone | split
    room = len(grows) if most is None else max(0, most - len(model))
    if int(grows.sum()) <= room:
        return clone, split
    first = torch.sort(mean_gradient(model).where(grows, -1.0), descending=True, stable=True).indices[:room]
    kept = torch.zeros_like(grows)
    kept[first] = True
    return clone & kept, split & kept


def _shared_logit(logits: Tensor) -> Tensor:
    """Of the opacity of each of two that together let through what one of these did: 1 - sqrt(1 - o)."""
    # 1 - o = sigmoid(-logit); in logarithms, so that what is nearly opaque keeps its digits.
    half = torch.nn.functional.logsigmoid(-logits) / 2
    return (-torch.expm1(half)).log() - half
