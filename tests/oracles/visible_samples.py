"""What rays see of a sparse volume, sample by sample."""

import math

import torch
from torch import Tensor

from tests.oracles.grid_sample import voxels_of_table


def visible_samples(
    slot_keys: Tensor,
    slot_rows: Tensor,
    corner_rows: Tensor,
    values: Tensor,
    origins: Tensor,
    directions: Tensor,
    spans: Tensor,
    offsets: Tensor,
    low: list[float],
    voxel_size: float,
    step: float,
    min_alpha: float,
    stop: float,
) -> tuple[Tensor, Tensor, Tensor]:
    row_of = {tuple(voxel): row for (_, *voxel), row in voxels_of_table(slot_keys, slot_rows).items()}
    starts, found_t, found_voxel = [0], [], []
    for origin, direction, (near, far), offset in zip(
        origins.tolist(), directions.tolist(), spans.tolist(), offsets.tolist(), strict=True
    ):
        light, k = 1.0, 0
        fine = all(map(math.isfinite, [*origin, *direction, near, far, offset]))
        while fine and light >= stop and (t := near + (k + offset) * step) < far:
            k += 1
            place = [(o + t * d - l) / voxel_size for o, d, l in zip(origin, direction, low, strict=True)]
            row = row_of.get(tuple(math.floor(p) for p in place))
            if row is None:
                continue
            value = 0.0
            for corner in range(8):
                weight = 1.0
                for p, upper in zip(place, (corner >> 2 & 1, corner >> 1 & 1, corner & 1), strict=True):
                    weight *= p - math.floor(p) if upper else 1 - (p - math.floor(p))
                value += weight * float(values[corner_rows[row, corner]])
            alpha = 1 - math.exp(-step * math.log1p(math.exp(value)))
            if alpha >= min_alpha:
                found_t.append(t)
                found_voxel.append(row)
                light *= 1 - alpha
        starts.append(len(found_t))
    return (
        torch.tensor(starts),
        torch.tensor(found_t, dtype=values.dtype),
        torch.tensor(found_voxel, dtype=torch.int32),
    )
