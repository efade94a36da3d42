"""The oracle of max pooling on a case worked out by hand."""

import torch

from tests.oracles.pool import sparse_max, sparse_max_gradient


def test_max_over_two_neighbours_by_hand():
    features = torch.tensor([[1.0, 9.0], [5.0, 9.0]])
    table = torch.tensor([[0, 1], [1, -1], [-1, -1]])
    out, argmax = sparse_max(features, table, None)
    assert out.tolist() == [[5.0, 9.0], [5.0, 9.0], [0.0, 0.0]]
    assert argmax.tolist() == [[1, 0], [1, 1], [-1, -1]]
    grad = sparse_max_gradient(torch.tensor([[1.0, 2.0], [4.0, 8.0], [16.0, 32.0]]), argmax, table)
    assert grad[:2].tolist() == [[0.0, 2.0], [5.0, 8.0]]
