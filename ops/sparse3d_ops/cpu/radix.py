"""A stable radix sort of cells that tells the row of each, and the runs of equal cells in what it gives.

A cell and its row travel as one word, the row in the low bits, which no pass looks at. Chunks of the input
are counted and scattered side by side; a stable sort has one result only, so it does not depend on the number
of chunks or threads. Cells are int64 >= 0; negative ones are dropped.
"""

import numba
import numpy as np

DIGIT_BITS = 11  # 2048 counters of 8 bytes: half of a 32 KiB first-level cache
CHUNK = 1 << 14  # cells per thread below which starting one more thread costs more than it brings
WORD_BITS = 63  # without the sign


def sort_cells(cell: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray, int]:
    """cell (N,) int64 below 2^bits -> the kept cells, sorted, the row of each, int32, and the chunks to read
    them in.

    The input is scratch afterwards.
    """
    row_bits = max(len(cell) - 1, 0).bit_length()
    if bits > WORD_BITS - row_bits:
        return _sort_wide_cells(cell, bits, WORD_BITS - row_bits)
    passes = -(-max(bits, 1) // DIGIT_BITS)
    digit = -(-max(bits, 1) // passes)
    chunks = max(1, min(numba.get_num_threads(), len(cell) // CHUNK))
    start = np.empty((chunks, 1 << digit), np.int64)
    join(cell, row_bits)
    word, other = cell, np.empty_like(cell)
    for k in range(passes):
        kept = radix_pass(word, row_bits + k * digit, start, other)
        word, other = other[:kept], word
    row = np.empty(len(word), np.int32)
    split(word, row_bits, row)
    return word, row, chunks


def _sort_wide_cells(cell: np.ndarray, bits: int, low_bits: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The same where cell and row do not fit into one word: by the low bits, and then by the others."""
    low = np.where(cell < 0, -1, cell & ((1 << low_bits) - 1))
    _, first, _ = sort_cells(low, low_bits)
    _, then, chunks = sort_cells(cell[first] >> low_bits, bits - low_bits)
    row = first[then]
    return cell[row], row, chunks


@numba.njit(parallel=True, cache=True, nogil=True)
def join(cell, row_bits):
    """Cells become words in place; negative ones stay negative."""
    for k in numba.prange(len(cell)):
        cell[k] = (cell[k] << row_bits) | k if cell[k] >= 0 else -1


@numba.njit(parallel=True, cache=True, nogil=True)
def split(word, row_bits, row):
    """Words become cells in place; row (N,) int32 is an output."""
    mask = (np.int64(1) << row_bits) - 1
    for k in numba.prange(len(word)):
        row[k] = word[k] & mask
        word[k] >>= row_bits


@numba.njit(parallel=True, cache=True, nogil=True)
def radix_pass(word, shift, start, out):
    """One stable counting sort by the digit at bit `shift`; negative words are dropped. Returns how many were
    kept.

    `start` (chunks, digits) int64 is scratch; digits is a power of two.
    """
    chunks, digits = start.shape
    length = (len(word) + chunks - 1) // chunks
    for c in numba.prange(chunks):
        for d in range(digits):
            start[c, d] = 0
        for k in range(c * length, min((c + 1) * length, len(word))):
            if word[k] >= 0:
                start[c, (word[k] >> shift) & (digits - 1)] += 1
    total = 0
    for d in range(digits):
        for c in range(chunks):
            here = start[c, d]
            start[c, d] = total
            total += here
    for c in numba.prange(chunks):
        for k in range(c * length, min((c + 1) * length, len(word))):
            if word[k] >= 0:
                d = (word[k] >> shift) & (digits - 1)
                to = start[c, d]
                start[c, d] = to + 1
                out[to] = word[k]
    return total


@numba.njit(parallel=True, cache=True, nogil=True)
def count_runs(cell, first_run):
    """Distinct values of a sorted array. first_run (chunks,) is an output: how many begin before each
    chunk."""
    chunks = len(first_run)
    length = (len(cell) + chunks - 1) // chunks
    for c in numba.prange(chunks):
        begun = 0
        for k in range(max(1, c * length), min((c + 1) * length, len(cell))):
            begun += cell[k] != cell[k - 1]
        first_run[c] = begun + (c == 0 and len(cell) > 0)
    total = 0
    for c in range(chunks):
        begun = first_run[c]
        first_run[c] = total
        total += begun
    return total
