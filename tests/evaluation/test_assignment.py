"""The assignment against scipy's, and its promise after each row."""

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from sparse3d.evaluation.assignment import add_row, assign_all, start


def best_sum(weights):
    rows, columns = linear_sum_assignment(weights, maximize=True)
    return weights[rows, columns].sum()


def random_weights(rng):
    weights = rng.uniform(0, 1, rng.integers(0, 9, 2))
    return np.where(rng.random(weights.shape) < 0.5, weights, 0)


def test_as_good_as_scipy_and_every_column_once():
    rng = np.random.default_rng(0)
    for _ in range(300):
        weights = random_weights(rng)
        columns = assign_all(weights)
        given = columns[columns >= 0]
        assert len(set(given.tolist())) == len(given)
        total = weights[np.flatnonzero(columns >= 0), given].sum()
        assert total == pytest.approx(best_sum(weights))
        assert (weights[np.flatnonzero(columns >= 0), given] > 0).all()


def test_optimal_after_each_row():
    rng = np.random.default_rng(1)
    for _ in range(100):
        weights = random_weights(rng)
        owner, u, v = start(*weights.shape)
        for row in range(len(weights)):
            add_row(weights, row, owner, u, v)
            total = sum(weights[r, c] for c, r in enumerate(owner[: weights.shape[1]]) if r >= 0)
            assert total == pytest.approx(best_sum(weights[: row + 1]))


def test_by_hand():
    # Greedily row 0 would take column 0 (0.9) and row 1 nothing; together 0.8 + 0.7 is more.
    weights = np.array([[0.9, 0.8], [0.7, 0.0], [0.0, 0.0]])
    assert assign_all(weights).tolist() == [1, 0, -1]
