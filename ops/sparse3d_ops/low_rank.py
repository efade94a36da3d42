"""Products of planes and lines: the features of a volume that is a sum of few outer products.

A volume of S^3 lattice points over [0, 1]^3 is kept as three planes and three lines, C components each: mode
m has the line along axis m and the plane across it, and its component c at a position is

    products[n, m C + c] = plane_mc(the two coordinates across, in order) * line_mc(coordinate m),

planes interpolated bilinearly, lines linearly. Planes are rows (m S + i) S + j of one table (3 S^2, C), lines
rows m S + i of another, (3 S, C). Positions outside count as the nearest place on the border. The sum of
components is a scalar of the volume, any linear map of them a vector. Source: TensoRF (arXiv 2203.09517), the
vector-matrix decomposition, Eq. 3 and 6.

Gradients reach planes, lines and positions, once. They are the same bits for any number of threads, without
atomics.
"""

import torch
from torch import Tensor

from sparse3d_ops.checks import FLOATS, check_same_device, check_tensor, working

EXACT = (torch.float32, torch.float64)


@torch.library.custom_op("sparse3d::plane_line_products", mutates_args=(), device_types="cpu")
def plane_line_products(planes: Tensor, lines: Tensor, positions: Tensor) -> Tensor:
    """(3 S^2, C), (3 S, C) float of one type, (N, 3) float32 or float64 -> (N, 3 C)."""
    from sparse3d_ops.cpu import low_rank as body

    _check(planes, lines, positions)
    work = working(planes)
    out = work.new_empty(len(positions), 3 * planes.shape[1])
    body.products(work.numpy(), working(lines).numpy(), working(positions).numpy(), out.numpy())
    return out.to(planes.dtype)


@torch.library.custom_op("sparse3d::plane_line_table_gradients", mutates_args=(), device_types="cpu")
def plane_line_table_gradients(
    grad: Tensor, planes: Tensor, lines: Tensor, positions: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of the sum of grad * `plane_line_products` in planes and lines: (N, 3 C), ... -> (3 S^2, C),
    (3 S, C)."""
    from sparse3d_ops.cpu import low_rank as body

    _check(planes, lines, positions, grad)
    tables = working(planes), working(lines)
    out = torch.empty_like(tables[0]), torch.empty_like(tables[1])
    inputs = working(grad).to(out[0].dtype), *tables, working(positions), *out
    body.table_gradients(*(tensor.numpy() for tensor in inputs))
    return out[0].to(planes.dtype), out[1].to(lines.dtype)


@torch.library.custom_op("sparse3d::plane_line_position_gradient", mutates_args=(), device_types="cpu")
def plane_line_position_gradient(grad: Tensor, planes: Tensor, lines: Tensor, positions: Tensor) -> Tensor:
    """The same gradient in the positions: -> (N, 3), 0 along axes on which a position lies outside."""
    from sparse3d_ops.cpu import low_rank as body

    _check(planes, lines, positions, grad)
    out = working(positions).new_empty(positions.shape)
    inputs = working(grad), working(planes), working(lines), working(positions), out
    body.position_gradient(*(tensor.numpy() for tensor in inputs))
    return out


@plane_line_products.register_kernel("cuda")
def _(planes, lines, positions):
    from sparse3d_ops.gpu import low_rank as body

    _check(planes, lines, positions)
    work = working(planes)
    out = work.new_empty(len(positions), 3 * planes.shape[1])
    body.products(work, working(lines), working(positions), out)
    return out.to(planes.dtype)


@plane_line_table_gradients.register_kernel("cuda")
def _(grad, planes, lines, positions):
    from sparse3d_ops.gpu import low_rank as body

    _check(planes, lines, positions, grad)
    tables = working(planes), working(lines)
    out = torch.empty_like(tables[0]), torch.empty_like(tables[1])
    body.table_gradients(working(grad), *tables, working(positions), *out)
    return out[0].to(planes.dtype), out[1].to(lines.dtype)


@plane_line_position_gradient.register_kernel("cuda")
def _(grad, planes, lines, positions):
    from sparse3d_ops.gpu import low_rank as body

    _check(planes, lines, positions, grad)
    place = working(positions)
    out = torch.empty_like(place)
    body.position_gradient(working(grad), working(planes), working(lines), place, out)
    return out


def _check(planes: Tensor, lines: Tensor, positions: Tensor, grad: Tensor | None = None) -> None:
    check_tensor("lines", lines, ("3 S", "C"), FLOATS)
    side, rest = divmod(lines.shape[0], 3)
    if rest or side < 2:
        raise ValueError(f"lines has {lines.shape[0]} rows, expected 3 S for S >= 2 points along an axis")
    check_tensor("planes", planes, (3 * side * side, lines.shape[1]), (lines.dtype,))
    check_tensor("positions", positions, ("N", 3), EXACT)
    check_same_device(("planes", planes), ("lines", lines), ("positions", positions))
    if grad is not None:
        check_tensor("grad", grad, (positions.shape[0], 3 * lines.shape[1]), FLOATS)
        check_same_device(("grad", grad), ("planes", planes))


@plane_line_products.register_fake
def _(planes, lines, positions):
    return planes.new_empty(positions.shape[0], 3 * planes.shape[1])


@plane_line_table_gradients.register_fake
def _(grad, planes, lines, positions):
    return planes.new_empty(planes.shape), lines.new_empty(lines.shape)


@plane_line_position_gradient.register_fake
def _(grad, planes, lines, positions):
    return positions.new_empty(positions.shape)


def _setup(ctx, inputs, output):
    ctx.save_for_backward(*inputs)


def _backward(ctx, grad):
    wants_planes, wants_lines, wants_positions = ctx.needs_input_grad
    to_planes = to_lines = None
    if wants_planes or wants_lines:
        to_planes, to_lines = plane_line_table_gradients(grad, *ctx.saved_tensors)
    to_positions = plane_line_position_gradient(grad, *ctx.saved_tensors) if wants_positions else None
    return to_planes, to_lines, to_positions


plane_line_products.register_autograd(_backward, setup_context=_setup)
