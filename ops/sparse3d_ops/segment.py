"""Reductions over rows that share a segment id, and the way back: one schema here, one body a device.

`values` are (N, C) float, `segment` is (N,) int64 in [0, num_segments). Half precision is computed in
float32. Every result is bitwise repeatable, for any number of threads; segment ids that are sorted already
are the fastest.
"""

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops.checks import FLOATS, check_range, check_same_device, check_tensor, working
from sparse3d_ops.memory import empty


def _check(values: Tensor, segment: Tensor, num_segments: int) -> None:
    check_tensor("values", values, ("N", "C"), FLOATS)
    check_tensor("segment", segment, (values.shape[0],), (torch.int64,))
    check_same_device(("values", values), ("segment", segment))
    if num_segments < 0:
        raise ValueError(f"num_segments is {num_segments}, expected 0 or more")


def _sorted_rows(segment: Tensor, num_segments: int):
    """offsets (S + 1,) and order (N,), or an empty order when the rows are sorted already: see the bodies."""
    from sparse3d_ops.cpu import segment as body

    if len(segment) >= 1 << 31:
        raise ValueError(f"{len(segment)} rows, at most 2^31 - 1 are handled at once")
    offsets = np.empty(num_segments + 1, np.int64)
    ids = segment.contiguous().numpy()
    if len(ids) <= body.FEW:
        order = np.empty(len(ids), np.int32)
        state = body.sort_few(ids, offsets, order)
        if state < 0:
            check_range("segment", segment, 0, num_segments)
        return offsets, order[: len(ids) * state]
    order = np.empty(0, np.int32)
    if len(ids):
        low, high, falls = body.look(ids)
        if low < 0 or high >= num_segments:
            check_range("segment", segment, 0, num_segments)
        if falls:
            from sparse3d_ops.cpu import radix

            ids, order, _ = radix.sort_cells(ids.copy(), (num_segments - 1).bit_length())
    body.segment_offsets(ids, offsets)
    return offsets, order


