"""Vectors of 16 numbers inside of numba kernels: every operation is numpy's, lane by lane."""

import numba
import numpy as np
import pytest

from sparse3d_ops.cpu.lanes import (
    LANES,
    any_lane,
    exp2,
    largest,
    least,
    load,
    magnitude,
    most,
    multiply_add,
    spread_number,
    steps,
    store,
    total,
    where,
)

pytestmark = pytest.mark.numba_bodies
DTYPES = pytest.mark.parametrize("dtype", [np.float32, np.float64])
NUMBER = 0.3  # is rounded to the lanes' type first


def numbers(dtype):
    """Two times 16 numbers, some of them equal."""
    found = np.random.default_rng(0).normal(size=(2, LANES)).astype(dtype)
    found[1, ::4] = found[0, ::4]
    return found


@numba.njit
def arithmetic(a, b, out):
    x, y = load(a, 0), load(b, 0)
    store(x + y, out, 0)
    store(x - NUMBER, out, LANES)
    store(NUMBER * y, out, 2 * LANES)
    store(x / y, out, 3 * LANES)
    store(2 - x, out, 4 * LANES)
    store(least(x, y), out, 5 * LANES)
    store(most(x, NUMBER), out, 6 * LANES)
    store(magnitude(y), out, 7 * LANES)
    store(multiply_add(x, y, x), out, 8 * LANES)
    store(steps(a[0]), out, 9 * LANES)
    store(spread_number(b[3]), out, 10 * LANES)


@DTYPES
def test_arithmetic_with_lanes_and_with_numbers_on_either_side(dtype):
    a, b = numbers(dtype)
    out = np.full((11, LANES), np.nan, dtype)
    arithmetic(a, b, out.reshape(-1))
    n = dtype(NUMBER)
    want = [a + b, a - n, n * b, a / b, 2 - a, np.minimum(a, b), np.maximum(a, n), np.abs(b)]
    np.testing.assert_array_equal(out[:8], want)
    assert (np.abs(out[8] - (a * b + a)) <= np.finfo(dtype).eps * (np.abs(a * b) + np.abs(a))).all()
    np.testing.assert_array_equal(out[9:], [np.arange(LANES), np.full(LANES, b[3])])


@numba.njit
def comparisons(a, b, out):
    x, y = load(a, 0), load(b, 0)
    one, none = spread_number(a.dtype.type(1)), spread_number(a.dtype.type(0))
    store(where(x < y, one, none), out, 0)
    store(where(x <= y, one, none), out, LANES)
    store(where(x > y, one, none), out, 2 * LANES)
    store(where(x >= NUMBER, one, none), out, 3 * LANES)
    store(where(NUMBER < y, x, y), out, 4 * LANES)
    store(where((x < 0) & (y < 0), one, none), out, 5 * LANES)


@DTYPES
def test_comparisons_choose_lane_by_lane_and_none_holds_for_nan(dtype):
    a, b = numbers(dtype)
    a[5] = b[6] = np.nan
    out = np.full((6, LANES), np.nan, dtype)
    comparisons(a, b, out.reshape(-1))
    n = dtype(NUMBER)
    want = [a < b, a <= b, a > b, a >= n, np.where(n < b, a, b), (a < 0) & (b < 0)]
    np.testing.assert_array_equal(out, [np.asarray(w, dtype) for w in want])


@numba.njit
def folds(a, limit):
    return total(load(a, 0)), largest(load(a, 0)), any_lane(load(a, 0) > limit)


@DTYPES
def test_sixteen_lanes_into_one(dtype):
    for place in range(LANES):  # every lane counts
        a = numbers(dtype)[0]
        a[place] = 5
        sums, highest, above = folds(a, 4.0)
        # By halves, in this order and no other.
        halves = a
        while len(halves) > 1:
            halves = halves[: len(halves) // 2] + halves[len(halves) // 2 :]
        assert (sums, highest, above) == (halves[0], 5, True)
        assert not folds(a, 5.0)[2]


@numba.njit
def powers(a, out):
    store(exp2(load(a, 0)), out, 0)


@DTYPES
def test_powers_of_two_are_accurate_and_zero_below_the_smallest_number(dtype):
    info = np.finfo(dtype)
    smallest = np.log2(info.smallest_normal)
    grid = np.linspace(smallest, 127, 64 * LANES).astype(dtype)
    out = np.empty_like(grid)
    for k in range(0, len(grid), LANES):
        powers(grid[k : k + LANES], out[k : k + LANES])
    np.testing.assert_allclose(out, np.exp2(grid.astype(np.float64)), rtol=2 * info.eps)
    edges = np.array([0, 1, -1, 0.5, -0.5, smallest, smallest - 1, -1e9, -np.inf] + [0] * 7, dtype)
    out = np.empty_like(edges)
    powers(edges, out)
    np.testing.assert_array_equal(out[[0, 1, 2, 5, 6, 7, 8]], [1, 2, 0.5, info.smallest_normal, 0, 0, 0])


@numba.njit
def copied(a, out, begin):
    store(load(a, begin), out, begin + 1)


@DTYPES
def test_loads_and_stores_need_no_alignment_and_touch_sixteen_elements(dtype):
    a = np.arange(40, dtype=dtype)
    out = np.full(40, -1, dtype)
    copied(a, out, 3)
    np.testing.assert_array_equal(out[4:20], a[3:19])
    assert (out[:4] == -1).all() and (out[20:] == -1).all()
