"""The multiresolution hash encoding under the law suite."""

import torch

from sparse3d_ops import hash_encoding as op
from tests.ops.laws import OpLaw
from tests.oracles import hash_encoding as oracle

LEVELS = {
    "dense": ([1, 2], [8, 27]),
    "roomy": ([2], [40]),  # more rows than corners
    "hashed": ([5, 9], [16, 8]),
    "both": ([1, 3, 5], [8, 64, 32]),
}


def _positions(count, border=False):
    def make(dtype):
        if border:  # on faces between cells, on the border and beyond it
            axis = torch.tensor([-0.5, 0.0, 0.25, 1.0, 1.5], dtype=dtype)
            return torch.cartesian_prod(axis, axis, axis)[torch.randperm(125)[:count]]
        return torch.rand(count, 3, dtype=dtype)

    return make


POSITIONS = {
    "empty": ("dense", _positions(0)),
    "single": ("dense", _positions(1)),
    "roomy": ("roomy", _positions(4)),
    "hashed": ("hashed", _positions(9)),
    "both": ("both", _positions(6)),
    "outside": ("hashed", lambda dtype: _positions(6)(dtype) * 3 - 1),
    "duplicate": ("hashed", lambda dtype: _positions(1)(dtype).expand(5, 3).contiguous()),
    "border": ("both", _positions(20, border=True)),
}
# Slopes jump on the faces of cells, and two sides of them round apart.
SMOOTH = tuple(name for name in POSITIONS if name != "border")


def _make(name, arrange, along):
    levels, positions = LEVELS[POSITIONS[name][0]], POSITIONS[name][1]

    def make(dtype, device):
        place = positions(dtype)
        table = torch.randn(sum(levels[1]), 2, dtype=dtype).to(device)
        grad = torch.randn(len(place), 2 * len(levels[1]), dtype=dtype).to(device)
        tangents = torch.randn(len(place), 3, dtype=dtype).to(device) if along else None
        return *arrange(table, grad), place.to(device), *levels, tangents

    return make


def _law(function, arrange, differentiable, along_differentiable):
    cases = {name: _make(name, arrange, False) for name in POSITIONS}
    along = {f"along_{name}": _make(name, arrange, True) for name in SMOOTH}
    smooth, smooth_along = SMOOTH, tuple(along)
    definition = getattr(oracle, function._name)
    return [
        OpLaw(function, definition, cases, differentiable, gradient_cases=smooth),
        OpLaw(function, definition, along, along_differentiable, gradient_cases=smooth_along),
    ]


LAWS = [
    *_law(op.hash_encode, lambda table, grad: (table,), (0, 1), (0, 1, 4)),
    *_law(op.hash_table_gradient, lambda table, grad: (grad,), (0, 1), (0, 1, 4)),
    *_law(op.hash_position_gradient, lambda table, grad: (table, grad), (0, 1, 2), (5,)),
]
