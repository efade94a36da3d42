"""The oracles of the voxelisation on a case worked out by hand."""

import math

import torch

from tests.oracles.voxelize import voxelize, voxelize_first, voxelize_mean

# A grid of 2 x 2 x 1 cells of half a metre by half a metre by one metre that begins at (-0.5, 0, 0).
SIZE, BOUNDS = [0.5, 0.5, 1.0], [-0.5, 0.0, 0.0, 0.5, 1.0, 1.0]
POINTS = torch.tensor(
    [
        [0.25, 0.0, 0.5, 1.0],  # frame 1, cell (1, 0, 0): y on the lower border is inside
        [-0.25, 0.75, 0.0, 2.0],  # frame 0, cell (0, 1, 0)
        [0.5, 0.25, 0.5, 3.0],  # outside: x on the upper border
        [
            0.0,
            0.25,
            0.5,
            4.0,
        ],  # frame 1, cell (1, 0, 0): x on the border of two cells belongs to the upper one
        [math.nan, 0.25, 0.5, 5.0],  # no cell
        [0.25, 0.75, 0.5, 6.0],  # frame 1, cell (1, 1, 0)
        [0.25, 0.25, 0.25, 7.0],  # frame 1, cell (1, 0, 0)
    ]
)
FRAME = torch.tensor([1, 0, 1, 1, 1, 1, 1])


def test_voxelize_by_hand():
    coordinates, point_voxel, counts = voxelize(POINTS, FRAME, SIZE, BOUNDS)
    assert coordinates.tolist() == [[0, 0, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
    assert point_voxel.tolist() == [1, 0, -1, 1, -1, 2, 1]
    assert counts.tolist() == [1, 3, 1]


def test_voxelize_mean_by_hand():
    features, _ = voxelize_mean(POINTS, FRAME, SIZE, BOUNDS)
    assert features[0].tolist() == [-0.25, 0.75, 0.0, 2.0]
    assert features[1, 3] == (1 + 4 + 7) / 3


def test_voxelize_first_by_hand():
    # One voxel a frame: of frame 1 the cell (1, 0, 0) came first. Two points a voxel: 1 and 4, not 7.
    voxels, coordinates, counts = voxelize_first(POINTS, FRAME, SIZE, BOUNDS, 2, 1)
    assert coordinates.tolist() == [[0, 0, 1, 0], [1, 1, 0, 0]]
    assert voxels[:, :, 3].tolist() == [[2.0, 0.0], [1.0, 4.0]]
    assert counts.tolist() == [1, 2]
