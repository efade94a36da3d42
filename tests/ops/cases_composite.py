"""Volume rendering along packed rays under the law suite."""

import torch

from sparse3d_ops import composite
from tests.ops.laws import OpLaw
from tests.oracles import composite as oracle


def starts(lengths):
    return torch.tensor([0, *torch.tensor(lengths).cumsum(0).tolist()] if lengths else [0])


def _samples(lengths, channels, stop=0.0, scale=1.0):
    def make(dtype, device):
        ray_starts = starts(lengths)
        count = int(ray_starts[-1])
        sigma = torch.rand(count, dtype=dtype) * 5 * scale
        values, dt = torch.randn(count, channels, dtype=dtype), torch.rand(count, dtype=dtype) * 0.4
        return sigma.to(device), values.to(device), dt.to(device), ray_starts.to(device), stop

    return make


def _opaque(dtype, device):
    # Nothing gets through some samples: no division by what is left, no NaN.
    args = list(_samples([4, 3, 1], 2)(dtype, device))
    args[0] = args[0].clone()
    args[0][[1, 4, 7]] = 1e4
    return tuple(args)


def _clear(dtype, device):
    # Densities of zero, and so small that 1 - exp(-x) would round to nothing.
    args = list(_samples([4, 3], 2)(dtype, device))
    args[0] = torch.tensor([0, 1e-9, 0, 1e-9, 1e-12, 0, 1e-12], dtype=dtype, device=device)
    return tuple(args)


SAMPLES = {
    "empty": _samples([], 3),
    "no_samples": _samples([0, 0, 0], 3),
    "single": _samples([1], 1),
    "no_channels": _samples([2, 3], 0),
    "empty_rays": _samples([0, 4, 0, 0, 3, 1, 0], 3),
    "stopped": _samples([9, 0, 12, 5], 3, stop=0.3, scale=2.0),
    "opaque": _opaque,
    "clear": _clear,
    "wide": _samples([5, 4], 9),
}
SMALL = tuple(SAMPLES)
SAMPLES["long"] = _samples([700, 3, 300], 4, stop=1e-4, scale=0.02)


def _backward(case):
    def make(dtype, device):
        sigma, values, dt, ray_starts, stop = case(dtype, device)
        out, opacity, weights = (
            x.cpu() for x in composite.composite_samples(sigma, values, dt, ray_starts, stop)
        )
        grads = [torch.randn(x.shape, dtype=dtype).to(device) for x in (out, opacity, weights)]
        return *grads, values, weights.to(device), ray_starts, stop

    return make


# The definition goes from weights to depths, which takes that something gets through.
BACKWARDS = {name: _backward(case) for name, case in SAMPLES.items() if name not in ("opaque", "long")}


def _sum(case, reverse):
    def make(dtype, device):
        _, values, _, ray_starts, _ = case(dtype, device)
        return values.sum(1), ray_starts, reverse

    return make


SUMS = {
    f"{name}{'_reverse' * reverse}": _sum(SAMPLES[name], reverse)
    for name in ("empty", "no_samples", "single", "empty_rays", "long")
    for reverse in (False, True)
}
LAWS = [
    OpLaw(
        composite.composite_samples,
        oracle.composite,
        SAMPLES,
        differentiable=(0, 1, 2),
        gradient_cases=SMALL,
    ),
    OpLaw(composite.composite_backward, oracle.composite_backward, BACKWARDS),
    OpLaw(
        composite.running_sum, oracle.running_sum, SUMS, differentiable=(0,), gradient_cases=tuple(SUMS)[:8]
    ),
]
