"""Structural similarity under the law suite."""

import torch

from sparse3d_ops import structural_similarity as ssim
from tests.ops.laws import OpLaw
from tests.oracles import structural_similarity as oracle


def _pictures(height, width, channels, likeness=0.7):
    def make(dtype, device):
        x = torch.rand(height, width, channels, dtype=dtype)
        y = likeness * x + (1 - likeness) * torch.rand(height, width, channels, dtype=dtype)
        return x.to(device), y.to(device)

    return make


def _equal(dtype, device):
    x, _ = _pictures(12, 12, 2)(dtype, device)
    return x, x.clone()


def _flat(dtype, device):
    # Nothing varies: only C2 keeps from dividing by zero.
    return tuple(torch.full((12, 13, 1), v, dtype=dtype, device=device) for v in (0.25, 0.5))


def _turned(dtype, device):
    # Memory in another order than (H, W, C).
    return tuple(v.permute(1, 0, 2) for v in _pictures(12, 14, 3)(dtype, device))


PAIRS = {
    "single": _pictures(11, 11, 1),
    "no_channels": _pictures(12, 11, 0),
    "border_wide": _pictures(11, 19, 3),
    "border_high": _pictures(18, 11, 2),
    "no_side_alike": _pictures(14, 17, 3),
    "unlike": _pictures(13, 13, 1, likeness=0.0),
    "equal": _equal,
    "flat": _flat,
    "turned": _turned,
    "large": _pictures(40, 37, 3),
}
SMALL = ("single", "border_wide", "no_side_alike", "equal", "flat")


def _with_grad(case):
    def make(dtype, device):
        x, y = case(dtype, device)
        inner = x.shape[0] - 10, x.shape[1] - 10, x.shape[2]
        return torch.randn(inner, dtype=dtype).to(device), x, y

    return make


# Of equal pictures the slope is 0, and what is found is rounding alone.
SLOPES = {name: _with_grad(case) for name, case in PAIRS.items() if name not in ("no_channels", "equal")}
LAWS = [
    # Variances are differences of means: 1e-7 of noise beside 9e-4.
    OpLaw(
        ssim.ssim_map,
        oracle.ssim_map,
        PAIRS,
        differentiable=(0, 1),
        tolerance=5e-4,
        gradient_cases=SMALL,
    ),
    OpLaw(ssim.ssim_slope, oracle.ssim_slope, SLOPES, tolerance=1e-3),
]
