"""Time sparse convolution on LiDAR voxels against dense products, other engines and this machine's limits.

python tools/bench_sparse_conv.py [--voxels 100000] [--channels 16 32 64 128] [--threads 1 2] [--repeats 15]

mm       dense torch.mm with as many multiply-adds (three products for forward + backward)
gather   the convolution in torch: gather, mm and index_add for each tap
spconv   its layer with the pairs found before; on one thread only, because with two its sums are wrong
Open3D   ml.torch.ops.sparse_conv, given our neighbours
of oneDNN: share of the rate of a dense 3x3 convolution with as many channels that stays in cache
`--geometry` times strided, inverse, transposed, grouped and depthwise layers beside copying input and output
(and the neighbour table, which must be read too), `--maps` the kernel maps.
"""

import argparse
import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

import machine
import torch
from rich.console import Console
from rich.table import Table
from scenes import lidar_sites, tap_pairs
from torch import Tensor

from sparse3d import SparseTensor, nn
from sparse3d.sites import Sites

PEERS = ("gather", "spconv", "Open3D")
Pass = Callable[[], Tensor]


class Scene(NamedTuple):
    """Voxels and, for each of the 27 taps, its pairs (input rows, output rows)."""

    sites: Tensor
    pairs: list[tuple[Tensor, Tensor]]

    @property
    def pair_count(self) -> int:
        return sum(len(rows) for rows, _ in self.pairs)


def lidar_scene(count: int) -> Scene:
    """`count` voxels of generated scans and what they are to each other at each tap."""
    sites = lidar_sites(count)
    table = fresh(sites).submanifold((3, 3, 3), (1, 1, 1)).table
    return Scene(sites, tap_pairs(table))


def fresh(coordinates: Tensor) -> Sites:
    """The voxels of a new tensor: nothing is known of them yet."""
    return SparseTensor(torch.zeros(len(coordinates), 1), coordinates).sites


# ---- the contestants ---------------------------------------------------------------------------------------


def by_torch(features: Tensor, weight: Tensor, scene: Scene) -> Pass:
    """The convolution as a gather, a product and an index_add for each tap."""

    def run() -> Tensor:
        out = features.new_zeros(len(features), weight.shape[2])
        for tap, (rows, outputs) in zip(weight, scene.pairs, strict=True):
            out = out.index_add(0, outputs, features[rows] @ tap)
        return out

    return run


def by_spconv(features: Tensor, weight: Tensor, scene: Scene) -> Pass | None:
    spconv = machine.optional("spconv.pytorch")
    if spconv is None:
        return None
    spconv.ops.get_current_stream = lambda: 0  # its backward asks for a CUDA stream
    channels = features.shape[1]
    layer = spconv.SubMConv3d(
        channels, channels, 3, bias=False, indice_key="all", algo=spconv.ConvAlgo.Native
    )
    with torch.no_grad():
        layer.weight.copy_(weight.reshape(3, 3, 3, channels, channels).permute(4, 0, 1, 2, 3))
    low = scene.sites[:, 1:].amin(0)
    indices = scene.sites.clone()
    indices[:, 1:] -= low
    shape = (indices[:, 1:].amax(0) + 1).tolist()
    tensor = spconv.SparseConvTensor(features, indices, shape, int(indices[:, 0].max()) + 1)
    return lambda: layer(tensor).features  # the tensor keeps the pairs of its first call


def by_open3d(features: Tensor, weight: Tensor, scene: Scene) -> Pass | None:
    library = machine.optional("open3d.ml.torch")
    if library is None:
        return None
    outputs = torch.cat([out for _, out in scene.pairs])
    order = outputs.argsort(stable=True)
    rows = torch.cat([rows for rows, _ in scene.pairs])[order].int()
    taps = torch.cat([torch.full((len(r),), v) for v, (r, _) in enumerate(scene.pairs)])[order].to(
        torch.uint8
    )
    splits = torch.searchsorted(outputs[order], torch.arange(len(features) + 1))
    none = torch.empty(0)
    return lambda: library.ops.sparse_conv(weight, features, none, rows, taps, none, splits, False)


def forward_only(function: Pass) -> machine.Call:
    def run() -> Tensor:
        with torch.no_grad():
            return function()

    return run


def with_backward(function: Pass, grad: Tensor, leaves: Sequence[Tensor]) -> machine.Call:
    """As a step of a training has it: there are no gradients before, to which the new ones would be added."""

    def run() -> None:
        for leaf in leaves:
            leaf.grad = None
        function().backward(grad)

    return run


def cached_product(channels: int) -> machine.Call:
    """A dense convolution whose 64 x 64 map stays in cache; `cached_operations` says how many it takes."""
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1, bias=False)
    layer = layer.to(memory_format=torch.channels_last)
    image = torch.randn(1, channels, 64, 64).contiguous(memory_format=torch.channels_last)
    return forward_only(lambda: layer(image))


