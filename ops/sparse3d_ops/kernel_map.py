"""Kernel maps: which input row meets which output row at which tap. One schema here, one body a device.

Geometry of every convolution, per axis: in = stride * out - padding + dilation * tap, tap = 0 .. kernel - 1.
Taps are numbered v = (i * Ky + j) * Kz + k. A map is two dense tables that are inverse to each other: `table`
(N_out, V) int32 holds the input row of each output row and tap, `reverse` (N_in, V) the output row of each
input row and tap; -1 where there is none. A transposed convolution is the map of its forward twin with the
two tables exchanged. Output sites are sorted by (batch, x, y, z), so maps are the same on every device.
"""

import math
from collections.abc import Callable, Sequence
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops.checks import check_same_device, remember
from sparse3d_ops.hashing import check_table, checked_coordinates, checked_sites, pack, sorted_rows, unpack

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
    return _map(
        slot_keys, slot_rows, len(coordinates), coordinates, *_submanifold_geometry(kernel_size, dilation)
    )


@submanifold_map.register_kernel("cuda")
def _(slot_keys, slot_rows, coordinates, kernel_size, dilation):
    return _cuda_map(
        slot_keys, slot_rows, len(coordinates), coordinates, *_submanifold_geometry(kernel_size, dilation)
    )


def _submanifold_geometry(kernel_size: list[int], dilation: list[int]):
    """Kernel, stride, padding, dilation, and whether reverse is the mirror image of the table."""
    padding = [submanifold_padding(k, d) for k, d in zip(kernel_size, dilation, strict=True)]
    return kernel_size, [1, 1, 1], padding, dilation, all(k % 2 for k in kernel_size)


def _map(
    slot_keys, slot_rows, num_in, out_coordinates, kernel_size, stride, padding, dilation, mirrored=False
):
    from sparse3d_ops.cpu import kernel_map as body

    check_table(slot_keys, slot_rows, num_in)
    check_same_device(("slot_keys", slot_keys), ("out_coordinates", out_coordinates))
    geometry = _triples(kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)
    out_keys = pack(out_coordinates).numpy()  # checks them
    out, out_rows = out_coordinates.contiguous().numpy(), _key_order(out_keys)
    keys = np.zeros(num_in + 1, np.int64)
    if mirrored:  # inputs and outputs are the same
        keys[:-1], rows = out_keys, out_rows
    else:
        body.table_keys(slot_keys.numpy(), slot_rows.numpy(), keys)
        rows = _key_order(keys[:-1])
    if len(rows):
        keys[:-1] = keys[rows]
    if len(out_rows):
        out = out[out_rows]
    volume = math.prod(kernel_size)
    table = out_coordinates.new_full((len(out), volume), -1)
    reverse = out_coordinates.new_full((num_in, volume), -1)
    kernel, strides, paddings, dilations = geometry
    tables = (table.numpy(), reverse.numpy())
    body.neighbors(keys, out, kernel, strides, paddings, dilations, mirrored, *tables)
    if len(rows) or len(out_rows):
        ordered, table = table.numpy(), torch.empty_like(table)
        body.relabel(ordered, out_rows, rows, table.numpy())
        ordered, reverse = reverse.numpy(), torch.empty_like(reverse)
        body.relabel(ordered, rows, out_rows, reverse.numpy())
    return table, reverse


def _cuda_map(
    slot_keys, slot_rows, num_in, out_coordinates, kernel_size, stride, padding, dilation, mirrored=False
):
    """Waits for the GPU only for tables and sites that `build` and `pack` have not seen."""
    from sparse3d_ops.gpu import kernel_map as body

    check_table(slot_keys, slot_rows, num_in)
    check_same_device(("slot_keys", slot_keys), ("out_coordinates", out_coordinates))
    out = checked_sites(out_coordinates)
    _triples(kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)
    volume = math.prod(kernel_size)
    table = out.new_empty(len(out), volume)
    reverse = None if mirrored else out.new_full((num_in, volume), -1)
    geometry = (*stride, *padding, *dilation)
    body.neighbors(slot_keys.contiguous(), slot_rows.contiguous(), out, kernel_size, geometry, table, reverse)
    if reverse is None:
        reverse = table.flip(1)
    remember(table, "range", (-1, num_in - 1))
    remember(reverse, "range", (-1, len(out) - 1))
    return table, reverse


def _key_order(keys: np.ndarray) -> np.ndarray:
    """Rows in the order of their keys; empty when they are in order already, as voxels usually are."""
    from sparse3d_ops.cpu import kernel_map as body

    return np.empty(0, np.int32) if body.is_sorted(keys) else sorted_rows(keys)


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
    return _map(slot_keys, slot_rows, num_in, out_coordinates, kernel_size, stride, padding, dilation)


