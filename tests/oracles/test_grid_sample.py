"""The oracles of the trilinear sampling on cases worked out by hand."""

import torch

from tests.oracles import grid_sample as oracle

# Two voxels of frame 0, one above the other in z, and one of frame 1 at the place of the first.
COORDINATES = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [1, 0, 0, 0]])
FEATURES = torch.tensor([[1.0], [3.0], [100.0]])


def test_sample_by_hand():
    positions = torch.tensor(
        [[0.5, 0.5, 0.5], [0.5, 0.5, 0.75], [1.0, 0.5, 0.5], [0.5, 0.5, 0.5], [1.5, 0.5, 0.5]]
    )
    got = oracle.sample(FEATURES, COORDINATES, positions, torch.tensor([0, 0, 0, 1, 0]))
    # At a centre; a quarter of the way up; half-way to a missing voxel; the other frame; at a missing voxel.
    assert got.flatten().tolist() == [1.0, 1.5, 0.5, 100.0, 0.0]


def test_corner_rows_by_hand():
    # Keys of (0, 0, 0, 0) and (0, 0, 0, 1) with offsets of 2^17 on each axis, as signed 64-bit numbers.
    origin = -(2**63) + (2**17 << 36) + (2**17 << 18) + 2**17
    keys, rows = torch.tensor([origin + 1, 0, origin]), torch.tensor([1, 0, 0])
    got = oracle.corner_rows(
        keys, rows, torch.tensor([[1.25, 0.75, 0.75], [0.25, 0.5, 1.5]]), torch.tensor([0, 0])
    )
    # First: around (0, 0, 0) .. (1, 1, 1); both voxels have dx = dy = 0. Second: around (-1, 0, 1) .. (0, 1,
    # 2).
    assert got.tolist() == [[0, 1, -1, -1, -1, -1, -1, -1], [-1, -1, -1, -1, 1, -1, -1, -1]]


def test_sums_by_hand():
    corners = torch.tensor([[1, 0, -1, -1, -1, -1, -1, 1]])
    weights = torch.tensor([[0.5, 0.25, 9.0, 9.0, 9.0, 9.0, 9.0, 0.125]])
    features, grad = torch.tensor([[1.0, 10.0], [2.0, 20.0]]), torch.tensor([[1.0, -1.0]])
    assert oracle.trilinear_gather(features, corners, weights).tolist() == [[1.5, 15.0]]
    assert oracle.trilinear_scatter(grad, corners, weights, 3).tolist() == [
        [0.25, -0.25],
        [0.625, -0.625],
        [0.0, 0.0],
    ]
    assert oracle.trilinear_dot(grad, features, corners).tolist() == [[-18.0, -9.0, 0, 0, 0, 0, 0, -18.0]]
