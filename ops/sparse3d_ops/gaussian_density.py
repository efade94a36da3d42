"""How dense a cloud of Gaussians is at points, and of what features: sums over those that are listed for the
voxel of a point.

    w_i = o_i exp(-|A_i (p - mu_i)|^2 / 2),  0 below LEAST_ALPHA
    density = sum of w_i,  sums = sum of w_i f_i

with A_i a square root of the inverse covariance. Sums are taken in the order of the lists: the same bits for
any number of threads. No gradients.
"""

import torch
from torch import Tensor

from sparse3d_ops.checks import check_range, check_same_device, check_starts, check_tensor
from sparse3d_ops.splat_projection import EXACT, LEAST_ALPHA


@torch.library.custom_op("sparse3d::gaussian_density", mutates_args=(), device_types="cpu")
def gaussian_density(
    points: Tensor,
    voxel: Tensor,
    starts: Tensor,
    order: Tensor,
    means: Tensor,
    roots: Tensor,
    opacities: Tensor,
    features: Tensor,
) -> tuple[Tensor, Tensor]:
    """(Q, 3), the voxel of each point (Q,) int64 (negative for none), starts (V + 1,) and order (K,) int64:
    the Gaussians order[starts[v]:starts[v + 1]] of voxel v; means (N, 3), roots A (N, 3, 3), opacities (N,),
    features (N, C), of one dtype -> density (Q,) and sums (Q, C)."""
    from sparse3d_ops.cpu import gaussian_density as body

    out = _room(points, features)
    _check(points, voxel, starts, order, means, roots, opacities, features)
    inputs = _inputs(points, voxel, starts, order, means, roots, opacities, features)
    body.density(*(x.numpy() for x in (*inputs, *out)))
    return out


@gaussian_density.register_kernel("cuda")
def _(
    points: Tensor,
    voxel: Tensor,
    starts: Tensor,
    order: Tensor,
    means: Tensor,
    roots: Tensor,
    opacities: Tensor,
    features: Tensor,
) -> tuple[Tensor, Tensor]:
    from sparse3d_ops.gpu import gaussian_density as body

    out = _room(points, features)
    _check(points, voxel, starts, order, means, roots, opacities, features)
    body.density(*_inputs(points, voxel, starts, order, means, roots, opacities, features), *out)  # pyright: ignore[reportCallIssue]
    return out


@gaussian_density.register_fake
def _(points, voxel, starts, order, means, roots, opacities, features):
    return _room(points, features)


def _inputs(*tensors: Tensor) -> list[Tensor]:
    least = torch.tensor([LEAST_ALPHA], dtype=tensors[0].dtype, device=tensors[0].device)
    return [*(x.detach().contiguous() for x in tensors), least]


def _room(points: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    return points.new_empty(points.shape[0]), points.new_empty(points.shape[0], features.shape[1])


def _check(points, voxel, starts, order, means, roots, opacities, features) -> None:
    dtype, count = points.dtype, means.shape[0]
    check_tensor("points", points, ("Q", 3), EXACT)
    check_tensor("voxel", voxel, (points.shape[0],), (torch.int64,))
    check_tensor("starts", starts, ("V + 1",), (torch.int64,))
    check_tensor("order", order, ("K",), (torch.int64,))
    check_tensor("means", means, ("N", 3), (dtype,))
    check_tensor("roots", roots, (count, 3, 3), (dtype,))
    check_tensor("opacities", opacities, (count,), (dtype,))
    check_tensor("features", features, (count, "C"), (dtype,))
    named = {"voxel": voxel, "starts": starts, "order": order, "means": means, "roots": roots}
    check_same_device(("points", points), *named.items(), ("opacities", opacities), ("features", features))
    check_starts("starts", starts, len(order))
    check_range("order", order, 0, count)
    if len(voxel) and int(voxel.max()) >= len(starts) - 1:
        raise ValueError(f"voxel {int(voxel.max())} has no list; there are {len(starts) - 1}")
