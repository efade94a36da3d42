"""Step functions along rays: histograms of weight, sampled and compared.

Notation: `edges` (R, B + 1) rise along a ray; `weights` (R, B) are masses of the bins, not densities. Source:
Mip-NeRF 360 (arXiv 2111.12077), sections 3 and A. Nothing is drawn at random: jitter comes as `offsets`.
"""

import torch
from torch import Tensor

from sparse3d.nn.sums import repeatable_mean
from sparse3d_ops.sampling import importance


def evenly(rays: int, bins: int, offsets: Tensor) -> Tensor:
    """Edges (R, bins + 1) from 0 to 1; those within are moved by offsets (R,) in [0, 1) less a half, of a
    bin."""
    edges = torch.arange(bins + 1, dtype=offsets.dtype, device=offsets.device) / bins
    moved = edges + (offsets[:, None] - 0.5) / bins
    moved[:, 0], moved[:, -1] = 0, 1
    return moved.expand(rays, bins + 1)


def resample(edges: Tensor, weights: Tensor, bins: int, offsets: Tensor) -> Tensor:
    """Edges (R, bins + 1) of bins of equal weight, jittered by offsets (R,) in [0, 1): from the first edge to
    the last. No gradients."""
    levels = evenly(len(edges), bins, offsets)
    found = importance(edges.detach(), weights.detach(), levels)
    return torch.cat([edges[:, :1], found[:, 1:-1], edges[:, -1:]], 1)


def outer_measure(edges: Tensor, other_edges: Tensor, other_weights: Tensor) -> Tensor:
    """For each bin of `edges` the weight of all bins of the other histogram that touch it: (R, B)."""
    before = torch.cat([torch.zeros_like(other_weights[:, :1]), other_weights.cumsum(1)], 1)
    count, other_edges = other_weights.shape[1], other_edges.contiguous()
    begin = torch.searchsorted(other_edges, edges[:, :-1].contiguous(), right=True) - 1
    end = torch.searchsorted(other_edges, edges[:, 1:].contiguous())
    return before.gather(1, end.clamp(0, count)) - before.gather(1, begin.clamp(0, count))


def interlevel_loss(edges: Tensor, weights: Tensor, proposed_edges: Tensor, proposed: Tensor) -> Tensor:
    """Sum over bins of max(0, weight - bound)^2 / weight, mean over rays; bound is the outer measure of what
    was proposed (Eq. 13). Gradients reach `proposed` alone."""
    weights = weights.detach()
    bound = outer_measure(edges.detach(), proposed_edges.detach(), proposed)
    excess = (weights - bound).clamp(min=0)
    return repeatable_mean((excess.square() / (weights + 1e-5)).sum(1))
