"""The definition of sampling from bins on cases computed by hand."""

import torch

from tests.oracles import sampling as oracle


def test_three_bins_of_which_the_middle_one_is_empty():
    begin, length = torch.tensor([0.0, 1.0, 5.0]), torch.tensor([1.0, 4.0, 2.0])
    weights, starts = torch.tensor([1.0, 0.0, 3.0]), torch.tensor([0, 3])
    uniforms = torch.tensor([[0.0, 0.125, 0.25, 0.625, 1.0]])
    got = oracle.inverse_cdf(begin, length, weights, starts, uniforms)
    assert got.tolist() == [[0, 0.5, 1, 6, 7]]
    got = oracle.inverse_cdf(begin, length, 0 * weights, starts, torch.tensor([[0.5]]))
    assert got.tolist() == [[3.5]]  # the half of seven metres


def test_without_bins_there_is_nowhere_to_sample():
    none = torch.zeros(0)
    assert oracle.inverse_cdf(none, none, none, torch.tensor([0, 0]), torch.ones(1, 2)).isinf().all()
