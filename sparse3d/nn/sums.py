"""Sums that are the same bits for any number of threads."""

import torch
from torch import Tensor

PARTS = 1024  # far below the size from which torch shares out the sum of what is left


def repeatable_sum(values: Tensor) -> Tensor:
    """Sum of all entries. Torch cuts a long sum to a single number by the number of threads, so its last bits
    depend on it; sums to many numbers are cut between them, and do not."""
    flat = values.reshape(-1)
    padded = torch.nn.functional.pad(flat, (0, -len(flat) % PARTS))
    return padded.view(PARTS, -1).sum(1).sum()


def repeatable_mean(values: Tensor) -> Tensor:
    """Mean of all entries; NaN for none."""
    return repeatable_sum(values) / values.numel()
