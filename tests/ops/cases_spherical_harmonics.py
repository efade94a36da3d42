"""Spherical harmonics under the law suite."""

import torch
from torch.nn.functional import normalize

from sparse3d_ops import spherical_harmonics as sh
from tests.ops.laws import OpLaw
from tests.oracles import spherical_harmonics as oracle


def _unit(count):
    return lambda dtype: normalize(torch.randn(count, 3, dtype=torch.float64), dim=1).to(dtype)


def _axes(dtype):
    """Poles and the directions along and between the axes, negative ones too, and no direction at all."""
    axis = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    return normalize(torch.cartesian_prod(axis, axis, axis), dim=1).to(dtype)


DIRECTIONS = {
    "empty": _unit(0),
    "single": _unit(1),
    "duplicate": lambda dtype: _unit(1)(dtype).expand(5, 3),
    "border": _axes,
    "long_and_short": lambda dtype: torch.randn(7, 3, dtype=dtype),
    "chunks": _unit(1100),
}


def _cases(make):
    """Every set of directions at one degree, and every degree."""
    cases = {name: make(directions, 2 + k % 3) for k, (name, directions) in enumerate(DIRECTIONS.items())}
    return cases | {f"degree_{degree}": make(_unit(9), degree) for degree in range(5)}


def _basis(directions, degree):
    return lambda dtype, device: (directions(dtype).to(device), degree)


def _slope(directions, degree):
    def make(dtype, device):
        d = directions(dtype)
        return torch.randn(len(d), (degree + 1) ** 2, dtype=dtype).to(device), d.to(device)

    return make


def _colors(directions, degree):
    def make(dtype, device):
        d = directions(dtype)
        return torch.randn(len(d), (degree + 1) ** 2, 3, dtype=dtype).to(device), d.to(device)

    return make


def _spread(directions, degree):
    def make(dtype, device):
        d = directions(dtype)
        return torch.randn(len(d), 2, dtype=dtype).to(device), d.to(device), degree

    return make


def _law(op, make, differentiable):
    cases = _cases(make)
    small = tuple(name for name in cases if name != "chunks")  # gradcheck takes a step for each number
    return OpLaw(op, getattr(oracle, op._name), cases, differentiable, gradient_cases=small)


LAWS = [
    _law(sh.sh_basis, _basis, (0,)),
    _law(sh.sh_slope, _slope, (0, 1)),
    _law(sh.sh_colors, _colors, (0, 1)),
    _law(sh.sh_spread, _spread, (0, 1)),
]
