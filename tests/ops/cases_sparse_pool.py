"""Max pooling and its gradient under the law suite."""

import torch

from sparse3d_ops import sparse_pool
from tests.ops.cases_voxels import CLOUDS, GEOMETRIES
from tests.ops.laws import OpLaw
from tests.oracles import pool as oracle
from tests.oracles import voxels


def _map(name, geometry="kernel3_stride2"):
    sites = CLOUDS[name]()
    outputs = voxels.strided_sites(sites, *GEOMETRIES[geometry], [])
    return voxels.kernel_map(sites, outputs, *GEOMETRIES[geometry])


def _forward(name, channels, duplicate=False):
    def make(dtype, device):
        table, reverse = _map(name)
        # Distinct values (a permutation) keep finite differences away from ties; `duplicate` asks for ties.
        values = torch.randperm(reverse.shape[0] * channels).reshape(-1, channels).to(dtype) / 7
        values = values.floor() % 3 if duplicate else values
        return values.to(device), table.to(device), reverse.to(device)

    return make


def _gradient(name, channels):
    def make(dtype, device):
        features, table, reverse = _forward(name, channels)(torch.float64, torch.device("cpu"))
        _, argmax = oracle.sparse_max(features, table, reverse)
        return torch.randn(argmax.shape, dtype=dtype).to(device), argmax.to(device), reverse.to(device)

    return make


NAMES = ("empty", "single", "dense", "negative")
FORWARD = {name: _forward(name, 3) for name in NAMES} | {"duplicate": _forward("dense", 2, True)}
LAWS = [
    OpLaw(
        sparse_pool.sparse_max,
        oracle.sparse_max,
        FORWARD,
        (0,),
        gradient_cases=("empty", "single", "negative"),
    ),
    OpLaw(sparse_pool.sparse_max_gradient, oracle.sparse_max_gradient, {n: _gradient(n, 3) for n in NAMES}),
]
