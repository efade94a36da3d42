"""The oracle of the hash encoding on cases worked out by hand."""

import torch

from tests.oracles import hash_encoding as oracle


def test_dense_level_by_hand():
    # One cell: rows 0 to 7 are the corners 4 x + 2 y + z. Features are the rows' numbers and their squares.
    table = torch.stack([torch.arange(8.0), torch.arange(8.0) ** 2], 1)
    got = oracle.hash_encode(
        table, torch.tensor([[0.25, 0.5, 1.0], [1.0, 1.0, 0.0], [-3.0, 9.0, 0.5]]), [1], [8]
    )
    # 4 * .25 + 2 * .5 + 1; corners 1, 3, 5, 7 weigh 3/8, 3/8, 1/8, 1/8: 3/8 + 27/8 + 25/8 + 49/8.
    assert got.tolist() == [[3.0, 13.0], [6.0, 36.0], [2.5, 6.5]]


def test_hashed_rows_by_hand():
    # 2654435761 = 1 mod 16 and 805459861 = 5 mod 16: (3, 2, 1) -> 3 xor 2 xor 5 = 4.
    assert oracle.row_of((3, 2, 1), 7, 16) == 4
    assert oracle.row_of((0, 0, 0), 7, 16) == 0
    assert oracle.row_of((3, 2, 1), 7, 512) == 3 * 64 + 2 * 8 + 1


def test_gradients_by_hand():
    table = torch.stack([torch.arange(8.0), torch.zeros(8)], 1)
    grad, at = torch.tensor([[2.0, 1.0]]), torch.tensor([[0.25, 0.5, 0.5]])
    # The first feature is 4 x + 2 y + z.
    assert oracle.hash_position_gradient(table, grad, at, [1], [8]).tolist() == [[8.0, 4.0, 2.0]]
    along = oracle.hash_encode(table, at, [1], [8], torch.tensor([[1.0, 0.0, -1.0]]))
    assert along.tolist() == [[3.0, 0.0]]
    weights = oracle.hash_table_gradient(grad, at, [1], [8])
    assert weights[:, 0].tolist() == [0.375] * 4 + [0.125] * 4
    assert weights[:, 1].tolist() == [0.1875] * 4 + [0.0625] * 4


def test_second_derivative_by_hand():
    # Only corner (1, 1, 1) has a feature: x y z. Its second derivatives are the third coordinates.
    table = torch.zeros(8, 2)
    table[7, 0] = 1
    at, v = torch.tensor([[0.25, 0.5, 0.75]]), torch.tensor([[1.0, 0.0, 0.0]])
    got = oracle.hash_position_gradient(table, torch.tensor([[1.0, 0.0]]), at, [1], [8], v)
    assert got.tolist() == [[0.0, 0.75, 0.5]]
