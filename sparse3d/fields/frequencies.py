"""Frequency encoding of positions and directions, and the mask that lets frequencies in from coarse to fine.

Sources: NeRF (arXiv 2003.08934), Eq. 4; FreeNeRF (arXiv 2303.07418), Eq. 4: with few views, high frequencies
are learnt by heart before the scene is found, so they come in one after the other.
"""

import torch
from torch import Tensor


def frequency_encode(x: Tensor, count: int, weights: Tensor | None = None) -> Tensor:
    """(N, D) -> (N, D + 2 D count): x itself, then for k = 0 .. count - 1 sin(2^k pi x) and cos(2^k pi x),
    times weights[k] where `weights` (count,) are given."""
    factors = torch.pi * 2.0 ** torch.arange(count, dtype=x.dtype, device=x.device)
    angles = x[:, None] * factors[:, None]
    waves = torch.stack([angles.sin(), angles.cos()], 2)
    if weights is not None:
        waves = waves * weights.to(waves)[:, None, None]
    return torch.cat([x, waves.flatten(1)], 1)


def coarse_to_fine(progress: float, count: int, end: float) -> Tensor:
    """Weights (count,) of levels from coarse to fine at `progress` in [0, 1]: the first is always there, the
    others come in one after the other, each rising from 0 to 1, until all are there at `end`."""
    if end <= 0:
        return torch.ones(count)
    shown = 1 + (count - 1) * min(progress / end, 1.0)
    return (shown - torch.arange(count)).clamp(0, 1)
