"""Marching cubes over blocks under the law suite."""

import torch

from sparse3d_ops.marching_cubes import dense_neighbours, extract_blocks
from tests.ops.laws import OpLaw
from tests.oracles import marching_cubes as oracle


def _noise(size, dtype, device, seed=0):
    generator = torch.Generator().manual_seed(seed)
    # Of few values: some equal the level, which is outside.
    return (torch.randn(size, generator=generator) * 2).round().to(dtype).to(device)


def blocks_of(grid, size):
    """A grid (X, Y, Z) cut into blocks, those at random places in the list -> (B, ...), neighbours (B, 8)."""
    counts = [n // s for n, s in zip(grid.shape, size, strict=True)]
    places = [(i, j, k) for i in range(counts[0]) for j in range(counts[1]) for k in range(counts[2])]
    order = torch.randperm(len(places), generator=torch.Generator().manual_seed(1)).tolist()
    places = [places[n] for n in order]
    rows = {place: n for n, place in enumerate(places)}
    cut = [
        grid[tuple(slice(p * s, (p + 1) * s) for p, s in zip(place, size, strict=True))] for place in places
    ]
    near = [
        [rows.get((i + (k >> 2), j + (k >> 1 & 1), l + (k & 1)), -1) for k in range(8)] for i, j, l in places
    ]
    return torch.stack(cut), torch.tensor(near)


def _dense(*size):
    def make(dtype, device):
        return _noise((1, *size), dtype, device), dense_neighbours(device), 0.0

    return make


def _blocks(dtype, device):
    values, near = blocks_of(_noise((4, 6, 8), dtype, device), (2, 3, 4))
    return values, near.to(device), 0.0


def _holes(dtype, device):
    """Blocks that are missing, points that are NaN or infinite, and points of little weight."""
    values, near = blocks_of(_noise((6, 6, 6), dtype, device, 2), (3, 2, 2))
    kept = torch.arange(len(values)) % 5 > 0
    rows = torch.where(kept, kept.cumsum(0) - 1, -1)
    near = torch.where(near < 0, -1, rows[near])[kept]
    values = values[kept.to(device)].clone()
    values.view(-1)[::17] = float("nan")
    values.view(-1)[5::19] = float("inf")
    weights = _noise(tuple(values.shape), dtype, device, 3).abs()
    weights.view(-1)[::23] = float("nan")
    return values, near.to(device), 0.5, weights, 1.0


def _lent(dtype, device):
    """Blocks that only lend their points: no cell of theirs has triangles."""
    args = list(_holes(dtype, device))
    args[1] = args[1].clone()
    args[1][::3, 0] = -1
    return tuple(args)


CASES = {
    "lent": _lent,
    "empty": lambda dtype, device: (
        torch.zeros(0, 2, 2, 2, dtype=dtype, device=device),
        torch.zeros(0, 8, dtype=torch.int64, device=device),
        0.0,
    ),
    "no_points": _dense(3, 3, 0),
    "single": _dense(1, 1, 1),
    "one_cell": _dense(2, 2, 2),
    "flat": _dense(4, 1, 5),
    "noise": _dense(5, 6, 7),
    "blocks": _blocks,
    "holes": _holes,
}
LAWS = [OpLaw(extract_blocks, oracle.extract_blocks, CASES)]
