"""MERF's contraction of all space into a bounded region; straight lines stay straight piece by piece.

With m = max(|x|, |y|, |z|): the cube m <= 1 stays as it is; outside of it the largest coordinate becomes
sign * (2 - 1 / m) and the others are divided by m. So space falls into seven regions, the cube and, for each
of its faces, a slab one deep (m = infinity lies on its far side), and each region is mapped projectively: a
straight segment inside one stays a straight segment, and boxes can be skipped exactly. Neighbouring slabs do
not meet: the map jumps where two coordinates are equally large and outside; there the first of them counts as
the largest.

Source: MERF: Memory-efficient radiance fields (arXiv 2302.12249), Eq. 6.
"""

import torch
from torch import Tensor


def contract(points: Tensor) -> Tensor:
    """(N, 3) in units of half the inner cube's side, from its centre -> (N, 3) in [-2, 2]. Differentiable;
    coordinates must be finite."""
    size = points.abs()
    largest = size.argmax(1, keepdim=True)
    m = size.gather(1, largest).clamp(min=1)
    outer = points.sign() * (2 - 1 / m)
    is_largest = torch.zeros_like(points, dtype=torch.bool).scatter(1, largest, True)
    return torch.where(is_largest & (m > 1), outer, points / m)


def uncontract(contracted: Tensor) -> Tensor:
    """The inverse of `contract`: (N, 3) in [-2, 2] -> (N, 3). A largest coordinate of 2 lies at infinity."""
    size = contracted.abs()
    largest = size.argmax(1, keepdim=True)
    m = 1 / (2 - size.gather(1, largest).clamp(min=1))
    is_largest = torch.zeros_like(contracted, dtype=torch.bool).scatter(1, largest, True)
    return torch.where(is_largest & (m > 1), contracted.sign() * m, contracted * m)
