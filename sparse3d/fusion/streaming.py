"""Blocks of which at most so many are in memory; the least recently touched wait in a folder of files.

A file holds up to `PER_FILE` blocks, one record after the other: values, weights and colours as raw float32
in the machine's order. The files are scratch for one volume: they go with it, and the numbers of the records
are kept in memory alone.
"""

from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from sparse3d.errors import DataError
from sparse3d.fusion.blocks import SIDE, Blocks, bytes_of_block
from sparse3d_ops import hashing

PER_FILE = 4096
_POINTS = SIDE**3


class StreamedBlocks(Blocks):
    """`max_blocks` is the budget of blocks in memory, `folder` (made where it is not there) where the others
    go. A block is touched when it is taken. ValueError for a folder that is not empty."""

    def __init__(self, colors: bool, max_blocks: int, folder: str | Path, device: torch.device | str = "cpu"):
        super().__init__(colors, device)
        self.folder, self.max_blocks = Path(folder), max_blocks
        if max_blocks < 8:
            raise ValueError(f"max_blocks is {max_blocks}, expected at least 8: what the cells of one need")
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(self.folder.iterdir()):
            raise ValueError(f"{self.folder} is not empty; give a folder of its own to blocks that wait")
        self._clock = 0
        self._touched = torch.zeros(max_blocks, dtype=torch.int64)  # by row: when it was taken last
        self._records: dict[int, int] = {}  # by key: the record of a block that waits
        self._waiting_changed: set[int] = set()
        self._free_records: list[int] = []
        self._files: list[Path] = []
        self._make_room(max_blocks)

    @property
    def all_keys(self) -> Tensor:
        waiting = torch.tensor(list(self._records), dtype=torch.int64, device=self.device)
        return torch.cat([self.keys, waiting]).sort().values

    @property
    def at_once(self) -> int:
        return self.max_blocks

    def present(self, keys: Tensor) -> Tensor:
        there = [key in self._records for key in keys.tolist()]
        return keys[(self.look_up(keys) >= 0) | torch.tensor(there, dtype=torch.bool, device=self.device)]

    @property
    def waiting(self) -> int:
        """Blocks that are in the folder."""
        return len(self._records)

    def take(self, keys: Tensor, create: bool = True) -> Tensor:
        rows = self.look_up(keys)
        missing = keys[rows < 0]
        on_disk = torch.tensor([key in self._records for key in missing.tolist()], dtype=torch.bool)
        wanted = missing if create else missing[on_disk.to(missing.device)]
        if len(wanted):
            if len(keys) > self.max_blocks:
                raise ValueError(
                    f"{len(keys)} blocks are needed at once and max_blocks is {self.max_blocks}; allow more, "
                    "or use larger voxels, a shorter truncation or depth that ends nearer (max_depth)"
                )
            self._evict(self.count + len(wanted) - self.max_blocks, keep=rows[rows >= 0])
            self._append(wanted)
            self._bring_back(wanted)
            rows = self.look_up(keys)
        self._clock += 1
        self._touched[rows[rows >= 0].cpu()] = self._clock
        return rows

    def take_changed(self) -> Tensor:
        here = super().take_changed()
        waiting = torch.tensor(list(self._waiting_changed), dtype=torch.int64, device=self.device)
        self._waiting_changed.clear()
        return torch.cat([here, waiting]).sort().values

    def close(self) -> None:
        """Remove the files. Blocks that wait are lost."""
        for path in self._files:
            path.unlink(missing_ok=True)
        self._files.clear()
        self._records.clear()

    def _evict(self, count: int, keep: Tensor) -> None:
        """Write the `count` least recently touched blocks, without those of rows `keep`, and close the gaps
        that they leave with the last rows."""
        if count <= 0:
            return
        touched = self._touched[: self.count].clone()
        touched[keep.cpu()] = torch.iinfo(torch.int64).max
        # Of blocks that were touched together those with the smallest keys go.
        order = np.lexsort((self.keys.cpu().numpy(), touched.numpy()))
        leaving = torch.from_numpy(np.sort(order[:count])).to(self.device)
        for row, key in zip(leaving.tolist(), self.keys[leaving].tolist(), strict=True):
            self._write(row, key)
        stays = torch.ones(self.count, dtype=torch.bool, device=self.device)
        stays[leaving] = False
        left = self.count - count
        gaps, movers = leaving[leaving < left], stays[left:].nonzero()[:, 0] + left
        for array in (self.values, self.weights, self.colors, self.changed):
            if len(array):
                array[gaps] = array[movers]
                array[left : self.count] = 0
        self.keys[gaps] = self.keys[movers]
        self._touched[gaps.cpu()] = self._touched[movers.cpu()]
        self.keys, self.count = self.keys[:left].clone(), left
        self.table = hashing.build(self.keys)

    def _bring_back(self, keys: Tensor) -> None:
        for key, row in zip(keys.tolist(), self.look_up(keys).tolist(), strict=True):
            record = self._records.pop(key, None)
            if record is None:
                continue
            data = torch.from_numpy(self._read_record(record)).to(self.device)
            cube = (SIDE, SIDE, SIDE)
            self.values[row] = data[:_POINTS].view(cube)
            self.weights[row] = data[_POINTS : 2 * _POINTS].view(cube)
            if self.has_colors:
                self.colors[row] = data[2 * _POINTS :].view(3, *cube)
            self.changed[row] = key in self._waiting_changed
            self._waiting_changed.discard(key)
            self._free_records.append(record)

    def _write(self, row: int, key: int) -> None:
        record = self._free_records.pop() if self._free_records else len(self._records)
        parts = [self.values[row], self.weights[row], *([self.colors[row]] if self.has_colors else [])]
        with self._at_record(record) as file:
            file.write(torch.cat([part.flatten() for part in parts]).cpu().numpy().tobytes())
        self._records[key] = record
        if bool(self.changed[row]):
            self._waiting_changed.add(key)

    def _read_record(self, number: int) -> np.ndarray:
        size = bytes_of_block(self.has_colors)
        with self._at_record(number) as file:
            data = file.read(size)
        if len(data) != size:
            raise DataError(file.name, "was cut short while blocks waited in it")
        return np.frombuffer(bytearray(data), np.float32)

    def _at_record(self, number: int) -> BinaryIO:
        """The file that holds a record, open at its place. Not a memory map: writing to one on a full disk
        ends the process without a word."""
        while number // PER_FILE >= len(self._files):
            self._files.append(self.folder / f"blocks-{len(self._files):05d}.bin")
            self._files[-1].touch()
        path = self._files[number // PER_FILE]
        try:
            file = open(path, "r+b", buffering=0)
        except FileNotFoundError as error:
            raise DataError(path, "was removed while blocks waited in it") from error
        file.seek(number % PER_FILE * bytes_of_block(self.has_colors))
        return file
