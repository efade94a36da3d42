"""The definition of the nearest points around, by hand."""

import torch

from sparse3d_ops import hashing
from tests.oracles import nearest as oracle


def test_four_points_in_three_voxels():
    cells = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [0, 3, 0, 0]], dtype=torch.int32)
    table = hashing.build(hashing.pack(cells))
    points = torch.tensor([[1.5, 0, 0], [0.25, 0, 0], [3.5, 0, 0], [0.75, 0, 0]])
    starts, order = torch.tensor([0, 2, 3, 4]), torch.tensor([1, 3, 0, 2])
    queries = torch.tensor([[0.5, 0.0, 0.0], [2.5, 0.0, 0.0], [0.0, 0.0, 0.0]])
    at = torch.tensor([[0, 0, 0, 0], [0, 2, 0, 0], [-1, 0, 0, 0]], dtype=torch.int32)
    rows, squares = oracle.nearest_around(*table, starts, order, points, queries, at, 3)
    assert rows.tolist() == [[1, 3, 0], [0, 2, -1], [-1, -1, -1]]
    inf = float("inf")
    assert squares.tolist() == [[0.0625, 0.0625, 1], [1, 1, inf], [inf] * 3]
