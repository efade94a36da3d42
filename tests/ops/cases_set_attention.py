"""Attention within sets under the law suite."""

import torch

from sparse3d_ops import set_attention
from tests.ops.laws import OpLaw
from tests.oracles import set_attention as oracle


def _case(lengths, channels, heads, scale=1.0):
    def make(dtype, device):
        rows = sum(lengths)
        inputs = [scale * torch.randn(rows, channels, dtype=dtype) for _ in range(3)]
        offsets = torch.tensor([0, *lengths]).cumsum(0)
        order = torch.randperm(rows)
        size = max(lengths, default=1)
        return *(x.to(device) for x in (*inputs, order, offsets)), size, heads

    return make


CASES = {
    "empty": _case([], 4, 2),
    "no_rows": _case([0, 0], 4, 2),
    "single": _case([1], 6, 3),
    "empty_sets": _case([3, 0, 2], 4, 1),
    "uneven": _case([5, 1, 8, 3], 12, 2),
    "odd_channels": _case([4, 6], 15, 3),
    "vectors": _case([16, 17], 10, 1),
}
SMALL = tuple(CASES)
# Left out of gradcheck, which takes a step for each value. "long": more than one block of the GPU.
CASES["long"] = _case([70, 33], 24, 2)
CASES["large_scores"] = _case([9, 12], 16, 2, scale=6.0)
LAWS = [OpLaw(set_attention.attend, oracle.set_attention, CASES, (0, 1, 2), gradient_cases=SMALL)]
