"""Voxels near a position by measuring the way to every voxel."""

import math

import torch
from torch import Tensor

from tests.oracles.grid_sample import voxels_of_table


def voxel_query(
    slot_keys: Tensor,
    slot_rows: Tensor,
    positions: Tensor,
    position_batch: Tensor,
    voxel_size: list[float],
    reach: list[int],
    radius: float,
    samples: int,
) -> Tensor:
    row_of = voxels_of_table(slot_keys, slot_rows)
    out = torch.full((len(positions), samples), -1)
    for q, (position, batch) in enumerate(zip(positions.tolist(), position_batch.tolist(), strict=True)):
        if not all(map(math.isfinite, position)):
            continue
        near = []
        for (b, *voxel), row in row_of.items():
            steps = [v - math.floor(p) for v, p in zip(voxel, position, strict=True)]
            way = [(v + 0.5 - p) * s for v, p, s in zip(voxel, position, voxel_size, strict=True)]
            within = all(abs(step) <= n for step, n in zip(steps, reach, strict=True))
            if b == batch and within and sum(w * w for w in way) < radius * radius:
                near.append((sum(map(abs, steps)), voxel, row))
        for place, (_, _, row) in enumerate(sorted(near)[:samples]):
            out[q, place] = row
    return out
