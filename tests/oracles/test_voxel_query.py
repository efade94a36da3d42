"""The oracle of the voxel query on a case worked out by hand."""

import torch

from sparse3d_ops import hashing
from tests.oracles.voxel_query import voxel_query


def test_five_voxels_by_hand():
    # Around (0.5, 0.5, 0.5), in voxel (0, 0, 0). Row 0 is it; rows 1 and 2 lie one step away, row 2 along
    # -x and so first; row 3 at (1, 1, 0) two steps and 1.5 m (0.5 m along x, 1.414 with y twice as long);
    # row 4 is another frame's.
    sites = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, -1, 0, 0], [0, 1, 1, 0], [1, 0, 0, 0]]).int()
    table = hashing.build(hashing.pack(sites))
    at, frame = torch.tensor([[0.5, 0.5, 0.5]]), torch.tensor([0])
    size = [0.5, 1.0, 2.0]

    def rows(reach, radius, samples):
        return voxel_query(*table, at, frame, size, reach, radius, samples)[0].tolist()

    assert rows([1, 1, 1], 5.0, 5) == [0, 2, 1, 3, -1]
    assert rows([1, 1, 1], 5.0, 2) == [0, 2]
    assert rows([1, 1, 1], 1.9, 5) == [0, 2, 3, -1, -1]  # row 1 is 2 m above
    assert rows([1, 1, 1], 2.0, 5) == [0, 2, 3, -1, -1]  # less than the radius, not equal
    assert rows([1, 0, 0], 5.0, 5) == [0, 2, -1, -1, -1]
    assert rows([0, 0, 0], 0.1, 1) == [0]
