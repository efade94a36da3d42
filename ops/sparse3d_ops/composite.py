"""Volume rendering of packed samples: compositing, transmittance, sums along rays and the distortion of
weights.

Notation: ray r owns the samples from ray_starts[r] to ray_starts[r + 1], front to back; ray_starts (R + 1,)
int64 rises from 0 to S. sigma (S,) is the density, 1 / metre, and dt (S,) the length of a sample, metres:

    alpha_i = 1 - exp(-sigma_i dt_i),   T_i = prod_{j < i} (1 - alpha_j),   w_i = T_i alpha_i

(Max, "Optical models for direct volume rendering", 1995). Densities and lengths must not be negative, which
is not checked. All floats of a call have one dtype, float32 or float64. Gradients can be differentiated again
and are, as all results, the same bits for any number of threads: a ray is summed in order, without atomics.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sparse3d_ops.checks import as_arrays, check_same_device, check_starts, check_tensor, plain

EXACT = (torch.float32, torch.float64)


class Composite(NamedTuple):
    """out (R, C) = sum of w_i values_i; opacity (R,) = sum of w_i, what is left of 1 gets through; weights
    (S,)."""

    out: Tensor
    opacity: Tensor
    weights: Tensor


def check_ray_starts(ray_starts: Tensor, samples: int) -> None:
    """Raise a ValueError unless ray_starts (R + 1,) int64 rises from 0 to the number of samples."""
    check_starts("ray_starts", ray_starts, samples)


def _check_samples(ray_starts: Tensor, first: tuple[str, Tensor], *rest: tuple[str, Tensor]) -> None:
    """One number a sample in each of the named tensors, of one dtype and on one device."""
    check_tensor(first[0], first[1], ("S",), EXACT)
    for name, tensor in rest:
        check_tensor(name, tensor, (first[1].shape[0],), (first[1].dtype,))
    check_same_device(("ray_starts", ray_starts), first, *rest)
    check_ray_starts(ray_starts, len(first[1]))


def _check_values(values: Tensor, like: Tensor) -> None:
    check_tensor("values", values, (like.shape[0], "C"), (like.dtype,))
    check_same_device(("values", values), ("sigma", like))


# ---- compositing -------------------------------------------------------------------------------------------


def composite(sigma: Tensor, values: Tensor, dt: Tensor, ray_starts: Tensor, stop: float = 0.0) -> Composite:
    """What rays see: (S,), (S, C), (S,), (R + 1,) -> Composite, with gradients to sigma, values and dt.

    Samples that less than `stop` of the light reaches, T_i < stop, are left out: their weights and gradients
    are zero. A ray without samples has zeros. Depth is the composite of t: one more column of the values, or
    `accumulate(weights, t[:, None], ray_starts)`.
    """
    return Composite(*composite_samples(sigma, values, dt, ray_starts, stop))


@torch.library.custom_op("sparse3d::composite", mutates_args=(), device_types="cpu")
def composite_samples(
    sigma: Tensor, values: Tensor, dt: Tensor, ray_starts: Tensor, stop: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The op behind `composite`: -> out (R, C), opacity (R,), weights (S,)."""
    from sparse3d_ops.cpu import composite as body

    out, opacity, weights = _room_for_composite(sigma, values, dt, ray_starts, stop)
    arrays = as_arrays(sigma, values, dt, ray_starts, out, opacity, weights)
    body.composite(*arrays, stop=body.scalar(stop, arrays[0]))
    return out, opacity, weights


@composite_samples.register_kernel("cuda")
def _(
    sigma: Tensor, values: Tensor, dt: Tensor, ray_starts: Tensor, stop: float
) -> tuple[Tensor, Tensor, Tensor]:
    from sparse3d_ops.gpu import composite as body

    out, opacity, weights = _room_for_composite(sigma, values, dt, ray_starts, stop)
    body.composite(*plain(sigma, values, dt, ray_starts, out, opacity, weights), stop=stop)
    return out, opacity, weights


def _room_for_composite(sigma: Tensor, values: Tensor, dt: Tensor, ray_starts: Tensor, stop: float):
    _check_samples(ray_starts, ("sigma", sigma), ("dt", dt))
    _check_values(values, sigma)
    if not 0 <= stop < 1:
        raise ValueError(f"stop is {stop}, expected a transmittance in [0, 1)")
    rays = len(ray_starts) - 1
    return sigma.new_empty(rays, values.shape[1]), sigma.new_empty(rays), sigma.new_empty(len(sigma))


