"""A linear layer whose numbers do not depend on the number of threads."""

import torch
from torch import Tensor, nn

from sparse3d_ops.sparse_conv import sparse_conv


class RepeatableLinear(nn.Linear):
    """torch.nn.Linear on (N, C) rows, the same bits for any number of threads, gradients of first and second
    order included.

    The CPU libraries below torch cut products of some small widths by the number of threads. Here rows go
    through the sparse convolution of one tap, which never does and is as fast. A bias needs two outputs at
    least: torch would cut the sum for its gradient. On CUDA it is torch's layer, which repeats.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = True):
        if bias and out_features == 1:
            raise ValueError("the gradient of a single bias is not repeatable: use bias=False or two outputs")
        super().__init__(in_features, out_features, bias)

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type != "cpu":
            return super().forward(input)
        rows = torch.arange(len(input), dtype=torch.int32)[:, None]
        out = sparse_conv(input, self.weight.t()[None], rows, rows, 1)
        return out if self.bias is None else out + self.bias