def cached_operations(channels: int) -> float:
    return 2.0 * 9 * channels**2 * 64**2


# ---- the tables --------------------------------------------------------------------------------------------


def submanifold(scene: Scene, channel_counts: list[int], limits: machine.Limits, repeats: int) -> Table:
    table = Table(
        title=f"submanifold 3x3x3, {len(scene.sites)} voxels, "
        f"{scene.pair_count / len(scene.sites):.1f} neighbours on average, float32, cpu, "
        f"{limits.threads} threads, {repeats} repeats; milliseconds: median (fastest - slowest)"
    )
    names = ("C", "what", "sparse3d", "mm", *PEERS, "sparse3d / mm", "best peer / sparse3d")
    for column in (*names, "GFLOP/s", "of oneDNN", "of peak"):
        table.add_column(column, justify="right")
    for channels in channel_counts:
        features = torch.randn(len(scene.sites), channels, requires_grad=True)
        layer = nn.SubMConv3d(channels, channels, bias=False)
        weight = layer.weight.detach().reshape(27, channels, channels).requires_grad_()
        tensor, grad = SparseTensor(features, scene.sites), torch.randn(len(scene.sites), channels)
        dense, square = torch.randn(scene.pair_count, channels), torch.randn(channels, channels)

        passes: dict[str, Pass | None] = {
            "sparse3d": lambda tensor=tensor, layer=layer: layer(tensor).features,
            "gather": by_torch(features, weight, scene),
            "spconv": by_spconv(features, weight, scene) if limits.threads == 1 else None,
            "Open3D": by_open3d(features, weight, scene),
        }
        there = {name: one for name, one in passes.items() if one is not None}
        want = there["sparse3d"]()
        for name, one in there.items():
            torch.testing.assert_close(one(), want, rtol=1e-3, atol=1e-4, msg=f"{name} differs")
        forward = {name: forward_only(one) for name, one in there.items()}
        forward |= {"mm": lambda d=dense, s=square: d @ s, "oneDNN": cached_product(channels)}
        leaves = [features, weight, *layer.parameters()]
        both = {name: with_backward(one, grad, leaves) for name, one in there.items()}
        both |= {
            "mm": lambda d=dense, s=square: (d @ s, d @ s.T, d.T @ d),
            "oneDNN": cached_product(channels),
        }
        for what, contestants, products in (("forward", forward, 1), ("forward + backward", both, 3)):
            times = machine.in_turns(contestants, repeats)
            median = {name: statistics.median(values) for name, values in times.items()}
            rate = 2e-6 * products * scene.pair_count * channels**2 / median["sparse3d"]
            ceiling = 1e-6 * cached_operations(channels) / median["oneDNN"]
            table.add_row(
                str(channels),
                what,
                *(machine.spread(times[n]) if n in times else "-" for n in ("sparse3d", "mm", *PEERS)),
                f"{median['sparse3d'] / median['mm']:.2f}",
                f"{min(median[n] for n in PEERS if n in median) / median['sparse3d']:.1f}",
                f"{rate:.0f}",
                f"{rate / ceiling:.0%}",
                f"{rate / limits.gflops:.0%}",
            )
    return table


def geometries(scene: Scene, channels: int, limits: machine.Limits, repeats: int) -> Table:
    table = Table(
        title=f"layers, {len(scene.sites)} voxels in, {channels} channels, float32, cpu, {limits.threads} "
        f"threads, {repeats} repeats; milliseconds: median (fastest - slowest); maps are found before"
    )
    copies = ("copy", "copy with table", "forward / copy", "forward / copy with table")
    for column in ("layer", "voxels out", "forward", "forward + backward", *copies):
        table.add_column(column, justify="right")
    c = channels
    fine = SparseTensor(torch.randn(len(scene.sites), c, requires_grad=True), scene.sites)
    down = nn.SparseConv3d(c, c, 3, stride=2, padding=1, bias=False)
    coarse = down(fine).detach()
    coarse.features.requires_grad_()
    layers: dict[str, tuple[nn.SubMConv3d | nn.SparseConv3d | nn.SparseInverseConv3d, SparseTensor]] = {
        "strided 3, stride 2": (down, fine),
        "strided 2, stride 2": (nn.SparseConv3d(c, c, 2, stride=2, bias=False), fine),
        "inverse 3, stride 2": (nn.SparseInverseConv3d(c, c, 3, bias=False), coarse),
        "transposed 2, stride 2": (nn.SparseConvTranspose3d(c, c, 2, stride=2, bias=False), coarse),
        "submanifold, 4 groups": (nn.SubMConv3d(c, c, groups=4, bias=False), fine),
        "submanifold, 8 groups": (nn.SubMConv3d(c, c, groups=8, bias=False), fine),
        "submanifold, 16 groups": (nn.SubMConv3d(c, c, groups=16, bias=False), fine),
        "submanifold, 32 groups": (nn.SubMConv3d(c, c, groups=32, bias=False), fine),
        "submanifold, depthwise": (nn.SubMConv3d(c, c, groups=c, bias=False), fine),
    }
    for name, (layer, x) in layers.items():
        y = layer(x)
        grad = torch.randn_like(y.features)
        source = (x.features.detach(), grad)
        entries = torch.zeros(len(y), math.prod(layer.kernel_size), dtype=torch.int32)

        def one(layer=layer, x: SparseTensor = x) -> Tensor:
            return layer(x).features

        times = machine.in_turns(
            {
                "forward": forward_only(one),
                "both": with_backward(one, grad, [x.features, *layer.parameters()]),
                "copy": lambda source=source: [t.clone() for t in source],
                "all": lambda source=(*source, entries): [t.clone() for t in source],
            },
            repeats,
        )
        median = {key: statistics.median(values) for key, values in times.items()}
        table.add_row(
            name,
            str(len(y)),
            *(machine.spread(times[key]) for key in ("forward", "both", "copy", "all")),
            *(f"{median['forward'] / median[key]:.1f}" for key in ("copy", "all")),
        )
    return table


