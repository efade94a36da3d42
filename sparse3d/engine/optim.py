"""Optimisers and their configs."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class AdamWConfig:
    """Adam with decoupled weight decay (Loshchilov & Hutter, arXiv 1711.05101)."""

    kind: Literal["adamw"] = "adamw"
    lr: float = 3e-3  # peak; the schedule scales it
    betas: tuple[float, float] = (0.9, 0.99)  # a schedule with a momentum cycle overrides the first
    weight_decay: float = 0.01
    eps: float = 1e-8
    decay_norm_and_bias: bool = True  # false: parameters with fewer than two axes are not decayed

    def __post_init__(self):
        _check_positive("lr", self.lr)
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}")


@dataclass(frozen=True)
class SGDConfig:
    """Stochastic gradient descent with Nesterov momentum; weight decay is part of the gradient."""

    kind: Literal["sgd"] = "sgd"
    lr: float = 0.1  # peak; the schedule scales it
    momentum: float = 0.9
    weight_decay: float = 1e-4
    decay_norm_and_bias: bool = True  # false: parameters with fewer than two axes are not decayed

    def __post_init__(self):
        _check_positive("lr", self.lr)
        if not 0.0 < self.momentum < 1.0:
            raise ValueError(f"momentum must lie in (0, 1), got {self.momentum}")


OptimizerConfig = AdamWConfig | SGDConfig


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser over all parameters of `model` that want gradients."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("the model has no parameter that requires a gradient; there is nothing to train")
    # Scales and offsets of norms and all biases are vectors; weights of layers have two axes or more.
    plain = [p for p in parameters if config.decay_norm_and_bias or p.dim() >= 2]
    free = [p for p in parameters if not config.decay_norm_and_bias and p.dim() < 2]
    groups = [
        {"params": group, "weight_decay": decay}
        for group, decay in ((plain, config.weight_decay), (free, 0.0))
        if group
    ]
    if isinstance(config, AdamWConfig):
        return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps)
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=True)


def _check_positive(name: str, value: float) -> None:
    if not value > 0.0:
        raise ValueError(f"{name} must be above 0, got {value}")
