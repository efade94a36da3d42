"""The oracle of marching cubes against surfaces that are counted by hand."""

import torch

from tests.oracles.marching_cubes import extract_blocks

ALONE = torch.tensor([[0, -1, -1, -1, -1, -1, -1, -1]])


def test_one_point_inside_has_an_octahedron_around_it():
    values = torch.full((1, 3, 3, 3), -1.0)
    values[0, 1, 1, 1] = 1.0
    low, high, faces = extract_blocks(values, ALONE, 0.0)
    assert low.tolist() == [4, 10, 12, 13, 13, 13] and high.tolist() == [13, 13, 13, 22, 16, 14]
    assert len(faces) == 8 and sorted(torch.bincount(faces.flatten()).tolist()) == [4] * 6


def test_a_cut_across_two_blocks_is_two_triangles_a_cell():
    values = torch.tensor([1.0, 1.0, -1.0, -1.0]).reshape(2, 2, 1, 1).repeat(1, 1, 2, 2)
    pair = torch.full((2, 8), -1)
    pair[:, 0] = torch.arange(2)
    assert len(extract_blocks(values, pair, 0.0)[2]) == 0, "between them there is nothing"
    pair[0, 4] = 1
    low, high, faces = extract_blocks(values, pair, 0.0)
    assert low.tolist() == [4, 5, 6, 7] and high.tolist() == [8, 9, 10, 11] and len(faces) == 2
    weights = torch.ones_like(values)
    weights[1, 0, 0, 0] = 0.5
    assert len(extract_blocks(values, pair, 0.0, weights, 0.6)[2]) == 0
