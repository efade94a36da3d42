"""Multiresolution hash encoding by the definition, one corner at a time; autograd gives what is derived."""

import math

import torch
from torch import Tensor


def row_of(corner: tuple[int, int, int], resolution: int, size: int) -> int:
    """Row of a corner in its level."""
    x, y, z = corner
    side = resolution + 1
    if side**3 <= size:
        return x * side**2 + y * side + z
    return (x ^ (y * 2654435761 % 2**32) ^ (z * 805459861 % 2**32)) % size


def hash_encode(table: Tensor, positions: Tensor, resolutions, sizes, tangents: Tensor | None = None):
    if tangents is not None and len(positions):  # the derivative along them at t = 0
        moved = positions.detach().clone().requires_grad_()
        dual = torch.zeros(len(positions), len(sizes) * table.shape[1], dtype=table.dtype, requires_grad=True)
        with torch.enable_grad():
            product = (dual * hash_encode(table, moved, resolutions, sizes)).sum()
            slope = torch.autograd.grad(product, moved, create_graph=True)[0]
            return torch.autograd.grad((slope * tangents).sum(), dual)[0].detach()
    rows_of_points = []
    for position in positions:
        features, first = [], 0
        for resolution, size in zip(resolutions, sizes, strict=True):
            place = position.clamp(0, 1) * resolution
            cell = [min(math.floor(p), resolution - 1) for p in place.tolist()]
            total = torch.zeros(table.shape[1], dtype=table.dtype)
            for corner in [(i, j, k) for i in (0, 1) for j in (0, 1) for k in (0, 1)]:
                weight = torch.ones((), dtype=table.dtype)
                for axis in range(3):
                    upper = place[axis] - cell[axis]
                    weight = weight * (upper if corner[axis] else 1 - upper)
                at = tuple(c + d for c, d in zip(cell, corner, strict=True))
                total = total + weight * table[first + row_of(at, resolution, size)]
            features.append(total)
            first += size
        rows_of_points.append(torch.cat(features))
    width = len(sizes) * table.shape[1]
    return torch.stack(rows_of_points) if rows_of_points else table.new_zeros(0, width)


def hash_table_gradient(grad, positions, resolutions, sizes, tangents=None):
    # Linear in the table: its transpose is read off the derivative, entry by entry of one-hot tables.
    channels = grad.shape[1] // len(sizes)
    out = torch.zeros(sum(sizes), channels, dtype=grad.dtype)
    for row in range(sum(sizes)):
        table = torch.zeros(sum(sizes), channels, dtype=grad.dtype)
        table[row] = 1
        product = grad * hash_encode(table, positions, resolutions, sizes, tangents)
        out[row] = product.reshape(-1, len(sizes), channels).sum((0, 1))
    return out


def hash_position_gradient(table, grad, positions, resolutions, sizes, tangents=None):
    moved = positions.detach().clone().requires_grad_()
    with torch.enable_grad():
        product = (grad * hash_encode(table, moved, resolutions, sizes)).sum()
        if not len(positions):
            return torch.zeros_like(positions)
        slope = torch.autograd.grad(product, moved, create_graph=True)[0]
        if tangents is not None:
            slope = torch.autograd.grad((slope * tangents).sum(), moved)[0]
    return slope.detach()
