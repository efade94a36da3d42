"""Laws of the voxel query beyond the law suite."""

import pytest
import torch

from sparse3d_ops import hashing
from sparse3d_ops.voxel_query import voxel_query
from tests.ops.cases_grid_sample import volume

SIZE, REACH = [0.1, 0.2, 0.4], [2, 2, 2]


def scene(queries=50):
    torch.manual_seed(2)
    positions = torch.rand(queries, 3, dtype=torch.float64) * 9 - 4
    return volume(300), positions, torch.randint(0, 2, (queries,))


def query(sites, positions, frame, samples=6, reach=REACH, radius=0.5):
    table = hashing.build(hashing.pack(sites))
    return voxel_query(*table, positions, frame, SIZE, reach, radius, samples)


def sites_of(sites, rows):
    """The voxels that rows name, -1 left as it is."""
    return torch.where(rows[..., None] >= 0, sites[rows.clamp(min=0)], -1)


def test_order_of_the_voxels_changes_no_neighbour():
    sites, positions, frame = scene()
    shuffle = torch.randperm(len(sites))
    one, other = query(sites, positions, frame), query(sites[shuffle], positions, frame)
    assert (one >= 0).any() and torch.equal(sites_of(sites, one), sites_of(sites[shuffle], other))


def test_fewer_samples_are_the_first_of_more():
    args = scene()
    assert torch.equal(query(*args, samples=2), query(*args, samples=6)[:, :2])


def test_a_longer_reach_than_the_radius_needs_changes_nothing():
    args = scene()
    assert torch.equal(query(*args, radius=0.3, reach=[4, 2, 2]), query(*args, radius=0.3, reach=[9, 9, 9]))


def test_moving_voxels_and_positions_by_whole_voxels_changes_nothing():
    sites, positions, frame = scene()
    step = torch.tensor([-70_000, 12, 99])
    moved = sites + torch.cat([torch.zeros(1), step]).int()
    assert torch.equal(query(moved, positions + step, frame), query(sites, positions, frame))


def test_errors_say_what_came():
    sites, positions, frame = scene()
    with pytest.raises(ValueError, match="positions is float16"):
        query(sites, positions.half(), frame)
    with pytest.raises(ValueError, match=r"position_batch\[0\] is 512"):
        query(sites, positions, torch.full_like(frame, 512))
    with pytest.raises(ValueError, match=r"reach is \[2, 2, 40\]"):
        query(sites, positions, frame, reach=[2, 2, 40])
    with pytest.raises(ValueError, match="radius is 0.0 and samples 6"):
        query(sites, positions, frame, radius=0.0)
