"""Optimisers and their configs."""

from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from sparse3d.engine.selective_adam import SelectiveAdam


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


@dataclass(frozen=True)
class SelectiveAdamConfig:
    """Adam that leaves rows alone whose gradient is zero, moments included: for fields and splats, of which a
    batch sees a part (`engine.selective_adam`)."""

    kind: Literal["selective_adam"] = "selective_adam"
    lr: float = 0.1  # peak; the schedule scales it
    betas: tuple[float, float] = (0.9, 0.99)
    eps: float = 1e-9
    factors: dict[str, float] = field(default_factory=dict)  # of lr, by the end of a parameter's name

    def __post_init__(self):
        _check_positive("lr", self.lr)
        if not all(0.0 <= beta < 1.0 for beta in self.betas):
            raise ValueError(f"betas must lie in [0, 1), got {self.betas}")


OptimizerConfig = AdamWConfig | SGDConfig | SelectiveAdamConfig


def build_optimizer(config: OptimizerConfig, model: nn.Module) -> torch.optim.Optimizer:
    """The optimiser over all parameters of `model` that want gradients."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise ValueError("the model has no parameter that requires a gradient; there is nothing to train")
    if isinstance(config, SelectiveAdamConfig):
        return SelectiveAdam(_by_factor(config, model), lr=config.lr, betas=config.betas, eps=config.eps)
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


def _by_factor(config: SelectiveAdamConfig, model: nn.Module) -> list[dict[str, Any]]:
    """One group a parameter, with its own rate."""
    groups, used = [], set()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            ending = next((end for end in config.factors if name.endswith(end)), None)
            used.add(ending)
            factor = config.factors[ending] if ending is not None else 1.0
            groups.append({"params": [parameter], "lr": config.lr * factor})
    unused = sorted(set(config.factors) - used)
    if unused:
        raise ValueError(f"optimizer.factors names {', '.join(unused)}, but no parameter's name ends so")
    return groups


def _check_positive(name: str, value: float) -> None:
    if not value > 0.0:
        raise ValueError(f"{name} must be above 0, got {value}")
