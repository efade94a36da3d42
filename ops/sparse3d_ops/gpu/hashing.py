"""Triton bodies of packing, hashing and looking up voxel keys; `cpu/hashing.py` says what a key is.

The table is filled by compare-and-swap on whole keys, so where a key lies depends on the order in which the
GPU runs, but what is found under a key does not.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from sparse3d_ops.gpu.launch import lanes, launch

BLOCK = 256
HALF = tl.constexpr(1 << 17)  # coordinates lie in [-HALF, HALF)
BATCHES = tl.constexpr(1 << 9)
VALID = tl.constexpr(-(1 << 63))


@triton.jit
def in_range(x, y, z):
    return (x >= -HALF) & (x < HALF) & (y >= -HALF) & (y < HALF) & (z >= -HALF) & (z < HALF)


@triton.jit
def pack_key(b, x, y, z):
    """Keys of int64 coordinates that are in range."""
    return (b << 54) | ((x + HALF) << 36) | ((y + HALF) << 18) | (z + HALF) | VALID


@triton.jit
def first_slot(key, mask):
    """Splitmix64's finaliser: every bit of the key moves every bit of the slot."""
    h = key.to(tl.uint64, bitcast=True)
    h = (h ^ (h >> 30)) * 0xBF58476D1CE4E5B9
    h = (h ^ (h >> 27)) * 0x94D049BB133111EB
    return ((h ^ (h >> 31)) & mask.to(tl.uint64)).to(tl.int64)


@triton.jit
def find(slot_keys, slot_rows, slots, key, wanted):
    """Row stored under each wanted key, -1 when there is none."""
    mask = tl.zeros_like(key) + (slots - 1)
    slot = first_slot(key, mask)
    row = tl.full(key.shape, -1, tl.int32)
    while tl.max(wanted.to(tl.int32), 0) > 0:
        stored = tl.load(slot_keys + slot, mask=wanted, other=0)
        wanted = wanted & (stored != 0)  # first, so that 0, which is no voxel's key, is found nowhere
        here = wanted & (stored == key)
        row = tl.where(here, tl.load(slot_rows + slot, mask=here, other=-1), row)
        wanted = wanted & (stored != key)
        slot = (slot + 1) & mask
    return row


@triton.jit(do_not_specialize=["items"])
def pack_kernel(coordinates, keys, items, BLOCK: tl.constexpr):
    """keys is an output: 0, which is no voxel's, for a row that does not fit."""
    i = lanes(BLOCK)
    inside = i < items
    b = tl.load(coordinates + 4 * i, mask=inside, other=0).to(tl.int64)
    x = tl.load(coordinates + 4 * i + 1, mask=inside, other=0).to(tl.int64)
    y = tl.load(coordinates + 4 * i + 2, mask=inside, other=0).to(tl.int64)
    z = tl.load(coordinates + 4 * i + 3, mask=inside, other=0).to(tl.int64)
    fits = (b >= 0) & (b < BATCHES) & in_range(x, y, z)
    tl.store(keys + i, tl.where(fits, pack_key(b, x, y, z), 0), mask=inside)


def pack(coordinates: Tensor, keys: Tensor) -> None:
    launch(pack_kernel, len(keys), BLOCK, coordinates, keys)


@triton.jit(do_not_specialize=["items"])
def unpack_kernel(keys, coordinates, items, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < items
    key = tl.load(keys + i, mask=inside, other=0)
    field = 2 * HALF - 1
    tl.store(coordinates + 4 * i, ((key >> 54) & (BATCHES - 1)).to(tl.int32), mask=inside)
    tl.store(coordinates + 4 * i + 1, (((key >> 36) & field) - HALF).to(tl.int32), mask=inside)
    tl.store(coordinates + 4 * i + 2, (((key >> 18) & field) - HALF).to(tl.int32), mask=inside)
    tl.store(coordinates + 4 * i + 3, ((key & field) - HALF).to(tl.int32), mask=inside)


def unpack(keys: Tensor, coordinates: Tensor) -> None:
    launch(unpack_kernel, len(keys), BLOCK, keys, coordinates)


@triton.jit(do_not_specialize=["items", "slots"])
def build_kernel(keys, slot_keys, slot_rows, repeated, slots, items, BLOCK: tl.constexpr):
    """`slot_keys` comes in 0; `repeated` (1,) comes in 0 and is set when two keys are equal."""
    i = lanes(BLOCK)
    inside = i < items
    key = tl.load(keys + i, mask=inside, other=0)
    mask = tl.zeros_like(key) + (slots - 1)
    slot = first_slot(key, mask)
    waiting = inside
    twice = i < 0
    while tl.max(waiting.to(tl.int32), 0) > 0:
        # An exchange has no mask: a lane that is done compares with 1, which stands in no slot.
        expected = tl.where(waiting, tl.zeros_like(key), tl.full(key.shape, 1, tl.int64))
        stored = tl.atomic_cas(slot_keys + slot, expected, key)
        tl.store(slot_rows + slot, i.to(tl.int32), mask=waiting & (stored == 0))
        twice = twice | (waiting & (stored == key))
        waiting = waiting & (stored != 0) & (stored != key)
        slot = (slot + 1) & mask
    tl.store(repeated + tl.zeros_like(i), tl.full(key.shape, 1, tl.int32), mask=twice)


def build(keys: Tensor, slot_keys: Tensor, slot_rows: Tensor) -> tuple[int, int]:
    """Fill a table. Returns (first row, repeating row) of the first duplicate in row order, else (-1, -1)."""
    slot_keys.zero_()
    repeated = slot_rows.new_zeros(1)
    launch(build_kernel, len(keys), BLOCK, keys, slot_keys, slot_rows, repeated, len(slot_keys))
    if not int(repeated):
        return -1, -1
    ordered, rows = torch.sort(keys, stable=True)
    repeats = ordered[1:] == ordered[:-1]
    second = int(rows[1:][repeats].min())
    return int((keys == keys[second]).nonzero()[0]), second


@triton.jit(do_not_specialize=["items", "slots"])
def look_up_kernel(slot_keys, slot_rows, slots, keys, rows, items, BLOCK: tl.constexpr):
    i = lanes(BLOCK)
    inside = i < items
    key = tl.load(keys + i, mask=inside, other=0)
    tl.store(rows + i, find(slot_keys, slot_rows, slots, key, inside), mask=inside)


def look_up(slot_keys: Tensor, slot_rows: Tensor, keys: Tensor, rows: Tensor) -> None:
    launch(look_up_kernel, len(keys), BLOCK, slot_keys, slot_rows, len(slot_keys), keys, rows)
