"""Torch on one thread, for sums that must not depend on how many there are, and kernels on one, for work that
is not worth a second."""

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


@contextmanager
def one_kernel_thread() -> Iterator[None]:
    """Hold numba's kernels to one thread in the block, which changes none of their bits: where one takes some
    microseconds, to wake a second thread takes longer."""
    threads = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(threads)
