"""Sparse convolution by the definition: a loop over outputs, taps and groups."""

import torch
from torch import Tensor


def sparse_conv(features: Tensor, weight: Tensor, table: Tensor, reverse: Tensor, groups: int) -> Tensor:
    depth, width = weight.shape[1], weight.shape[2] // groups
    rows = []
    for neighbors in table.tolist():
        total = torch.zeros(weight.shape[2], dtype=features.dtype)
        for v, row in enumerate(neighbors):
            if row >= 0:
                parts = [
                    features[row, g * depth : (g + 1) * depth] @ weight[v, :, g * width : (g + 1) * width]
                    for g in range(groups)
                ]
                total = total + torch.cat(parts)
        rows.append(total)
    return torch.stack(rows) if rows else torch.zeros(0, weight.shape[2], dtype=features.dtype)


def sparse_conv_weight_gradient(features, grad, table, reverse, groups) -> Tensor:
    depth, width = features.shape[1] // groups, grad.shape[1] // groups
    out = torch.zeros(table.shape[1], depth, grad.shape[1], dtype=features.dtype)
    for o, neighbors in enumerate(table.tolist()):
        for v, row in enumerate(neighbors):
            for g in range(groups if row >= 0 else 0):
                columns = slice(g * width, (g + 1) * width)
                x = features[row, g * depth : (g + 1) * depth]
                out[v, :, columns] += torch.outer(x, grad[o, columns])
    return out
