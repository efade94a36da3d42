"""Sampling from the weights of bins under the law suite."""

import torch

from sparse3d_ops import sampling
from tests.ops.cases_composite import starts
from tests.ops.laws import OpLaw
from tests.oracles import sampling as oracle


def _bins(lengths, count):
    def make(dtype, device):
        ray_starts = starts(lengths)
        total = int(ray_starts[-1])
        length = torch.rand(total, dtype=dtype) + 0.01
        begin, weights = length.cumsum(0) - length, torch.rand(total, dtype=dtype) + 0.01
        uniforms = torch.rand(len(lengths), count, dtype=dtype)
        return (*(x.to(device) for x in (begin, length, weights, ray_starts, uniforms)),)

    return make


def _odd(dtype, device):
    """Bins without weight at the ends and in between, no weight at all, weights that are none."""
    args = [x.clone() for x in _bins([5, 3, 1, 4], 6)(dtype, device)]
    args[2][[0, 2, 4, 5, 6, 7]] = 0
    args[2][9], args[2][10] = -3, torch.nan
    return tuple(args)


BINS = {
    "empty": _bins([], 3),
    "no_samples": _bins([2, 1], 0),
    "empty_rays": _bins([0, 3, 0, 1, 0], 4),
    "single": _bins([1], 1),
    "many": _bins([40, 9, 64], 50),
    "odd": _odd,
}
LAWS = [OpLaw(sampling.inverse_cdf, oracle.inverse_cdf, BINS)]
