"""Growth in voxels: new Gaussians where gradients are large and no Gaussian is yet.

In the spirit of Scaffold-GS (Lu et al., arXiv 2312.00109, Sec. 3.3), whose anchors grow in voxels of several
sizes, the finer ones at a larger gradient (twice for each size four times finer). Where we differ: Gaussians
are free (there are no anchors that a network decodes), so the places that want one are found by draws from
the Gaussians that pull; a voxel that the hash finds empty gets one there. The hash bounds how dense the cloud
gets: of a voxel that holds a Gaussian nothing is asked.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sparse3d.gaussians.cloud import GaussianCloud
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
from sparse3d.gaussians.voxel_index import VoxelIndex
from sparse3d.nn.threads import one_torch_thread
from sparse3d_ops.segment import segment_max


@dataclass(frozen=True)
class VoxelAnchorStrategy(ByGradient):
    """One Gaussian at most is added to an empty voxel of each size."""

    kind: Literal["voxel_anchors"] = "voxel_anchors"
    gradient: float = 2e-4  # of the coarsest size: d loss / d half a picture, mean over the views
    absolute: bool = False  # sum the absolute values over pixels; then take a gradient of 8e-4
    voxel_size: float = 0.001  # of the scene: the finest
    sizes: int = 3  # of voxels
    coarser: float = 4.0  # times the side, from one size to the next
    steeper: float = 2.0  # times the gradient, from one size to the next finer
    draws: int = 4  # places that a Gaussian proposes
    opacity: float = 0.1  # of new ones
    prune_opacity: float = 0.005  # what is fainter goes
    start_step: int = 500
    stop_step: int = 15_000
    refine_every: int = 100  # steps
    most: int | None = None  # Gaussians, at most: voxels of the largest gradients first

    def __post_init__(self):
        names = ("gradient", "voxel_size", "sizes", "draws", "refine_every", "steeper")
        check_positive(self, *names)
        if not self.coarser > 1:
            raise ValueError(f"coarser must be above 1, got {self.coarser}")
        for name in ("opacity", "prune_opacity"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in (0, 1), got {getattr(self, name)}")

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
            if step <= self.start_step or step % self.refine_every:
                return Changes()
            kept = torch.sigmoid(model.opacities) >= self.prune_opacity
            grown = 0
            for number in range(self.sizes):  # the coarsest first
                added = self._new(model, step, number)
                model.grow(optimizer, added)
                grown += len(added)
            kept = torch.cat([kept, kept.new_ones(grown)])
            pruned = int((~kept).sum())
            if pruned:
                model.keep(optimizer, kept)
            forget(model)
            return Changes(grown=grown, pruned=pruned)

    def _new(self, model: SplatModel, step: int, number: int) -> GaussianCloud:
        """Gaussians for the empty voxels of one size. Those of coarser sizes, added before, have counted
        nothing yet and propose nothing."""
        side = self.voxel_size * self.coarser ** (self.sizes - 1 - number) * float(model.scene_scale)
        mean = mean_gradient(model)
        parents = (mean > self.gradient * self.steeper**number).nonzero()[:, 0]
        proposers = parents.repeat_interleave(self.draws)
        places = model.means.detach()[proposers] + self._draws(model, proposers, step, number)
        inside = torch.isfinite(places).all(1) & (VoxelIndex(model.means, side).find(places) < 0)
        places, proposers = places[inside], proposers[inside]
        wanted = VoxelIndex(places, side)
        known = wanted.voxel >= 0  # the key reaches so far
        best, at = segment_max(mean[proposers][known, None], wanted.voxel[known], len(wanted))
        chosen = torch.sort(best[:, 0], descending=True, stable=True).indices[: self._room(model)]
        chosen = torch.sort(chosen).values
        # Where it was proposed with the largest gradient: a voxel's centre need not be near a surface.
        rows = known.nonzero()[:, 0][at[chosen, 0]]
        return self._of_parents(model.cloud[proposers[rows]], places[rows], side)

    def _draws(self, model: SplatModel, rows: Tensor, step: int, number: int) -> Tensor:
        like = model.means
        normal = torch.randn(
            len(rows), 3, generator=model.generator(step, number), device=like.device, dtype=like.dtype
        )
        return spread(model.scales.detach()[rows], model.quats.detach()[rows], normal)

    def _room(self, model: SplatModel) -> int | None:
        return None if self.most is None else max(0, self.most - len(model))

    def _of_parents(self, parents: GaussianCloud, places: Tensor, side: float) -> GaussianCloud:
        """The parents' colours and directions at other places, of half a voxel's side."""
        logit = math.log(self.opacity / (1 - self.opacity))
        changed = {
            "means": places,
            "scales": parents.scales.clamp(max=math.log(side / 2)),
            "opacities": torch.full_like(parents.opacities, logit),
        }
        return GaussianCloud.of({k: v.detach() for k, v in (parents.parameters() | changed).items()})
