"""Triton body of Adam on the rows that were seen: a lane works on a row."""

import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.composite import as_tensor
from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 128


@triton.jit(do_not_specialize=["items"])
def step_kernel(
    values, gradient, mean, square, lr, beta1, beta2, eps, items, BLOCK: tl.constexpr, COLUMNS: tl.constexpr
):
    row = lanes(BLOCK)
    inside = row < items
    seen = tl.zeros((BLOCK,), tl.int1)
    for c in range(COLUMNS):
        seen |= tl.load(gradient + row * COLUMNS + c, mask=inside, other=0) != 0
    here = inside & seen
    rate, b1, b2, least = tl.load(lr), tl.load(beta1), tl.load(beta2), tl.load(eps)
    for c in range(COLUMNS):
        at = row * COLUMNS + c
        g = tl.load(gradient + at, mask=here, other=0)
        m = b1 * tl.load(mean + at, mask=here, other=0) + (1 - b1) * g
        s = b2 * tl.load(square + at, mask=here, other=0) + (1 - b2) * (g * g)
        tl.store(mean + at, m, mask=here)
        tl.store(square + at, s, mask=here)
        old = tl.load(values + at, mask=here, other=0)
        tl.store(values + at, old - rate * m / (tl.sqrt(s) + least), mask=here)


def step(
    values: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    numbers = [as_tensor(x, values) for x in (lr, beta1, beta2, eps)]
    tensors = values, gradient, mean, square
    launch(step_kernel, len(values), BLOCK, *tensors, *numbers, COLUMNS=values.shape[1])
