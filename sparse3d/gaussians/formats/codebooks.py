"""Codebooks: few values that stand for many, found by Lloyd's iteration (k-means).

Of numbers: sorted once, with sums of all prefixes, a step of Lloyd is a search of the middles between
neighbours in the sorted numbers, so hundreds of steps cost nothing. Of rows (harmonics of a Gaussian):
cells of a coarse codebook get codebooks of their own, with as many entries as they have a share in the
error.
"""

import math
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from sparse3d.gaussians.formats.buckets import Buckets

_MOST_STEPS = 300
_QUANTILES = 2048
_COARSE_STEPS, _FINE_STEPS = 8, 6
_SAMPLED_AN_ENTRY = 256  # rows that place one coarse entry
_WORK_A_STEP = 4 * 10**9  # products; about a second
_AT_ONCE = 1 << 24  # distances in memory
_MOST_NUMBERS = 1 << 21  # that one codebook is made from


class Numbers:
    """Those of many Gaussians for a codebook: all, or of so many that it makes no difference evenly many of
    the rows in their order, and the extremes."""

    def __init__(self, rows: int, columns: int):
        self._every, self._seen = max(1, -(-rows * columns // _MOST_NUMBERS)), 0
        self._parts: list[np.ndarray] = []

    def add(self, values: np.ndarray) -> None:
        """The next rows (n, columns)."""
        self._parts.append(values[-self._seen % self._every :: self._every].reshape(-1).copy())
        self._seen += len(values)
        if self._every > 1:
            self._parts.append(np.array([values.min(), values.max()], values.dtype))

    def codebook(self) -> np.ndarray:
        return number_codebook(np.concatenate(self._parts))


def number_codebook(values: np.ndarray, size: int = 256) -> np.ndarray:
    """Finite numbers of any shape -> `size` float32 in ascending order, the last one repeated where there are
    fewer different numbers."""
    ordered = np.sort(values.reshape(-1).astype(np.float64))
    different = np.unique(ordered)
    if len(different) <= size:
        return np.pad(different, (0, size - len(different)), mode="edge").astype(np.float32)
    ordered -= (middle := ordered[len(ordered) // 2])  # so that sums of squares keep their digits
    book = _first_guess(ordered, size)
    sums, squares = (np.concatenate([[0.0], np.cumsum(ordered**n)]) for n in (1, 2))
    for _ in range(_MOST_STEPS):
        ends = np.searchsorted(ordered, (book[1:] + book[:-1]) / 2, side="right")
        bounds = np.concatenate([[0], ends, [len(ordered)]])
        counts = np.diff(bounds)
        moved = np.diff(sums[bounds]) / np.maximum(counts, 1)
        idle = np.flatnonzero(counts == 0)
        if len(idle):  # they go to where the error is largest, one deviation above its entry
            errors = np.maximum(np.diff(squares[bounds]) - counts * moved**2, 0)
            worst = np.argsort(-errors, kind="stable")[: len(idle)]
            moved[idle] = moved[worst] + np.sqrt(errors[worst] / np.maximum(counts[worst], 1))
        moved.sort()
        if np.array_equal(moved, book):
            break
        book = moved
    return (book + middle).astype(np.float32)


def _first_guess(ordered: np.ndarray, size: int) -> np.ndarray:
    """Entries as dense as the cube root of the numbers' density p, which is where the error is least (Panter
    and Dite 1951). Between quantiles, w apart, p is proportional to 1 / w: w p^(1/3) is w^(2/3)."""
    places = np.linspace(0, len(ordered) - 1, min(len(ordered), _QUANTILES)).round().astype(int)
    quantiles = ordered[places]
    share = np.concatenate([[0.0], np.cumsum(np.diff(quantiles) ** (2 / 3))])
    return np.interp((np.arange(size) + 0.5) / size * share[-1], share, quantiles)


def nearest_number(book: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The row of the nearest entry of an ascending codebook of at most 256, uint8; ties to the lower one."""
    middles = (book[1:].astype(np.float64) + book[:-1]) / 2
    return np.searchsorted(middles, values, side="left").astype(np.uint8)


# What gives all rows (N, D) in pieces, again and again.
Pieces = Callable[[], Iterable[Tensor]]


def row_codebook(pieces: Pieces, count: int, size: int, folder: str | Path) -> tuple[Tensor, Tensor]:
    """(N, D) float32 in pieces, N = `count` -> (K, D) entries, K <= size, and (N,) int32: which stands for
    each row. Rows wait in a file without a name in `folder` while they are grouped.

    The same for the same rows on one machine; a near tie may fall differently where products round
    differently.
    """
    known_rows = _different(pieces, size)
    if known_rows is not None:
        return known_rows
    draw = torch.Generator().manual_seed(0)
    columns = next(iter(pieces())).shape[1]
    work = count * size * columns
    coarse = min(
        math.isqrt(size), -(-work // _WORK_A_STEP)
    )  # the fewer cells, the nearer to the whole's best
    sample = _taken(pieces, torch.randperm(count, generator=draw)[: coarse * _SAMPLED_AN_ENTRY])
    entries, _ = _lloyd(sample, coarse, _COARSE_STEPS, draw)
    errors, cells = torch.zeros(coarse, dtype=torch.float64), []
    with Buckets(folder, coarse, columns) as grouped:
        for rows in pieces():
            cell, error = _nearest(entries, rows)
            errors.index_add_(0, cell, error.double())
            grouped.put(rows, cell)
            cells.append(cell.to(torch.int32))
        cell = torch.cat(cells)
        order, counts = torch.argsort(cell, stable=True), torch.bincount(cell, minlength=coarse)
        found, labels, begin, known = [], torch.empty(count, dtype=torch.int32), 0, 0
        for number, share in enumerate(_shares(errors, counts, size).tolist()):
            rows = grouped.rows(number)
            if not len(rows):
                continue
            fine, label = _lloyd(rows, share, _FINE_STEPS, draw)
            found.append(fine)
            labels[order[begin : begin + len(rows)]] = (label + known).to(torch.int32)
            begin, known = begin + len(rows), known + len(fine)
    return torch.cat(found), labels


def _taken(pieces: Pieces, chosen: Tensor) -> Tensor:
    """The rows of these numbers (K,), in that order."""
    rising, back = torch.sort(chosen)
    begin, found = 0, []
    for rows in pieces():
        first, last = torch.searchsorted(rising, torch.tensor([begin, begin + len(rows)])).tolist()
        found.append(rows[rising[first:last] - begin])
        begin += len(rows)
    out = torch.empty_like(taken := torch.cat(found))
    out[back] = taken
    return out


def _different(pieces: Pieces, most: int) -> tuple[Tensor, Tensor] | None:
    """The different rows, and which of them each row is, (N,) int32; None where they are more than `most`. By
    their bytes: 0 and -0 are two."""
    known, columns = np.empty(0, "V1"), 0
    for rows in pieces():
        part, columns = _as_bytes(rows), rows.shape[1]
        known = np.unique(np.concatenate([known.astype(part.dtype), part]))
        if len(known) > most:
            return None
    labels = [np.searchsorted(known, _as_bytes(rows)).astype(np.int32) for rows in pieces()]
    entries = torch.from_numpy(known.view(np.float32).reshape(-1, columns).copy())
    return entries, torch.from_numpy(np.concatenate(labels))


def _as_bytes(rows: Tensor) -> np.ndarray:
    """(N, D) -> (N,): each row as one thing that can be compared."""
    table = np.ascontiguousarray(rows.numpy())
    return table.view(np.dtype((np.void, table.itemsize * table.shape[1])))[:, 0]


def _shares(errors: Tensor, counts: Tensor, size: int) -> Tensor:
    """Entries of each cell: of many dimensions the error falls slowly with their number, and is least where
    each entry has the same share of it. One at least for a cell with rows, and no more than it has rows."""
    least = (counts > 0).long()
    spare = size - int(least.sum())
    wanted = errors / errors.sum().clamp(min=1e-30) * spare
    return torch.minimum(least + wanted.floor().long(), counts)


def _lloyd(rows: Tensor, size: int, steps: int, draw: torch.Generator) -> tuple[Tensor, Tensor]:
    """Entries, from `size` of the rows, and the label of each row."""
    if size >= len(rows):
        return rows.clone(), torch.arange(len(rows))
    entries = rows[torch.randperm(len(rows), generator=draw)[:size]].clone()
    label = torch.zeros(len(rows), dtype=torch.int64)
    for _ in range(steps):
        label, _ = _nearest(entries, rows)
        counts = torch.bincount(label, minlength=size)
        sums = torch.zeros_like(entries).index_add_(0, label, rows)
        entries = torch.where(counts[:, None] > 0, sums / counts.clamp(min=1)[:, None], entries)
    return entries, _nearest(entries, rows)[0]


def _nearest(entries: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """(N,) the nearest entry, lowest first among equals, and (N,) its squared distance."""
    squares = entries.square().sum(1)
    labels, errors = [], []
    for part in rows.split(max(1, _AT_ONCE // len(entries))):
        distance, label = torch.addmm(squares, part, entries.T, alpha=-2).min(1)
        labels.append(label)
        errors.append((distance + part.square().sum(1)).clamp(min=0))
    return torch.cat(labels), torch.cat(errors)
