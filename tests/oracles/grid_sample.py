"""Trilinear sampling by the definition: every voxel weighs with its tent function, the product of max(0, 1 -
|d|).
"""

import math

import torch
from torch import Tensor


def sample(features: Tensor, coordinates: Tensor, positions: Tensor, position_batch: Tensor) -> Tensor:
    """(N, C), (N, 4), (Q, 3), (Q,) -> (Q, C), by plain torch: autograd gives the gradients."""
    centres = coordinates[:, 1:] + 0.5
    tent = (1 - (positions[:, None] - centres).abs()).clamp_min(0).prod(2)
    return (tent * (position_batch[:, None] == coordinates[:, 0])) @ features


def voxels_of_table(slot_keys: Tensor, slot_rows: Tensor) -> dict[tuple[int, ...], int]:
    """(batch, x, y, z) -> row. Keys: 1 valid bit | 9 bits batch | 3 x 18 bits of x, y, z with an offset of
    2^17."""
    row_of = {}
    for key, row in zip(slot_keys.tolist(), slot_rows.tolist(), strict=True):
        if key:
            bits = key % 2**64 - 2**63
            batch, x, y, z = bits >> 54, (bits >> 36) % 2**18, (bits >> 18) % 2**18, bits % 2**18
            row_of[batch, x - 2**17, y - 2**17, z - 2**17] = row
    return row_of


def corner_rows(slot_keys: Tensor, slot_rows: Tensor, positions: Tensor, position_batch: Tensor) -> Tensor:
    row_of = voxels_of_table(slot_keys, slot_rows)
    corners = torch.full((len(positions), 8), -1)
    for q, (position, batch) in enumerate(zip(positions.tolist(), position_batch.tolist(), strict=True)):
        if all(map(math.isfinite, position)):
            x, y, z = (math.floor(p - 0.5) for p in position)
            for k in range(8):
                corners[q, k] = row_of.get((batch, x + k // 4, y + k // 2 % 2, z + k % 2), -1)
    return corners


def trilinear_gather(features: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
    out = features.new_zeros(len(corners), features.shape[1])
    for q in range(len(corners)):
        for row, weight in zip(corners[q].tolist(), weights[q], strict=True):
            if row >= 0:
                out[q] += weight * features[row]
    return out


def trilinear_scatter(grad: Tensor, corners: Tensor, weights: Tensor, num_rows: int) -> Tensor:
    out = grad.new_zeros(num_rows, grad.shape[1])
    for q in range(len(corners)):
        for row, weight in zip(corners[q].tolist(), weights[q], strict=True):
            if row >= 0:
                out[row] += weight * grad[q]
    return out


def trilinear_dot(grad: Tensor, features: Tensor, corners: Tensor) -> Tensor:
    out = grad.new_zeros(corners.shape)
    for q in range(len(corners)):
        for k, row in enumerate(corners[q].tolist()):
            if row >= 0:
                out[q, k] = grad[q] @ features[row]
    return out
