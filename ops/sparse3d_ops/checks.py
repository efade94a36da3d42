"""Checks that every op makes before its kernel, and the form that its tensors take then: a kernel indexes
memory without asking, so wrong input must stop here.

On a GPU a look at values makes the host wait for everything that is queued. So the answer is kept with the
tensor that was looked at (`remember`), and ops that make tables and rows of indices know the answer when they
make them: the layers of a network ask nothing, and foreign tensors are looked at once.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary

FLOATS = (torch.float32, torch.float64, torch.float16, torch.bfloat16)
INDICES = (torch.int32, torch.int64)

# Beside the tensors and not in their attributes, which would be copied and saved with them.
_facts = WeakTensorKeyDictionary()


def check_tensor(
    name: str,
    tensor: Tensor,
    shape: Sequence[int | str],
    dtypes: Sequence[torch.dtype] = FLOATS,
) -> None:
    """Raise a ValueError that says what came and what was expected. Letters in `shape` stand for any size."""
    if not _fits(
        tensor.shape, shape
    ):  # only now are sizes put into words: under torch.compile they have none
        expected = "(" + ", ".join(str(size) for size in shape) + ")"
        raise ValueError(f"{name} has shape {tuple(tensor.shape)}, expected {expected}")
    if tensor.dtype not in dtypes:
        wanted = " or ".join(str(dtype).removeprefix("torch.") for dtype in dtypes)
        raise ValueError(f"{name} is {str(tensor.dtype).removeprefix('torch.')}, expected {wanted}")


def _fits(sizes: Sequence[int], shape: Sequence[int | str]) -> bool:
    # A plain loop: an op makes several of these checks in each call, some microseconds where a generator
    # makes one.
    if len(sizes) != len(shape):
        return False
    for size, want in zip(sizes, shape, strict=True):
        if not isinstance(want, str) and want != size:
            return False
    return True


def check_same_device(*named: tuple[str, Tensor]) -> None:
    """Raise a ValueError when the tensors live on more than one device."""
    for _, tensor in named:
        if not tensor.is_cpu:
            break
    else:
        return
    if len({tensor.device for _, tensor in named}) > 1:
        places = ", ".join(f"{name} on {tensor.device}" for name, tensor in named)
        raise ValueError(f"inputs are on different devices: {places}; move them with .to(device)")


def check_range(name: str, index: Tensor, low: int, high: int) -> None:
    """Raise a ValueError naming the first entry of an index tensor outside of [low, high)."""
    if index.numel() == 0:
        return
    extremes = remembered(index, "range")
    if extremes is None:
        extremes = tuple(int(value) for value in torch.aminmax(index))
        remember(index, "range", extremes)
    smallest, largest = extremes
    if smallest < low or largest >= high:
        place = ((index < low) | (index >= high)).nonzero()[0].tolist()
        where = ", ".join(str(i) for i in place)
        raise ValueError(
            f"{name}[{where}] is {int(index[tuple(place)])}, expected a value in [{low}, {high})"
        )


def check_starts(name: str, starts: Tensor, total: int) -> None:
    """Raise a ValueError unless starts (R + 1,) int64 rises from 0 to `total`."""
    check_tensor(name, starts, ("R + 1",), (torch.int64,))
    if remembered(starts, "starts") == total:
        return
    if not len(starts):
        raise ValueError(f"{name} has shape (0,), expected (R + 1,): 0 is its first entry, of none too")
    falls = starts[1:] < starts[:-1]
    if bool((starts[0] != 0) | (starts[-1] != total) | falls.any()):
        raise ValueError(
            f"{name} runs from {int(starts[0])} to {int(starts[-1])}, expected numbers that do not fall, "
            f"from 0 to {total}"
        )
    remember(starts, "starts", total)


def remember(tensor: Tensor, fact: str, value: Any) -> None:
    """Keep what is known of the values of a GPU tensor until they are written to. On a CPU looking again is
    cheap and nothing is kept: there a tensor can be written to through a numpy array, without torch knowing.
    """
    if tensor.device.type != "cpu":
        facts = _facts.get(tensor)
        if facts is None:
            facts = _facts[tensor] = {}
        facts[fact] = (_writes(tensor), value)


def remembered(tensor: Tensor, fact: str) -> Any:
    """What `remember` kept, None where nothing was kept or the tensor was written to since."""
    known = None if tensor.device.type == "cpu" else _facts.get(tensor)
    writes, value = (known or {}).get(fact, (-1, None))
    return value if writes == _writes(tensor) else None


def _writes(tensor: Tensor) -> int:
    """How often a tensor was written to in place. Under torch.inference_mode torch does not count, so there
    an index tensor must not be changed between two uses."""
    return 0 if tensor.is_inference() else tensor._version


def working(tensor: Tensor) -> Tensor:
    """The tensor as the bodies take it: detached, contiguous, and float32 or float64, as sums are kept."""
    work = tensor.detach()
    return (work if work.dtype in (torch.float32, torch.float64) else work.float()).contiguous()


def plain(*tensors: Tensor) -> list[Tensor]:
    """Tensors as the Triton bodies take them: detached and contiguous."""
    return [tensor.detach().contiguous() for tensor in tensors]


def as_arrays(*tensors: Tensor) -> list[Any]:
    """Tensors of the CPU as the numba bodies take them: contiguous arrays of the same memory where they are
    contiguous."""
    return [tensor.numpy() for tensor in plain(*tensors)]
