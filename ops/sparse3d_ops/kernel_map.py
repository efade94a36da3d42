"""Kernel maps: which input row meets which output row at which tap. One schema here, one body a device.

Geometry of every convolution, per axis: in = stride * out - padding + dilation * tap, tap = 0 .. kernel - 1.
Taps are numbered v = (i * Ky + j) * Kz + k. A map is two dense tables that are inverse to each other: `table`
(N_out, V) int32 holds the input row of each output row and tap, `reverse` (N_in, V) the output row of each
input row and tap; -1 where there is none. A transposed convolution is the map of its forward twin with the
two tables exchanged. Output sites are sorted by (batch, x, y, z), so maps are the same on every device.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops.checks import check_same_device
from sparse3d_ops.hashing import check_table, checked_coordinates, table_size, unpack

# Larger geometry is a mistake, and its products with coordinates could leave int64.
SIZE_LIMIT = 1 << 31


def _triples(**named: Sequence[int]) -> list[np.ndarray]:
    for name, values in named.items():
        lowest = 0 if name == "padding" else 1
        if len(values) != 3 or any(not lowest <= v < SIZE_LIMIT for v in values):
            raise ValueError(
                f"{name} is {list(values)}, expected three integers in [{lowest}, 2^31), one per axis x, y, z"
            )
    return [np.asarray(values, dtype=np.int64) for values in named.values()]


@torch.library.custom_op("sparse3d::submanifold_map", mutates_args=(), device_types="cpu")
def submanifold_map(
    slot_keys: Tensor, slot_rows: Tensor, coordinates: Tensor, kernel_size: list[int], dilation: list[int]
) -> tuple[Tensor, Tensor]:
    """Map from sites to themselves: (N, 4) int32 and their hash table -> table (N, V), reverse (N, V) int32.

    Odd kernels are centred, even kernels are anchored at tap 0.
    """
    from sparse3d_ops.cpu import kernel_map as body

    check_table(slot_keys, slot_rows, len(coordinates))
    check_same_device(("slot_keys", slot_keys), ("coordinates", coordinates))
    sites = checked_coordinates(coordinates)
    kernel, dilations = _triples(kernel_size=kernel_size, dilation=dilation)
    volume = math.prod(kernel_size)
    table = coordinates.new_full((len(sites), volume), -1)
    keys, rows = slot_keys.numpy(), slot_rows.numpy()
    if all(k % 2 for k in kernel_size):
        body.symmetric_neighbors(keys, rows, sites, kernel, dilations, table.numpy())
        return table, table.flip(1)
    reverse = torch.full_like(table, -1)
    padding = np.asarray([submanifold_padding(k, d) for k, d in zip(kernel_size, dilation, strict=True)])
    ones = np.ones(3, np.int64)
    body.neighbors(keys, rows, sites, kernel, ones, padding, dilations, table.numpy(), reverse.numpy())
    return table, reverse


def submanifold_padding(kernel: int, dilation: int) -> int:
    """Padding that keeps sites in place: half of the extent for odd kernels, none for even ones (tap 0 is
    the site)."""
    return dilation * (kernel - 1) // 2 if kernel % 2 else 0


@submanifold_map.register_fake
def _(slot_keys, slot_rows, coordinates, kernel_size, dilation):
    shape = (coordinates.shape[0], math.prod(kernel_size))
    return coordinates.new_empty(shape), coordinates.new_empty(shape)


@torch.library.custom_op("sparse3d::kernel_map", mutates_args=(), device_types="cpu")
def kernel_map(
    slot_keys: Tensor,
    slot_rows: Tensor,
    num_in: int,
    out_coordinates: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
) -> tuple[Tensor, Tensor]:
    """Map between two sets of sites: hash table of the (fine) inputs and (N_out, 4) int32 (coarse) outputs ->
    table (N_out, V), reverse (num_in, V) int32. The outputs must be distinct; this is not checked."""
    from sparse3d_ops.cpu import kernel_map as body

    check_table(slot_keys, slot_rows, num_in)
    check_same_device(("slot_keys", slot_keys), ("out_coordinates", out_coordinates))
    out = checked_coordinates(out_coordinates)
    kernel, strides, paddings, dilations = _triples(
        kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation
    )
    volume = math.prod(kernel_size)
    table = out_coordinates.new_empty(len(out), volume)
    reverse = out_coordinates.new_full((num_in, volume), -1)
    keys, rows = slot_keys.numpy(), slot_rows.numpy()
    body.neighbors(keys, rows, out, kernel, strides, paddings, dilations, table.numpy(), reverse.numpy())
    return table, reverse


@kernel_map.register_fake
def _(slot_keys, slot_rows, num_in, out_coordinates, kernel_size, stride, padding, dilation):
    volume = math.prod(kernel_size)
    return (
        out_coordinates.new_empty(out_coordinates.shape[0], volume),
        out_coordinates.new_empty(num_in, volume),
    )


def _generate(body, coordinates: Tensor, reach: int, arrays: list[np.ndarray], shape: list[int]) -> Tensor:
    """Run a site generator with room for `reach` outputs an input, and sort what it found."""
    sites = checked_coordinates(coordinates)
    if len(shape) not in (0, 3) or any(size < 0 for size in shape):
        raise ValueError(f"shape is {shape}, expected [] (unbounded) or the three sizes of the output grid")
    slot_keys = np.empty(table_size(len(sites) * reach), np.int64)
    found = np.empty(len(sites) * reach, np.int64)
    count = body(sites, *arrays, np.asarray(shape, np.int64), slot_keys, found)
    if count < 0:
        row = -1 - count
        raise ValueError(
            f"coordinates[{row}] = {tuple(sites[row].tolist())} reaches an output outside of the 64-bit key; "
            "give the tensor a shape or shift its origin"
        )
    return unpack(torch.from_numpy(np.sort(found[:count])))


@torch.library.custom_op("sparse3d::strided_sites", mutates_args=(), device_types="cpu")
def strided_sites(
    coordinates: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    shape: list[int],
) -> Tensor:
    """Output sites of a convolution: (N, 4) int32 -> (M, 4) int32, all that any input reaches, sorted.

    `shape` is the size of the output grid per axis, or empty for an unbounded grid.
    """
    from sparse3d_ops.cpu import kernel_map as body

    arrays = _triples(kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)
    # Of the k taps of an axis an input can use those of one residue class modulo s / gcd(s, d).
    steps = zip(kernel_size, stride, dilation, strict=True)
    reach = math.prod(math.ceil(k / (s // math.gcd(s, d))) for k, s, d in steps)
    return _generate(body.strided_sites, coordinates, reach, arrays, shape)


@torch.library.custom_op("sparse3d::transposed_sites", mutates_args=(), device_types="cpu")
def transposed_sites(
    coordinates: Tensor,
    kernel_size: list[int],
    stride: list[int],
    padding: list[int],
    dilation: list[int],
    shape: list[int],
) -> Tensor:
    """Output sites of a transposed convolution: as `strided_sites`, with o = stride * in - padding +
    dilation * tap."""
    from sparse3d_ops.cpu import kernel_map as body

    arrays = _triples(kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)
    return _generate(body.transposed_sites, coordinates, math.prod(kernel_size), arrays, shape)


@strided_sites.register_fake
@transposed_sites.register_fake
def _(coordinates, kernel_size, stride, padding, dilation, shape):
    return coordinates.new_empty(torch.library.get_ctx().new_dynamic_size(), 4)
