"""Multi-head attention within sets of rows: each row looks at the rows of its own set.

`query`, `key`, `value` are (N, C), `heads` times C / heads channels side by side. `order` (N,) int64 and
`offsets` (S + 1,) int64 say that set s holds the rows order[offsets[s]:offsets[s + 1]], at most `set_size` of
them (see `windows.py`); each row is in one set. Nothing is padded or copied: the bodies fetch the rows of a
set, and write each row once. float16 and bfloat16 are summed in float32. Results are bitwise repeatable, on
the CPU for any number of threads: no atomics, a set has one owner.

The masked attention over padded slots of DSVT (arXiv 2301.06051, section 3.2) is the same function: a
repeated voxel is masked as a key, and of its outputs, which are equal, one is kept. `padded_set_attention` is
that form, with torch's own attention.
"""

import torch
from torch import Tensor

from sparse3d_ops.checks import (
    FLOATS,
    check_range,
    check_same_device,
    check_tensor,
    remember,
    remembered,
    working,
)


def _check(query: Tensor, key: Tensor, value: Tensor, order: Tensor, offsets: Tensor, size: int, heads: int):
    check_tensor("query", query, ("N", "C"), FLOATS)
    for name, tensor in (("key", key), ("value", value)):
        check_tensor(name, tensor, tuple(query.shape), FLOATS)
        if tensor.dtype != query.dtype:
            raise ValueError(
                f"{name} is {tensor.dtype}, query is {query.dtype}; use .to(dtype) on one of them"
            )
    check_tensor("order", order, (query.shape[0],), (torch.int64,))
    check_tensor("offsets", offsets, ("S + 1",), (torch.int64,))
    check_same_device(
        ("query", query), ("key", key), ("value", value), ("order", order), ("offsets", offsets)
    )
    if heads < 1 or query.shape[1] % heads or query.shape[1] == 0:
        raise ValueError(f"heads is {heads}, it must divide the {query.shape[1]} channels")
    if remembered(order, "sets of") == (len(order), size):
        return
    check_range("order", order, 0, len(order))
    if len(order) and int(torch.bincount(order, minlength=len(order)).max()) > 1:
        raise ValueError("order names a row twice; each row is in one set")
    lengths = offsets.diff()
    if len(offsets) < 1 or int(offsets[0]) != 0 or int(offsets[-1]) != len(order):
        raise ValueError(f"offsets must begin with 0 and end with {len(order)}, the number of rows")
    if len(lengths) and not 0 <= int(lengths.min()) <= int(lengths.max()) <= size:
        raise ValueError(
            f"offsets make sets of {lengths.min()} to {lengths.max()} rows, expected 0 to {size}"
        )
    remember(order, "sets of", (len(order), size))


def set_attention(
    query: Tensor, key: Tensor, value: Tensor, order: Tensor, offsets: Tensor, set_size: int, heads: int
) -> Tensor:
    """softmax(q k^T / sqrt(C / heads)) v within each set and head: (N, C), in the rows' own order."""
    return attend(query, key, value, order, offsets, set_size, heads)[0]


@torch.library.custom_op("sparse3d::set_attention", mutates_args=(), device_types="cpu")
def attend(
    query: Tensor, key: Tensor, value: Tensor, order: Tensor, offsets: Tensor, set_size: int, heads: int
) -> tuple[Tensor, Tensor]:
    """`set_attention`, and the logarithm of the sum of exponentials of each row and head (N, heads), float32
    at least."""
    from numba.core import config

    from sparse3d_ops.cpu import set_attention as body

    _check(query, key, value, order, offsets, set_size, heads)
    q, k, v = working(query), working(key), working(value)
    if config.DISABLE_JIT:  # pyright: ignore[reportAttributeAccessIssue]
        out, lse = _plain(q, k, v, order, offsets, heads)
        return out.to(query.dtype), lse
    out, lse = torch.empty_like(q), q.new_empty(len(q), heads)
    tensors = [q, k, v, order.contiguous(), offsets.contiguous(), _scale(q, heads), out, lse]
    body.attend(heads, set_size, *(x.numpy() for x in tensors))
    return out.to(query.dtype), lse


