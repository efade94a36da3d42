"""Rays through boxes and grids by their definition: every bin is looked at, in double precision."""

import math

import torch
from torch import Tensor


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
