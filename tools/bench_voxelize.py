"""Time the voxelisation of LiDAR-like points against torch.unique: `python tools/bench_voxelize.py --points
1000000`.

The points are made here (rings of 64 beams over a flat ground with walls, five sweeps), so that the figures
need no data set. All rows take the same points and are timed in turns, so that a busy machine slows all of
them alike.
"""

import argparse
import statistics
import time

import numba
import torch
from torch import Tensor

from sparse3d_ops.voxelize import grid_shape, voxelize, voxelize_first, voxelize_mean

SIZE, BOUNDS = [0.05, 0.05, 0.1], [-70.4, -70.4, -3.0, 70.4, 70.4, 1.0]
SWEEPS = 5


def scan(count: int) -> tuple[Tensor, Tensor]:
    """points (count, 4) float32 in the order of a spinning sensor at 1.7 m, point_frame (count,) int64."""
    generator = torch.Generator().manual_seed(0)
    azimuth = torch.arange(count) * (2 * torch.pi * SWEEPS / count)
    elevation = torch.deg2rad(torch.linspace(-24.9, 2.0, 64))[torch.arange(count) % 64]
    wall = 15 + 40 * torch.rand(360, generator=generator)[(azimuth.rad2deg() % 360).long()]
    ground = torch.where(elevation < 0, 1.7 / -elevation.clamp(max=-1e-3).sin(), torch.inf)
    distance = torch.minimum(wall, ground) + 0.02 * torch.randn(count, generator=generator)
    x, y = distance * elevation.cos() * azimuth.cos(), distance * elevation.cos() * azimuth.sin()
    points = torch.stack([x, y, distance * elevation.sin(), torch.rand(count, generator=generator)], 1)
    return points, (azimuth / (2 * torch.pi)).long().clamp(max=SWEEPS - 1)


def unique_of_flat_cells(points: Tensor, frame: Tensor) -> Tensor:
    """The same result by torch.unique: mask, flat cell index in int64, unique with inverse and counts."""
    shape = grid_shape(SIZE, BOUNDS)
    low, high = torch.tensor(BOUNDS[:3]), torch.tensor(BOUNDS[3:])
    xyz = points[:, :3]
    inside = ((xyz >= low) & (xyz < high)).all(1)
    cell = (
        ((xyz[inside].double() - torch.tensor(BOUNDS[:3]).double()) / torch.tensor(SIZE).double())
        .floor()
        .long()
    )
    flat = ((frame[inside] * shape[0] + cell[:, 0]) * shape[1] + cell[:, 1]) * shape[2] + cell[:, 2]
    return torch.unique(flat, return_inverse=True, return_counts=True)[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=1_000_000)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    numba.set_num_threads(args.threads)
    torch.set_num_threads(args.threads)
    points, frame = scan(args.points)
    contestants = {
        "voxelize": lambda: voxelize(points, frame, SIZE, BOUNDS),
        "voxelize_mean": lambda: voxelize_mean(points, frame, SIZE, BOUNDS),
        "voxelize_first, 5 points": lambda: voxelize_first(points, frame, SIZE, BOUNDS, 5, 160_000),
        "torch.unique of flat cells": lambda: unique_of_flat_cells(points, frame),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for call in contestants.values():
        call()
    for _ in range(args.repeats):
        for name, call in contestants.items():
            start = time.perf_counter()
            call()
            times[name].append(1e3 * (time.perf_counter() - start))
    voxels = len(voxelize(points, frame, SIZE, BOUNDS).coordinates)
    print(f"{len(points)} points -> {voxels} voxels, {args.threads} threads, {args.repeats} repeats, ms")
    print(f"{'':28}{'median':>8}{'fastest':>9}{'slowest':>9}{'Mpoints/s':>11}")
    for name, row in times.items():
        median = statistics.median(row)
        print(f"{name:28}{median:8.1f}{min(row):9.1f}{max(row):9.1f}{len(points) / median / 1e3:11.1f}")


if __name__ == "__main__":
    main()
