"""A stable radix sort of cells that carries the row of each, and the runs of equal cells in what it gives.

Chunks of the input are counted and scattered side by side; a stable sort has one result only, so it does not
depend on the number of chunks or threads. Cells are int64 >= 0; negative ones are dropped.
"""

import numba
import numpy as np

DIGIT_BITS = 11  # 2048 counters of 8 bytes: half of a 32 KiB first-level cache
CHUNK = 1 << 14  # cells per thread below which starting one more thread costs more than it brings


def sort_cells(cell: np.ndarray, row: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, int]:
    """cell (N,) int64 below 2^bits and row (N,) int32 -> both sorted by cell, and the chunks to read them in.

    The inputs are scratch afterwards.
    """
    cell_out, row_out = np.empty_like(cell), np.empty_like(row)
    passes = -(-max(bits, 1) // DIGIT_BITS)
    digit = -(-max(bits, 1) // passes)
    chunks = max(1, min(numba.get_num_threads(), len(cell) // CHUNK))
    start = np.empty((chunks, 1 << digit), np.int64)
    for k in range(passes):
        kept = radix_pass(cell, row, k * digit, start, cell_out, row_out)
        cell, cell_out, row, row_out = cell_out[:kept], cell, row_out[:kept], row
    return cell, row, chunks


@numba.njit(parallel=True, cache=True, nogil=True)
def radix_pass(cell, row, shift, start, cell_out, row_out):
    """One stable counting sort by the digit at bit `shift`; negative cells are dropped. Returns how many were
    kept.

    `start` (chunks, digits) int64 is scratch; digits is a power of two.
    """
    chunks, digits = start.shape
    length = (len(cell) + chunks - 1) // chunks
    for c in numba.prange(chunks):
        for d in range(digits):
            start[c, d] = 0
        for k in range(c * length, min((c + 1) * length, len(cell))):
            if cell[k] >= 0:
                start[c, (cell[k] >> shift) & (digits - 1)] += 1
    total = 0
    for d in range(digits):
        for c in range(chunks):
            here = start[c, d]
            start[c, d] = total
            total += here
    for c in numba.prange(chunks):
        for k in range(c * length, min((c + 1) * length, len(cell))):
            if cell[k] >= 0:
                d = (cell[k] >> shift) & (digits - 1)
                to = start[c, d]
                start[c, d] = to + 1
                cell_out[to] = cell[k]
                row_out[to] = row[k]
    return total


@numba.njit(parallel=True, cache=True, nogil=True)
def count_runs(cell, first_run):
    """Distinct values of a sorted array. first_run (chunks,) is an output: how many begin before each
    chunk."""
    chunks = len(first_run)
    length = (len(cell) + chunks - 1) // chunks
    for c in numba.prange(chunks):
        begun = 0
        for k in range(c * length, min((c + 1) * length, len(cell))):
            if k == 0 or cell[k] != cell[k - 1]:
                begun += 1
        first_run[c] = begun
    total = 0
    for c in range(chunks):
        begun = first_run[c]
        first_run[c] = total
        total += begun
    return total
