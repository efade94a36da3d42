"""Time submanifold convolution on LiDAR voxels against dense products with the same multiply-adds.

    python tools/bench_sparse_conv.py [--voxels 100000] [--channels 16 32 64 128] [--repeats 15] [--threads N]

Contestants are timed in turns, so that whatever else runs on the machine slows all of them alike. `mm` is
dense `torch.mm` with as many multiply-adds as the convolution (three products for forward + backward);
`gather` is the same convolution written in torch: gather, mm and index_add for each tap.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import numba
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from sparse3d import SparseTensor, nn
from sparse3d.data.minidrive import simulate
from sparse3d_ops.voxelize import voxelize

BOUNDS, VOXEL = [-60.0, -60.0, -3.0, 60.0, 60.0, 3.0], [0.1, 0.1, 0.1]
Contestants = dict[str, Callable[[], object]]


class Scene(NamedTuple):
    """Voxels and, for each of the 27 taps, its pairs (input rows, output rows)."""

    sites: Tensor
    pairs: list[tuple[Tensor, Tensor]]

    @property
    def pair_count(self) -> int:
        return sum(len(rows) for rows, _ in self.pairs)


def lidar_scene(count: int) -> Scene:
    """`count` voxels of as many generated scans as it takes, one a sample."""
    parts, total = [], 0
    while total < count:
        points = torch.from_numpy(np.ascontiguousarray(simulate(0, len(parts)).points))
        sites, _, _ = voxelize(points, torch.zeros(len(points), dtype=torch.int64), VOXEL, BOUNDS)
        sites[:, 0] = len(parts)
        parts.append(sites[: count - total])
        total += len(parts[-1])
    sites = torch.cat(parts)
    table = kernel_map(sites).table
    return Scene(sites, [(tap[tap >= 0].long(), (tap >= 0).nonzero()[:, 0]) for tap in table.T])


def kernel_map(sites: Tensor):
    """A new tensor's map of a 3x3x3 submanifold convolution: hash table, table and reverse."""
    return SparseTensor(torch.zeros(len(sites), 1), sites).sites.submanifold((3, 3, 3), (1, 1, 1))


def by_torch(features: Tensor, weight: Tensor, scene: Scene) -> Tensor:
    """The convolution as a gather, a product and an index_add for each tap."""
    out = features.new_zeros(len(features), weight.shape[2])
    for tap, (rows, outputs) in zip(weight, scene.pairs, strict=True):
        out = out.index_add(0, outputs, features[rows] @ tap)
    return out


def forward_only(function: Callable[[], Tensor]) -> Callable[[], object]:
    def run() -> object:
        with torch.no_grad():
            return function()

    return run


def contests(scene: Scene, channels: int) -> dict[str, Contestants]:
    """What is timed against what at one number of channels."""
    features = torch.randn(len(scene.sites), channels, requires_grad=True)
    layer = nn.SubMConv3d(channels, channels, bias=False)
    weight = layer.weight.reshape(27, channels, channels)
    tensor = SparseTensor(features, scene.sites)
    grad = torch.randn(len(scene.sites), channels)
    dense, square = torch.randn(scene.pair_count, channels), torch.randn(channels, channels)

    def ours() -> Tensor:
        return layer(tensor).features

    def gather() -> Tensor:
        return by_torch(features, weight, scene)

    return {
        "forward": {
            "ours": forward_only(ours),
            "mm": lambda: dense @ square,
            "gather": forward_only(gather),
        },
        "forward + backward": {
            "ours": lambda: ours().backward(grad),
            "mm": lambda: (dense @ square, dense @ square.T, dense.T @ dense),
            "gather": lambda: gather().backward(grad, retain_graph=True),
        },
    }


def timed(contestants: Contestants, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each repeat of each contestant, in turns, after one warm-up."""
    for run in contestants.values():
        run()
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            begin = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - begin))
    return times


def spread(times: list[float]) -> str:
    return f"{statistics.median(times):.1f} ({min(times):.1f} - {max(times):.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description="Time submanifold convolution against dense products.")
    parser.add_argument("--voxels", type=int, default=100_000)
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    numba.set_num_threads(min(arguments.threads, numba.config.NUMBA_NUM_THREADS))

    scene = lidar_scene(arguments.voxels)
    table = Table(
        title=f"submanifold 3x3x3, {len(scene.sites)} voxels, "
        f"{scene.pair_count / len(scene.sites):.1f} neighbours on average, float32, cpu, "
        f"{arguments.threads} threads, {arguments.repeats} repeats; milliseconds: median (fastest - slowest)"
    )
    for column in ("C", "what", "sparse3d", "torch.mm", "torch gather", "sparse3d / mm", "GFLOP/s"):
        table.add_column(column, justify="right")
    for channels in arguments.channels:
        for what, contestants in contests(scene, channels).items():
            times = timed(contestants, arguments.repeats)
            ours, mm = statistics.median(times["ours"]), statistics.median(times["mm"])
            work = 2 * scene.pair_count * channels**2 * (1 if what == "forward" else 3)
            table.add_row(
                str(channels),
                what,
                *(spread(values) for values in times.values()),
                f"{ours / mm:.2f}",
                f"{work / ours / 1e6:.0f}",
            )
    Console(width=150).print(table)
    maps = timed({"map": lambda: kernel_map(scene.sites)}, arguments.repeats)["map"]
    print(f"kernel map (keys, hash table, table and reverse), ms: {spread(maps)}")


if __name__ == "__main__":
    main()
