"""Max pooling over a kernel map by the definition."""

import torch


def sparse_max(features, table, reverse):
    out = torch.zeros(table.shape[0], features.shape[1], dtype=features.dtype)
    argmax = torch.full(out.shape, -1, dtype=torch.int32)
    for o, rows in enumerate(table.tolist()):
        for c in range(features.shape[1]):
            # The first of equal values: max() keeps the earliest, and taps come in ascending order.
            candidates = [(features[row, c].item(), row) for row in rows if row >= 0]
            if candidates:
                best = max(value for value, _ in candidates)
                row = next(row for value, row in candidates if value == best)
                out[o, c], argmax[o, c] = features[row, c], row
    return out, argmax


def sparse_max_gradient(grad, argmax, reverse):
    out = torch.zeros(reverse.shape[0], grad.shape[1], dtype=grad.dtype)
    for o in range(grad.shape[0]):
        for c in range(grad.shape[1]):
            if argmax[o, c] >= 0:
                out[argmax[o, c], c] += grad[o, c]
    return out
