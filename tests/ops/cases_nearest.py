"""The nearest points around under the law suite."""

import torch

from sparse3d_ops import hashing
from sparse3d_ops.nearest import nearest_around
from tests.ops.laws import OpLaw
from tests.oracles import nearest as oracle


def _scene(points, queries, dtype, device, count):
    """Points of unit voxels, all listed; queries in the voxels that hold them."""
    cells = torch.nn.functional.pad(points.floor().int(), (1, 0))
    keys, voxel, counts = hashing.unique(hashing.pack(cells))
    order = torch.sort(voxel, stable=True).indices
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    slot_keys, slot_rows = hashing.build(keys)
    at = torch.nn.functional.pad(queries.floor().int(), (1, 0))
    parts = slot_keys, slot_rows, starts, order, points.to(dtype), queries.to(dtype), at
    return *(part.to(device) for part in parts), count


def _random(points, queries, count, spread=2.0):
    def make(dtype, device):
        # Eighths, which float32 holds as float64 does: distances are the same and can be equal.
        places = (torch.rand(points, 3) * 2 - 1) * spread
        around = (torch.rand(queries, 3) * 2 - 1) * (spread + 1)
        return _scene((places * 8).floor() / 8, (around * 8).floor() / 8, dtype, device, count)

    return make


def _duplicates(dtype, device):
    places = torch.tensor([[0.5, 0.5, 0.5]]).repeat(6, 1)
    return _scene(places, places[:2], dtype, device, 4)


def _nowhere(dtype, device):
    *parts, cells, count = _random(20, 5, 3)(dtype, device)
    cells = cells.clone()
    cells[::2, 0] = -1
    cells[1, 1] = 2**31 - 1
    return *parts, cells, count


def _border(dtype, device):
    """At the ends of what a key holds."""
    low, high = -131072.0, 131071.0
    places = torch.tensor([[low, low, low], [high, high, high], [high, 0, low]]) + 0.25
    return _scene(places, places + 0.5, dtype, device, 2)


CASES = {
    "empty": _random(0, 4, 2),
    "no_queries": _random(5, 0, 2),
    "single": _random(1, 3, 1),
    "duplicate": _duplicates,
    "few": _random(4, 6, 8),
    "nowhere": _nowhere,
    "border": _border,
    "many": _random(200, 40, 4),
}
LAWS = [OpLaw(nearest_around, oracle.nearest_around, CASES)]
