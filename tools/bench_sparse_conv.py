"""Time submanifold convolution on LiDAR voxels against dense products with the same multiply-adds.

    python tools/bench_sparse_conv.py [--voxels 100000] [--channels 16 32 64 128] [--repeats 15] [--threads N]

Contestants are timed in turns, so that whatever else runs on the machine slows all of them alike. `mm` is one dense
`torch.mm` with as many multiply-adds as the convolution has pairs; `gather` is the convolution written in torch:
gather, mm and index_add for each tap.
"""

import argparse
import statistics
import time
from collections.abc import Callable

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


def lidar_voxels(count: int) -> Tensor:
    """(count, 4) int32: voxels of as many generated scans as it takes, one a sample."""
    parts, total = [], 0
    while total < count:
        points = torch.from_numpy(np.ascontiguousarray(simulate(0, len(parts)).points))
        sites, _, _ = voxelize(points, torch.zeros(len(points), dtype=torch.int64), VOXEL, BOUNDS)
        sites[:, 0] = len(parts)
        parts.append(sites[: count - total])
        total += len(parts[-1])
    return torch.cat(parts)


def timed(contestants: dict[str, Callable[[], object]], repeats: int) -> dict[str, list[float]]:
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


def by_torch(features: Tensor, weight: Tensor, pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The convolution as a gather, a product and an index_add for each tap."""
    out = features.new_zeros(len(features), weight.shape[2])
    for tap, (rows, outputs) in zip(weight, pairs, strict=True):
        out = out.index_add(0, outputs, features[rows] @ tap)
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--voxels", type=int, default=100_000)
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64, 128])
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    numba.set_num_threads(min(arguments.threads, numba.config.NUMBA_NUM_THREADS))

    sites = lidar_voxels(arguments.voxels)
    x = SparseTensor(torch.zeros(len(sites), 1), sites)
    kernel_map = x.sites.submanifold((3, 3, 3), (1, 1, 1))
    present = kernel_map.table >= 0
    pairs = [(kernel_map.table[hit, tap].long(), hit.nonzero()[:, 0]) for tap, hit in enumerate(present.T)]
    count = int(present.sum())
    title = (
        f"submanifold 3x3x3, {len(sites)} voxels, {count / len(sites):.1f} neighbours on average, float32, cpu, "
        f"{arguments.threads} threads, {arguments.repeats} repeats; milliseconds: median (fastest - slowest)"
    )
    table = Table(title=title)
    for column in ("C", "what", "sparse3d", "torch.mm", "torch gather", "sparse3d / mm", "GFLOP/s"):
        table.add_column(column, justify="right")

    maps = timed({"map": lambda: SparseTensor(x.features, sites).sites.submanifold((3, 3, 3), (1, 1, 1))}, 15)
    for channels in arguments.channels:
        features = torch.randn(len(sites), channels, requires_grad=True)
        layer = nn.SubMConv3d(channels, channels, bias=False)
        weight = layer.weight.reshape(27, channels, channels)
        tensor = x.replace(features)
        grad = torch.randn(len(sites), channels)
        dense, square = torch.randn(count, channels), torch.randn(channels, channels)

        def forward(function: Callable[[], Tensor]) -> Callable[[], object]:
            def run() -> object:
                with torch.no_grad():
                    return function()

            return run

        def both(function: Callable[[], Tensor], grad: Tensor = grad) -> Callable[[], object]:
            return lambda: function().backward(grad)

        ours = lambda layer=layer, tensor=tensor: layer(tensor).features  # noqa: E731
        theirs = lambda f=features, w=weight: by_torch(f, w, pairs)  # noqa: E731
        products = lambda d=dense, s=square: d @ s  # noqa: E731

        def three_products(d: Tensor = dense, s: Tensor = square) -> None:
            d @ s, d @ s.T, d.T @ d

        rows = {
            "forward": timed(
                {"ours": forward(ours), "mm": products, "gather": forward(theirs)}, arguments.repeats
            ),
            "forward + backward": timed(
                {"ours": both(ours), "mm": three_products, "gather": both(theirs)}, arguments.repeats
            ),
        }
        for what, times in rows.items():
            median = {name: statistics.median(values) for name, values in times.items()}
            flops = 2 * count * channels * channels * (1 if what == "forward" else 3)
            table.add_row(
                str(channels),
                what,
                *(f"{median[n]:.1f} ({min(times[n]):.1f} - {max(times[n]):.1f})" for n in times),
                f"{median['ours'] / median['mm']:.2f}",
                f"{flops / median['ours'] / 1e6:.0f}",
            )
    Console(width=160).print(table)
    values = maps["map"]
    print(
        f"kernel map (hash table, table and reverse): {statistics.median(values):.1f} ms "
        f"({min(values):.1f} - {max(values):.1f})"
    )


if __name__ == "__main__":
    main()
