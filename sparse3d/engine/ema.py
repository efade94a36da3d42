"""Exponential moving average of a model's weights: usually a better model than the last weights."""

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor, nn


class Ema:
    """Averaged parameters of `model`; buffers (running means of norms) are copied, not averaged.

    Early in training the decay is (1 + updates) / (10 + updates), so that the random first weights are
    forgotten.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay = decay
        self.updates = 0
        self.tensors: dict[str, Tensor] = {
            name: tensor.detach().clone() for name, tensor in model.state_dict().items()
        }

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Move the average towards the model's present weights."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averaged = {name for name, parameter in model.named_parameters() if parameter.is_floating_point()}
        for name, tensor in model.state_dict().items():
            if name in averaged:
                self.tensors[name].lerp_(tensor, 1.0 - decay)
            else:
                self.tensors[name].copy_(tensor)

    @contextlib.contextmanager
    def swapped_into(self, model: nn.Module) -> Iterator[None]:
        """Inside of the block the model has the averaged weights."""
        own = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
        model.load_state_dict(self.tensors)
        try:
            yield
        finally:
            model.load_state_dict(own)
