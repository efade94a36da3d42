"""Rays through boxes and grids by their definition: every bin is looked at, in double precision."""

import math

import torch
from torch import Tensor

from tests.oracles.grid_sample import voxels_of_table


def ray_box(origins: Tensor, directions: Tensor, low: Tensor, high: Tensor) -> tuple[Tensor, Tensor]:
    limits = [
        _span(o, d, low.tolist(), high.tolist(), 0.0, math.inf)
        for o, d in zip(origins.tolist(), directions.tolist(), strict=True)
    ]
    near_far = torch.tensor(limits, dtype=torch.float64).view(-1, 2)
    return near_far[:, 0], near_far[:, 1]


def _span(origin, direction, low, high, near, far):
    miss = math.inf, -math.inf
    if not all(map(math.isfinite, (*origin, *direction))) or not any(direction) or not near <= far:
        return miss
    for o, d, a, b in zip(origin, direction, low, high, strict=True):
        if d == 0:
            near, far = (near, far) if a <= o <= b else miss
        else:
            first, last = sorted(((a - o) / d, (b - o) / d))
            near, far = max(near, first), min(far, last)
    return (near, far) if near <= far else miss


def empty_blocks(occupancy: Tensor) -> Tensor:
    blocks = torch.zeros(occupancy.shape, dtype=torch.uint8)
    for x, y, z in torch.nonzero(~occupancy).tolist():
        for level in range(5):
            i, j, k = (c >> level << level for c in (x, y, z))
            edge = 1 << level
            if not occupancy[i : i + edge, j : j + edge, k : k + edge].any():
                blocks[x, y, z] = level + 1
    return blocks


def march(origins, directions, near, far, blocks, low, high, step, offset):
    starts, ts, dts = [0], [], []
    shape = blocks.shape
    for r, (origin, direction) in enumerate(zip(origins.tolist(), directions.tolist(), strict=True)):
        start, end = _span(origin, direction, low.tolist(), high.tolist(), near[r].item(), far[r].item())
        bins = max(1, math.ceil((end - start) / step - 1e-6)) if start < end else 0
        for k in range(bins):
            begin = start + k * step
            dt = step if k + 1 < bins else end - begin
            t = begin + offset[r].item() * dt
            cell = []
            for o, d, a, b, size in zip(origin, direction, low.tolist(), high.tolist(), shape, strict=True):
                scale = size / (b - a)
                cell.append(min(max(int((o - a) * scale + t * (d * scale)), 0), size - 1))
            if blocks[tuple(cell)] == 0:
                ts.append(t)
                dts.append(dt)
        starts.append(len(ts))
    return (
        torch.tensor(starts),
        torch.tensor(ts, dtype=torch.float64),
        torch.tensor(dts, dtype=torch.float64),
    )


def traverse(origins, directions, near, far, slot_keys, slot_rows, low, voxel_size, batch):
    """Each ray against each voxel: the part of it that is in [i, i + 1) on all axes."""
    starts, intervals = [0], []
    voxels = voxels_of_table(slot_keys, slot_rows)
    corner, size = low.tolist(), voxel_size.tolist()
    for r, (origin, direction) in enumerate(zip(origins.tolist(), directions.tolist(), strict=True)):
        a = [(o - c) / s for o, c, s in zip(origin, corner, size, strict=True)]
        b = [d / s for d, s in zip(direction, size, strict=True)]
        found = []
        for (sample, *voxel), row in voxels.items():
            upper = [i + 1 for i in voxel]
            t0, t1 = _span(a, b, voxel, upper, near[r].item(), far[r].item())
            on_a_face = any(d == 0 and o == i for d, o, i in zip(b, a, upper, strict=True))
            if sample == batch[r] and not on_a_face and (t1 - t0) * max(map(abs, b)) > 1e-8:
                found.append((t0, t1, row))
        intervals += sorted(found)
        starts.append(len(intervals))
    t0, t1, row = torch.tensor(intervals, dtype=torch.float64).view(-1, 3).unbind(1)
    return torch.tensor(starts), row.long(), t0, t1
