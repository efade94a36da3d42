"""Windows over voxels, and the sets of nearly equal size that each window is cut into, along y and along x.

A voxel c lies in window (c + shift) // window of its sample, at place (c + shift) % window within it. The N_w
voxels of a window, sorted, are cut into S_w = ceil(N_w / set_size) sets. Eq. 3 of DSVT (arXiv 2301.06051)
fills slot k of set j with the voxel at rank floor((j * set_size + k) * N_w / (S_w * set_size)), some of them
more than once. Since (S_w - 1) * set_size < N_w, no voxel is in two sets, and set j holds just the ranks from
floor(j * N_w / S_w) up to floor((j + 1) * N_w / S_w). So a partition is a sort of exact integer keys and the
places where it is cut: the same on every device, whatever the order of the voxels. `padded_sets` writes it
out as slots.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparse3d_ops.checks import check_tensor, remember

KEY_BITS = 62


class WindowSets(NamedTuple):
    """The sets of one window shape and shift.

    order_y, order_x (N,) int64: rows of voxels, sorted by window and within it along y (then x, z) or along x
    (then y, z). offsets (S + 1,) int64: set s holds places offsets[s] to offsets[s + 1] of either order.
    set_window (S,) int64: window of each set, counted over windows that hold a voxel. place (N, 3) int32:
    (x, y, z) of each voxel within its window.
    """

    order_y: Tensor
    order_x: Tensor
    offsets: Tensor
    set_window: Tensor
    place: Tensor


class PaddedSets(NamedTuple):
    """slots (S, set_size) int64: the voxel of each slot; repeated (S, set_size) bool: the slot holds the
    voxel of the slot before it, as keys do not count twice."""

    slots: Tensor
    repeated: Tensor


def window_sets(
    coordinates: Tensor, shape: list[int], window: list[int], shift: list[int], set_size: int
) -> WindowSets:
    """Voxels (N, 4) int32 (batch, x, y, z) of a grid `shape` (X, Y, Z) -> their sets of at most `set_size`
    voxels. Where a window is as high as the grid, it is not shifted in z.

    Voxels must be distinct (equal ones keep their order). Raises ValueError for coordinates outside of the
    grid and for windows that 62-bit keys do not hold.
    """
    return WindowSets(*_window_sets(coordinates, shape, window, shift, set_size))


def _geometry(
    coordinates: Tensor, shape: list[int], window: list[int], shift: list[int], set_size: int
) -> tuple[list[int], list[int], int]:
    """Windows along each axis, the shift that counts, and a bound of the keys; refuses what does not fit."""
    check_tensor("coordinates", coordinates, ("N", 4), (torch.int32,))
    for name, values, least in (("shape", shape, 1), ("window", window, 1), ("shift", shift, 0)):
        if len(values) != 3 or min(values) < least:
            raise ValueError(f"{name} is {values}, expected three integers >= {least}")
    if set_size < 1:
        raise ValueError(f"set_size is {set_size}, expected 1 or more")
    if any(move > size for move, size in zip(shift, window, strict=True)):
        raise ValueError(f"shift {shift} is larger than the window {window}")
    shift = [*shift[:2], 0 if window[2] == shape[2] else shift[2]]
    counts = [
        -(-size // side) + 1 for size, side in zip(shape, window, strict=True)
    ]  # one more for the shift
    samples = 1
    if len(coordinates):
        low, high = (values.tolist() for values in torch.stack(torch.aminmax(coordinates, dim=0)))
        if min(low) < 0 or any(c >= size for c, size in zip(high[1:], shape, strict=True)):
            raise ValueError(
                f"coordinates reach from {low} to {high}, expected (batch, x, y, z) within {shape}"
            )
        samples = high[0] + 1
    volume = window[0] * window[1] * window[2]
    keys = samples * counts[0] * counts[1] * counts[2] * volume
    if keys >= 1 << KEY_BITS:
        raise ValueError(f"{samples} samples of {counts} windows of {window} cells pass 2^{KEY_BITS} keys")
    return counts, shift, keys


def _cut(keys: Tensor, volume: int, set_size: int) -> tuple[Tensor, Tensor]:
    """offsets and set_window for the sorted keys: exact integers."""
    _, voxels = torch.unique_consecutive(keys // volume, return_counts=True)
    sets = (voxels + set_size - 1) // set_size
    window = torch.arange(len(voxels), device=keys.device)
    set_window = torch.repeat_interleave(window, sets)
    rank = torch.arange(len(set_window), device=keys.device) - (sets.cumsum(0) - sets)[set_window]
    begin = (voxels.cumsum(0) - voxels)[set_window]
    offsets = begin + rank * voxels[set_window] // sets[set_window]
    return torch.cat([offsets, offsets.new_full((1,), len(keys))]), set_window


@torch.library.custom_op("sparse3d::window_sets", mutates_args=(), device_types="cpu")
def _window_sets(
    coordinates: Tensor, shape: list[int], window: list[int], shift: list[int], set_size: int
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from sparse3d_ops.cpu import radix
    from sparse3d_ops.cpu import windows as body

    counts, shift, keys = _geometry(coordinates, shape, window, shift, set_size)
    voxels = len(coordinates)
    along_y, along_x = np.empty((2, voxels), np.int64)
    place = np.empty((voxels, 3), np.int32)
    geometry = np.asarray([counts, window, shift])
    body.window_keys(coordinates.contiguous().numpy(), geometry, along_y, along_x, place)
    bits = (keys - 1).bit_length()
    _, order_x, _ = radix.sort_cells(along_x, bits)
    along_y, order_y, _ = radix.sort_cells(along_y, bits)
    cut = _cut(torch.from_numpy(along_y), window[0] * window[1] * window[2], set_size)
    return torch.from_numpy(order_y).long(), torch.from_numpy(order_x).long(), *cut, torch.from_numpy(place)


@_window_sets.register_kernel("cuda")
def _(coordinates, shape, window, shift, set_size):
    from sparse3d_ops.gpu import windows as body

    counts, shift, _ = _geometry(coordinates, shape, window, shift, set_size)
    along_y, along_x, place = body.window_keys(coordinates, counts, window, shift)
    along_y, order_y = torch.sort(along_y, stable=True)
    order_x = torch.argsort(along_x, stable=True)
    offsets, set_window = _cut(along_y, window[0] * window[1] * window[2], set_size)
    for order in (order_y, order_x):
        remember(order, "sets of", (len(order), set_size))
    return order_y, order_x, offsets, set_window, place


@_window_sets.register_fake
def _(coordinates, shape, window, shift, set_size):
    rows, sets = coordinates.shape[0], torch.library.get_ctx().new_dynamic_size()
    order = coordinates.new_empty(rows, dtype=torch.int64)
    return (
        order,
        torch.empty_like(order),
        order.new_empty(sets + 1),
        order.new_empty(sets),
        coordinates.new_empty(rows, 3),
    )


def padded_sets(order: Tensor, offsets: Tensor, set_window: Tensor, set_size: int) -> PaddedSets:
    """The slots of the sets (Eq. 3): one of the orders of `window_sets`, its offsets and windows."""
    windows = int(set_window[-1]) + 1 if len(set_window) else 0
    sets = torch.bincount(set_window, minlength=windows)
    first = sets.cumsum(0) - sets
    begin = offsets[first]
    voxels = torch.cat([begin, offsets[-1:]]).diff()
    slot = torch.arange(len(set_window), device=order.device) - first[set_window]
    slot = slot[:, None] * set_size + torch.arange(set_size, device=order.device)
    place = slot * voxels[set_window, None] // (sets[set_window, None] * set_size) + begin[set_window, None]
    slots = order[place]
    repeated = torch.zeros_like(slots, dtype=torch.bool)
    repeated[:, 1:] = place[:, 1:] == place[:, :-1]
    return PaddedSets(slots, repeated)