@composite_samples.register_fake
def _(sigma, values, dt, ray_starts, stop):
    rays = ray_starts.shape[0] - 1
    out = sigma.new_empty(rays, values.shape[1])
    return out, sigma.new_empty(rays), sigma.new_empty(sigma.shape)


def _composite_setup(ctx, inputs, output):
    sigma, values, dt, ray_starts, ctx.stop = inputs
    ctx.save_for_backward(sigma, values, dt, ray_starts, output[2])


def _composite_backward(ctx, grad_out, grad_opacity, grad_weights):
    sigma, values, dt, ray_starts, weights = ctx.saved_tensors
    grads = grad_out, grad_opacity, grad_weights
    depth, of_values = composite_backward(*grads, values, weights, ray_starts, ctx.stop)
    wants_sigma, wants_values, wants_dt = ctx.needs_input_grad[:3]
    return (
        depth * dt if wants_sigma else None,
        of_values if wants_values else None,
        depth * sigma if wants_dt else None,
        None,
        None,
    )


composite_samples.register_autograd(_composite_backward, setup_context=_composite_setup)


@torch.library.custom_op("sparse3d::composite_backward", mutates_args=(), device_types="cpu")
def composite_backward(
    grad_out: Tensor,
    grad_opacity: Tensor,
    grad_weights: Tensor,
    values: Tensor,
    weights: Tensor,
    ray_starts: Tensor,
    stop: float,
) -> tuple[Tensor, Tensor]:
    """Gradients of `composite` in the optical depths sigma_i dt_i (S,) and in the values (S, C).

    (R, C), (R,), (S,), (S, C), (S,), (R + 1,). With q_i = grad_out . values_i + grad_opacity +
    grad_weights_i: q_i T_{i+1} - sum_{j > i} q_j w_j, and w_i grad_out.
    """
    from sparse3d_ops.cpu import composite as body

    grads = grad_out, grad_opacity, grad_weights
    of_depth, of_values = _room_for_backward(*grads, values, weights, ray_starts)
    arrays = as_arrays(*grads, values, weights, ray_starts, of_depth, of_values)
    body.composite_backward(*arrays, stop=body.scalar(stop, arrays[4]))
    return of_depth, of_values


@composite_backward.register_kernel("cuda")
def _(
    grad_out: Tensor,
    grad_opacity: Tensor,
    grad_weights: Tensor,
    values: Tensor,
    weights: Tensor,
    ray_starts: Tensor,
    stop: float,
) -> tuple[Tensor, Tensor]:
    from sparse3d_ops.gpu import composite as body

    grads = grad_out, grad_opacity, grad_weights
    of_depth, of_values = _room_for_backward(*grads, values, weights, ray_starts)
    tensors = plain(*grads, values, weights, ray_starts, of_depth, of_values)
    body.composite_backward(*tensors, stop=stop)
    return of_depth, of_values


def _room_for_backward(grad_out, grad_opacity, grad_weights, values, weights, ray_starts):
    _check_samples(ray_starts, ("weights", weights), ("grad_weights", grad_weights))
    _check_values(values, weights)
    check_tensor("grad_out", grad_out, (len(ray_starts) - 1, values.shape[1]), (weights.dtype,))
    check_tensor("grad_opacity", grad_opacity, (len(ray_starts) - 1,), (weights.dtype,))
    return weights.new_empty(len(weights)), weights.new_empty(values.shape)


@composite_backward.register_fake
def _(grad_out, grad_opacity, grad_weights, values, weights, ray_starts, stop):
    return weights.new_empty(weights.shape), weights.new_empty(values.shape)


# ---- sums along rays ---------------------------------------------------------------------------------------


@torch.library.custom_op("sparse3d::running_sum", mutates_args=(), device_types="cpu")
def running_sum(values: Tensor, ray_starts: Tensor, reverse: bool) -> Tensor:
    """Sum of what lies before each sample on its ray, or with `reverse` behind it; itself not: (S,) ->
    (S,)."""
    from sparse3d_ops.cpu import composite as body

    _check_samples(ray_starts, ("values", values))
    out = values.new_empty(len(values))
    body.running_sum(*as_arrays(values, ray_starts, out), reverse=reverse)
    return out


