"""Collectives that losses need. Alone, a process is the only rank."""

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


def mean_over_ranks(total: Tensor, count: Tensor | float) -> Tensor:
    """A rank's share of a mean: the mean over ranks of what this gives is sum of `total` / sum of `count`.

    `total` has the gradient; ranks may count differently much or nothing, and where none counts anything the
    result is 0 (for totals of 0).
    """
    # float64 counts points exactly; sums in float32 do so up to 2^24.
    counted = all_reduce_mean(torch.as_tensor(count, dtype=torch.float64, device=total.device))
    return total / torch.where(counted > 0, counted, 1.0).to(total.dtype)
