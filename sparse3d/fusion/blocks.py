"""Blocks of lattice points in growing arrays, found by the voxel hash.

Block b holds lattice points b * SIDE to (b + 1) * SIDE - 1; what is kept for them says `sparse3d_ops.tsdf`.
"""

import math

import torch
from torch import Tensor

from sparse3d.geometry.memory import available_bytes as free_memory
from sparse3d_ops import hashing

# 8^3 and not 16^3: on 640 x 480 depth at 1 cm blocks of 8^3 take 0.6 times the memory and 0.7 times the time
# to be averaged into, because fewer of their points are far from the surface.
SIDE = 8
_FIRST = 1024  # blocks that there is room for at first


def bytes_of_block(colors: bool) -> int:
    """What a block takes in memory: distance and weight, and red, green, blue, 4 bytes each."""
    return SIDE**3 * 4 * (5 if colors else 2)


class Blocks:
    """All blocks in memory, row by row in the order in which they came.

    `keys` (count,), `values` and `weights` (room, S, S, S), `colors` (room, 3, S, S, S) or (0, 3, S, S, S),
    `changed` (room,) bool: whether a block was written to since somebody looked.
    """

    def __init__(self, colors: bool, device: torch.device | str = "cpu"):
        self.device = torch.device(device)
        self.count = 0
        cube = (SIDE, SIDE, SIDE)
        self.values = torch.zeros(0, *cube, device=self.device)
        self.weights = torch.zeros(0, *cube, device=self.device)
        self.colors = torch.zeros(0, 3, *cube, device=self.device)
        self.changed = torch.zeros(0, dtype=torch.bool, device=self.device)
        self.keys = torch.zeros(0, dtype=torch.int64, device=self.device)
        self.table = hashing.build(self.keys)
        self.has_colors = colors

    @property
    def all_keys(self) -> Tensor:
        """(N,) of every block that there is, sorted."""
        return self.keys.sort().values

    @property
    def at_once(self) -> int:
        """The most blocks that can be taken together."""
        return 1 << 40

    def present(self, keys: Tensor) -> Tensor:
        """Those of (M,) keys whose blocks there are."""
        return keys[self.look_up(keys) >= 0]

    def look_up(self, keys: Tensor) -> Tensor:
        """(M,) int64: the rows of blocks in memory, -1 for those that are not there."""
        return hashing.look_up(*self.table, keys).long()

    def take(self, keys: Tensor, create: bool = True) -> Tensor:
        """(M,) distinct keys -> rows (M,) int64; those that are nowhere are made, unseen, or are -1 where
        not `create`. ValueError where they would need more memory than there is."""
        rows = self.look_up(keys)
        new = rows < 0
        if create and bool(new.any()):
            rows[new] = self._append(keys[new])
        return rows

    def take_changed(self) -> Tensor:
        """(N,) sorted keys of the blocks that were written to since the last call."""
        changed = self.changed[: self.count]
        keys = self.keys[changed].sort().values
        changed[:] = False
        return keys

    def close(self) -> None:
        """Nothing to remove: all blocks are in memory."""

    def _append(self, keys: Tensor) -> Tensor:
        """Rows of new blocks, unseen."""
        begin, end = self.count, self.count + len(keys)
        self._make_room(end)
        rows = torch.arange(begin, end, device=self.device)
        self.keys = torch.cat([self.keys, keys])
        self.count = end
        self.table = hashing.build(self.keys)
        return rows

    def _make_room(self, count: int) -> None:
        room = len(self.values)
        if count <= room:
            return
        grown = max(_FIRST, 2 * room, count)
        free = free_memory(self.device)
        if free is not None and grown * bytes_of_block(self.has_colors) > free:
            grown = count  # the old arrays live until the new ones are filled
        self._check_memory(count, grown, free)
        self.values = _grown(self.values, grown)
        self.weights = _grown(self.weights, grown)
        if self.has_colors:
            self.colors = _grown(self.colors, grown)
        self.changed = _grown(self.changed, grown)

    def _check_memory(self, count: int, room: int, free: int | None) -> None:
        need = room * bytes_of_block(self.has_colors)
        if free is not None and need > free:
            raise ValueError(
                f"{count} blocks of {SIDE}^3 voxels need {need / 1e9:.3g} GB more, {free / 1e9:.3g} GB are "
                "free; use larger voxels, a shorter truncation, or a folder to keep blocks in (max_blocks=)"
            )


def _grown(tensor: Tensor, room: int) -> Tensor:
    larger = torch.zeros(room, *tensor.shape[1:], dtype=tensor.dtype, device=tensor.device)
    larger[: len(tensor)] = tensor
    return larger


def voxel_size_that_fits(voxel_size: float, need: float, free: float) -> float:
    """Metres, rounded up to two digits: a surface needs blocks as its area does, by the square."""
    wanted = voxel_size * math.sqrt(need / free)
    digit = 10 ** (math.floor(math.log10(wanted)) - 1)
    return math.ceil(wanted / digit) * digit
