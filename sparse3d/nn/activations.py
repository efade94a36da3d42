"""Sigmoid and softplus that are the same bits for any number of threads.

Torch's own differ in their last bits between the vectors of a loop and its remainder, and where the
remainders lie depends on the number of threads. These are made of functions that do not.
"""

import torch
from torch import Tensor, nn


def sigmoid(x: Tensor) -> Tensor:
    """1 / (1 + exp(-x))."""
    return 0.5 + 0.5 * torch.tanh(0.5 * x)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)). At exactly 0 autograd's second derivative is 0 in the place of 1/4."""
    size = x.abs()
    return (x + size) / 2 + torch.log1p(torch.exp(-size))


class Softplus(nn.Module):
    """log(1 + exp(sharpness x)) / sharpness: the larger the sharpness, the nearer to max(0, x)."""

    def __init__(self, sharpness: float = 1.0):
        super().__init__()
        self.sharpness = sharpness

    def forward(self, x: Tensor) -> Tensor:
        return softplus(self.sharpness * x) / self.sharpness
