"""Random states of Python, numpy and torch: seeding, and capture as tensors for checkpoints.

A state is a dict of tensors of fixed shapes: "python" (625,) and "numpy" (626,) int64, "gauss" (4,) float64
(flag and value of each one's spare normal number), "torch" uint8, and "cuda" uint8 where the process uses a
CUDA device.
"""

import contextlib
import os
import random
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor


def seed_everything(seed: int, rank: int = 0) -> None:
    """Seed Python, numpy and torch (every device). Ranks get different streams of the same seed."""
    # SeedSequence mixes both numbers; `seed + rank` would give run 1 on rank 0 the stream of run 0 on rank 1.
    mixed = int(np.random.SeedSequence([seed, rank]).generate_state(1, np.uint64)[0])
    random.seed(mixed)
    np.random.seed(mixed % 2**32)
    torch.manual_seed(mixed % 2**63)


def use_deterministic_algorithms() -> None:
    """Let torch refuse every operation that has no repeatable implementation."""
    # cuBLAS reads this when it is first used; without it torch refuses matrix products on CUDA.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def rng_state() -> dict[str, Tensor]:
    """The states of all generators of this process (CUDA: the current device, where CUDA is in use)."""
    _, words, spare = random.getstate()
    name, keys, position, has_spare, numpy_spare = np.random.get_state(legacy=True)
    assert name == "MT19937"
    state = {
        "python": torch.tensor(words, dtype=torch.int64),
        "numpy": torch.tensor([*(int(key) for key in keys), position, has_spare], dtype=torch.int64),
        "gauss": torch.tensor([spare is not None, spare or 0.0, has_spare, numpy_spare], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_initialized():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def set_rng_state(state: Mapping[str, Tensor]) -> None:
    """Continue where `rng_state` was taken. A "cuda" state is ignored by a process that does not use CUDA."""
    gauss = state["gauss"].tolist()
    spare = gauss[1] if gauss[0] else None
    random.setstate((3, tuple(state["python"].tolist()), spare))
    numpy_state = state["numpy"].tolist()
    np.random.set_state(
        ("MT19937", np.array(numpy_state[:624], np.uint32), numpy_state[624], numpy_state[625], gauss[3])
    )
    torch.set_rng_state(state["torch"].cpu())
    if "cuda" in state and torch.cuda.is_initialized():
        torch.cuda.set_rng_state(state["cuda"].cpu())


@contextlib.contextmanager
def isolated_rng() -> Iterator[None]:
    """Random numbers drawn inside of the block leave no trace outside of it."""
    state = rng_state()
    try:
        yield
    finally:
        set_rng_state(state)
