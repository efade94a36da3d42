"""The voxel query under the law suite."""

import torch

from sparse3d_ops import hashing, voxel_query
from tests.ops.cases_grid_sample import volume
from tests.ops.laws import OpLaw
from tests.oracles import voxel_query as oracle


def _case(count, queries, reach, radius, samples, frames=2, size=(0.1, 0.2, 0.4)):
    def make(dtype, device):
        keys, rows = hashing.build(hashing.pack(volume(count, frames=frames)))
        positions = torch.rand(queries, 3, dtype=dtype) * 9 - 4
        frame = torch.randint(0, 3, (queries,))
        tensors = (tensor.to(device) for tensor in (keys, rows, positions, frame))
        return *tensors, list(size), reach, radius, samples

    return make


def _border(dtype, device):
    # Centres, faces and corners of voxels, all at exact distances, and places far away or nowhere.
    keys, rows = hashing.build(hashing.pack(volume(60, frames=1)))
    axis = torch.tensor([-2.0, -0.5, 0.0, 0.5, 1.0], dtype=dtype)
    far = torch.tensor([[131071.5] * 3, [-131072.0] * 3, [3e12] * 3, [torch.inf, 0, 0]], dtype=dtype)
    positions = torch.cat([torch.cartesian_prod(axis, axis, axis), far, far[-1:] * 0])
    frame = torch.zeros(len(positions), dtype=torch.int32)
    tensors = (tensor.to(device) for tensor in (keys, rows, positions, frame))
    return *tensors, [1.0, 1.0, 1.0], [1, 1, 1], 1.0, 4


def _last_voxel(dtype, device):
    # A neighbour above the largest coordinate that a key holds must not be read as another voxel.
    sites = torch.tensor([[0, 0, 0, 131071], [0, 0, 1, -131072], [0, -131072, 0, 0]], dtype=torch.int32)
    keys, rows = hashing.build(hashing.pack(sites))
    positions = torch.tensor(
        [[0.5, 0.5, 131071.75], [0.5, 1.5, -131072.0], [-131072.0, 0.75, 0.75]], dtype=dtype
    )
    frame = torch.zeros(3, dtype=torch.int64)
    tensors = (tensor.to(device) for tensor in (keys, rows, positions, frame))
    return *tensors, [1.0, 1.0, 1.0], [2, 2, 2], 3.0, 3


CASES = {
    "empty_volume": _case(0, 5, [1, 1, 1], 1.0, 2),
    "no_positions": _case(5, 0, [1, 1, 1], 1.0, 2),
    "single": _case(1, 30, [4, 4, 4], 2.0, 3, frames=1),
    "own_voxel_alone": _case(300, 40, [0, 0, 0], 9.0, 2),
    "no_axis_alike": _case(250, 60, [1, 3, 2], 0.5, 8),
    "first_of_many": _case(600, 40, [2, 2, 2], 5.0, 3),
    "radius_decides": _case(400, 40, [4, 4, 4], 0.45, 16),
    "border": _border,
    "last_voxel": _last_voxel,
}
LAWS = [OpLaw(voxel_query.voxel_query, oracle.voxel_query, CASES)]
