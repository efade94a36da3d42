"""Voxelisation by the definition: a dictionary from cell to the rows of its points."""

import math
from fractions import Fraction

import torch
from torch import Tensor


def rows_of_voxels(points, point_frame, voxel_size, bounds) -> dict[tuple[int, int, int, int], list[int]]:
    """Cells in order of their first point. Cells on each axis: extent / size, rounded up but for 1/1000."""
    shape = [
        max(
            1, math.ceil(Fraction(high) / Fraction(size) - Fraction(low) / Fraction(size) - Fraction(1, 1000))
        )
        for size, low, high in zip(voxel_size, bounds[:3], bounds[3:], strict=True)
    ]
    voxels: dict[tuple[int, int, int, int], list[int]] = {}
    for row, (point, frame) in enumerate(zip(points.tolist(), point_frame.tolist(), strict=True)):
        xyz = point[:3]
        if not all(low <= p < high for p, low, high in zip(xyz, bounds[:3], bounds[3:], strict=True)):
            continue
        cell = [
            min(math.floor((p - low) / size), cells - 1)
            for p, low, size, cells in zip(xyz, bounds[:3], voxel_size, shape, strict=True)
        ]
        voxels.setdefault((frame, cell[0], cell[1], cell[2]), []).append(row)
    return voxels


def voxelize(points: Tensor, point_frame: Tensor, voxel_size, bounds) -> tuple[Tensor, Tensor, Tensor]:
    voxels = rows_of_voxels(points, point_frame, voxel_size, bounds)
    point_voxel = torch.full((len(points),), -1)
    for v, cell in enumerate(sorted(voxels)):
        for row in voxels[cell]:
            point_voxel[row] = v
    coordinates = torch.tensor(sorted(voxels), dtype=torch.int32).reshape(-1, 4)
    return (
        coordinates,
        point_voxel,
        torch.tensor([len(voxels[cell]) for cell in sorted(voxels)], dtype=torch.int64),
    )


def voxelize_first_rows(points, point_frame, voxel_size, bounds, max_points, max_voxels):
    kept, seen = {}, {}
    for cell, rows in rows_of_voxels(points, point_frame, voxel_size, bounds).items():
        seen[cell[0]] = seen.get(cell[0], 0) + 1
        if seen[cell[0]] <= max_voxels:
            kept[cell] = rows[:max_points]
    padded = [kept[cell] + [-1] * (max_points - len(kept[cell])) for cell in sorted(kept)]
    return (
        torch.tensor(padded, dtype=torch.int64).reshape(-1, max_points),
        torch.tensor(sorted(kept), dtype=torch.int32).reshape(-1, 4),
        torch.tensor([len(kept[cell]) for cell in sorted(kept)], dtype=torch.int64),
    )


def voxelize_mean(points, point_frame, voxel_size, bounds) -> tuple[Tensor, Tensor]:
    voxels = rows_of_voxels(points, point_frame, voxel_size, bounds)
    means = [points[voxels[cell]].mean(0) for cell in sorted(voxels)]
    features = torch.stack(means) if means else points.new_zeros(0, points.shape[1])
    return features, torch.tensor(sorted(voxels), dtype=torch.int32).reshape(-1, 4)


def voxelize_first(points, point_frame, voxel_size, bounds, max_points, max_voxels):
    rows, coordinates, counts = voxelize_first_rows(
        points, point_frame, voxel_size, bounds, max_points, max_voxels
    )
    voxels = points.new_zeros(len(rows), max_points, points.shape[1])
    for v, row in enumerate(rows.tolist()):
        for k, p in enumerate(row):
            if p >= 0:
                voxels[v, k] = points[p]
    return voxels, coordinates, counts
