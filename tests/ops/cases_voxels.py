"""Keys, hash tables and kernel maps under the law suite.

A hash table's layout is its own business, so the ops that take one are put under the laws together with the
op that builds it.
"""

import torch

from sparse3d_ops import hashing, kernel_map
from tests.ops.laws import OpLaw
from tests.oracles import voxels as oracle


def cloud(count, extent, batches=2, offset=0):
    """Distinct random voxels of a box of `extent` voxels, in random order."""
    volume = extent[0] * extent[1] * extent[2]
    cells = torch.randperm(batches * volume)[:count]
    x, y, z = cells // (extent[1] * extent[2]) % extent[0], cells // extent[2] % extent[1], cells % extent[2]
    sites = torch.stack([cells // volume, x, y, z], 1)
    sites[:, 1:] += offset
    return sites.to(torch.int32)


BORDER = torch.tensor(
    [
        [0, 131071, 131071, 131071],
        [511, -131072, -131072, -131072],
        [0, 131071, 131071, -131072],
        [0, 0, -131072, 0],
    ],
    dtype=torch.int32,
)
CLOUDS = {
    "empty": lambda: torch.zeros(0, 4, dtype=torch.int32),
    "single": lambda: torch.tensor([[1, 4, 5, 6]], dtype=torch.int32),
    "dense": lambda: cloud(90, (4, 4, 3)),
    "negative": lambda: cloud(40, (6, 5, 4), offset=-3),
    "border": lambda: BORDER.clone(),
}


def coordinate_cases(clouds=CLOUDS, **extra):
    return {
        name: lambda dtype, device, make=make: (make().to(device), *extra.values())
        for name, make in clouds.items()
    }


def key_cases():
    cases = {
        name: lambda dtype, device, make=make: (oracle.pack(make()).to(device),)
        for name, make in CLOUDS.items()
    }
    cases["duplicate"] = lambda dtype, device: (
        oracle.pack(cloud(12, (4, 4, 2)))[torch.randint(0, 12, (50,))].to(device),
    )
    return cases


def find_rows(keys, queries):
    return hashing.look_up(*hashing.build(keys), queries)


def find_steps(keys, queries):
    return [(hashing.build, (keys,)), (hashing.look_up, (*hashing.build(keys), queries))]


def find_rows_oracle(keys, queries):
    rows = {k: n for n, k in enumerate(keys.tolist())}
    return torch.tensor([rows.get(q, -1) for q in queries.tolist()], dtype=torch.int32)


def query_cases():
    def make(build):
        def case(dtype, device):
            stored = oracle.pack(build())
            absent = oracle.pack(cloud(20, (5, 5, 5), offset=40))
            return stored.to(device), torch.cat([stored.flip(0), absent, stored[:1]]).to(device)

        return case

    return {name: make(build) for name, build in CLOUDS.items()}


def submanifold_steps(coordinates, kernel_size, dilation):
    table = hashing.build(hashing.pack(coordinates))
    return [(kernel_map.submanifold_map, (*table, coordinates, kernel_size, dilation))]


def submanifold_map(coordinates, kernel_size, dilation):
    ((op, args),) = submanifold_steps(coordinates, kernel_size, dilation)
    return op(*args)


def between_steps(in_coordinates, out_coordinates, *geometry):
    table = hashing.build(hashing.pack(in_coordinates))
    return [(kernel_map.kernel_map, (*table, in_coordinates.shape[0], out_coordinates, *geometry))]


def map_between(in_coordinates, out_coordinates, kernel_size, stride, padding, dilation):
    ((op, args),) = between_steps(in_coordinates, out_coordinates, kernel_size, stride, padding, dilation)
    return op(*args)


GEOMETRIES = {
    "kernel3_stride2": ([3, 3, 3], [2, 2, 2], [1, 1, 1], [1, 1, 1]),
    "kernel2_stride2": ([2, 2, 2], [2, 2, 2], [0, 0, 0], [1, 1, 1]),
    "flat": ([1, 1, 3], [1, 1, 2], [0, 0, 0], [1, 1, 1]),
    "mixed": ([3, 2, 1], [2, 3, 1], [1, 0, 0], [2, 1, 1]),
    "stride_over_kernel": ([1, 2, 1], [3, 3, 2], [0, 1, 0], [1, 3, 1]),
}


def submanifold_cases():
    kernels = {"3": ([3, 3, 3], [1, 1, 1]), "531": ([5, 3, 1], [1, 2, 1]), "even": ([2, 4, 3], [1, 1, 1])}
    return {
        f"{name}_{kernel}": lambda dtype, device, make=make, args=args: (make().to(device), *args)
        for name, make in CLOUDS.items()
        for kernel, args in kernels.items()
    }


def geometry_cases(with_outputs):
    def make(build, geometry, shape):
        def case(dtype, device):
            sites = build()
            if with_outputs:
                outputs = oracle.strided_sites(sites, *geometry, shape)
                return sites.to(device), outputs.to(device), *geometry
            return sites.to(device), *geometry, shape

        return case

    cases = {}
    for name in ("empty", "single", "dense", "negative"):
        for kind, geometry in GEOMETRIES.items():
            cases[f"{name}_{kind}_unbounded"] = make(CLOUDS[name], geometry, [])
    for kind, geometry in GEOMETRIES.items():
        cases[f"dense_{kind}_bounded"] = make(CLOUDS["dense"], geometry, [2, 3, 2])
    return cases


LAWS = [
    OpLaw(hashing.pack, oracle.pack, coordinate_cases(), floating=False),
    OpLaw(hashing.unpack, oracle.unpack, key_cases(), floating=False),
    OpLaw(hashing.unique, oracle.unique, key_cases(), floating=False),
    OpLaw(find_rows, find_rows_oracle, query_cases(), floating=False, steps=find_steps),
    OpLaw(
        submanifold_map, oracle.submanifold_map, submanifold_cases(), floating=False, steps=submanifold_steps
    ),
    OpLaw(
        map_between, oracle.kernel_map, geometry_cases(with_outputs=True), floating=False, steps=between_steps
    ),
    OpLaw(kernel_map.strided_sites, oracle.strided_sites, geometry_cases(False), floating=False),
    OpLaw(kernel_map.transposed_sites, oracle.transposed_sites, geometry_cases(False), floating=False),
]
