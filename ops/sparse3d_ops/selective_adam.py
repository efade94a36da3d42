"""One step of Adam on the rows of tables that a batch saw.

A row whose whole gradient is zero keeps its value and its moments; of the others, with gradient g,

    mean = b1 mean + (1 - b1) g,  square = b2 square + (1 - b2) g^2,  value -= lr mean / (sqrt(square) + eps)

(Kingma & Ba, arXiv 1412.6980, without bias correction; Taming 3DGS, arXiv 2406.15643). Each number is worked
on by itself: the same bits for any number of threads.
"""

import torch
from torch import Tensor

from sparse3d_ops.checks import check_same_device, check_tensor

EXACT = (torch.float32, torch.float64)


def _check(
    values: list[Tensor],
    gradients: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    lrs: list[float],
) -> None:
    if len({len(part) for part in (values, gradients, means, squares, lrs)}) != 1:
        raise ValueError(
            f"{len(values)} tables came with {len(gradients)} gradients, {len(means)} and {len(squares)} "
            f"moments and {len(lrs)} rates, expected one of each a table"
        )
    for value, gradient, mean, square in zip(values, gradients, means, squares, strict=True):
        check_tensor("values", value, ("N", "C"), EXACT)
        for name, tensor in (("gradient", gradient), ("mean", mean), ("square", square)):
            check_tensor(name, tensor, tuple(value.shape), (value.dtype,))
        for name, tensor in (("values", value), ("mean", mean), ("square", square)):
            if not tensor.is_contiguous():
                raise ValueError(f"{name} is not contiguous; it is written to in place")
        check_same_device(("values", value), ("gradient", gradient), ("mean", mean), ("square", square))


# Tables together: the way to an op takes longer than a step of a few hundred rows.
@torch.library.custom_op(
    "sparse3d::selective_adam", mutates_args=("values", "means", "squares"), device_types="cpu"
)
def selective_adam(
    values: list[Tensor],
    gradients: list[Tensor],
    means: list[Tensor],
    squares: list[Tensor],
    lrs: list[float],
    beta1: float,
    beta2: float,
    eps: float,
) -> None:
    """Change tables `values` (N, C) and their moments `means` and `squares` (N, C) in place by `gradients`
    (N, C), each at its own rate."""
    from sparse3d_ops.cpu import selective_adam as body

    _check(values, gradients, means, squares, lrs)
    for value, gradient, mean, square, lr in zip(values, gradients, means, squares, lrs, strict=True):
        arrays = [x.numpy() for x in (value.detach(), gradient.detach().contiguous(), mean, square)]
        body.step(*arrays, *(arrays[0].dtype.type(x) for x in (lr, beta1, beta2, eps)))


@selective_adam.register_kernel("cuda")
def _(values, gradients, means, squares, lrs, beta1, beta2, eps) -> None:
    from sparse3d_ops.gpu import selective_adam as body

    _check(values, gradients, means, squares, lrs)
    for value, gradient, mean, square, lr in zip(values, gradients, means, squares, lrs, strict=True):
        body.step(value.detach(), gradient.detach().contiguous(), mean, square, lr, beta1, beta2, eps)


@selective_adam.register_fake
def _(values, gradients, means, squares, lrs, beta1, beta2, eps) -> None:
    pass
