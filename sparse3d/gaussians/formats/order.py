"""Neighbours one after the other: along the Morton curve, on which formats that store differences within runs
of Gaussians lose the least."""

import torch
from torch import Tensor

from sparse3d.gaussians.cloud import GaussianCloud

_BITS = 21  # an axis; three of them fit into 63 bits


def in_order(cloud: GaussianCloud) -> GaussianCloud:
    """A cloud's Gaussians along the curve through its bounds; equal places keep their order."""
    return cloud[torch.argsort(morton(cloud.means), stable=True)]


def morton(points: Tensor) -> Tensor:
    """(N, 3) finite -> (N,) int64: the bits of the cell in a grid of 2^21 a side over the bounds, taken in
    turn from z, y and x."""
    if not len(points):
        return torch.zeros(0, dtype=torch.int64, device=points.device)
    low, high = points.aminmax(dim=0)
    # Doubles: the differences of float32 bounds may leave the range of float32.
    low, high = low.double(), high.double()
    extent = torch.where(high > low, high - low, 1)
    cells = ((points.double() - low) / extent * ((1 << _BITS) - 1)).long()
    code = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    for axis in range(3):
        code |= _spread(cells[:, axis]) << axis
    return code


def _spread(value: Tensor) -> Tensor:
    """Two zero bits after each of 21 bits."""
    for shift, mask in (
        (32, 0x1F00000000FFFF),
        (16, 0x1F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        value = (value | (value << shift)) & mask
    return value
