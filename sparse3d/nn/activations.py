"""Sigmoid and softplus that are the same bits for any number of threads.

Torch's own differ in their last bits between the vectors of a loop and its remainder, and where the
remainders lie depends on the number of threads. These are made of functions that do not.
"""

from typing import Any

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
    """log(1 + exp(sharpness x)) / sharpness: the larger the sharpness, the nearer to max(0, x). Can be
    differentiated twice."""

    def __init__(self, sharpness: float = 1.0):
        super().__init__()
        self.sharpness = sharpness

    def forward(self, x: Tensor) -> Tensor:
        return _Softplus.apply(x, self.sharpness)  # pyright: ignore[reportReturnType]


class _Softplus(torch.autograd.Function):
    """In the place of autograd's many small steps: the derivative is a sigmoid s that the forward pass knows,
    and the derivative of that is sharpness s (1 - s)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, sharpness: float) -> Tensor:
        small = torch.exp(x.abs().mul_(-sharpness))
        slope = 1 / (1 + small)
        slope = torch.where(x < 0, small * slope, slope)
        ctx.save_for_backward(x, slope)
        ctx.sharpness = sharpness
        return torch.log1p(small).div_(sharpness).add_(x.clamp(min=0))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return _Slope.apply(*ctx.saved_tensors, grads[0], ctx.sharpness), None


class _Slope(torch.autograd.Function):
    """grad times the slope of softplus at x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, slope: Tensor, grad: Tensor, sharpness: float) -> Tensor:
        ctx.save_for_backward(slope, grad)
        ctx.sharpness = sharpness
        return grad * slope

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        slope, grad = ctx.saved_tensors
        through = grads[0] * slope
        bend = (through * grad).mul_(1 - slope).mul_(ctx.sharpness) if ctx.needs_input_grad[0] else None
        return bend, None, through, None
