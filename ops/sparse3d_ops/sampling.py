"""Where to sample along rays: spread evenly, or where the weight of bins is.

Randomness comes in as `uniforms` in [0, 1), so that a run can be repeated: rising ones in one ray, (k + u) /
K with u in [0, 1), give rising samples. Places are not functions to learn: `importance` has no gradients.
"""

import torch
from torch import Tensor

from sparse3d_ops.checks import check_same_device, check_tensor
from sparse3d_ops.composite import EXACT, check_ray_starts


def strata(uniforms: Tensor) -> Tensor:
    """(R, K) in [0, 1) -> (R, K) rising in [0, 1): the k-th lies in the k-th of K equal parts."""
    count = uniforms.shape[1]
    return (torch.arange(count, device=uniforms.device) + uniforms) / count


def stratified(near: Tensor, far: Tensor, uniforms: Tensor) -> Tensor:
    """Samples spread evenly between near and far: (R,), (R,), (R, K) in [0, 1) -> t (R, K), rising.

    Uniforms of 0.5 are the centres of K bins. A ray with near > far, which met nothing, has all its samples
    at near. (Mildenhall et al., "NeRF", 2020, Eq. 2.)
    """
    return near[:, None] + (far - near).clamp_min(0)[:, None] * strata(uniforms)


def edges_between(t: Tensor, near: Tensor, far: Tensor) -> Tensor:
    """Edges of bins around rising samples, in the middle between neighbours: (R, K), (R,), (R,) -> (R, K +
    1)."""
    middles = (t[:, 1:] + t[:, :-1]) / 2
    return torch.cat((near[:, None], middles, far.maximum(near)[:, None]), 1)


def importance(edges: Tensor, weights: Tensor, uniforms: Tensor) -> Tensor:
    """Samples where the weight is: (R, B + 1), (R, B), (R, K) in [0, 1) -> t (R, K).

    The inverse of the distribution that is constant in each bin, at each of the uniforms. Bins without weight
    get no samples; where all weights of a ray are zero, its bins count by their lengths. Weights that are
    negative or NaN count as zero.
    """
    check_tensor("edges", edges, ("R", "B + 1"), EXACT)
    rays, bins = edges.shape[0], edges.shape[1] - 1
    check_tensor("weights", weights, (rays, bins), (edges.dtype,))
    ray_starts = torch.arange(rays + 1, device=edges.device) * bins
    begin, length = edges[:, :-1].flatten(), edges.diff(dim=1).flatten()
    return inverse_cdf(begin, length, weights.flatten(), ray_starts, uniforms)


def importance_packed(t: Tensor, dt: Tensor, weights: Tensor, ray_starts: Tensor, uniforms: Tensor) -> Tensor:
    """As `importance`, in the bins from t - dt / 2 to t + dt / 2 of packed samples: (S,), (S,), (S,), (R +
    1,), (R, K) -> (R, K). A ray without samples has nowhere to sample: inf."""
    return inverse_cdf(t - dt / 2, dt, weights, ray_starts, uniforms)


@torch.library.custom_op("sparse3d::inverse_cdf", mutates_args=(), device_types="cpu")
def inverse_cdf(
    begin: Tensor, length: Tensor, weights: Tensor, ray_starts: Tensor, uniforms: Tensor
) -> Tensor:
    """The op behind `importance`: bins of each ray by begin and length, in order: (S,), (S,), (S,), (R + 1,),
    (R, K) -> (R, K). Uniforms outside of [0, 1] count as the nearer end."""
    from sparse3d_ops.cpu import sampling as body

    out = _room_for_samples(begin, length, weights, ray_starts, uniforms)
    reached = torch.empty(len(begin), dtype=torch.float64)
    tensors = begin, length, weights, ray_starts, uniforms, reached, out
    body.inverse_cdf(*(tensor.detach().contiguous().numpy() for tensor in tensors))
    return out


@inverse_cdf.register_kernel("cuda")
def _(begin: Tensor, length: Tensor, weights: Tensor, ray_starts: Tensor, uniforms: Tensor) -> Tensor:
    from sparse3d_ops.gpu import sampling as body

    out = _room_for_samples(begin, length, weights, ray_starts, uniforms)
    reached = begin.new_empty(len(begin), dtype=torch.float64)
    tensors = begin, length, weights, ray_starts, uniforms, reached, out
    body.inverse_cdf(*(tensor.detach().contiguous() for tensor in tensors))
    return out


def _room_for_samples(
    begin: Tensor, length: Tensor, weights: Tensor, ray_starts: Tensor, uniforms: Tensor
) -> Tensor:
    check_tensor("begin", begin, ("S",), EXACT)
    check_tensor("length", length, (begin.shape[0],), (begin.dtype,))
    check_tensor("weights", weights, (begin.shape[0],), (begin.dtype,))
    check_same_device(("begin", begin), ("weights", weights), ("uniforms", uniforms), ("rays", ray_starts))
    check_ray_starts(ray_starts, len(begin))
    check_tensor("uniforms", uniforms, (len(ray_starts) - 1, "K"), (begin.dtype,))
    return begin.new_empty(uniforms.shape)


@inverse_cdf.register_fake
def _(begin, length, weights, ray_starts, uniforms):
    return begin.new_empty(uniforms.shape)


inverse_cdf.register_autograd(
    lambda ctx, grad: (None,) * 5,
    setup_context=lambda ctx, inputs, output: ctx.mark_non_differentiable(output),
)
