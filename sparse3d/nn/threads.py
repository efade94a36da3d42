"""Torch on one thread, for sums that must not depend on how many there are."""

from collections.abc import Iterator
from contextlib import contextmanager

import numba
import torch


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Hold torch to one thread in the block; numba's kernels keep theirs.

    With more of them torch cuts a tensor where the number of threads says, and the vector and the scalar
    forms of exp and its kind, used within a part and at its end, round differently.
    """
    numba.get_num_threads()  # starts numba's threads, which sets the number of torch's, too
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
