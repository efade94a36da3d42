"""One step of Adam on the rows of a table that a batch saw.

A row whose whole gradient is zero keeps its value and its moments; of the others, with gradient g,

    mean = b1 mean + (1 - b1) g,  square = b2 square + (1 - b2) g^2,  value -= lr mean / (sqrt(square) + eps)

(Kingma & Ba, arXiv 1412.6980, without bias correction; Taming 3DGS, arXiv 2406.15643). Each number is worked
on by itself: the same bits for any number of threads.
"""

import torch
from torch import Tensor

from sparse3d_ops.checks import check_same_device, check_tensor

EXACT = (torch.float32, torch.float64)


def _check(values: Tensor, gradient: Tensor, mean: Tensor, square: Tensor) -> None:
    check_tensor("values", values, ("N", "C"), EXACT)
    for name, tensor in (("gradient", gradient), ("mean", mean), ("square", square)):
        check_tensor(name, tensor, tuple(values.shape), (values.dtype,))
    for name, tensor in (("values", values), ("mean", mean), ("square", square)):
        if not tensor.is_contiguous():
            raise ValueError(f"{name} is not contiguous; it is written to in place")
    check_same_device(("values", values), ("gradient", gradient), ("mean", mean), ("square", square))


@torch.library.custom_op(
    "sparse3d::selective_adam", mutates_args=("values", "mean", "square"), device_types="cpu"
)
def selective_adam(
    values: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """Change `values` (N, C) and its moments `mean` and `square` (N, C) in place by `gradient` (N, C)."""
    from sparse3d_ops.cpu import selective_adam as body

    _check(values, gradient, mean, square)
    tensors = values.detach(), gradient.detach().contiguous(), mean, square
    numbers = [values.new_tensor(x).numpy()[()] for x in (lr, beta1, beta2, eps)]
    body.step(*(tensor.numpy() for tensor in tensors), *numbers)


@selective_adam.register_kernel("cuda")
def _(values, gradient, mean, square, lr, beta1, beta2, eps) -> None:
    from sparse3d_ops.gpu import selective_adam as body

    _check(values, gradient, mean, square)
    body.step(values.detach(), gradient.detach().contiguous(), mean, square, lr, beta1, beta2, eps)


@selective_adam.register_fake
def _(values, gradient, mean, square, lr, beta1, beta2, eps) -> None:
    pass