@running_sum.register_kernel("cuda")
def _(values: Tensor, ray_starts: Tensor, reverse: bool) -> Tensor:
    from sparse3d_ops.gpu import composite as body

    _check_samples(ray_starts, ("values", values))
    out = values.new_empty(len(values))
    body.running_sum(*plain(values, ray_starts, out), reverse=reverse)
    return out


@running_sum.register_fake
def _(values, ray_starts, reverse):
    return values.new_empty(values.shape)


def _running_sum_setup(ctx, inputs, output):
    ctx.save_for_backward(inputs[1])
    ctx.reverse = inputs[2]


def _running_sum_backward(ctx, grad):
    return running_sum(grad, ctx.saved_tensors[0], not ctx.reverse), None, None


running_sum.register_autograd(_running_sum_backward, setup_context=_running_sum_setup)


def transmittance(sigma: Tensor, dt: Tensor, ray_starts: Tensor) -> Tensor:
    """T_i, the part of the light that reaches each sample: (S,), (S,), (R + 1,) -> (S,)."""
    return torch.exp(-running_sum(sigma * dt, ray_starts, False))


# The three are the derivatives of one trilinear form, sum over i, c of weights[i] * values[i, c] *
# rays[ray of i, c], so each one's gradients are the other two.


@torch.library.custom_op("sparse3d::accumulate", mutates_args=(), device_types="cpu")
def accumulate(weights: Tensor, values: Tensor, ray_starts: Tensor) -> Tensor:
    """Weighted sum of the values along each ray: (S,), (S, C), (R + 1,) -> (R, C). Depth: values = t[:,
    None]."""
    from sparse3d_ops.cpu import composite as body

    out = _room_for_rays(weights, values, ray_starts)
    body.accumulate(*as_arrays(weights, values, ray_starts, out))
    return out


@torch.library.custom_op("sparse3d::ray_dot", mutates_args=(), device_types="cpu")
def ray_dot(rays: Tensor, values: Tensor, ray_starts: Tensor) -> Tensor:
    """Product of each sample's values with its ray's: (R, C), (S, C), (R + 1,) -> (S,)."""
    from sparse3d_ops.cpu import composite as body

    out = _room_for_samples(rays, values, ray_starts)
    body.ray_dot(*as_arrays(rays, values, ray_starts, out))
    return out


@torch.library.custom_op("sparse3d::ray_scale", mutates_args=(), device_types="cpu")
def ray_scale(rays: Tensor, weights: Tensor, ray_starts: Tensor) -> Tensor:
    """Its ray's values times each sample's weight: (R, C), (S,), (R + 1,) -> (S, C)."""
    from sparse3d_ops.cpu import composite as body

    _check_rays(rays, weights, ray_starts)
    out = weights.new_empty(len(weights), rays.shape[1])
    body.ray_scale(*as_arrays(rays, weights, ray_starts, out))
    return out


@accumulate.register_kernel("cuda")
def _(weights: Tensor, values: Tensor, ray_starts: Tensor) -> Tensor:
    from sparse3d_ops.gpu import composite as body

    out = _room_for_rays(weights, values, ray_starts)
    body.accumulate(*plain(weights, values, ray_starts, out))
    return out


@ray_dot.register_kernel("cuda")
def _(rays: Tensor, values: Tensor, ray_starts: Tensor) -> Tensor:
    from sparse3d_ops.gpu import composite as body

    out = _room_for_samples(rays, values, ray_starts)
    body.ray_dot(*plain(rays, values, ray_starts, out))
    return out


@ray_scale.register_kernel("cuda")
def _(rays: Tensor, weights: Tensor, ray_starts: Tensor) -> Tensor:
    from sparse3d_ops.gpu import composite as body

    _check_rays(rays, weights, ray_starts)
    out = weights.new_empty(len(weights), rays.shape[1])
    body.ray_scale(*plain(rays, weights, ray_starts, out))
    return out


def _check_rays(rays: Tensor, like: Tensor, ray_starts: Tensor) -> None:
    _check_samples(ray_starts, ("weights", like))
    check_tensor("rays", rays, (len(ray_starts) - 1, "C"), (like.dtype,))
    check_same_device(("rays", rays), ("weights", like))


def _room_for_rays(weights: Tensor, values: Tensor, ray_starts: Tensor) -> Tensor:
    _check_samples(ray_starts, ("weights", weights))
    _check_values(values, weights)
    return weights.new_empty(len(ray_starts) - 1, values.shape[1])


