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


def accumulate(weights, values, ray_starts):
    sums = [weights[ray] @ values[ray] for ray in rays_of(ray_starts)]
    return torch.stack(sums) if sums else values.new_zeros(0, values.shape[1])


def ray_dot(rays, values, ray_starts):
    out = values.new_zeros(len(values))
    for r, ray in enumerate(rays_of(ray_starts)):
        out[ray] = values[ray] @ rays[r]
    return out


def ray_scale(rays, weights, ray_starts):
    out = weights.new_zeros(len(weights), rays.shape[1])
    for r, ray in enumerate(rays_of(ray_starts)):
        out[ray] = torch.outer(weights[ray], rays[r])
    return out


def distortion(weights, t, dt, ray_starts):
    """All pairs of samples of a ray."""
    out = weights.new_zeros(len(ray_starts) - 1)
    for r, ray in enumerate(rays_of(ray_starts)):
        w, place = weights[ray], t[ray]
        out[r] = w @ (place[:, None] - place[None, :]).abs() @ w + (w**2 * dt[ray]).sum() / 3
    return out


def distortion_backward(grad, weights, t, dt, ray_starts):
    inputs = [x.detach().requires_grad_() for x in (weights, t, dt)]
    product = (distortion(*inputs, ray_starts) * grad).sum() + 0 * sum(x.sum() for x in inputs)
    return torch.autograd.grad(product, inputs)
