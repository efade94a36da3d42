"""Max pooling over a kernel map, with its gradient: one schema here, one body a device.

Sum and average pooling are depthwise convolutions with weights of one and need no op of their own.
"""

import torch
from torch import Tensor

from sparse3d_ops.checks import FLOATS, check_range, check_same_device, check_tensor, working


@torch.library.custom_op("sparse3d::sparse_max", mutates_args=(), device_types="cpu")
def sparse_max(features: Tensor, table: Tensor, reverse: Tensor) -> tuple[Tensor, Tensor]:
    """Maximum over the neighbours of each output: (N_in, C), table (N_out, V), reverse (N_in, V) int32 ->
    values (N_out, C) and the input rows (N_out, C) int32 that they come from; 0 and -1 where there is no
    neighbour."""
    from sparse3d_ops.cpu import sparse_pool as body

    _check(features, table, reverse)
    x = working(features)
    out = x.new_empty(table.shape[0], x.shape[1])
    argmax = table.new_empty(out.shape)
    body.maximum(x.numpy(), table.contiguous().numpy(), out.numpy(), argmax.numpy())
    return out.to(features.dtype), argmax


@sparse_max.register_kernel("cuda")
def _(features: Tensor, table: Tensor, reverse: Tensor) -> tuple[Tensor, Tensor]:
    from sparse3d_ops.gpu import sparse_pool as body

    _check(features, table, reverse)
    x = working(features)
    out = x.new_empty(table.shape[0], x.shape[1])
    argmax = table.new_empty(out.shape)
    body.maximum(x, table.contiguous(), out, argmax)
    return out.to(features.dtype), argmax


def _check(features: Tensor, table: Tensor, reverse: Tensor) -> None:
    check_tensor("features", features, ("N_in", "C"), FLOATS)
    check_tensor("table", table, ("N_out", "V"), (torch.int32,))
    check_tensor("reverse", reverse, (features.shape[0], table.shape[1]), (torch.int32,))
    check_same_device(("features", features), ("table", table), ("reverse", reverse))
    check_range("table", table, -1, features.shape[0])


@sparse_max.register_fake
def _(features, table, reverse):
    shape = (table.shape[0], features.shape[1])
    return features.new_empty(shape), table.new_empty(shape)


@torch.library.custom_op("sparse3d::sparse_max_gradient", mutates_args=(), device_types="cpu")
def sparse_max_gradient(grad: Tensor, argmax: Tensor, reverse: Tensor) -> Tensor:
    """Gradient of `sparse_max` by its features: grad, argmax (N_out, C), reverse (N_in, V) -> (N_in, C)."""
    from sparse3d_ops.cpu import sparse_pool as body

    _check_gradient(grad, argmax, reverse)
    g = working(grad)
    out = g.new_empty(reverse.shape[0], g.shape[1])
    body.maximum_gradient(g.numpy(), argmax.contiguous().numpy(), reverse.contiguous().numpy(), out.numpy())
    return out.to(grad.dtype)


@sparse_max_gradient.register_kernel("cuda")
def _(grad: Tensor, argmax: Tensor, reverse: Tensor) -> Tensor:
    from sparse3d_ops.gpu import sparse_pool as body

    _check_gradient(grad, argmax, reverse)
    g = working(grad)
    out = g.new_empty(reverse.shape[0], g.shape[1])
    body.maximum_gradient(g, argmax.contiguous(), reverse.contiguous(), out)
    return out.to(grad.dtype)


def _check_gradient(grad: Tensor, argmax: Tensor, reverse: Tensor) -> None:
    check_tensor("grad", grad, ("N_out", "C"), FLOATS)
    check_tensor("argmax", argmax, tuple(grad.shape), (torch.int32,))
    check_tensor("reverse", reverse, ("N_in", "V"), (torch.int32,))
    check_same_device(("grad", grad), ("argmax", argmax), ("reverse", reverse))
    check_range("reverse", reverse, -1, grad.shape[0])


@sparse_max_gradient.register_fake
def _(grad, argmax, reverse):
    return grad.new_empty(reverse.shape[0], grad.shape[1])


def _save(ctx, inputs, output):
    ctx.save_for_backward(output[1], inputs[2])
    ctx.mark_non_differentiable(output[1])


def _backward(ctx, grad, _):
    return sparse_max_gradient(grad, *ctx.saved_tensors), None, None


sparse_max.register_autograd(_backward, setup_context=_save)
