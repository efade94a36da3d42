"""Collectives that losses need. Each is the identity where torch.distributed is not initialised."""

import torch
from torch import Tensor


def world_size() -> int:
    """How many ranks there are."""
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1


def all_reduce_mean(value: Tensor) -> Tensor:
    """Mean of `value` over all ranks, without a gradient; every rank must call it, with the same shape.

    For loss normalisers: the number of positives on one rank is a poor divisor when another rank has none.
    """
    value = value.detach()
    distributed = torch.distributed
    if not (distributed.is_available() and distributed.is_initialized()):
        return value
    total = value.clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
