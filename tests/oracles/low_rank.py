"""Products of planes and lines by the definition, one position at a time; autograd gives what is derived."""

import math

import torch
from torch import Tensor


def _between(place: Tensor, points: int) -> list[tuple[int, Tensor]]:
    """The two lattice points around a coordinate in [0, 1], and their weights."""
    at = place.clamp(0, 1) * (points - 1)
    cell = min(math.floor(float(at.detach())), points - 2)
    return [(cell, cell + 1 - at), (cell + 1, at - cell)]


def plane_line_products(planes: Tensor, lines: Tensor, positions: Tensor) -> Tensor:
    side = len(lines) // 3
    planes, lines = planes.reshape(3, side, side, -1), lines.reshape(3, side, -1)
    rows = []
    for position in positions:
        found = []
        for mode in range(3):
            first, second = (axis for axis in range(3) if axis != mode)
            plane = sum(
                u * v * planes[mode, i, j]
                for i, u in _between(position[first], side)
                for j, v in _between(position[second], side)
            )
            found.append(plane * sum(w * lines[mode, k] for k, w in _between(position[mode], side)))
        rows.append(torch.cat(found))
    return torch.stack(rows) if rows else planes.new_zeros(0, 3 * planes.shape[-1])


def _gradients(grad, planes, lines, positions):
    inputs = [tensor.detach().clone().requires_grad_() for tensor in (planes, lines, positions)]
    if not len(positions):
        return [torch.zeros_like(tensor) for tensor in inputs]
    with torch.enable_grad():
        return torch.autograd.grad((grad * plane_line_products(*inputs)).sum(), inputs)


def plane_line_table_gradients(grad, planes, lines, positions):
    return _gradients(grad, planes, lines, positions)[:2]


def plane_line_position_gradient(grad, planes, lines, positions):
    return _gradients(grad, planes, lines, positions)[2]
