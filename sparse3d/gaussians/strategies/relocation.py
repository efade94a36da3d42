"""One Gaussian becomes n at its place that look like it, and who is chosen for that.

From Kheradmand et al., "3D Gaussian Splatting as Markov Chain Monte Carlo", arXiv 2404.09591, Eq. 9: n
Gaussians of opacity o' and deviation s' at one place, one before the other, let through
(1 - o' g(x))^n with g(x) = exp(-x^2 / 2 s'^2). With

    o' = 1 - (1 - o)^(1/n),    s' = s o / D,    D = sum_{k=1}^{n} C(n, k) (-1)^(k-1) o'^k / sqrt(k)

they are as opaque in the middle as the one was, and as opaque all together along a line through it. (The
paper's double sum of binomials is this one: sum_{i=k}^{n} C(i-1, k-1) = C(n, k).)
"""

import math

import torch
from torch import Tensor

# Draws are of whole numbers, whose running sums are the same on every device: one in so many is resolved.
_PARTS = float(1 << 31)


def relocated(opacities: Tensor, scales: Tensor, copies: Tensor) -> tuple[Tensor, Tensor]:
    """Logits (N,), logarithms (N, K) and how many (N,) int64 each is to become, itself among them -> logits
    and logarithms for all of those. 1 leaves a Gaussian as it is. Computed in float64."""
    n = copies.double()
    # In logarithms of 1 - o, so that what is nearly opaque keeps its digits.
    logits = opacities.double()
    through = torch.nn.functional.logsigmoid(-logits)
    new = -torch.expm1(through / n)
    total = torch.zeros_like(new)
    term = torch.ones_like(new)
    for k in range(1, int(copies.max()) + 1 if len(copies) else 1):
        # C(n, k) o'^k from the one before; zero beyond n. The sum of their sizes is at most 1 / (1 - o).
        term = term * ((n - k + 1).clamp(min=0) / k) * new
        total += (1 - 2 * ((k - 1) % 2)) / math.sqrt(k) * term
    factor = torch.sigmoid(logits) / total
    shared = new.log() - through / n
    same = copies == 1
    return (
        torch.where(same, opacities, shared.to(opacities.dtype)),
        torch.where(same[:, None], scales, (scales.double() + factor.log()[:, None]).to(scales.dtype)),
    )


def draw(weights: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """`count` rows (count,) int64, with replacement, each with a probability in proportion to its weight
    (N,). ValueError where all weights are zero (or so small beside the largest that they count as zero)."""
    parts = (weights.double() / weights.max().double().clamp(min=1e-300) * _PARTS).long()
    ends = parts.cumsum(0)
    total = int(ends[-1]) if len(ends) else 0
    if total < 1:
        raise ValueError("nothing to draw from: all weights are zero")
    at = torch.randint(total, (count,), generator=generator, device=weights.device)
    return torch.searchsorted(ends, at, right=True)
