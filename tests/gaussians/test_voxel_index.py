"""Laws of the index over means: neighbours as of a tree, crowds by counting, windows that miss nothing."""

import numpy as np
import pytest
import torch
from scipy.spatial import KDTree

from sparse3d.gaussians.voxel_index import VoxelIndex
from tests.gaussians.clouds import DOUBLE, some_cloud


def test_each_mean_is_in_the_voxel_that_it_is_found_in():
    means = some_cloud(500).means
    index = VoxelIndex(means, 0.3, origin=(0.1, -0.2, 0.05))
    assert torch.equal(index.find(means), index.voxel)
    away = (index.centres(index.voxel) - means).abs()
    assert (away <= 0.15 + 1e-12).all()
    assert int(index.counts.sum()) == 500 and torch.equal(index.counts, torch.bincount(index.voxel))
    assert torch.equal(index.rows_of(torch.arange(len(index))), index.order)
    for voxel in range(len(index)):
        assert (
            index.rows_of(torch.tensor([voxel])).tolist() == (index.voxel == voxel).nonzero()[:, 0].tolist()
        )


def test_what_is_not_finite_or_too_far_has_no_voxel():
    means = torch.tensor([[0.0, 0, 0], [np.nan, 0, 0], [0, np.inf, 0], [1e9, 0, 0], [-1e30, 0, 0]])
    index = VoxelIndex(means, 1.0)
    assert index.voxel.tolist() == [0, -1, -1, -1, -1] and index.order.tolist() == [0]
    assert index.crowd().tolist() == [1, 0, 0, 0, 0]
    empty = VoxelIndex(means[:0], 1.0)
    assert len(empty) == 0 and empty.find(means).tolist() == [-1] * 5
    rows, distances = empty.nearest(means[:1], 2)
    assert rows.tolist() == [[-1, -1]] and torch.isinf(distances).all()


@pytest.mark.parametrize("voxel_size", [0.02, 0.2, 5.0])
def test_the_nearest_are_those_of_a_tree(voxel_size):
    means = torch.cat([some_cloud(300).means, some_cloud(40, seed=3).means * 0.01 + 6.0])
    queries = torch.cat([means, some_cloud(50, seed=1).means * 9])
    rows, distances = VoxelIndex(means, voxel_size).nearest(queries, 4)
    way, expected = KDTree(means.numpy()).query(queries.numpy(), 4)
    assert np.allclose(distances, way, atol=1e-12)
    assert np.array_equal(rows, expected)


def test_of_equal_distances_the_lowest_row_is_nearest_and_missing_ones_are_far():
    means = torch.zeros(3, 3, dtype=DOUBLE)
    rows, distances = VoxelIndex(means, 0.1).nearest(means, 5)
    assert rows.tolist() == [[0, 1, 2, -1, -1]] * 3
    assert distances.tolist() == [[0, 0, 0, np.inf, np.inf]] * 3


def test_crowds_are_counted_in_the_voxels_around():
    means = some_cloud(400).means
    index = VoxelIndex(means, 0.25)
    for reach in (0, 1, 2):
        cells = (means / 0.25).floor()
        near = (cells[:, None] - cells[None]).abs().amax(2) <= reach
        assert torch.equal(index.crowd(reach), near.sum(1))
    assert torch.equal(index.crowded(9), index.crowd() >= 9)


def test_thinning_keeps_the_most_important_of_each_voxel():
    cloud = some_cloud(400)
    index, priority = VoxelIndex(cloud.means, 0.5), cloud.opacities.round(decimals=1)
    kept = index.thinned(3, priority)
    assert torch.equal(torch.bincount(index.voxel[kept]), index.counts.clamp(max=3))
    for voxel in range(len(index)):
        rows = index.rows_of(torch.tensor([voxel])).tolist()
        best = sorted(rows, key=lambda row: (-float(priority[row]), row))[:3]
        assert sorted(best) == [row for row in rows if kept[row]]


def test_windows_hold_all_that_is_inside_and_little_else():
    means = some_cloud(3000).means * 4
    index = VoxelIndex(means, 0.25)
    rows = index.in_box((-1.0, 0, 0), (1.0, 2, 3))
    low, high = torch.tensor([-1.0, 0, 0]), torch.tensor([1.0, 2, 3])
    inside = ((means >= low) & (means <= high)).all(1)
    near = ((means >= low - 0.26) & (means <= high + 0.26)).all(1)
    chosen = torch.zeros(3000, dtype=torch.bool)
    chosen[rows] = True
    assert (chosen | ~inside).all() and (near | ~chosen).all() and torch.equal(rows, rows.sort().values)
    # A camera at (0, 0, -3) that looks along z.
    pose = torch.eye(4, dtype=DOUBLE)
    pose[2, 3] = 3.0
    x, y, z = (means + torch.tensor([0, 0, 3.0])).unbind(1)
    rows = index.in_frustum(pose, (80.0, 90.0, 40.0, 30.0), (70, 65), near=0.5, far=5.0)
    u, v = 80 * x / z + 40, 90 * y / z + 30
    seen = (z > 0.5) & (z < 5) & (u > 0) & (u < 70) & (v > 0) & (v < 65)
    chosen = torch.zeros(3000, dtype=torch.bool)
    chosen[rows] = True
    assert (chosen | ~seen).all() and 100 < int(seen.sum()) < int(chosen.sum()) < 2.5 * int(seen.sum())
    wide = (z > 0) & (z < 5.5) & (80 * x / z.clamp(min=0.1) + 40 > -120)
    assert (wide | ~chosen).all()
