"""The oracle of attention within sets on a case worked out by hand."""

import math

import torch

from tests.oracles.set_attention import set_attention


def test_two_sets_by_hand():
    # Rows 0 and 2 share a set, row 1 is alone. One channel: scores q * k; weights of row 0: e^0 and e^log(3).
    query = torch.tensor([[1.0], [5.0], [0.0]])
    key = torch.tensor([[0.0], [7.0], [math.log(3)]])
    value = torch.tensor([[4.0], [9.0], [8.0]])
    out, lse = set_attention(query, key, value, torch.tensor([2, 0, 1]), torch.tensor([0, 2, 3]), 2, 1)
    torch.testing.assert_close(out, torch.tensor([[7.0], [9.0], [6.0]]))
    torch.testing.assert_close(lse, torch.tensor([[math.log(4)], [35.0], [math.log(2)]]))


def test_heads_are_attended_by_themselves_and_scores_are_scaled():
    query = torch.tensor([[2.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])
    key = torch.tensor([[math.log(3) / math.sqrt(2), 0.0, 9.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    value = torch.tensor([[1.0, 0.0, 0.0, 6.0], [5.0, 0.0, 0.0, 2.0]])
    out, _ = set_attention(query, key, value, torch.arange(2), torch.tensor([0, 2]), 2, 2)
    torch.testing.assert_close(out[0], torch.tensor([2.0, 0.0, 0.0, 4.0]))
