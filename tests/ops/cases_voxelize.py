"""The voxelisation under the law suite."""

import torch

from sparse3d_ops import voxelize
from tests.ops.laws import OpLaw
from tests.oracles import voxelize as oracle

SIZE, BOUNDS = [0.4, 0.5, 0.25], [-2.0, -1.0, -0.5, 2.0, 1.0, 0.5]


def _random(count, frames, spread=1.2):
    def make(dtype, device):
        # Spread beyond the bounds, so that part of the points is outside.
        points = (
            (torch.rand(count, 5, dtype=dtype) - 0.5)
            * torch.tensor([4.0, 2.0, 1.0, 1.0, 1.0]).to(dtype)
            * spread
        )
        return points.to(device), torch.randint(0, frames, (count,)).to(device), SIZE, BOUNDS

    return make


def _border(dtype, device):
    # Exact binary fractions: every point lies on a border of a cell or of the grid, on both sides of zero.
    axis = torch.tensor([-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0], dtype=dtype)
    points = torch.cartesian_prod(axis, axis[1:-1], axis[2:-2])
    return (
        points.to(device),
        torch.zeros(len(points), dtype=torch.int32, device=device),
        [0.5, 0.25, 0.125],
        BOUNDS,
    )


def _not_finite(dtype, device):
    points = torch.zeros(6, 3, dtype=dtype)
    points[0, 0], points[1, 1], points[2, 2], points[3, 0] = torch.nan, torch.inf, -torch.inf, 1e30
    return points.to(device), torch.arange(6, device=device), SIZE, BOUNDS


def _uneven(dtype, device):
    # 4 m hold 5.7 cells of 0.7 m: the last cell sticks out of the bounds, its outer part stays empty.
    points, frame, _, bounds = _random(300, 2)(dtype, device)
    return points, frame, [0.7, 0.3, 0.6], bounds


CASES = {
    "empty": _random(0, 1),
    "single": _random(1, 1, spread=0.5),
    "one_voxel": _random(30, 1, spread=1e-3),
    "all_outside": lambda dtype, device: (
        torch.full((4, 3), 9.0, dtype=dtype, device=device),
        torch.zeros(4, dtype=torch.int64, device=device),
        SIZE,
        BOUNDS,
    ),
    "frames": _random(500, 3),
    "last_frame": lambda dtype, device: (
        torch.zeros(2, 3, dtype=dtype, device=device),
        torch.tensor([511, 0], device=device),
        SIZE,
        BOUNDS,
    ),
    "border": _border,
    "not_finite": _not_finite,
    "uneven": _uneven,
}


def _first(case):
    return lambda dtype, device: (*case(dtype, device), 3, 20)


LAWS = [
    OpLaw(voxelize._voxelize, oracle.voxelize, CASES),
    OpLaw(voxelize.voxelize_first_rows, oracle.voxelize_first_rows, {k: _first(c) for k, c in CASES.items()}),
]
