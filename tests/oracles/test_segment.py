"""The oracles of the segment reductions on cases worked out by hand."""

import math

import torch

from tests.oracles.segment import segment_max, segment_mean, segment_softmax, segment_sum

VALUES = torch.tensor([[1.0, 10.0], [2.0, 20.0], [4.0, 40.0]])
SEGMENT = torch.tensor([2, 0, 2])


def test_segment_sum_by_hand():
    got = segment_sum(VALUES, SEGMENT, 4)
    assert got.tolist() == [[2.0, 20.0], [0.0, 0.0], [5.0, 50.0], [0.0, 0.0]]


def test_segment_mean_by_hand():
    got = segment_mean(VALUES, SEGMENT, 4)
    assert got.tolist() == [[2.0, 20.0], [0.0, 0.0], [2.5, 25.0], [0.0, 0.0]]


def test_segment_max_by_hand():
    out, argmax = segment_max(VALUES, SEGMENT, 4)
    assert out.tolist() == [[2.0, 20.0], [0.0, 0.0], [4.0, 40.0], [0.0, 0.0]]
    assert argmax.tolist() == [[1, 1], [-1, -1], [2, 2], [-1, -1]]


def test_segment_max_prefers_nan_then_the_lowest_row():
    values = torch.tensor([[3.0, 9.0], [5.0, math.nan], [5.0, math.nan]])
    out, argmax = segment_max(values, torch.zeros(3).long(), 1)
    assert argmax.tolist() == [[1, 1]] and out[0, 0] == 5 and out[0, 1].isnan()


def test_segment_softmax_by_hand():
    got = segment_softmax(torch.tensor([[0.0], [7.0], [math.log(3)]]), SEGMENT, 3)
    torch.testing.assert_close(got, torch.tensor([[0.25], [1.0], [0.75]]))
