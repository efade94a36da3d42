"""Trilinear sampling from a sparse volume, in two steps: which voxels surround a position, and their weighted
sum.

Positions are (Q, 3) in voxel units: voxel i has its centre at i + 0.5. Corner k = 4 dx + 2 dy + dz of a
position is the voxel floor(position - 0.5) + (dx, dy, dz). `corners` (Q, 8) int32 holds rows of the volume,
-1 where there is no voxel; a missing voxel counts as zero features and the other weights stay as they are, so
values fade towards the edge of the occupied space. On a full grid this is torch's grid_sample with
align_corners=False and padding_mode="zeros".

Gradients reach features and, through the weights, positions; they can be differentiated again. All results,
gradients included, are the same bits for any number of threads: no atomics.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sparse3d_ops.checks import (
    FLOATS,
    INDICES,
    check_range,
    check_same_device,
    check_tensor,
    remember,
    remembered,
    working,
)
from sparse3d_ops.hashing import BATCH_LIMIT, build, check_table, pack
from sparse3d_ops.memory import empty

EXACT = (torch.float32, torch.float64)


class Corners(NamedTuple):
    """rows (Q, 8) int32 of the voxels around each position, -1 for none; weights (Q, 8), which sum to one."""

    rows: Tensor
    weights: Tensor


def trilinear_corners(positions: Tensor, position_batch: Tensor, coordinates: Tensor) -> Corners:
    """The eight voxels around each position, and their weights.

    (Q, 3) float32 or float64, (Q,) int32 or int64, (N, 4) int32 -> Corners; the weights are differentiable
    with respect to `positions`. Positions that are not finite have no corners. Raises ValueError for repeated
    coordinates, and for coordinates and batch numbers that do not fit a voxel key. To sample a volume many
    times, build its table once and call `corner_rows` and `trilinear_weights`.
    """
    slot_keys, slot_rows = build(pack(coordinates))
    return Corners(corner_rows(slot_keys, slot_rows, positions, position_batch), trilinear_weights(positions))


def trilinear_weights(positions: Tensor) -> Tensor:
    """Weights of the eight corners: (Q, 3) -> (Q, 8), product over the axes of 1 - f or f, f = frac(position
    - 0.5).
    """
    shifted = positions - 0.5
    upper = shifted - shifted.detach().floor()
    axes = torch.stack((1 - upper, upper), dim=2)
    return torch.einsum("qi,qj,qk->qijk", *axes.unbind(1)).flatten(1)


@torch.library.custom_op("sparse3d::corner_rows", mutates_args=(), device_types="cpu")
def corner_rows(slot_keys: Tensor, slot_rows: Tensor, positions: Tensor, position_batch: Tensor) -> Tensor:
    """Rows of the eight voxels around each position, from a table of `hashing.build`: -> (Q, 8) int32."""
    from sparse3d_ops.cpu import grid_sample as body

    shifted = _shifted(slot_keys, slot_rows, positions, position_batch)
    corners = torch.empty(len(positions), 8, dtype=torch.int32)
    batch = position_batch.contiguous().numpy()
    body.corner_rows(slot_keys.numpy(), slot_rows.numpy(), shifted.numpy(), batch, corners.numpy())
    return corners


@corner_rows.register_kernel("cuda")
def _(slot_keys: Tensor, slot_rows: Tensor, positions: Tensor, position_batch: Tensor) -> Tensor:
    from sparse3d_ops.gpu import grid_sample as body

    shifted = _shifted(slot_keys, slot_rows, positions, position_batch)
    corners = slot_rows.new_empty(len(positions), 8)
    table = slot_keys.contiguous(), slot_rows.contiguous()
    body.corner_rows(*table, shifted, position_batch.contiguous(), corners)
    rows = remembered(slot_rows, "range")
    if rows is not None:
        remember(corners, "range", (-1, rows[1]))
    return corners


def _shifted(slot_keys: Tensor, slot_rows: Tensor, positions: Tensor, position_batch: Tensor) -> Tensor:
    """Positions minus one half, after all checks."""
    check_table(slot_keys, slot_rows)
    # Half precision cannot tell apart two positions in one voxel beyond 2048 voxels.
    check_tensor("positions", positions, ("Q", 3), EXACT)
    check_tensor("position_batch", position_batch, (positions.shape[0],), INDICES)
    check_same_device(("slot_keys", slot_keys), ("positions", positions), ("position_batch", position_batch))
    check_range("position_batch", position_batch, 0, BATCH_LIMIT)
    # Subtracted here and not in the body, so that both steps round alike and agree on the voxel.
    return (positions.detach() - 0.5).contiguous()


@corner_rows.register_fake
def _(slot_keys, slot_rows, positions, position_batch):
    return positions.new_empty((positions.shape[0], 8), dtype=torch.int32)


def _check_corners(corners: Tensor, num_rows: int, **others: Tensor) -> None:
    _check_corner_form(corners, **others)
    check_range("corners", corners, -1, num_rows)


def _check_corner_form(corners: Tensor, **others: Tensor) -> None:
    check_tensor("corners", corners, ("Q", 8), (torch.int32,))
    check_same_device(("corners", corners), *others.items())


def _check_gather(features: Tensor, corners: Tensor, weights: Tensor) -> None:
    """All but the numbers of the rows."""
    check_tensor("features", features, ("N", "C"), FLOATS)
    check_tensor("weights", weights, (corners.shape[0], 8), EXACT)
    _check_corner_form(corners, features=features, weights=weights)


def _check_scatter(grad: Tensor, corners: Tensor, weights: Tensor, num_rows: int) -> None:
    check_tensor("grad", grad, (corners.shape[0], "C"), FLOATS)
    check_tensor("weights", weights, (corners.shape[0], 8), EXACT)
    _check_corners(corners, num_rows, grad=grad, weights=weights)


def _check_dot(grad: Tensor, features: Tensor, corners: Tensor) -> None:
    check_tensor("features", features, ("N", "C"), FLOATS)
    check_tensor("grad", grad, (corners.shape[0], features.shape[1]), FLOATS)
    _check_corners(corners, len(features), grad=grad, features=features)


def _of_one_kind(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """What the bodies compute with: both in the larger type of the two, float32 at least."""
    work, factors = working(values), working(weights)
    kind = torch.promote_types(work.dtype, factors.dtype)
    return work.to(kind), factors.to(kind)


@torch.library.custom_op("sparse3d::trilinear_gather", mutates_args=(), device_types="cpu")
def trilinear_gather(features: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of the rows at the corners: (N, C) float, (Q, 8) int32, (Q, 8) float32 or float64 -> (Q,
    C).
    """
    from sparse3d_ops.cpu import grid_sample as body

    _check_gather(features, corners, weights)
    work, factors = _of_one_kind(features, weights)
    out = empty((corners.shape[0], features.shape[1]), work.dtype)
    if not body.gather(work.numpy(), corners.contiguous().numpy(), factors.numpy(), out.numpy()):
        check_range("corners", corners, -1, len(features))
    return out.to(features.dtype)


