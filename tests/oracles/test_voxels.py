"""The oracles of keys, kernel maps and convolution on cases worked out by hand."""

import torch

from tests.oracles import sparse_conv as conv_oracle
from tests.oracles import voxels as oracle


def test_key_of_the_origin_has_only_the_valid_bit_and_three_offsets():
    assert oracle.key((0, 0, 0, 0)) == -(1 << 63) + (1 << 53) + (1 << 35) + (1 << 17)
    assert oracle.unpack(oracle.pack(torch.tensor([[3, -1, 2, -131072]]))).tolist() == [[3, -1, 2, -131072]]


def test_strided_sites_on_a_line_by_hand():
    # kernel 3, stride 2, padding 1: out = (in + 1 - tap) / 2; in = 0 gives taps 1 -> 0; in = 3 gives 4/2,
    # 2/2.
    line = torch.tensor([[0, 0, 0, 0], [0, 3, 0, 0]], dtype=torch.int32)
    got = oracle.strided_sites(line, (3, 1, 1), (2, 1, 1), (1, 0, 0), (1, 1, 1), ())
    assert got[:, 1].tolist() == [0, 1, 2]
    bounded = oracle.strided_sites(line, (3, 1, 1), (2, 1, 1), (1, 0, 0), (1, 1, 1), (2, 1, 1))
    assert bounded[:, 1].tolist() == [0, 1]


def test_table_on_a_line_by_hand():
    # inputs 0, 1, 5; submanifold kernel 3: row 0 sees (none, itself, row 1).
    line = torch.tensor([[0, 0, 0, 0], [0, 1, 0, 0], [0, 5, 0, 0]], dtype=torch.int32)
    table, reverse = oracle.submanifold_map(line, (3, 1, 1), (1, 1, 1))
    assert table.tolist() == [[-1, 0, 1], [0, 1, -1], [-1, 2, -1]]
    assert reverse.tolist() == [[1, 0, -1], [-1, 1, 0], [-1, 2, -1]]


def test_convolution_on_a_line_by_hand():
    table = torch.tensor([[-1, 0, 1], [0, 1, -1]])
    x, w = torch.tensor([[1.0], [2.0]]), torch.tensor([[[10.0]], [[100.0]], [[1000.0]]])
    assert conv_oracle.sparse_conv(x, w, table, table, 1).tolist() == [[2100.0], [210.0]]
    # grad (3, 5): tap 0 meets (x0, g1), tap 1 (x0, g0) and (x1, g1), tap 2 (x1, g0).
    grad = torch.tensor([[3.0], [5.0]])
    got = conv_oracle.sparse_conv_weight_gradient(x, grad, table, table, 1)
    assert got.flatten().tolist() == [5.0, 13.0, 6.0]
