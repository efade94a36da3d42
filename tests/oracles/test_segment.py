"""The oracles of the segment reductions on cases worked out by hand."""

import torch

from tests.oracles.segment import segment_sum


def test_segment_sum_by_hand():
    values = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
    got = segment_sum(values, torch.tensor([2, 0, 2]), 4)
    assert got.tolist() == [[2.0, 20.0], [0.0, 0.0], [5.0, 50.0], [0.0, 0.0]]
