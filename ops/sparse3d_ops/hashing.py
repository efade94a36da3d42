"""Exact 64-bit voxel keys, their hash table and their sorted set: one schema here, one body a device.

A key packs (batch, x, y, z) without loss (see `cpu/hashing.py` for the bits), so two voxels never share one;
what does not fit is an error that names the row. Keys sort as their coordinates do, which gives every result
one defined order.
"""

import math
from typing import NoReturn

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops.checks import check_range, check_same_device, check_tensor, remember, remembered
from sparse3d_ops.memory import empty

COORDINATE_LIMIT = 1 << 17
BATCH_LIMIT = 1 << 9


def table_size(count: int) -> int:
    """Slots of the table for `count` keys: a power of two, at most half full."""
    return max(8, 1 << (2 * count - 1).bit_length()) if count else 8


@torch.library.custom_op("sparse3d::pack", mutates_args=(), device_types="cpu")
def pack(coordinates: Tensor) -> Tensor:
    """Keys of voxels: (N, 4) int32 (batch, x, y, z) -> (N,) int64.

    Raises a ValueError naming the first row with batch outside of [0, 512) or x, y, z outside of [-131072,
    131072).
    """
    from sparse3d_ops.cpu import hashing as body

    array = checked_coordinates(coordinates)
    keys = coordinates.new_empty(len(coordinates), dtype=torch.int64)
    body.pack(array, keys.numpy())
    return keys


@pack.register_kernel("cuda")
def _(coordinates: Tensor) -> Tensor:
    """Waits for the GPU: whether a row does not fit must be known before anything is made of the keys."""
    from sparse3d_ops.gpu import hashing as body

    check_tensor("coordinates", coordinates, ("N", 4), (torch.int32,))
    keys = coordinates.new_empty(len(coordinates), dtype=torch.int64)
    body.pack(coordinates.contiguous(), keys)
    if len(keys) and int(keys.max()) >= 0:
        _refuse_misfit(coordinates, int((keys >= 0).nonzero()[0]))
    remember(coordinates, "fits", True)
    return keys


def checked_coordinates(coordinates: Tensor) -> np.ndarray:
    """(N, 4) int32 as a contiguous array. Raises a ValueError naming the first row that does not fit the
    key: its bits would run over into another voxel's."""
    from sparse3d_ops.cpu import hashing as body

    check_tensor("coordinates", coordinates, ("N", 4), (torch.int32,))
    array = coordinates.contiguous().numpy()
    row = body.first_bad_row(array)
    if row >= 0:
        _refuse_misfit(coordinates, row)
    return array


def checked_sites(coordinates: Tensor) -> Tensor:
    """What `checked_coordinates` is for arrays, for tensors on a GPU. It waits only for coordinates that
    `pack` has not seen."""
    check_tensor("coordinates", coordinates, ("N", 4), (torch.int32,))
    if not remembered(coordinates, "fits"):
        pack(coordinates)
    return coordinates.contiguous()


def _refuse_misfit(coordinates: Tensor, row: int) -> NoReturn:
    raise ValueError(
        f"coordinates[{row}] = {tuple(coordinates[row].tolist())} does not fit the 64-bit key: batch must "
        f"lie in [0, {BATCH_LIMIT}), x, y, z in [{-COORDINATE_LIMIT}, {COORDINATE_LIMIT}); "
        "use larger voxels or shift the origin"
    )


def _check_keys(keys: Tensor) -> None:
    """Raise a ValueError unless these are keys of `pack`: a table takes 0 for a free slot."""
    check_tensor("keys", keys, ("N",), (torch.int64,))
    if len(keys) >= 1 << 31:
        raise ValueError(f"{len(keys)} keys, at most 2^31 - 1 are handled at once")
    if len(keys) and int(keys.max()) >= 0:
        row = int((keys >= 0).nonzero()[0])
        raise ValueError(
            f"keys[{row}] is {int(keys[row])}, which is not the key of a voxel; make it with pack"
        )


