"""Codebooks: few values that stand for many, found by Lloyd's iteration (k-means).

Of numbers: sorted once, with sums of all prefixes, a step of Lloyd is a search of the middles between
neighbours in the sorted numbers, so hundreds of steps cost nothing. Of rows (harmonics of a Gaussian):
cells of a coarse codebook get codebooks of their own, with as many entries as they have a share in the
error.
"""

import math

import numpy as np
import torch
from torch import Tensor

_MOST_STEPS = 300
_QUANTILES = 2048
_COARSE_STEPS, _FINE_STEPS = 8, 6
_SAMPLED_AN_ENTRY = 256  # rows that place one coarse entry
_WORK_A_STEP = 4 * 10**9  # products; about a second
_AT_ONCE = 1 << 24  # distances in memory


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


def row_codebook(rows: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """(N, D) float32 -> (K, D) entries, K <= size, and (N,) int64: which stands for each row.

    The same for the same rows on one machine; a near tie may fall differently where products round
    differently.
    """
    known_rows = _different(rows)
    if len(known_rows[0]) <= size:
        return known_rows
    draw = torch.Generator().manual_seed(0)
    work = len(rows) * size * rows.shape[1]
    coarse = min(
        math.isqrt(size), -(-work // _WORK_A_STEP)
    )  # the fewer cells, the nearer to the whole's best
    sample = rows[torch.randperm(len(rows), generator=draw)[: coarse * _SAMPLED_AN_ENTRY]]
    entries, _ = _lloyd(sample, coarse, _COARSE_STEPS, draw)
    cell, error = _nearest(entries, rows)
    order = torch.argsort(cell, stable=True)
    counts = torch.bincount(cell, minlength=coarse)
    errors = torch.zeros(coarse, dtype=torch.float64).index_add_(0, cell, error.double())
    found, labels, begin, known = [], torch.empty(len(rows), dtype=torch.int64), 0, 0
    for count, share in zip(counts.tolist(), _shares(errors, counts, size).tolist(), strict=True):
        if not count:
            continue
        members = order[begin : begin + count]
        fine, label = _lloyd(rows[members], share, _FINE_STEPS, draw)
        found.append(fine)
        labels[members] = label + known
        begin, known = begin + count, known + len(fine)
    return torch.cat(found), labels


def _different(rows: Tensor) -> tuple[Tensor, Tensor]:
    """The different rows, and which of them each row is. By their bytes: 0 and -0 are two."""
    table = np.ascontiguousarray(rows.numpy())
    whole = table.view(np.dtype((np.void, table.itemsize * table.shape[1])))[:, 0]
    _, first, inverse = np.unique(whole, return_index=True, return_inverse=True)
    return rows[torch.from_numpy(first)], torch.from_numpy(inverse.reshape(-1))


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
