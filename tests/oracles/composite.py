"""Volume rendering by its formulas, ray by ray in plain torch."""

import torch
from torch import Tensor


def rays_of(ray_starts: Tensor):
    bounds = ray_starts.tolist()
    return [slice(a, b) for a, b in zip(bounds[:-1], bounds[1:], strict=True)]


def composite(sigma, values, dt, ray_starts, stop):
    out, opacity, weights = [], [], []
    for ray in rays_of(ray_starts):
        alpha = -torch.expm1(-sigma[ray] * dt[ray])
        reaching = torch.exp(-(torch.cumsum(sigma[ray] * dt[ray], 0) - sigma[ray] * dt[ray]))
        w = alpha * reaching * (reaching >= stop)
        out.append(w @ values[ray])
        opacity.append(w.sum())
        weights.append(w)
    none = sigma.new_zeros(0)
    return (
        torch.stack(out) if out else sigma.new_zeros(0, values.shape[1]),
        torch.stack(opacity) if opacity else none,
        torch.cat(weights) if weights else none,
    )


def composite_backward(grad_out, grad_opacity, grad_weights, values, weights, ray_starts, stop):
    """By autograd through the formulas, from depths that have these weights."""
    depths = torch.zeros_like(weights)
    for ray in rays_of(ray_starts):
        through = 1 - torch.cumsum(weights[ray], 0)
        depths[ray] = -torch.log1p(-weights[ray] / (through + weights[ray]))
    depths.requires_grad_()
    values = values.detach().requires_grad_()
    results = composite(depths, values, torch.ones_like(depths), ray_starts, stop)
    grads = grad_out, grad_opacity, grad_weights
    product = sum((result * grad).sum() for result, grad in zip(results, grads, strict=True))
    return torch.autograd.grad(product + 0 * (depths.sum() + values.sum()), (depths, values))


def running_sum(values, ray_starts, reverse):
    out = torch.zeros_like(values)
    for ray in rays_of(ray_starts):
        v = values[ray]
        for i in range(len(v)):
            out[ray][i] = (v[i + 1 :] if reverse else v[:i]).sum()
    return out
