"""Multiresolution hash encoding: trilinear features from one table for many grids, coarse to fine.

Positions are (N, 3) in [0, 1]; those outside count as the nearest place on the border. Level l is a grid of
`resolutions[l]` cells an axis, with features at the (resolution + 1)^3 corners, in `sizes[l]` rows of the
table, one level after the other. Where all corners fit, corner (x, y, z) has row (x * side + y) * side + z;
else row (x xor y * 2654435761 xor z * 805459861) mod size, shared with whatever else falls there. The result
is the levels' features side by side, (N, L * F).

Gradients reach table and positions and can be differentiated again, as losses on the slope of a field need.
All are the same bits for any number of threads, without atomics. Source: Instant neural graphics primitives
(arXiv 2201.05989), section 3.
"""

from math import exp, floor, log
from typing import NamedTuple

import torch
from torch import Tensor

from sparse3d_ops.checks import FLOATS, check_same_device, check_tensor, working

EXACT = (torch.float32, torch.float64)
PRIME_Y, PRIME_Z = 2654435761, 805459861  # x has none: neighbours along it lie side by side in memory
FINEST = 1 << 20  # beyond it float32 cannot tell places in a cell apart, and (FINEST + 1)^3 fits an int64


class HashLevels(NamedTuple):
    """`resolutions` (L) cells an axis, `sizes` (L) rows of the table."""

    resolutions: list[int]
    sizes: list[int]


def hash_levels(coarsest: int, finest: int, levels: int, most_entries: int) -> HashLevels:
    """Levels from `coarsest` to `finest` cells an axis in equal ratios, none with more than `most_entries` (a
    power of two) rows: resolution l is floor(coarsest * b^l), b^(L - 1) = finest / coarsest (Eq. 2, 3)."""
    growth = (log(finest) - log(coarsest)) / max(1, levels - 1)
    # What should be a whole number may come out a rounding error below it.
    resolutions = [floor(coarsest * exp(growth * level) + 1e-6) for level in range(levels)]
    return HashLevels(resolutions, [min((r + 1) ** 3, most_entries) for r in resolutions])


@torch.library.custom_op("sparse3d::hash_encode", mutates_args=(), device_types="cpu")
def hash_encode(
    table: Tensor,
    positions: Tensor,
    resolutions: list[int],
    sizes: list[int],
    tangents: Tensor | None = None,
) -> Tensor:
    """Features of positions: (T, F) float, (N, 3) float32 or float64, levels -> (N, L * F).

    F must be even, and sizes of hashed levels powers of two; else ValueError. With `tangents` (N, 3), the
    features' derivative along these instead.
    """
    from sparse3d_ops.cpu import hash_encoding as body

    channels = _check_table(table, positions, resolutions, sizes, tangents)
    work = working(table)
    out = work.new_empty(len(positions), len(sizes) * channels)
    body.encode(work.numpy(), *_arrays(positions, tangents, resolutions, sizes), out.numpy())
    return out.to(table.dtype)


@torch.library.custom_op("sparse3d::hash_table_gradient", mutates_args=(), device_types="cpu")
def hash_table_gradient(
    grad: Tensor,
    positions: Tensor,
    resolutions: list[int],
    sizes: list[int],
    tangents: Tensor | None = None,
) -> Tensor:
    """Transpose of `hash_encode` in the table: (N, L * F) float, (N, 3), levels -> (sum of sizes, F)."""
    from sparse3d_ops.cpu import hash_encoding as body

    channels = _check_grad(grad, positions, resolutions, sizes, tangents)
    work = working(grad)
    out = work.new_empty(sum(sizes), channels)
    body.table_gradient(work.numpy(), *_arrays(positions, tangents, resolutions, sizes), out.numpy())
    return out.to(grad.dtype)


