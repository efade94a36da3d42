"""Trilinear sampling under the law suite."""

import torch

from sparse3d_ops import grid_sample, hashing
from tests.ops.laws import OpLaw
from tests.oracles import grid_sample as oracle


def volume(count, low=-3, high=4, frames=2):
    """Distinct voxels on both sides of zero: (count, 4) int32."""
    axis = torch.arange(low, high)
    grid = torch.cartesian_prod(torch.arange(frames), axis, axis, axis).int()
    return grid[torch.randperm(len(grid))[:count]]


def _look_up(count, queries, frames=2):
    def make(dtype, device):
        keys, rows = hashing.build(hashing.pack(volume(count, frames=frames)))
        positions = torch.rand(queries, 3, dtype=dtype) * 9 - 4
        return (
            keys.to(device),
            rows.to(device),
            positions.to(device),
            torch.randint(0, 3, (queries,)).to(device),
        )

    return make


def _border(dtype, device):
    # Centres, faces between voxels and places far away or nowhere: exact binary fractions.
    keys, rows, _, _ = _look_up(60, 0, frames=1)(dtype, device)
    axis = torch.tensor([-2.5, -1.0, -0.5, 0.0, 0.5, 1.0], dtype=dtype)
    far = torch.tensor(
        [[131071.5] * 3, [-131072.0] * 3, [3e12] * 3, [torch.inf, 0, 0], [torch.nan] * 3], dtype=dtype
    )
    positions = torch.cat([torch.cartesian_prod(axis, axis, axis), far])
    return keys, rows, positions.to(device), torch.zeros(len(positions), dtype=torch.int32, device=device)


def _last_voxel(dtype, device):
    # The largest and smallest coordinates that a key holds. A corner above (0, 0, 131071) must not carry over
    # into the bits of y and find (0, 1, -131072).
    sites = torch.tensor([[0, 0, 0, 131071], [0, 0, 1, -131072], [0, -131072, 0, 0]], dtype=torch.int32)
    keys, rows = hashing.build(hashing.pack(sites))
    positions = torch.tensor(
        [[0.5, 0.5, 131071.75], [0.5, 1.5, -131072.0], [-131072.0, 0.75, 0.75]], dtype=dtype
    )
    return (
        keys.to(device),
        rows.to(device),
        positions.to(device),
        torch.zeros(3, dtype=torch.int64, device=device),
    )


LOOK_UPS = {
    "empty_volume": _look_up(0, 5),
    "no_queries": _look_up(5, 0),
    "single": _look_up(1, 30, frames=1),
    "negative": _look_up(200, 60),
    "border": _border,
    "last_voxel": _last_voxel,
}


def _sum(rows, channels, queries):
    def make(dtype, device):
        corners = torch.randint(-1, rows, (queries, 8), dtype=torch.int32)
        features, weights = torch.randn(rows, channels, dtype=dtype), torch.rand(queries, 8, dtype=dtype)
        return features.to(device), corners.to(device), weights.to(device)

    return make


SUMS = {
    "empty_volume": _sum(0, 3, 4),
    "no_queries": _sum(4, 3, 0),
    "single": _sum(1, 1, 1),
    "duplicate": _sum(3, 4, 12),
    "crowded": _sum(3, 1, 70),
    "mostly_missing": lambda dtype, device: (lambda f, c, w: (f, c.where(c < 2, -1), w))(
        *_sum(20, 2, 9)(dtype, device)
    ),
}


def _grad_like(features, corners):
    return torch.randn(len(corners), features.shape[1], dtype=features.dtype).to(features.device)


def _scatter(case):
    def make(dtype, device):
        features, corners, weights = case(dtype, device)
        return _grad_like(features, corners), corners, weights, len(features)

    return make


def _dot(case):
    def make(dtype, device):
        features, corners, _ = case(dtype, device)
        return _grad_like(features, corners), features, corners

    return make


SCATTERS = {name: _scatter(case) for name, case in SUMS.items()}
DOTS = {name: _dot(case) for name, case in SUMS.items()}
SMALL = tuple(name for name in SUMS if name != "crowded")  # gradcheck takes a step for each number
LAWS = [
    OpLaw(grid_sample.corner_rows, oracle.corner_rows, LOOK_UPS),
    OpLaw(
        grid_sample.trilinear_gather,
        oracle.trilinear_gather,
        SUMS,
        differentiable=(0, 2),
        gradient_cases=SMALL,
    ),
    OpLaw(
        grid_sample.trilinear_scatter,
        oracle.trilinear_scatter,
        SCATTERS,
        differentiable=(0, 2),
        gradient_cases=SMALL,
    ),
    OpLaw(grid_sample.trilinear_dot, oracle.trilinear_dot, DOTS, differentiable=(0, 1), gradient_cases=SMALL),
]