def _scale(query: Tensor, heads: int) -> Tensor:
    """1 / sqrt(channels of a head), as a tensor of one in the type of sums."""
    wide = torch.promote_types(query.dtype, torch.float32)
    return torch.full((1,), (query.shape[1] // heads) ** -0.5, dtype=wide, device=query.device)


def _heads_of(x: Tensor, rows: Tensor, heads: int) -> Tensor:
    """(heads, rows, channels) of a set."""
    return x[rows].reshape(len(rows), heads, -1).transpose(0, 1)


def _sets(order: Tensor, offsets: Tensor) -> list[Tensor]:
    return [rows for rows in order.tensor_split(offsets[1:-1]) if len(rows)] if len(offsets) > 1 else []


def _plain(q: Tensor, k: Tensor, v: Tensor, order: Tensor, offsets: Tensor, heads: int):
    """Set by set, for a numba that does not compile."""
    out, lse = torch.empty_like(q), q.new_empty(len(q), heads)
    for rows in _sets(order, offsets):
        scores = _heads_of(q, rows, heads) * _scale(q, heads) @ _heads_of(k, rows, heads).mT
        out[rows] = (scores.softmax(2) @ _heads_of(v, rows, heads)).transpose(0, 1).flatten(1)
        lse[rows] = scores.logsumexp(2).T
    return out, lse


def _plain_backward(inputs: list[Tensor], order: Tensor, offsets: Tensor, heads: int) -> list[Tensor]:
    scale = _scale(inputs[1], heads)
    gradients = [torch.empty_like(inputs[1]) for _ in range(3)]
    for rows in _sets(order, offsets):
        grad, q, k, v, lse, delta = (_heads_of(x, rows, heads) for x in inputs)
        weights = (q * scale @ k.mT - lse).exp()
        slopes = weights * (grad @ v.mT - delta) * scale
        for into, found in zip(gradients, (slopes @ k, slopes.mT @ q, weights.mT @ grad), strict=True):
            into[rows] = found.transpose(0, 1).flatten(1)
    return gradients


@attend.register_kernel("cuda")
def _(query, key, value, order, offsets, set_size, heads):
    from sparse3d_ops.gpu import set_attention as body

    _check(query, key, value, order, offsets, set_size, heads)
    q, k, v = (x.detach().contiguous() for x in (query, key, value))
    out = torch.empty_like(q)
    lse = q.new_empty(len(q), heads, dtype=torch.promote_types(q.dtype, torch.float32))
    sets = order.contiguous(), offsets.contiguous()
    body.attend(heads, set_size, q, k, v, *sets, _scale(q, heads), out, lse)
    return out, lse


@attend.register_fake
def _(query, key, value, order, offsets, set_size, heads):
    wide = torch.promote_types(query.dtype, torch.float32)
    return query.new_empty(query.shape), query.new_empty(query.shape[0], heads, dtype=wide)


@torch.library.custom_op("sparse3d::set_attention_backward", mutates_args=(), device_types="cpu")
def attend_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    lse: Tensor,
    delta: Tensor,
    order: Tensor,
    offsets: Tensor,
    set_size: int,
    heads: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients by query, key and value. `delta` (N, heads), in the type of `lse`: the sum of grad * out over
    a head's channels, less the gradient by lse."""
    from numba.core import config

    from sparse3d_ops.cpu import set_attention as body

    _check(query, key, value, order, offsets, set_size, heads)
    _check_gradient(grad, query, lse, delta, heads)
    if config.DISABLE_JIT:  # pyright: ignore[reportAttributeAccessIssue]
        inputs = [working(x) for x in (grad, query, key, value, lse, delta)]
        dq, dk, dv = (x.to(query.dtype) for x in _plain_backward(inputs, order, offsets, heads))
        return dq, dk, dv
    inputs = [working(x) for x in (grad, query, key, value, lse, delta)]
    inputs += [order.contiguous(), offsets.contiguous(), _scale(query, heads)]
    outputs = [torch.empty_like(inputs[0]) for _ in range(3)]
    body.attend_backward(heads, set_size, *(x.numpy() for x in inputs + outputs))
    dq, dk, dv = (x.to(query.dtype) for x in outputs)
    return dq, dk, dv


def _check_gradient(grad: Tensor, query: Tensor, lse: Tensor, delta: Tensor, heads: int) -> None:
    wide = torch.promote_types(query.dtype, torch.float32)
    check_tensor("grad", grad, tuple(query.shape), (query.dtype,))
    for name, tensor in (("lse", lse), ("delta", delta)):
        check_tensor(name, tensor, (query.shape[0], heads), (wide,))
    check_same_device(("grad", grad), ("query", query), ("lse", lse), ("delta", delta))


@attend_backward.register_kernel("cuda")
def _(grad, query, key, value, lse, delta, order, offsets, set_size, heads):
    from sparse3d_ops.gpu import set_attention as body

    _check(query, key, value, order, offsets, set_size, heads)
    _check_gradient(grad, query, lse, delta, heads)
    inputs = [x.detach().contiguous() for x in (grad, query, key, value, lse, delta, order, offsets)]
    dq, dk, dv = outputs = [torch.empty_like(inputs[1]) for _ in range(3)]
    body.attend_backward(heads, set_size, *inputs, *[_scale(query, heads), *outputs])
    return dq, dk, dv


@attend_backward.register_fake
def _(grad, query, key, value, lse, delta, order, offsets, set_size, heads):
    return query.new_empty(query.shape), query.new_empty(query.shape), query.new_empty(query.shape)


def _setup(ctx, inputs, output):
    query, key, value, order, offsets, ctx.set_size, ctx.heads = inputs
    out, lse = output
    ctx.save_for_backward(query, key, value, order, offsets, out, lse)


def _backward(ctx, grad, grad_lse):
    query, key, value, order, offsets, out, lse = ctx.saved_tensors
    shape = lse.shape[0], ctx.heads, query.shape[1] // ctx.heads
    products = (grad.to(lse.dtype) * out.to(lse.dtype)).reshape(shape)
    delta = products.sum(2) - grad_lse
    sets = order, offsets, ctx.set_size, ctx.heads
    gradients = attend_backward(grad.contiguous(), query, key, value, lse, delta.contiguous(), *sets)
    return *gradients, None, None, None, None


attend.register_autograd(_backward, setup_context=_setup)


def padded_set_attention(
    query: Tensor, key: Tensor, value: Tensor, slots: Tensor, repeated: Tensor, heads: int
) -> Tensor:
    """`set_attention` by torch's `scaled_dot_product_attention` over padded slots (`windows.padded_sets`)."""

    def heads_of(x: Tensor) -> Tensor:
        return x[slots].unflatten(2, (heads, -1)).transpose(1, 2)  # (S, heads, set_size, C / heads)

    seen = ~repeated[:, None, None, :]
    found = torch.nn.functional.scaled_dot_product_attention(
        heads_of(query), heads_of(key), heads_of(value), attn_mask=seen
    )
    out = torch.empty_like(query)
    # A voxel's first slot is the one that repeats none.
    out[slots[~repeated]] = found.transpose(1, 2).flatten(2)[~repeated]
    return out