kernel_map.register_kernel("cuda", _cuda_map)


@kernel_map.register_fake
def _(slot_keys, slot_rows, num_in, out_coordinates, kernel_size, stride, padding, dilation):
    volume = math.prod(kernel_size)
    return (
        out_coordinates.new_empty(out_coordinates.shape[0], volume),
        out_coordinates.new_empty(num_in, volume),
    )


def _generate(
    transposed: bool, coordinates: Tensor, geometry: list[np.ndarray], reach: int, shape: list[int]
) -> Tensor:
    """The sorted sites of a convolution, or of a transposed one, with room for `reach` outputs an input."""
    from sparse3d_ops.cpu import kernel_map as body

    sites = checked_coordinates(coordinates)
    _check_shape(shape)
    chunks = -(-len(sites) // body.CHUNK)
    room = body.CHUNK * reach
    found, counts, far = np.empty(chunks * room, np.int64), *np.empty((2, chunks), np.int64)
    kernel, strides, paddings, dilations = geometry
    grid = kernel, strides, paddings, dilations, np.asarray(shape, np.int64)
    body.candidates(sites, transposed, *grid, reach, found, counts, far)
    if far.max(initial=-1) >= 0:
        _refuse_far(coordinates, int(far[far >= 0].min()))
    keys = np.concatenate([found[:0], *(found[c * room :][:n] for c, n in enumerate(counts))])
    keys.sort()
    return unpack(torch.from_numpy(keys[: body.drop_repeats(keys)].copy()))


def _cuda_generate(
    candidates: Callable, coordinates: Tensor, kernel_size, geometry, reach: list[int], shape: list[int]
):
    """`_generate` on a GPU. It waits for the number of sites."""
    from sparse3d_ops.gpu import kernel_map as body

    sites = checked_sites(coordinates)
    _check_shape(shape)
    found = sites.new_empty(len(sites) * math.prod(reach), dtype=torch.int64)
    candidates(sites, kernel_size, reach, geometry, shape, found)
    keys = torch.unique(found)  # sorted; what is no key is larger than all keys
    if len(keys) and int(keys[-1]) == body.BEYOND.value:
        _refuse_far(coordinates, int((found == body.BEYOND.value).nonzero()[0]) // math.prod(reach))
    return unpack(keys[keys != 0])


def _check_shape(shape: list[int]) -> None:
    if len(shape) not in (0, 3) or any(size < 0 for size in shape):
        raise ValueError(f"shape is {shape}, expected [] (unbounded) or the three sizes of the output grid")


def _refuse_far(coordinates: Tensor, row: int) -> NoReturn:
    raise ValueError(
        f"coordinates[{row}] = {tuple(coordinates[row].tolist())} reaches an output outside of the 64-bit "
        "key; give the tensor a shape or shift its origin"
    )


def _strided_reach(kernel_size: list[int], stride: list[int], dilation: list[int]) -> list[int]:
    """Outputs that an input reaches on each axis, at most: of the k taps it can use those of one residue
    class modulo s / gcd(s, d)."""
    steps = zip(kernel_size, stride, dilation, strict=True)
    return [math.ceil(k / (s // math.gcd(s, d))) for k, s, d in steps]


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
    geometry = _triples(kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)
    reach = math.prod(_strided_reach(kernel_size, stride, dilation))
    return _generate(False, coordinates, geometry, reach, shape)


@strided_sites.register_kernel("cuda")
def _(coordinates, kernel_size, stride, padding, dilation, shape):
    from sparse3d_ops.gpu import kernel_map as body

    _triples(kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)
    geometry, reach = (*stride, *padding, *dilation), _strided_reach(kernel_size, stride, dilation)
    return _cuda_generate(body.strided_sites, coordinates, kernel_size, geometry, reach, shape)


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
    geometry = _triples(kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)
    return _generate(True, coordinates, geometry, math.prod(kernel_size), shape)


@transposed_sites.register_kernel("cuda")
def _(coordinates, kernel_size, stride, padding, dilation, shape):
    from sparse3d_ops.gpu import kernel_map as body

    _triples(kernel_size=kernel_size, stride=stride, padding=padding, dilation=dilation)
    geometry = (*stride, *padding, *dilation)
    return _cuda_generate(body.transposed_sites, coordinates, kernel_size, geometry, kernel_size, shape)


@strided_sites.register_fake
@transposed_sites.register_fake
def _(coordinates, kernel_size, stride, padding, dilation, shape):
    return coordinates.new_empty(torch.library.get_ctx().new_dynamic_size(), 4)
