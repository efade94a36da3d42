"""Time the voxelisation of LiDAR-like points against torch, Open3D and spconv, where these are installed.

    python tools/bench_voxelize.py [--points 10000 100000 1000000] [--threads 1 2] [--repeats 15]

The points are made here (rings of 64 beams over a flat ground with walls, five sweeps), so that the figures
need no data set. Each row takes the same points for all contestants and asks each for the same thing:

    voxels        occupied cells in order, cell and count of each point; torch: unique of the flat cells
    means         the mean of each cell; torch: unique, scatter_reduce; Open3D: voxel_down_sample (3 columns)
    first points  the first 5 points of each cell; spconv: PointToVoxel (one frame, one thread)
"""

import argparse

import machine
import torch
from torch import Tensor

from sparse3d_ops.voxelize import grid_shape, voxelize, voxelize_first, voxelize_mean

SIZE, BOUNDS = [0.05, 0.05, 0.1], [-70.4, -70.4, -3.0, 70.4, 70.4, 1.0]
SWEEPS = 5
FIRST, MOST = 5, 1_000_000


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


def unique_of_flat_cells(points: Tensor, frame: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sorted flat cells, cell and row of each point inside, counts; the cells are not decoded."""
    shape = grid_shape(SIZE, BOUNDS)
    low, high = torch.tensor(BOUNDS[:3]), torch.tensor(BOUNDS[3:])
    xyz = points[:, :3]
    inside = ((xyz >= low) & (xyz < high)).all(1)
    cell = ((xyz[inside].double() - low.double()) / torch.tensor(SIZE).double()).floor().long()
    flat = ((frame[inside] * shape[0] + cell[:, 0]) * shape[1] + cell[:, 1]) * shape[2] + cell[:, 2]
    cells, inverse, counts = torch.unique(flat, return_inverse=True, return_counts=True)
    return cells, inverse, counts, inside


def mean_by_torch(points: Tensor, frame: Tensor) -> Tensor:
    cells, inverse, _, inside = unique_of_flat_cells(points, frame)
    index = inverse[:, None].expand(-1, points.shape[1])
    out = points.new_zeros(len(cells), points.shape[1])
    return out.scatter_reduce_(0, index, points[inside], "mean", include_self=False)


def by_open3d(open3d, points: Tensor):
    """Means of positions alone (its cells are cubes of 5 cm over all frames: less work than ours)."""
    cloud = open3d.t.geometry.PointCloud(open3d.core.Tensor(points[:, :3].contiguous().numpy()))
    return lambda: cloud.voxel_down_sample(SIZE[0])


def by_spconv(points: Tensor):
    from spconv.pytorch.utils import PointToVoxel  # pyright: ignore[reportMissingImports]

    generate = PointToVoxel(SIZE, BOUNDS, points.shape[1], MOST, FIRST)
    return lambda: generate(points)


def compare(board: machine.Board, limits: machine.Limits, count: int) -> None:
    points, frame = scan(count)
    zeros = torch.zeros_like(frame)
    voxels = len(voxelize(points, frame, SIZE, BOUNDS).coordinates)
    size = f"{count} points, {voxels} voxels"
    # In: points and frames. Out: coordinates, counts and the cell of each point, or the features.
    work = machine.Work(count * (16 + 8 + 8) + voxels * (16 + 8))
    contestants: dict[str, machine.Call] = {
        "sparse3d": lambda: voxelize(points, frame, SIZE, BOUNDS),
        "torch": lambda: unique_of_flat_cells(points, frame),
    }
    board.row("voxels", size, limits, work, contestants)

    contestants = {
        "sparse3d": lambda: voxelize_mean(points, frame, SIZE, BOUNDS),
        "torch": lambda: mean_by_torch(points, frame),
    }
    if open3d := machine.optional("open3d"):
        contestants["Open3D"] = by_open3d(open3d, points)
    board.row("means", size, limits, machine.Work(count * 24 + voxels * 32), contestants)

    contestants = {"sparse3d": lambda: voxelize_first(points, zeros, SIZE, BOUNDS, FIRST, MOST)}
    if machine.optional("spconv"):
        contestants["spconv"] = by_spconv(points)
    filled = len(voxelize_first(points, zeros, SIZE, BOUNDS, FIRST, MOST).coordinates)
    work = machine.Work(count * 16 + filled * (FIRST * 16 + 24))
    board.row("first points", f"{count} points, {filled} voxels", limits, work, contestants)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    machine.add_arguments(parser)
    args = parser.parse_args()
    board = machine.Board("voxelisation, float32", ["torch", "Open3D", "spconv"], args.repeats)
    for limits in machine.each_limit(args.threads):
        for count in args.points:
            compare(board, limits, count)
    board.print()


if __name__ == "__main__":
    main()
