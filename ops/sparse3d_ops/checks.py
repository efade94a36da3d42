"""Checks that every op makes before its kernel, and the form that its tensors take then: a kernel indexes
memory without asking, so wrong input must stop here."""

from collections.abc import Sequence

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INDICES = (torch.int32, torch.int64)


def check_tensor(
    name: str,
    tensor: Tensor,
    shape: Sequence[int | str],
    dtypes: Sequence[torch.dtype] = FLOATS,
) -> None:
    """Raise a ValueError that says what came and what was expected. Letters in `shape` stand for any size."""
    fits = tensor.dim() == len(shape) and all(
        isinstance(want, str) or want == got for want, got in zip(shape, tensor.shape, strict=True)
    )
    if not fits:  # only now are sizes put into words: under torch.compile they have none
        expected = "(" + ", ".join(str(size) for size in shape) + ")"
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {expected}")
    if tensor.dtype not in dtypes:
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{name} is {str(tensor.dtype).removeprefix('torch.')}, expected {wanted}")


def check_same_device(*named: tuple[str, Tensor]) -> None:
    """Raise a ValueError when the tensors live on more than one device."""
    devices = {tensor.device for _, tensor in named}
    if len(devices) > 1:
        places = ", ".join(f"{name} on {tensor.device}" for name, tensor in named)
        raise ValueError(f"inputs are on different devices: {places}; move them with .to(device)")


def check_range(name: str, index: Tensor, low: int, high: int) -> None:
    """Raise a ValueError naming the first entry of an index tensor outside of [low, high)."""
    if index.numel() == 0:
        return
    smallest, largest = (int(value) for value in torch.aminmax(index))
    if smallest < low or largest >= high:
        place = ((index < low) | (index >= high)).nonzero()[0].tolist()
        where = ", ".join(str(i) for i in place)
        raise ValueError(
            f"{name}[{where}] is {int(index[tuple(place)])}, expected a value in [{low}, {high})"
        )


def working(tensor: Tensor) -> Tensor:
    """The tensor as the bodies take it: detached, contiguous, and float32 or float64, as sums are kept."""
    work = tensor.detach()
    return (work if work.dtype in (torch.float32, torch.float64) else work.float()).contiguous()