def _room_for_samples(rays: Tensor, values: Tensor, ray_starts: Tensor) -> Tensor:
    check_tensor("values", values, ("S", rays.shape[-1]), EXACT)
    out = values.new_empty(len(values))
    _check_rays(rays, out, ray_starts)
    return out


@accumulate.register_fake
def _(weights, values, ray_starts):
    return weights.new_empty(ray_starts.shape[0] - 1, values.shape[1])


@ray_dot.register_fake
def _(rays, values, ray_starts):
    return values.new_empty(values.shape[0])


@ray_scale.register_fake
def _(rays, weights, ray_starts):
    return weights.new_empty(weights.shape[0], rays.shape[1])


def _save_inputs(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _accumulate_backward(ctx, grad):
    weights, values, ray_starts = ctx.saved_tensors
    wants_weights, wants_values, _ = ctx.needs_input_grad
    return (
        ray_dot(grad, values, ray_starts) if wants_weights else None,
        ray_scale(grad, weights, ray_starts) if wants_values else None,
        None,
    )


def _ray_dot_backward(ctx, grad):
    rays, values, ray_starts = ctx.saved_tensors
    wants_rays, wants_values, _ = ctx.needs_input_grad
    return (
        accumulate(grad, values, ray_starts) if wants_rays else None,
        ray_scale(rays, grad, ray_starts) if wants_values else None,
        None,
    )


def _ray_scale_backward(ctx, grad):
    rays, weights, ray_starts = ctx.saved_tensors
    wants_rays, wants_weights, _ = ctx.needs_input_grad
    return (
        accumulate(weights, grad, ray_starts) if wants_rays else None,
        ray_dot(rays, grad, ray_starts) if wants_weights else None,
        None,
    )


accumulate.register_autograd(_accumulate_backward, setup_context=_save_inputs)
ray_dot.register_autograd(_ray_dot_backward, setup_context=_save_inputs)
ray_scale.register_autograd(_ray_scale_backward, setup_context=_save_inputs)


def _of_samples(per_ray: Tensor, like: Tensor, ray_starts: Tensor) -> Tensor:
    """(R,) -> (S,): each sample gets the number of its ray."""
    return ray_scale(per_ray[:, None], torch.ones_like(like), ray_starts)[:, 0]


def _of_rays(per_sample: Tensor, ray_starts: Tensor) -> Tensor:
    """(S,) -> (R,): the sum along each ray."""
    return accumulate(per_sample, torch.ones_like(per_sample)[:, None], ray_starts)[:, 0]


def _backward_setup(ctx, inputs, output):
    *tensors, ctx.stop = inputs
    ctx.save_for_backward(*tensors)


def _backward_backward(ctx, of_depth, of_values):
    """With h, H the gradients that arrive, of live samples alone: the derivatives of sum_i h_i (q_i T_{i+1} -
    sum_{j > i} q_j w_j) + H_i . w_i grad_out, where T_{i+1} = 1 - sum_{j <= i} w_j."""
    grad_out, grad_opacity, grad_weights, values, weights, ray_starts = ctx.saved_tensors
    through = 1 - running_sum(weights, ray_starts, False) - weights
    live = (through + weights >= ctx.stop).to(weights.dtype)
    h, H = of_depth * live, of_values * live[:, None]
    q = ray_dot(grad_out, values, ray_starts) + _of_samples(grad_opacity, weights, ray_starts) + grad_weights
    before = running_sum(h, ray_starts, False)
    of_q = (h * through - weights * before) * live
    of_weights = ray_dot(grad_out, H, ray_starts) - live * (
        q * (before + h) + running_sum(h * q, ray_starts, True)
    )
    of_grad_out = accumulate(of_q, values, ray_starts) + accumulate(weights, H, ray_starts)
    of_value = ray_scale(grad_out, of_q, ray_starts)
    return of_grad_out, _of_rays(of_q, ray_starts), of_q, of_value, of_weights, None, None


composite_backward.register_autograd(_backward_backward, setup_context=_backward_setup)


# ---- distortion --------------------------------------------------------------------------------------------


@torch.library.custom_op("sparse3d::distortion", mutates_args=(), device_types="cpu")
def distortion(weights: Tensor, t: Tensor, dt: Tensor, ray_starts: Tensor) -> Tensor:
    """How far the weight of each ray is spread: (S,), (S,), (S,), (R + 1,) -> (R,), metres, in O(S).

    sum_{i, j} w_i w_j |t_i - t_j| + 1/3 sum_i w_i^2 dt_i (Barron et al., "Mip-NeRF 360", 2022, Eq. 15), with
    gradients to all three. t must not fall along a ray, which is not checked.
    """
    from sparse3d_ops.cpu import composite as body

    _check_samples(ray_starts, ("weights", weights), ("t", t), ("dt", dt))
    out = weights.new_empty(len(ray_starts) - 1)
    body.distortion(*as_arrays(weights, t, dt, ray_starts, out))
    return out


@distortion.register_kernel("cuda")
def _(weights: Tensor, t: Tensor, dt: Tensor, ray_starts: Tensor) -> Tensor:
    from sparse3d_ops.gpu import composite as body

    _check_samples(ray_starts, ("weights", weights), ("t", t), ("dt", dt))
    out = weights.new_empty(len(ray_starts) - 1)
    body.distortion(*plain(weights, t, dt, ray_starts, out))
    return out


@distortion.register_fake
def _(weights, t, dt, ray_starts):
    return weights.new_empty(ray_starts.shape[0] - 1)


def _distortion_backward(ctx, grad):
    return *distortion_backward(grad, *ctx.saved_tensors), None


distortion.register_autograd(_distortion_backward, setup_context=_save_inputs)


@torch.library.custom_op("sparse3d::distortion_backward", mutates_args=(), device_types="cpu")
def distortion_backward(
    grad: Tensor, weights: Tensor, t: Tensor, dt: Tensor, ray_starts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `distortion` in weights, t and dt: (R,), (S,), (S,), (S,), (R + 1,) -> three times
    (S,)."""
    from sparse3d_ops.cpu import composite as body

    outputs = _room_for_distortion(grad, weights, t, dt, ray_starts)
    body.distortion_backward(*as_arrays(grad, weights, t, dt, ray_starts, *outputs))
    return outputs


@distortion_backward.register_kernel("cuda")
def _(
    grad: Tensor, weights: Tensor, t: Tensor, dt: Tensor, ray_starts: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    from sparse3d_ops.gpu import composite as body

    outputs = _room_for_distortion(grad, weights, t, dt, ray_starts)
    body.distortion_backward(*plain(grad, weights, t, dt, ray_starts, *outputs))
    return outputs


def _room_for_distortion(grad, weights, t, dt, ray_starts):
    _check_samples(ray_starts, ("weights", weights), ("t", t), ("dt", dt))
    check_tensor("grad", grad, (len(ray_starts) - 1,), (weights.dtype,))
    return weights.new_empty(len(weights)), weights.new_empty(len(t)), weights.new_empty(len(dt))


@distortion_backward.register_fake
def _(grad, weights, t, dt, ray_starts):
    return weights.new_empty(weights.shape), weights.new_empty(t.shape), weights.new_empty(dt.shape)


def _distortion_backward_backward(ctx, a, b, c):
    """Derivatives of sum_k a_k gw_k + b_k gt_k + c_k gdt_k, the gradients of `distortion` times what
    arrives."""
    grad, w, t, dt, ray_starts = ctx.saved_tensors

    def sides(x: Tensor) -> Tensor:
        """Sum of x before a sample less that behind it: sum_j sign(t_k - t_j) x_j."""
        return running_sum(x, ray_starts, False) - running_sum(x, ray_starts, True)

    def spread(x: Tensor) -> Tensor:
        """sum_j |t_k - t_j| x_j."""
        return t * sides(x) - sides(t * x)

    g, sides_w, spread_w = _of_samples(grad, w, ray_starts), sides(w), spread(w)
    of_weights = 2 * (spread(a) + a * dt / 3 + b * sides_w - sides(b * w) + c * w / 3)
    of_t = 2 * (a * sides_w + w * sides(a))
    of_dt = 2 / 3 * a * w
    of_grad = a * (2 * spread_w + 2 / 3 * w * dt) + 2 * b * w * sides_w + c * w * w / 3
    return _of_rays(of_grad, ray_starts), g * of_weights, g * of_t, g * of_dt, None


distortion_backward.register_autograd(_distortion_backward_backward, setup_context=_save_inputs)
