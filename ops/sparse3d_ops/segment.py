"""Reductions over rows that share a segment id: one schema here, one body a device.

`values` are (N, C), `segment` is (N,) int64 in [0, num_segments). Every result is bitwise repeatable.
"""

import torch
from torch import Tensor

from sparse3d_ops.checks import FLOATS, check_range, check_same_device, check_tensor


def _check(values: Tensor, segment: Tensor, num_segments: int) -> None:
    check_tensor("values", values, ("N", "C"), FLOATS)
    check_tensor("segment", segment, (values.shape[0],), (torch.int64,))
    check_same_device(("values", values), ("segment", segment))
    check_range("segment", segment, 0, num_segments)


@torch.library.custom_op("sparse3d::segment_sum", mutates_args=(), device_types="cpu")
def segment_sum(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    """Sum of the rows of each segment: (N, C) float, (N,) int64 -> (num_segments, C). Empty segments are zero."""
    from sparse3d_ops.cpu import segment as body

    _check(values, segment, num_segments)
    work = values.detach().contiguous()
    work = work if work.dtype in (torch.float32, torch.float64) else work.float()
    offsets = torch.empty(num_segments + 1, dtype=torch.int64)
    order = torch.empty(len(segment), dtype=torch.int64)
    body.segment_offsets(segment.contiguous().numpy(), offsets.numpy(), order.numpy())
    out = work.new_empty(num_segments, values.shape[1])
    body.segment_sum(work.numpy(), offsets.numpy(), order.numpy(), out.numpy())
    return out.to(values.dtype)


@segment_sum.register_fake
def _(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    return values.new_empty(num_segments, values.shape[1])


def _segment_sum_setup(ctx, inputs, output):
    ctx.save_for_backward(inputs[1])


def _segment_sum_backward(ctx, grad):
    (segment,) = ctx.saved_tensors
    return grad[segment], None, None


segment_sum.register_autograd(_segment_sum_backward, setup_context=_segment_sum_setup)
