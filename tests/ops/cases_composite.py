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


def _trio(case, *parts):
    """Of a case of samples: weights (S,), values (S, C) or rays (R, C), and ray_starts."""

    def make(dtype, device):
        weights, values, _, ray_starts, _ = case(dtype, device)
        rays = torch.randn(len(ray_starts) - 1, values.shape[1], dtype=dtype).to(device)
        found = {"weights": weights, "values": values, "rays": rays}
        return *(found[part] for part in parts), ray_starts

    return make


def _trios(*parts):
    return {name: _trio(case, *parts) for name, case in SAMPLES.items() if name not in ("opaque", "clear")}


TRIO_CASES = tuple(name for name in _trios() if name != "long")


def _spread(case, far=1.0):
    def make(dtype, device):
        weights, _, dt, ray_starts, _ = case(dtype, device)
        t = torch.cat([torch.zeros(1, dtype=dtype, device=device), dt.cumsum(0)])[:-1] + far
        return weights * 0.1, t[: len(dt)], dt, ray_starts

    return make


SPREADS = {
    name: _spread(SAMPLES[name])
    for name in ("empty", "no_samples", "single", "empty_rays", "stopped", "wide", "long")
}
FEW = tuple(name for name in SPREADS if name != "long")


def _with_grad(case):
    def make(dtype, device):
        args = case(dtype, device)
        return torch.randn(len(args[3]) - 1, dtype=dtype).to(device), *args

    return make


SPREADS_BACK = {name: _with_grad(SPREADS[name]) for name in SPREADS}
LAWS = [
    OpLaw(
        composite.composite_samples,
        oracle.composite,
        SAMPLES,
        differentiable=(0, 1, 2),
        gradient_cases=SMALL,
    ),
    OpLaw(
        composite.composite_backward,
        oracle.composite_backward,
        BACKWARDS,
        differentiable=(0, 1, 2, 3, 4),
    ),
    OpLaw(
        composite.running_sum, oracle.running_sum, SUMS, differentiable=(0,), gradient_cases=tuple(SUMS)[:8]
    ),
    *(
        OpLaw(op, definition, _trios(*parts), differentiable=(0, 1), gradient_cases=TRIO_CASES)
        for op, definition, parts in (
            (composite.accumulate, oracle.accumulate, ("weights", "values")),
            (composite.ray_dot, oracle.ray_dot, ("rays", "values")),
            (composite.ray_scale, oracle.ray_scale, ("rays", "weights")),
        )
    ),
    OpLaw(composite.distortion, oracle.distortion, SPREADS, differentiable=(0, 1, 2), gradient_cases=FEW),
    OpLaw(
        composite.distortion_backward,
        oracle.distortion_backward,
        SPREADS_BACK,
        differentiable=(0, 1, 2, 3),
        gradient_cases=FEW,
    ),
]
