"""The oracle of products of planes and lines on cases worked out by hand."""

import torch

from tests.oracles import low_rank as oracle


def test_products_by_hand():
    # Two points an axis. Plane 0 (over y, z) is 1 + y + 2 z and line 0 is 3 - x; mode 1 is 1, mode 2 x y z.
    planes = torch.tensor([[1.0, 3, 2, 4], [1, 1, 1, 1], [0, 0, 0, 1]]).reshape(12, 1)
    lines = torch.tensor([[3.0, 2], [1, 1], [0, 1]]).reshape(6, 1)
    at = torch.tensor([[0.5, 0.25, 0.5], [2.0, -1.0, 1.0]])
    want = [[2.25 * 2.5, 1.0, 0.5 * 0.25 * 0.5], [3.0 * 2, 1.0, 0.0]]
    assert oracle.plane_line_products(planes, lines, at).tolist() == want


def test_gradients_by_hand():
    planes, lines = torch.ones(12, 1), torch.ones(6, 1)
    grad, at = torch.tensor([[1.0, 0.0, 0.0]]), torch.tensor([[0.25, 0.5, 0.0]])
    to_planes, to_lines = oracle.plane_line_table_gradients(grad, planes, lines, at)
    assert to_planes[:4, 0].tolist() == [0.5, 0.0, 0.5, 0.0] and not to_planes[4:].any()
    assert to_lines[:2, 0].tolist() == [0.75, 0.25] and not to_lines[2:].any()
    planes[:4, 0] = torch.tensor([1.0, 3, 2, 4])  # 1 + y + 2 z
    assert oracle.plane_line_position_gradient(grad, planes, lines, at).tolist() == [[0.0, 1.0, 2.0]]
