"""Sparse convolution over a kernel map, with its gradients: one schema here, one body a device.

`table` (N_out, V) and `reverse` (N_in, V) are the two halves of a kernel map (see `kernel_map.py`). Weights
are (V, Cin / groups, Cout). float16 and bfloat16 are summed in float32. Results are bitwise repeatable:
output-stationary, no atomics; the weight gradient sums fixed slices in order. On the CPU that holds for any
number of threads, on CUDA for one choice of tiles (`gpu/autotune.py` says how to fix it).
"""

import math

import torch
from torch import Tensor

from sparse3d_ops.checks import FLOATS, check_range, check_same_device, check_tensor, working
from sparse3d_ops.memory import empty

# Slices of the weight gradient. Fixed by size, never by threads: this is what makes the sum repeatable.
MOST_SLICES = 8
SLICE_BYTES = 64 << 20


def _check(features: Tensor, weight: Tensor, table: Tensor, reverse: Tensor, groups: int) -> None:
    check_tensor("features", features, ("N_in", "Cin"), FLOATS)
    if groups < 1 or features.shape[1] % groups or weight.dim() == 3 and weight.shape[2] % groups:
        raise ValueError(
            f"groups is {groups}: it must divide the {features.shape[1]} input channels and the "
            f"{weight.shape[-1]} output channels"
        )
    check_tensor("table", table, ("N_out", "V"), (torch.int32,))
    check_tensor("weight", weight, (table.shape[1], features.shape[1] // groups, "Cout"), FLOATS)
    check_tensor("reverse", reverse, (features.shape[0], table.shape[1]), (torch.int32,))
    if features.dtype != weight.dtype:
        raise ValueError(
            f"features are {features.dtype}, weight is {weight.dtype}; use .to(dtype) on one of them"
        )
    check_same_device(("features", features), ("weight", weight), ("table", table), ("reverse", reverse))


def _check_entries(features: Tensor, table: Tensor) -> None:
    """Raise a ValueError for an entry that is no row of the features and not -1, a missing neighbour. The
    CPU's bodies look while they work, and this finds the words then. On CUDA the entries of a table are
    looked at once, not in each call: that would wait for the device."""
    check_range("table", table, -1, features.shape[0])


def _check_gradient(features: Tensor, grad: Tensor, table: Tensor, reverse: Tensor, groups: int):
    """The same for a weight gradient, and its shape."""
    check_tensor("table", table, ("N_out", "V"), (torch.int32,))
    check_tensor("grad", grad, (table.shape[0], "Cout"), FLOATS)
    check_tensor("features", features, ("N_in", "Cin"), FLOATS)
    shape = (table.shape[1], features.shape[1] // max(groups, 1), grad.shape[1])
    _check(features, grad.new_empty(1).expand(shape), table, reverse, groups)
    return shape


def _padded_columns(tensor: Tensor, lanes: int) -> Tensor:
    extra = -tensor.shape[-1] % lanes
    return torch.nn.functional.pad(tensor, (0, extra)) if extra else tensor


def _joined(width: int, groups: int, lanes: int) -> int:
    """How many neighbouring groups of `width` columns fill whole vectors; all of them where none do."""
    if groups == 1:
        return 1
    return next(
        m for m in range(1, groups + 1) if groups % m == 0 and (m * width % lanes == 0 or m == groups)
    )


def _join_groups(weight: Tensor, groups: int, join: int) -> Tensor:
    """Weights (V, depth, Cout) with each `join` groups made one, of blocks on a diagonal of zeros: (V, join *
    depth, Cout). A feature that is not finite spreads over the groups that are joined with its own."""
    volume, depth, width = weight.shape
    blocks = weight.reshape(volume, depth, groups // join, join, width // groups)
    wide = weight.new_zeros(volume, join, depth, groups // join, join, width // groups)
    wide.diagonal(dim1=1, dim2=4).copy_(blocks.permute(0, 1, 2, 4, 3))
    return wide.reshape(volume, join * depth, width)


def _split_groups(wide: Tensor, groups: int, join: int) -> Tensor:
    """The blocks of `_join_groups`: (V, join * depth, Cout) -> (V, depth, Cout)."""
    volume, depth, width = wide.shape[0], wide.shape[1] // join, wide.shape[2]
    blocks = wide.reshape(volume, join, depth, groups // join, join, width // groups)
    return blocks.diagonal(dim1=1, dim2=4).permute(0, 1, 2, 4, 3).reshape(volume, depth, width)


@torch.library.custom_op("sparse3d::sparse_conv", mutates_args=(), device_types="cpu")
def sparse_conv(features: Tensor, weight: Tensor, table: Tensor, reverse: Tensor, groups: int) -> Tensor:
    """out[o] = sum over taps v of features[table[o, v]] @ weight[v], group by group: -> (N_out, Cout)."""
    from sparse3d_ops.cpu import sparse_conv as body

    _check(features, weight, table, reverse, groups)
    outputs, width = table.shape[0], weight.shape[2]
    if 0 in (outputs, features.shape[0], *weight.shape):
        _check_entries(features, table)
        return features.new_zeros(outputs, width)
    x, w, pairs = working(features), working(weight), table.contiguous().numpy()
    if body.numba.config.DISABLE_JIT:  # pyright: ignore[reportPrivateImportUsage, reportAttributeAccessIssue]
        _check_entries(features, table)
        return _plain(x, w, table, groups).to(features.dtype)
    lanes, threads = body.VECTOR_BYTES // x.element_size(), body.numba.get_num_threads()
    if _is_narrow(w.shape, x.shape[1], groups, lanes):
        from sparse3d_ops.cpu import narrow_conv as narrow

        out = empty((outputs, width), x.dtype)
        right = narrow.convolve(x.numpy(), w.numpy(), pairs, threads, out.numpy())
    else:
        join = _joined(width // groups, groups, lanes)
        w = _padded_columns(_join_groups(w, groups, join) if join > 1 else w, lanes)
        out = empty((outputs, w.shape[2]), x.dtype)
        right = body.convolve(x.numpy(), w.numpy(), pairs, groups // join, threads, out.numpy())
    if not right:
        _check_entries(features, table)
    if out.shape[1] != width:
        out = out[:, :width].contiguous()
    return out.to(features.dtype)


def _is_narrow(shape: tuple[int, ...], channels: int, groups: int, lanes: int) -> bool:
    """Whether groups fit the bodies of `narrow_conv`: as wide in as out, and a vector holds whole ones."""
    if groups == 1:
        return False
    from sparse3d_ops.cpu.narrow_conv import WIDTHS

    _, depth, width = shape
    return width == channels and depth in WIDTHS and depth <= lanes


@sparse_conv.register_kernel("cuda")
def _(features: Tensor, weight: Tensor, table: Tensor, reverse: Tensor, groups: int) -> Tensor:
    from sparse3d_ops.gpu import sparse_conv as body

    _check(features, weight, table, reverse, groups)
    _check_entries(features, table)
    if 0 in (table.shape[0], features.shape[0], *weight.shape):
        return features.new_zeros(table.shape[0], weight.shape[2])
    return body.convolve(features, weight, table, groups)


@sparse_conv.register_fake
def _(features, weight, table, reverse, groups):
    return features.new_empty(table.shape[0], weight.shape[2])


@torch.library.custom_op("sparse3d::sparse_conv_weight_gradient", mutates_args=(), device_types="cpu")
def sparse_conv_weight_gradient(
    features: Tensor, grad: Tensor, table: Tensor, reverse: Tensor, groups: int
) -> Tensor:
    """Gradient of `sparse_conv` by its weight, given that by its output (N_out, Cout): -> (V, Cin /
    groups, Cout)."""
    from sparse3d_ops.cpu import sparse_conv as body

    shape = _check_gradient(features, grad, table, reverse, groups)
    volume, depth, width = shape
    if 0 in (features.shape[0], table.shape[0], *shape):
        _check_entries(features, table)
        return features.new_zeros(shape)
    x, g, pairs = working(features), working(grad), table.contiguous().numpy()
    if body.numba.config.DISABLE_JIT:  # pyright: ignore[reportPrivateImportUsage, reportAttributeAccessIssue]
        _check_entries(features, table)
        return _plain_weight_gradient(x, g, table, groups).to(features.dtype)
    lanes, join = body.VECTOR_BYTES // x.element_size(), 1
    if _is_narrow(shape, x.shape[1], groups, lanes):
        from sparse3d_ops.cpu import narrow_conv as narrow

        partial = _slices(x, shape)
        right = narrow.weight_gradient(x.numpy(), g.numpy(), pairs, partial.numpy())
    else:
        join = _joined(width // groups, groups, lanes)
        g = _padded_columns(g, lanes)
        partial = _slices(x, (volume, join * depth, g.shape[1]))
        right = body.weight_gradient(x.numpy(), g.numpy(), pairs, groups // join, partial.numpy())
    if not right:
        _check_entries(features, table)
    total = x.new_empty(volume, join * depth, width)
    body.add_slices(partial.flatten(1, 2).numpy(), total.flatten(0, 1).numpy())
    return (_split_groups(total, groups, join).contiguous() if join > 1 else total).to(features.dtype)


def _slices(x: Tensor, shape: tuple[int, ...]) -> Tensor:
    room = SLICE_BYTES // (math.prod(shape) * x.element_size())
    return x.new_empty(max(1, min(MOST_SLICES, room)), *shape)


@sparse_conv_weight_gradient.register_kernel("cuda")
def _(features: Tensor, grad: Tensor, table: Tensor, reverse: Tensor, groups: int) -> Tensor:
    from sparse3d_ops.gpu import weight_gradient as body

    shape = _check_gradient(features, grad, table, reverse, groups)
    _check_entries(features, table)
    if 0 in (features.shape[0], table.shape[0], *shape):
        return features.new_zeros(shape)
    return body.weight_gradient(features, grad, table, groups)


@sparse_conv_weight_gradient.register_fake
def _(features, grad, table, reverse, groups):
    return features.new_empty(table.shape[1], features.shape[1] // groups, grad.shape[1])


def _plain(x: Tensor, weight: Tensor, table: Tensor, groups: int) -> Tensor:
    """`sparse_conv` in torch, a tap at a time: for a machine or a debugger that runs no compiled code."""
    out = x.new_zeros(len(table), groups, weight.shape[2] // groups)
    for tap, rows in zip(weight.unflatten(2, (groups, -1)), table.T, strict=True):
        found = rows >= 0
        inputs = x[rows[found].long()].unflatten(1, (groups, -1))
        out[found] += torch.einsum("ngi,igo->ngo", inputs, tap)
    return out.flatten(1)


def _plain_weight_gradient(x: Tensor, grad: Tensor, table: Tensor, groups: int) -> Tensor:
    """`sparse_conv_weight_gradient` in torch, a tap at a time."""
    taps = []
    for rows in table.T:
        found = rows >= 0
        inputs = x[rows[found].long()].unflatten(1, (groups, -1))
        taps.append(torch.einsum("ngi,ngo->igo", inputs, grad[found].unflatten(1, (groups, -1))))
    return torch.stack(taps).flatten(2)


def _transposed(weight: Tensor, groups: int) -> Tensor:
    """Weights of the input gradient: (V, Cin / groups, Cout) -> (V, Cout / groups, Cin)."""
    volume, depth, width = weight.shape
    blocks = weight.reshape(volume, depth, groups, width // groups)
    return blocks.permute(0, 3, 2, 1).reshape(volume, width // groups, groups * depth)


def _save(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:4])
    ctx.groups = inputs[4]


def _conv_backward(ctx, grad):
    features, weight, table, reverse = ctx.saved_tensors
    to_features = to_weight = None
    if ctx.needs_input_grad[0]:
        to_features = sparse_conv(grad, _transposed(weight, ctx.groups), reverse, table, ctx.groups)
    if ctx.needs_input_grad[1]:
        to_weight = sparse_conv_weight_gradient(features, grad, table, reverse, ctx.groups)
    return to_features, to_weight, None, None, None


def _weight_gradient_backward(ctx, grad):
    # The weight gradient is linear in features and in the output gradient, so second derivatives are
    # convolutions.
    features, output_grad, table, reverse = ctx.saved_tensors
    to_features = to_output_grad = None
    if ctx.needs_input_grad[0]:
        to_features = sparse_conv(output_grad, _transposed(grad, ctx.groups), reverse, table, ctx.groups)
    if ctx.needs_input_grad[1]:
        to_output_grad = sparse_conv(features, grad, table, reverse, ctx.groups)
    return to_features, to_output_grad, None, None, None


sparse_conv.register_autograd(_conv_backward, setup_context=_save)
sparse_conv_weight_gradient.register_autograd(_weight_gradient_backward, setup_context=_save)