@torch.library.custom_op("sparse3d::trilinear_scatter", mutates_args=(), device_types="cpu")
def trilinear_scatter(grad: Tensor, corners: Tensor, weights: Tensor, num_rows: int) -> Tensor:
    """Transpose of `trilinear_gather` in the features: (Q, C) float, (Q, 8), (Q, 8) -> (num_rows, C)."""
    from numba import get_num_threads

    from sparse3d_ops.cpu import grid_sample as body

    _check_scatter(grad, corners, weights, num_rows)
    work, factors = _of_one_kind(grad, weights)
    out = empty((num_rows, grad.shape[1]), work.dtype)
    rows, threads = corners.contiguous().numpy(), get_num_threads()
    body.scatter(work.numpy(), rows, factors.numpy(), threads, out.numpy())
    return out.to(grad.dtype)


@torch.library.custom_op("sparse3d::trilinear_dot", mutates_args=(), device_types="cpu")
def trilinear_dot(grad: Tensor, features: Tensor, corners: Tensor) -> Tensor:
    """Gradient of `trilinear_gather` in the weights: (Q, C), (N, C) float, (Q, 8) -> (Q, 8), at least
    float32.
    """
    from sparse3d_ops.cpu import grid_sample as body

    _check_dot(grad, features, corners)
    left, right = working(grad), working(features)
    out = torch.empty(corners.shape, dtype=torch.promote_types(left.dtype, right.dtype))
    body.dot(left.numpy(), right.numpy(), corners.contiguous().numpy(), out.numpy())
    return out