@torch.library.custom_op("sparse3d::hash_position_gradient", mutates_args=(), device_types="cpu")
def hash_position_gradient(
    table: Tensor,
    grad: Tensor,
    positions: Tensor,
    resolutions: list[int],
    sizes: list[int],
    tangents: Tensor | None = None,
) -> Tensor:
    """Gradient of the sum of grad * `hash_encode` in the positions: (T, F), (N, L * F), (N, 3), levels
    -> (N, 3); 0 along axes on which a position lies outside. With `tangents`, it differentiates once only."""
    from sparse3d_ops.cpu import hash_encoding as body

    _check_table(table, positions, resolutions, sizes, tangents)
    check_tensor("grad", grad, (positions.shape[0], len(sizes) * table.shape[1]), FLOATS)
    out = working(positions).new_empty(positions.shape)
    arrays = _arrays(positions, tangents, resolutions, sizes)
    body.position_gradient(working(table).numpy(), working(grad).numpy(), *arrays, out.numpy())
    return out


def _arrays(positions: Tensor, tangents: Tensor | None, resolutions: list[int], sizes: list[int]):
    """Positions, tangents (none for None), resolutions and first rows, as the numba bodies take them."""
    place = working(positions)
    along = place[:0] if tangents is None else working(tangents).to(place.dtype)
    rows = torch.tensor([0, *sizes]).cumsum(0)
    return place.numpy(), along.numpy(), torch.tensor(resolutions).numpy(), rows.numpy()


def _check_levels(
    positions: Tensor, resolutions: list[int], sizes: list[int], tangents: Tensor | None
) -> None:
    check_tensor("positions", positions, ("N", 3), EXACT)
    if tangents is not None:
        check_tensor("tangents", tangents, (positions.shape[0], 3), FLOATS)
        check_same_device(("positions", positions), ("tangents", tangents))
    if len(resolutions) != len(sizes) or not sizes:
        raise ValueError(
            f"{len(resolutions)} resolutions and {len(sizes)} sizes: expected one of each a level"
        )
    for level, (resolution, size) in enumerate(zip(resolutions, sizes, strict=True)):
        if not 1 <= resolution <= FINEST:
            raise ValueError(f"resolutions[{level}] is {resolution}, expected 1 to {FINEST}")
        if (resolution + 1) ** 3 > size and (size < 1 or size & (size - 1) or size > 1 << 31):
            raise ValueError(
                f"sizes[{level}] is {size}, expected room for all {(resolution + 1) ** 3} corners, or a "
                "power of two to hash them to"
            )


def _check_channels(channels: int) -> int:
    if channels % 2:
        raise ValueError(f"{channels} features an entry, expected an even number")
    return channels


def _check_table(
    table: Tensor, positions: Tensor, resolutions: list[int], sizes: list[int], tangents: Tensor | None
) -> int:
    _check_levels(positions, resolutions, sizes, tangents)
    check_tensor("table", table, (sum(sizes), "F"), FLOATS)
    check_same_device(("table", table), ("positions", positions))
    return _check_channels(table.shape[1])


def _check_grad(
    grad: Tensor, positions: Tensor, resolutions: list[int], sizes: list[int], tangents: Tensor | None
) -> int:
    _check_levels(positions, resolutions, sizes, tangents)
    check_tensor("grad", grad, (positions.shape[0], "L * F"), FLOATS)
    check_same_device(("grad", grad), ("positions", positions))
    channels, rest = divmod(grad.shape[1], len(sizes))
    if rest:
        raise ValueError(
            f"grad has {grad.shape[1]} columns, expected as many for each of {len(sizes)} levels"
        )
    return _check_channels(channels)


@hash_encode.register_kernel("cuda")
def _(table, positions, resolutions, sizes, tangents=None):
    from sparse3d_ops.gpu import hash_encoding as body

    channels = _check_table(table, positions, resolutions, sizes, tangents)
    work = working(table)
    out = work.new_empty(len(positions), len(sizes) * channels)
    body.encode(work, working(positions), _along(positions, tangents), resolutions, sizes, out)
    return out.to(table.dtype)


@hash_table_gradient.register_kernel("cuda")
def _(grad, positions, resolutions, sizes, tangents=None):
    from sparse3d_ops.gpu import hash_encoding as body

    channels = _check_grad(grad, positions, resolutions, sizes, tangents)
    work = working(grad)
    out = work.new_empty(sum(sizes), channels)
    body.table_gradient(work, working(positions), _along(positions, tangents), resolutions, sizes, out)
    return out.to(grad.dtype)