def maps(counts: list[int], limits: machine.Limits, repeats: int) -> Table:
    """Everything from coordinates to the two tables: keys, hash table, output sites."""
    spconv = machine.optional("spconv.pytorch") if limits.threads == 1 else None
    columns = ["submanifold 3", "strided 3, stride 2", "transposed 3, stride 2"]
    table = Table(
        title=f"kernel maps from coordinates, int32, cpu, {limits.threads} threads, {repeats} repeats; "
        "milliseconds: median (fastest - slowest)"
    )
    for column in ("voxels", *columns, "of copying", "spconv, submanifold", "rows in no order"):
        table.add_column(column, justify="right")
    strided = nn.SparseConv3d(1, 1, 3, stride=2, padding=1).geometry
    for count in counts:
        sites = lidar_scene(count).sites
        mixed = sites[torch.randperm(len(sites), generator=torch.Generator().manual_seed(0))]
        coarse = SparseTensor(torch.zeros(len(sites), 1), sites, stride=2)
        contestants: dict[str, machine.Call] = {
            "submanifold 3": lambda s=sites: fresh(s).submanifold((3, 3, 3), (1, 1, 1)),
            "strided 3, stride 2": lambda s=sites: fresh(s).strided(strided),
            "transposed 3, stride 2": lambda c=coarse: Sites(c.coordinates, (2, 2, 2), 512, None).transposed(
                strided, None
            ),
            "mixed": lambda s=mixed: fresh(s).submanifold((3, 3, 3), (1, 1, 1)),
        }
        if spconv is not None:
            shifted = sites.clone()
            shifted[:, 1:] -= sites[:, 1:].amin(0)
            shape, batch = (shifted[:, 1:].amax(0) + 1).tolist(), int(shifted[:, 0].max()) + 1
            ones = [1, 1, 1]
            contestants["spconv"] = lambda s=shifted, g=shape, b=batch, o=ones, f=spconv: (
                f.ops.get_indice_pairs(s, b, g, f.ConvAlgo.Native, [3, 3, 3], o, o, o, [0, 0, 0], True, False)
            )
        times = machine.in_turns(contestants, repeats)
        written = len(sites) * (16 + 2 * 27 * 4)
        share = written / (1e6 * statistics.median(times["submanifold 3"])) / limits.gbytes
        peers = machine.spread(times["spconv"]) if "spconv" in times else "-"
        cells = [machine.spread(times[name]) for name in columns]
        table.add_row(str(len(sites)), *cells, f"{share:.0%}", peers, machine.spread(times["mixed"]))
    return table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--voxels", type=int, nargs="+", default=[100_000])
    parser.add_argument("--channels", type=int, nargs="*", default=[16, 32, 64, 128])
    parser.add_argument("--geometry", type=int, nargs="*", default=[64], metavar="CHANNELS")
    parser.add_argument("--maps", type=int, nargs="*", default=[10_000, 100_000, 1_000_000], metavar="VOXELS")
    machine.add_arguments(parser)
    arguments = parser.parse_args()
    console = Console(width=200)
    scenes = [lidar_scene(count) for count in arguments.voxels]
    for limits in machine.each_limit(arguments.threads):
        for scene in scenes:
            if arguments.channels:
                console.print(submanifold(scene, arguments.channels, limits, arguments.repeats))
            for channels in arguments.geometry:
                console.print(geometries(scene, channels, limits, arguments.repeats))
        if arguments.maps:
            console.print(maps(arguments.maps, limits, arguments.repeats))


if __name__ == "__main__":
    main()
