"""Structural similarity by its definition: moments of each window, one by one, in torch so that its gradient
is torch's."""

import math

import torch

WINDOW = [[math.exp(-((i - 5) ** 2 + (j - 5) ** 2) / (2 * 1.5**2)) for j in range(11)] for i in range(11)]


def ssim_map(x, y):
    x, y = (torch.as_tensor(v, dtype=torch.float64) for v in (x, y))
    weights = torch.tensor(WINDOW, dtype=torch.float64)
    weights = weights / weights.sum()
    rows = []
    for i in range(x.shape[0] - 10):
        row = []
        for j in range(x.shape[1] - 10):
            a, b = (v[i : i + 11, j : j + 11].permute(2, 0, 1) for v in (x, y))
            mean_a, mean_b = ((weights * v).sum((1, 2)) for v in (a, b))
            off_a, off_b = a - mean_a[:, None, None], b - mean_b[:, None, None]
            var_a, var_b, both = ((weights * v).sum((1, 2)) for v in (off_a**2, off_b**2, off_a * off_b))
            over = (2 * mean_a * mean_b + 1e-4) * (2 * both + 9e-4)
            row.append(over / ((mean_a**2 + mean_b**2 + 1e-4) * (var_a + var_b + 9e-4)))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def ssim_slope(grad, x, y):
    x = torch.as_tensor(x, dtype=torch.float64).detach().clone().requires_grad_()
    with torch.enable_grad():
        total = (ssim_map(x, y) * torch.as_tensor(grad, dtype=torch.float64)).sum()
    return torch.autograd.grad(total, x)[0]
