"""Whole numbers in lanes: every operation is numpy's, lane by lane, and gathers read only what is wanted."""

import numba
import numpy as np
import pytest

from sparse3d_ops.cpu.integer_lanes import (
    ceil,
    floor,
    gather_float32,
    gather_int32,
    gather_int64,
    sqrt,
    to_float32,
    to_float64,
    to_int32,
    to_int64,
)
from sparse3d_ops.cpu.lanes import LANES, load, spread_number, store, where

pytestmark = pytest.mark.numba_bodies
WIDTHS = pytest.mark.parametrize("dtype", [np.int32, np.int64])


def numbers(dtype):
    """Two times 16 numbers of both signs, some of them equal."""
    found = np.random.default_rng(0).integers(-1000, 1000, (2, LANES)).astype(dtype)
    found[1, ::4] = found[0, ::4]
    return found


@numba.njit
def arithmetic(a, b, out):
    x, y = load(a, 0), load(b, 0)
    store(x + y, out, 0)
    store(3 - x, out, LANES)
    store(x * y, out, 2 * LANES)
    store(x & y, out, 3 * LANES)
    store(x | 5, out, 4 * LANES)
    store(x << 3, out, 5 * LANES)
    store(x >> 2, out, 6 * LANES)
    store(x >> (y & 7), out, 7 * LANES)


@WIDTHS
def test_arithmetic_and_bits_with_lanes_and_with_numbers(dtype):
    a, b = numbers(dtype)
    out = np.zeros((8, LANES), dtype)
    arithmetic(a, b, out.reshape(-1))
    np.testing.assert_array_equal(out, [a + b, 3 - a, a * b, a & b, a | 5, a << 3, a >> 2, a >> (b & 7)])


@numba.njit
def comparisons(a, b, out):
    x, y = load(a, 0), load(b, 0)
    one, none = spread_number(a.dtype.type(1)), spread_number(a.dtype.type(0))
    store(where(x < y, one, none), out, 0)
    store(where(x >= -7, one, none), out, LANES)
    store(where(x != y, one, none), out, 2 * LANES)
    store(where((x < y) | (x > 500), one, none), out, 3 * LANES)
    store(where(~(x < y), one, none), out, 4 * LANES)


@WIDTHS
def test_comparisons_keep_the_sign_and_masks_join_and_turn_over(dtype):
    a, b = numbers(dtype)
    out = np.zeros((5, LANES), dtype)
    comparisons(a, b, out.reshape(-1))
    np.testing.assert_array_equal(out, [a < b, a >= -7, a != b, (a < b) | (a > 500), a >= b])


@numba.njit
def converted(a, rounded, whole, wide, back):
    x = load(a, 0)
    store(floor(x), rounded, 0)
    store(ceil(x), rounded, LANES)
    store(sqrt(x * x), rounded, 2 * LANES)
    store(to_int32(x), whole, 0)
    store(to_int32(to_int64(to_int32(floor(x)))), whole, LANES)
    store(to_int64(to_int32(x)) << 40, wide, 0)
    store(to_float64(to_int32(x)), back, 0)
    store(to_float64(to_float32(x)), back, LANES)


def test_conversions_cut_what_is_behind_the_point_and_keep_the_sign():
    a = np.random.default_rng(1).normal(size=LANES) * 100
    rounded, back = np.zeros((3, LANES)), np.zeros((2, LANES))
    whole, wide = np.zeros((2, LANES), np.int32), np.zeros(LANES, np.int64)
    converted(a, rounded.reshape(-1), whole.reshape(-1), wide, back.reshape(-1))
    np.testing.assert_array_equal(rounded, [np.floor(a), np.ceil(a), np.abs(a)])
    np.testing.assert_array_equal(whole, [np.trunc(a), np.floor(a)])
    np.testing.assert_array_equal(wide, np.trunc(a).astype(np.int64) << 40)
    np.testing.assert_array_equal(back, [np.trunc(a), a.astype(np.float32)])


@numba.njit
def gathered(arrays, number, limit, floats, ints, longs):
    at = load(number, 0)
    mask = at < limit
    store(gather_float32(np.int64(arrays[0].ctypes.data), at, mask), floats, 0)
    store(gather_int32(np.int64(arrays[1].ctypes.data), at, mask), ints, 0)
    store(gather_int64(np.int64(arrays[2].ctypes.data), at, mask), longs, 0)


def test_gathers_are_zero_and_read_nothing_where_the_mask_does_not_hold():
    a = np.arange(1, 41)
    number = np.random.default_rng(2).permutation(40)[:LANES].astype(np.int64)
    number[3] = 1 << 50  # memory that is not there
    floats, ints, longs = np.ones(LANES, np.float32), np.ones(LANES, np.int32), np.ones(LANES, np.int64)
    arrays = a.astype(np.float32), a.astype(np.int32), a << 40
    gathered(arrays, number, 30, floats, ints, longs)
    want = np.where(number < 30, number + 1, 0)
    for got, each in ((floats, want), (ints, want), (longs, want << 40)):
        np.testing.assert_array_equal(got, each)
