"""Products of planes and lines under the law suite."""

import torch

from sparse3d_ops import low_rank as op
from tests.ops.laws import OpLaw
from tests.oracles import low_rank as oracle


def _border(dtype):  # on lattice points, on the border and beyond it
    axis = torch.tensor([-0.5, 0.0, 0.5, 1.0, 1.5], dtype=dtype)
    return torch.cartesian_prod(axis, axis, axis)[torch.randperm(125)[:20]]


# Points along an axis, components, positions.
POSITIONS = {
    "empty": (2, 2, lambda dtype: torch.rand(0, 3, dtype=dtype)),
    "single": (2, 1, lambda dtype: torch.rand(1, 3, dtype=dtype)),
    "some": (4, 3, lambda dtype: torch.rand(9, 3, dtype=dtype)),
    "wide": (3, 9, lambda dtype: torch.rand(3, 3, dtype=dtype)),
    "outside": (3, 2, lambda dtype: 3 * torch.rand(6, 3, dtype=dtype) - 1),
    "duplicate": (3, 2, lambda dtype: torch.rand(1, 3, dtype=dtype).expand(5, 3).contiguous()),
    "border": (5, 2, _border),
}
# Slopes jump on the faces of cells, and two sides of them round apart.
SMOOTH = tuple(name for name in POSITIONS if name != "border")


def _make(name, with_grad):
    side, channels, positions = POSITIONS[name]

    def make(dtype, device):
        place = positions(dtype)
        planes, lines = (
            torch.randn(3 * side**2, channels, dtype=dtype),
            torch.randn(3 * side, channels, dtype=dtype),
        )
        grad = torch.randn(len(place), 3 * channels, dtype=dtype)
        inputs = [grad, planes, lines, place] if with_grad else [planes, lines, place]
        return tuple(tensor.to(device) for tensor in inputs)

    return make


def _law(function, with_grad, differentiable=()):
    cases = {name: _make(name, with_grad) for name in POSITIONS}
    return OpLaw(function, getattr(oracle, function._name), cases, differentiable, gradient_cases=SMOOTH)


LAWS = [
    _law(op.plane_line_products, False, (0, 1, 2)),
    _law(op.plane_line_table_gradients, True),
    _law(op.plane_line_position_gradient, True),
]
