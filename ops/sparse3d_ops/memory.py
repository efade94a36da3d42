"""Memory for what the ops return on a CPU.

The system hands out memory page by page, when a page is first written: every 4 KiB cost a fault. What is
larger than the C library's threshold (at most 32 MiB) goes back to the system when it is freed, so that every
call pays anew; a result of 50 MB then takes longer to be handed out than to be computed. numpy asks for huge
pages (2 MiB a fault) where an array is larger than 4 MiB, torch does not (unless THP_MEM_ALLOC_ENABLE=1 is
set before it starts).
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

LARGE = 1 << 22  # bytes from which on numpy asks for huge pages
ALIGNMENT = 64  # bytes; numpy's own is 16, and a vector across two cache lines is two loads

_NUMPY = {
    torch.float32: np.float32,
    torch.float64: np.float64,
    torch.int32: np.int32,
    torch.int64: np.int64,
    torch.int16: np.int16,
}


def empty(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A tensor on the CPU that holds anything; float16 and bfloat16 are made of their bits."""
    size = math.prod(shape) * dtype.itemsize
    if size < LARGE:
        return torch.empty(*shape, dtype=dtype)
    if dtype not in _NUMPY:
        assert dtype.itemsize == 2, dtype
        return empty(shape, torch.int16).view(dtype)
    room = np.empty(size + ALIGNMENT, np.uint8)
    begin = -room.ctypes.data % ALIGNMENT
    return torch.from_numpy(room[begin : begin + size].view(_NUMPY[dtype]).reshape(shape))