def _sorted_rows_gpu(segment: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """offsets (S + 1,) and order (N,) of ids that were looked at: see `gpu.segment.sorted_rows`."""
    from sparse3d_ops.gpu import segment as body

    check_range("segment", segment, 0, num_segments)
    return body.sorted_rows(segment, num_segments)


@torch.library.custom_op("sparse3d::gather_rows", mutates_args=(), device_types="cpu")
def gather_rows(values: Tensor, rows: Tensor) -> Tensor:
    """`values[rows]`, repeatable both ways: (S, C) float, (N,) int64 -> (N, C). Row -1 gives zeros.

    Torch's own indexing sums its gradient with atomics, on a CPU too: where a row is taken more than once,
    its gradient would change from run to run.
    """
    from sparse3d_ops.cpu import segment as body

    _check_gather(values, rows)
    out = empty((len(rows), values.shape[1]), values.dtype)
    body.gather(_as_bits(values), rows.contiguous().numpy(), _as_bits(out))
    return out


def _check_gather(values: Tensor, rows: Tensor) -> None:
    check_tensor("values", values, ("S", "C"), FLOATS)
    check_tensor("rows", rows, ("N",), (torch.int64,))
    check_same_device(("values", values), ("rows", rows))
    check_range("rows", rows, -1, len(values))


def _as_bits(values: Tensor) -> np.ndarray:
    """The numbers as whole ones of their size: numpy has no bfloat16."""
    bits = {2: torch.int16, 4: torch.int32, 8: torch.int64}[values.element_size()]
    return values.detach().contiguous().view(bits).numpy()


@gather_rows.register_kernel("cuda")
def _(values: Tensor, rows: Tensor) -> Tensor:
    _check_gather(values, rows)
    if not len(values):
        return values.new_zeros(len(rows), values.shape[1])
    out = values.index_select(0, rows.clamp(min=0))
    return out.masked_fill_((rows < 0)[:, None], 0.0)


@gather_rows.register_fake
def _(values: Tensor, rows: Tensor) -> Tensor:
    return values.new_empty(rows.shape[0], values.shape[1])


def _gather_rows_setup(ctx, inputs, output):
    ctx.save_for_backward(inputs[1])
    ctx.size = inputs[0].shape[0]


def _gather_rows_backward(ctx, grad):
    (rows,) = ctx.saved_tensors
    return segment_sum(grad, rows + 1, ctx.size + 1)[1:], None


gather_rows.register_autograd(_gather_rows_backward, setup_context=_gather_rows_setup)


@torch.library.custom_op("sparse3d::segment_sum", mutates_args=(), device_types="cpu")
def segment_sum(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    """Sum of the rows of each segment: (N, C) float, (N,) int64 -> (num_segments, C). Empty segments are
    zero.
    """
    from sparse3d_ops.cpu import segment as body

    _check(values, segment, num_segments)
    work = working(values)
    out = empty((num_segments, values.shape[1]), work.dtype)
    body.segment_sum(work.numpy(), *_sorted_rows(segment, num_segments), out.numpy())
    return out.to(values.dtype)


@segment_sum.register_kernel("cuda")
def _(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    from sparse3d_ops.gpu import segment as body

    _check(values, segment, num_segments)
    work = working(values)
    out = work.new_empty(num_segments, values.shape[1])
    body.segment_sum(work, *_sorted_rows_gpu(segment, num_segments), out)
    return out.to(values.dtype)


@segment_sum.register_fake
def _(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    return values.new_empty(num_segments, values.shape[1])


def _save_segment(ctx, inputs, output):
    ctx.save_for_backward(inputs[1])


def _segment_sum_backward(ctx, grad):
    (segment,) = ctx.saved_tensors
    return gather_rows(grad, segment), None, None


segment_sum.register_autograd(_segment_sum_backward, setup_context=_save_segment)


@torch.library.custom_op("sparse3d::segment_mean", mutates_args=(), device_types="cpu")
def segment_mean(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    """Mean of the rows of each segment: (N, C) float, (N,) int64 -> (num_segments, C). Empty segments are
    zero.
    """
    from sparse3d_ops.cpu import segment as body

    _check(values, segment, num_segments)
    work = working(values)
    out = empty((num_segments, values.shape[1]), work.dtype)
    body.segment_mean(work.numpy(), *_sorted_rows(segment, num_segments), out.numpy())
    return out.to(values.dtype)


@segment_mean.register_kernel("cuda")
def _(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    from sparse3d_ops.gpu import segment as body

    _check(values, segment, num_segments)
    work = working(values)
    out = work.new_empty(num_segments, values.shape[1])
    body.segment_mean(work, *_sorted_rows_gpu(segment, num_segments), out)
    return out.to(values.dtype)


@segment_mean.register_fake
def _(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    return values.new_empty(num_segments, values.shape[1])


def _segment_mean_backward(ctx, grad):
    (segment,) = ctx.saved_tensors
    # Counted in float32 at least: half precision cannot count beyond 2048.
    count = torch.promote_types(grad.dtype, torch.float32)
    counts = segment_sum(grad.new_ones((len(segment), 1), dtype=count), segment, grad.shape[0])
    return gather_rows((grad / counts.clamp_min(1)).to(grad.dtype), segment), None, None


segment_mean.register_autograd(_segment_mean_backward, setup_context=_save_segment)


@torch.library.custom_op("sparse3d::segment_max", mutates_args=(), device_types="cpu")
def segment_max(values: Tensor, segment: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    """Largest value of each segment and channel, and its row: -> out (num_segments, C), argmax (num_segments,
    C) int64.

    The lowest row wins ties. NaN counts as larger than every number. An empty segment has value 0 and row -1.
    """
    from sparse3d_ops.cpu import segment as body

    _check(values, segment, num_segments)
    work = working(values)
    out = empty((num_segments, values.shape[1]), work.dtype)
    argmax = empty((num_segments, values.shape[1]), torch.int64)
    body.segment_max(work.numpy(), *_sorted_rows(segment, num_segments), out.numpy(), argmax.numpy())
    return out.to(values.dtype), argmax


@segment_max.register_kernel("cuda")
def _(values: Tensor, segment: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    from sparse3d_ops.gpu import segment as body

    _check(values, segment, num_segments)
    work = working(values)
    out = work.new_empty(num_segments, values.shape[1])
    argmax = segment.new_empty(out.shape)
    body.segment_max(work, *_sorted_rows_gpu(segment, num_segments), out, argmax)
    return out.to(values.dtype), argmax


@segment_max.register_fake
def _(values: Tensor, segment: Tensor, num_segments: int) -> tuple[Tensor, Tensor]:
    size = (num_segments, values.shape[1])
    return values.new_empty(size), values.new_empty(size, dtype=torch.int64)


def _segment_max_setup(ctx, inputs, output):
    ctx.save_for_backward(inputs[1], output[1])


def _segment_max_backward(ctx, grad, _):
    segment, argmax = ctx.saved_tensors
    # A row lies in one segment only, so each row reads its gradient: no scatter.
    rows = torch.arange(len(segment), device=segment.device)[:, None]
    return torch.where(argmax[segment] == rows, gather_rows(grad, segment), 0), None, None


segment_max.register_autograd(_segment_max_backward, setup_context=_segment_max_setup)


@torch.library.custom_op("sparse3d::segment_softmax", mutates_args=(), device_types="cpu")
def segment_softmax(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    """Softmax over the rows of each segment, channel by channel: (N, C) float, (N,) int64 -> (N, C).

    The largest value is subtracted first, so nothing overflows. As in torch.softmax, a segment whose largest
    value is infinite or NaN gives NaN.
    """
    from sparse3d_ops.cpu import segment as body

    _check(values, segment, num_segments)
    work = working(values)
    rows = _sorted_rows(segment, num_segments)
    peak, total = work.new_empty(2, num_segments, values.shape[1]).numpy()
    argmax = empty((num_segments, values.shape[1]), torch.int64)
    body.segment_max(work.numpy(), *rows, peak, argmax.numpy())
    out = empty(work.shape, work.dtype)
    body.segment_softmax(work.numpy(), *rows, peak, total, out.numpy())
    return out.to(values.dtype)


@segment_softmax.register_kernel("cuda")
def _(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    from sparse3d_ops.gpu import segment as body

    _check(values, segment, num_segments)
    work = working(values)
    rows = _sorted_rows_gpu(segment, num_segments)
    peak, total = work.new_empty(2, num_segments, values.shape[1])
    body.segment_max(work, *rows, peak, segment.new_empty(peak.shape))
    out = torch.exp(work - peak[segment])
    body.segment_sum(out, *rows, total)
    return (out / total[segment]).to(values.dtype)


@segment_softmax.register_fake
def _(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    return values.new_empty(values.shape)


def _segment_softmax_setup(ctx, inputs, output):
    ctx.save_for_backward(output, inputs[1])
    ctx.num_segments = inputs[2]


def _segment_softmax_backward(ctx, grad):
    # d x_i = y_i (g_i - sum_j g_j y_j), j over the segment of i.
    y, segment = ctx.saved_tensors
    total = segment_sum(grad * y, segment, ctx.num_segments)
    return y * (grad - gather_rows(total, segment)), None, None


segment_softmax.register_autograd(_segment_softmax_backward, setup_context=_segment_softmax_setup)
