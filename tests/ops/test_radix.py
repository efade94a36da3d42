"""The radix sort: numpy's stable sort, whatever the cells, and the same with any number of threads."""

import numba
import numpy as np
import pytest

from sparse3d_ops.cpu.radix import WORD_BITS, count_runs, sort_cells


def cells(count: int, bits: int, kinds: int = 0) -> np.ndarray:
    """Cells below 2^bits, some of them negative; of few `kinds`, the largest possible cell among them."""
    rng = np.random.default_rng(count + bits)
    found = rng.integers(0, 1 << bits, count)
    if kinds:
        found = found[rng.integers(0, kinds, count)]
    if count:
        found[0] = (1 << bits) - 1
    found[rng.random(count) < 0.2] = -1
    return found


@pytest.mark.parametrize("bits", [1, 8, 11, 12, 29, 46, 52, 57, WORD_BITS])
@pytest.mark.parametrize(("count", "kinds"), [(0, 0), (1, 0), (2, 1), (1000, 7), (40_000, 0), (40_000, 300)])
def test_it_is_the_stable_sort_of_what_is_not_negative(count, kinds, bits):
    cell = cells(count, bits, kinds)
    want = np.argsort(cell, kind="stable")
    want = want[(cell < 0).sum() :]
    sorted_cells, row, chunks = sort_cells(cell.copy(), bits)
    np.testing.assert_array_equal(row, want)
    np.testing.assert_array_equal(sorted_cells, cell[want])
    assert row.dtype == np.int32
    first = np.empty(chunks, np.int64)
    assert count_runs(sorted_cells, first) == len(np.unique(cell[want])) and first[0] == 0


@pytest.mark.parametrize("bits", [17, 60])
def test_threads_do_not_matter(bits):
    cell, before = cells(100_000, bits, 5000), numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        alone = sort_cells(cell.copy(), bits)
    finally:
        numba.set_num_threads(before)
    together = sort_cells(cell.copy(), bits)
    for one, other in zip(alone[:2], together[:2], strict=True):
        np.testing.assert_array_equal(one, other)
