"""The segment reductions under the law suite."""

import torch
from sparse3d_ops import segment

from tests.oracles import segment as oracle
from tests.ops.laws import OpLaw


def _case(rows, channels, segments):
    def make(dtype, device):
        return (
            torch.randn(rows, channels, dtype=dtype).to(device),
            torch.randint(0, segments, (rows,)).to(device),
            segments,
        )

    return make


CASES = {
    "empty": lambda dtype, device: (
        torch.zeros(0, 3, dtype=dtype, device=device),
        torch.zeros(0, dtype=torch.int64, device=device),
        2,
    ),
    "single": _case(1, 3, 1),
    "duplicate": _case(40, 5, 3),
    "with_empty_segments": _case(7, 2, 11),
}
LAWS = [OpLaw(segment.segment_sum, oracle.segment_sum, CASES, differentiable=(0,))]