@hash_position_gradient.register_kernel("cuda")
def _(table, grad, positions, resolutions, sizes, tangents=None):
    from sparse3d_ops.gpu import hash_encoding as body

    _check_table(table, positions, resolutions, sizes, tangents)
    check_tensor("grad", grad, (positions.shape[0], len(sizes) * table.shape[1]), FLOATS)
    place, along = working(positions), _along(positions, tangents)
    out = torch.empty_like(place)
    body.position_gradient(working(table), working(grad), place, along, resolutions, sizes, out)
    return out


def _along(positions: Tensor, tangents: Tensor | None) -> Tensor | None:
    return None if tangents is None else working(tangents).to(positions.dtype)


@hash_encode.register_fake
def _(table, positions, resolutions, sizes, tangents=None):
    return table.new_empty(positions.shape[0], len(sizes) * table.shape[1])


@hash_table_gradient.register_fake
def _(grad, positions, resolutions, sizes, tangents=None):
    return grad.new_empty(sum(sizes), grad.shape[1] // len(sizes))


@hash_position_gradient.register_fake
def _(table, grad, positions, resolutions, sizes, tangents=None):
    return positions.new_empty(positions.shape)


# Encoding is linear in the table, so the three are each other's derivatives; `tangents` closes the family
# under one more derivative in the positions.


def _encode_setup(ctx, inputs, output):
    table, positions, ctx.resolutions, ctx.sizes, tangents = inputs
    ctx.save_for_backward(table, positions, tangents)


def _wants(ctx, inputs: int) -> tuple[bool, ...]:
    """needs_input_grad, from which torch leaves out a last argument that has its default."""
    return (*ctx.needs_input_grad, False)[:inputs]


def _encode_backward(ctx, grad):
    table, positions, tangents = ctx.saved_tensors
    levels = ctx.resolutions, ctx.sizes
    wants_table, wants_positions, _, _, wants_tangents = _wants(ctx, 5)
    return (
        hash_table_gradient(grad, positions, *levels, tangents) if wants_table else None,
        hash_position_gradient(table, grad, positions, *levels, tangents) if wants_positions else None,
        None,
        None,
        _like(hash_position_gradient(table, grad, positions, *levels), tangents) if wants_tangents else None,
    )


def _table_backward(ctx, grad_out):
    grad, positions, tangents = ctx.saved_tensors
    levels = ctx.resolutions, ctx.sizes
    wants_grad, wants_positions, _, _, wants_tangents = _wants(ctx, 5)
    return (
        hash_encode(grad_out, positions, *levels, tangents) if wants_grad else None,
        hash_position_gradient(grad_out, grad, positions, *levels, tangents) if wants_positions else None,
        None,
        None,
        _like(hash_position_gradient(grad_out, grad, positions, *levels), tangents)
        if wants_tangents
        else None,
    )


def _position_setup(ctx, inputs, output):
    table, grad, positions, ctx.resolutions, ctx.sizes, tangents = inputs
    ctx.save_for_backward(table, grad, positions, tangents)


def _position_backward(ctx, grad_out):
    table, grad, positions, tangents = ctx.saved_tensors
    levels = ctx.resolutions, ctx.sizes
    wants_table, wants_grad, wants_positions, _, _, wants_tangents = _wants(ctx, 6)
    if tangents is not None and (wants_table or wants_grad or wants_positions):
        raise NotImplementedError("the hash encoding has no third derivatives in positions")
    return (
        hash_table_gradient(grad, positions, *levels, grad_out).to(table.dtype) if wants_table else None,
        hash_encode(table, positions, *levels, grad_out).to(grad.dtype) if wants_grad else None,
        hash_position_gradient(table, grad, positions, *levels, grad_out) if wants_positions else None,
        None,
        None,
        _like(hash_position_gradient(table, grad, positions, *levels, grad_out), tangents)
        if wants_tangents
        else None,
    )


def _like(values: Tensor, other: Tensor | None) -> Tensor:
    return values if other is None else values.to(other.dtype)


hash_encode.register_autograd(_encode_backward, setup_context=_encode_setup)
hash_table_gradient.register_autograd(_table_backward, setup_context=_encode_setup)
hash_position_gradient.register_autograd(_position_backward, setup_context=_position_setup)
