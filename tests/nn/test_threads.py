"""Threads that are held back come back."""

import numba
import pytest
import torch

from sparse3d.nn.threads import one_kernel_thread, one_torch_thread


def test_kernels_have_one_thread_and_then_as_many_as_before():
    before = numba.get_num_threads()
    with pytest.raises(KeyError), one_kernel_thread():
        assert numba.get_num_threads() == 1
        raise KeyError
    assert numba.get_num_threads() == before


def test_torch_has_one_thread_and_kernels_keep_theirs():
    before = torch.get_num_threads(), numba.get_num_threads()
    with one_torch_thread():
        assert (torch.get_num_threads(), numba.get_num_threads()) == (1, before[1])
    assert (torch.get_num_threads(), numba.get_num_threads()) == before
