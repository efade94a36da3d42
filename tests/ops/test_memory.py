"""Memory of large results: tensors like any other."""

import pytest
import torch

from sparse3d_ops.memory import ALIGNMENT, LARGE, empty

DTYPES = [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int32, torch.int64]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", [0, 3, LARGE // 16])
def test_it_is_a_tensor_of_the_shape_and_kind_that_starts_on_a_cache_line(rows, dtype):
    made = empty((rows, 8), dtype)
    assert made.shape == (rows, 8) and made.dtype == dtype and made.device.type == "cpu"
    assert made.is_contiguous() and made.storage_offset() == 0 and not made.requires_grad
    assert rows == 0 or made.data_ptr() % ALIGNMENT == 0
    made.fill_(3)
    assert (made == 3).all() and (made + made == 6).all()


def test_large_ones_outlive_each_other():
    """Each has memory of its own, which lives as long as a view of it."""
    first, second = (empty((LARGE // 4 + 1,), torch.float32).fill_(value) for value in (1.0, 2.0))
    part = first[5:10]
    del first
    third = empty((LARGE // 4 + 1,), torch.float32).fill_(7.0)
    assert part.tolist() == [1.0] * 5 and (second == 2).all() and (third == 7).all()