@pack.register_fake
def _(coordinates: Tensor) -> Tensor:
    return coordinates.new_empty(coordinates.shape[0], dtype=torch.int64)


@torch.library.custom_op("sparse3d::unpack", mutates_args=(), device_types="cpu")
def unpack(keys: Tensor) -> Tensor:
    """Inverse of `pack`: (N,) int64 -> (N, 4) int32."""
    from sparse3d_ops.cpu import hashing as body

    _check_keys(keys)
    coordinates = keys.new_empty(len(keys), 4, dtype=torch.int32)
    body.unpack(keys.contiguous().numpy(), coordinates.numpy())
    return coordinates


@unpack.register_kernel("cuda")
def _(keys: Tensor) -> Tensor:
    from sparse3d_ops.gpu import hashing as body

    _check_keys(keys)
    coordinates = keys.new_empty(len(keys), 4, dtype=torch.int32)
    body.unpack(keys.contiguous(), coordinates)
    remember(coordinates, "fits", True)
    return coordinates


@unpack.register_fake
def _(keys: Tensor) -> Tensor:
    return keys.new_empty(keys.shape[0], 4, dtype=torch.int32)


@torch.library.custom_op("sparse3d::unique", mutates_args=(), device_types="cpu")
def unique(keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Sorted set of keys: (N,) int64 -> keys (M,), inverse (N,) int64 and counts (M,) int64."""
    from sparse3d_ops.cpu import hashing as body
    from sparse3d_ops.cpu import radix

    _check_keys(keys)
    array = keys.contiguous().numpy()
    cell, row, chunks = _sorted_cells(array)
    first = np.empty(chunks, np.int64)
    count = radix.count_runs(cell, first)
    distinct, offsets = empty((count,), torch.int64), np.empty(count + 1, np.int64)
    inverse = empty((len(keys),), torch.int64)
    body.distinct(array, cell, row, first, distinct.numpy(), inverse.numpy(), offsets)
    return distinct, inverse, torch.from_numpy(np.diff(offsets))


def _sorted_cells(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """What `radix.sort_cells` gives for the cells of keys in the smallest grid that holds them."""
    from sparse3d_ops.cpu import hashing as body
    from sparse3d_ops.cpu import radix

    low, extent = body.field_ranges(keys)
    cell = np.empty(len(keys), np.int64)
    body.cells(keys, low, extent, cell)
    return radix.sort_cells(cell, (math.prod(extent.tolist()) - 1).bit_length())


def sorted_rows(keys: np.ndarray) -> np.ndarray:
    """(N,) keys -> (N,) int32 rows in the order of their keys, equal ones in the order of their rows."""
    return _sorted_cells(keys)[1]


@unique.register_kernel("cuda")
def _(keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    _check_keys(keys)
    return torch.unique(keys, return_inverse=True, return_counts=True)


@unique.register_fake
def _(keys: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    count = torch.library.get_ctx().new_dynamic_size()
    return keys.new_empty(count), torch.empty_like(keys), keys.new_empty(count)


@torch.library.custom_op("sparse3d::build", mutates_args=(), device_types="cpu")
def build(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Hash table of distinct keys: (N,) int64 -> slot_keys (S,) int64 (0 where free) and slot_rows (S,)
    int32.

    Raises a ValueError naming two equal rows: a table that hid one of them would give silent wrong answers.
    """
    from sparse3d_ops.cpu import hashing as body

    _check_keys(keys)
    slots = table_size(len(keys))
    slot_keys, slot_rows = empty((slots,), torch.int64), empty((slots,), torch.int32)
    _refuse_repeated(keys, *body.build(keys.contiguous().numpy(), slot_keys.numpy(), slot_rows.numpy()))
    return slot_keys, slot_rows


@build.register_kernel("cuda")
def _(keys: Tensor) -> tuple[Tensor, Tensor]:
    """Waits for the GPU twice: are these keys, and are they distinct? Which slot a key gets may differ from
    run to run; what `look_up` finds may not."""
    from sparse3d_ops.gpu import hashing as body

    _check_keys(keys)
    slots = table_size(len(keys))
    slot_keys = keys.new_empty(slots)
    slot_rows = keys.new_zeros(slots, dtype=torch.int32)
    _refuse_repeated(keys, *body.build(keys.contiguous(), slot_keys, slot_rows))
    remember(slot_keys, "table", True)
    remember(slot_rows, "range", (0, max(len(keys) - 1, 0)))
    return slot_keys, slot_rows


def _refuse_repeated(keys: Tensor, first: int, second: int) -> None:
    """Raise a ValueError for two equal rows; a `second` of -1 says that there are none."""
    if second >= 0:
        where = tuple(unpack(keys[second : second + 1])[0].tolist())
        raise ValueError(
            f"coordinates[{second}] = {where} repeats coordinates[{first}]; merge duplicates first: "
            "SparseTensor.merge_duplicates(features, coordinates)"
        )


@build.register_fake
def _(keys: Tensor) -> tuple[Tensor, Tensor]:
    slots = torch.library.get_ctx().new_dynamic_size()
    return keys.new_empty(slots), keys.new_empty(slots, dtype=torch.int32)


@torch.library.custom_op("sparse3d::look_up", mutates_args=(), device_types="cpu")
def look_up(slot_keys: Tensor, slot_rows: Tensor, keys: Tensor) -> Tensor:
    """Rows of keys in a table of `build`: (S,), (S,), (Q,) int64 -> (Q,) int32, -1 where a key is not in
    the table."""
    from sparse3d_ops.cpu import hashing as body

    _check_look_up(slot_keys, slot_rows, keys)
    rows = keys.new_empty(len(keys), dtype=torch.int32)
    body.look_up(slot_keys.numpy(), slot_rows.numpy(), keys.contiguous().numpy(), rows.numpy())
    return rows


@look_up.register_kernel("cuda")
def _(slot_keys: Tensor, slot_rows: Tensor, keys: Tensor) -> Tensor:
    from sparse3d_ops.gpu import hashing as body

    _check_look_up(slot_keys, slot_rows, keys)
    rows = keys.new_empty(len(keys), dtype=torch.int32)
    body.look_up(slot_keys.contiguous(), slot_rows.contiguous(), keys.contiguous(), rows)
    return rows


def _check_look_up(slot_keys: Tensor, slot_rows: Tensor, keys: Tensor) -> None:
    check_table(slot_keys, slot_rows)
    check_tensor("keys", keys, ("Q",), (torch.int64,))
    check_same_device(("slot_keys", slot_keys), ("slot_rows", slot_rows), ("keys", keys))


@look_up.register_fake
def _(slot_keys: Tensor, slot_rows: Tensor, keys: Tensor) -> Tensor:
    return keys.new_empty(keys.shape[0], dtype=torch.int32)


def check_table(slot_keys: Tensor, slot_rows: Tensor, num_rows: int | None = None) -> None:
    """Raise a ValueError unless the two tensors can be a table of `build`, of `num_rows` keys where given:
    a probe must find a free slot to end at, and rows index memory. Whose table it is, is not checked."""
    check_tensor("slot_keys", slot_keys, ("S",), (torch.int64,))
    check_tensor("slot_rows", slot_rows, (slot_keys.shape[0],), (torch.int32,))
    size = slot_keys.shape[0]
    if size < 8 or size & (size - 1):
        raise ValueError(f"a hash table has a power of two of slots, got {size}; make it with build(keys)")
    if not remembered(slot_keys, "table"):
        if int(slot_keys.max()) != 0:  # keys are negative
            raise ValueError("a hash table has free slots (0) and negative keys; make it with build(keys)")
        remember(slot_keys, "table", True)
    if num_rows is not None:
        check_range("slot_rows", slot_rows, 0, max(num_rows, 1))
