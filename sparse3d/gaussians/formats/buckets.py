"""Rows that wait on disk until they are wanted, bucket by bucket: more of them than memory holds.

The file has no name, so it is gone with the process, however that ends.
"""

import tempfile
from pathlib import Path
from types import TracebackType

import numpy as np
import torch
from torch import Tensor

from sparse3d.gaussians.formats.opening import write_all


class Buckets:
    """`count` buckets of rows of `columns` float32, in a file in `folder`. OSError where its disk is full."""

    def __init__(self, folder: str | Path, count: int, columns: int):
        self.columns = columns
        self._file = tempfile.TemporaryFile(dir=folder, buffering=0)
        self._pieces: list[list[tuple[int, int]]] = [[] for _ in range(count)]  # begin and number of rows
        self._rows = 0

    def __enter__(self) -> "Buckets":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def put(self, rows: Tensor, bucket: Tensor) -> None:
        """(N, columns) and (N,) integers: which bucket each row goes to."""
        order = torch.argsort(bucket, stable=True)
        counts = torch.bincount(bucket, minlength=len(self._pieces)).tolist()
        self._file.seek(4 * self.columns * self._rows)
        write_all(self._file, rows[order].numpy())
        for pieces, count in zip(self._pieces, counts, strict=True):
            if count:
                pieces.append((self._rows, count))
            self._rows += count

    def rows(self, bucket: int) -> Tensor:
        """(n, columns): a bucket's, in the order in which they were put there."""
        parts = [np.empty((0, self.columns), np.float32)]
        for begin, count in self._pieces[bucket]:
            self._file.seek(4 * self.columns * begin)
            parts.append(np.fromfile(self._file, np.float32, count * self.columns).reshape(count, -1))
        return torch.from_numpy(np.concatenate(parts))