@trilinear_gather.register_kernel("cuda")
def _(features: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
    from sparse3d_ops.gpu import grid_sample as body

    _check_gather(features, corners, weights)
    check_range("corners", corners, -1, len(features))
    work = working(features)
    out = work.new_empty(len(corners), features.shape[1])
    body.gather(work, corners.contiguous(), working(weights), out)
    return out.to(features.dtype)


@trilinear_scatter.register_kernel("cuda")
def _(grad: Tensor, corners: Tensor, weights: Tensor, num_rows: int) -> Tensor:
    from sparse3d_ops.gpu import grid_sample as body

    _check_scatter(grad, corners, weights, num_rows)
    work = working(grad)
    out = work.new_empty(num_rows, grad.shape[1])
    body.scatter(work, corners.contiguous(), working(weights), out)
    return out.to(grad.dtype)


@trilinear_dot.register_kernel("cuda")
def _(grad: Tensor, features: Tensor, corners: Tensor) -> Tensor:
    from sparse3d_ops.gpu import grid_sample as body

    _check_dot(grad, features, corners)
    left, right = working(grad), working(features)
    out = left.new_empty(corners.shape, dtype=torch.promote_types(left.dtype, right.dtype))
    body.dot(left, right, corners.contiguous(), out)
    return out


@trilinear_gather.register_fake
def _(features, corners, weights):
    return features.new_empty(corners.shape[0], features.shape[1])


@trilinear_scatter.register_fake
def _(grad, corners, weights, num_rows):
    return grad.new_empty(num_rows, grad.shape[1])


@trilinear_dot.register_fake
def _(grad, features, corners):
    dtype = torch.promote_types(torch.promote_types(grad.dtype, features.dtype), torch.float32)
    return grad.new_empty(corners.shape, dtype=dtype)


# The three are the derivatives of one trilinear form (see the bodies), so each one's gradients are the other
# two.


def _save_inputs(ctx, inputs, output):
    ctx.save_for_backward(*inputs[:3])


def _gather_backward(ctx, grad):
    features, corners, weights = ctx.saved_tensors
    wants_features, _, wants_weights = ctx.needs_input_grad
    return (
        trilinear_scatter(grad, corners, weights, features.shape[0]) if wants_features else None,
        None,
        trilinear_dot(grad, features, corners).to(weights.dtype) if wants_weights else None,
    )


def _scatter_backward(ctx, grad_out):
    grad, corners, weights = ctx.saved_tensors
    wants_grad, _, wants_weights, _ = ctx.needs_input_grad
    return (
        trilinear_gather(grad_out, corners, weights) if wants_grad else None,
        None,
        trilinear_dot(grad, grad_out, corners).to(weights.dtype) if wants_weights else None,
        None,
    )


def _dot_backward(ctx, grad_out):
    grad, features, corners = ctx.saved_tensors
    wants_grad, wants_features, _ = ctx.needs_input_grad
    return (
        trilinear_gather(features, corners, grad_out).to(grad.dtype) if wants_grad else None,
        trilinear_scatter(grad, corners, grad_out, features.shape[0]).to(features.dtype)
        if wants_features
        else None,
        None,
    )


trilinear_gather.register_autograd(_gather_backward, setup_context=_save_inputs)
trilinear_scatter.register_autograd(_scatter_backward, setup_context=_save_inputs)
trilinear_dot.register_autograd(_dot_backward, setup_context=_save_inputs)
