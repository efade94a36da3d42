"""The oracle against cases worked out by hand."""

import pytest
import torch

from tests.oracles.triangle_tree import nearest_triangle, winding_number

ROOF = torch.tensor([[[0, 0, 0], [4, 0, 0], [0, 4, 0]], [[0, 0, 3], [4, 0, 3], [0, 4, 3]]]).double()


def test_nearest_of_two():
    queries = torch.tensor([[1, 1, 1], [1, 1, 2], [-3, 1, 0], [4, 4, 0], [1, 1, 1.5]]).double()
    squares, rows, weights = nearest_triangle(None, ROOF.view(2, 9), torch.tensor([5, 2]), queries, 4.0)
    # Over the first; under the second; beside the side x = 0; beside the long side; between both.
    assert squares.tolist() == pytest.approx([1, 1, 9, 8, 2.25])
    assert rows.tolist() == [5, 2, 5, 5, 2]
    assert weights[0].tolist() == pytest.approx([0.5, 0.25, 0.25])
    assert weights[2].tolist() == pytest.approx([0.75, 0, 0.25])
    assert weights[3].tolist() == pytest.approx([0, 0.5, 0.5])
    squares, rows, _ = nearest_triangle(None, ROOF.view(2, 9), torch.tensor([5, 2]), queries, 1.0)
    assert rows.tolist() == [5, 2, -1, -1, -1]


def test_one_corner_of_a_cube_sees_an_eighth():
    corner = torch.tensor([[[1, 0, 0], [0, 1, 0], [0, 0, 1]]]).double().view(1, 9)
    seen = winding_number(None, None, corner, torch.tensor([[0, 0, 0], [1, 1, 1]]).double(), 2.0)
    assert seen[0] == pytest.approx(1 / 8)
    assert seen[1] < 0, "from the other side"
