"""Time submanifold convolution on LiDAR voxels on a GPU, against what the GPU can do and against spconv.

    python tools/bench_sparse_conv_cuda.py [--voxels 100000 1000000] [--channels 16 32 64 128 256]
        [--dtypes float16 bfloat16 tf32 float32] [--repeats 20] [--tuning on|off|FILE]

Contestants are timed in turns with CUDA events, the L2 cache cleared before each. `mm` is dense `torch.mm`
with as many multiply-adds as the convolution (three products for forward + backward); `gather` is the same
convolution in torch: gather, mm and index_add for each tap; `spconv` is timed where it is installed. The
ceilings, copy bandwidth and the rate of a large product, are measured in the same run. Results are compared
with `gather` in float64 first. The first call, which orders the table's rows and tries choices of tiles, is
shown apart.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from scenes import lidar_sites, tap_pairs
from torch import Tensor

from sparse3d import SparseTensor
from sparse3d_ops.sparse_conv import sparse_conv

# More than the L2 cache of any GPU.
FLUSH_BYTES = 256 << 20
# Relative to the largest entry: half precision keeps 11 bits, bfloat16 8, TF32 11, of inputs and of results.
TOLERANCES = {"float16": 4e-3, "bfloat16": 3e-2, "tf32": 4e-3, "float32": 1e-5, "float64": 1e-5}
Contestants = dict[str, Callable[[], object]]


class Scene(NamedTuple):
    """Sites on the CPU, their map on the GPU, and for each tap its pairs (input rows, output rows)."""

    sites: Tensor
    table: Tensor
    reverse: Tensor
    pairs: list[tuple[Tensor, Tensor]]

    @property
    def pair_count(self) -> int:
        return sum(len(rows) for rows, _ in self.pairs)


def lidar_scene(count: int) -> Scene:
    """`count` voxels of generated scans and what they are to each other at each tap."""
    sites = lidar_sites(count)
    table, reverse = (t.cuda() for t in kernel_map(sites))
    return Scene(sites, table, reverse, tap_pairs(table))


def kernel_map(sites: Tensor):
    """A new tensor's map of a 3x3x3 submanifold convolution, on the device of the sites."""
    return SparseTensor(sites.new_zeros(len(sites), 1, dtype=torch.float32), sites).sites.submanifold(
        (3, 3, 3), (1, 1, 1)
    )


def by_torch(features: Tensor, weight: Tensor, scene: Scene) -> Tensor:
    """The convolution as a gather, a product and an index_add for each tap."""
    out = features.new_zeros(len(features), weight.shape[2])
    for tap, (rows, outputs) in zip(weight, scene.pairs, strict=True):
        out = out.index_add(0, outputs, features[rows] @ tap)
    return out


def by_spconv(scene: Scene, weight: Tensor, features: Tensor) -> Callable[[], Tensor] | None:
    """spconv's submanifold convolution with the same weights, its map made before; None where missing."""
    try:
        import spconv.pytorch as spconv
    except ImportError:
        return None
    channels = weight.shape[1]
    low = scene.sites.amin(0)
    indices = (scene.sites - low).contiguous().cuda()
    shape = (scene.sites.amax(0) - low + 1)[1:].tolist()
    layer = spconv.SubMConv3d(channels, channels, 3, bias=False, indice_key="map").cuda().to(weight.dtype)
    with torch.no_grad():  # KRSC: (Cout, Kx, Ky, Kz, Cin)
        layer.weight.copy_(weight.permute(2, 0, 1).reshape(layer.weight.shape))
    tensor = spconv.SparseConvTensor(features, indices, shape, int(indices[:, 0].max()) + 1)
    layer(tensor)  # makes the map, which stays in the tensor's dictionary
    return lambda: layer(tensor).features


def contests(scene: Scene, channels: int, dtype: torch.dtype) -> dict[str, Contestants]:
    """What is timed against what at one number of channels."""
    features = torch.randn(len(scene.sites), channels, device="cuda", dtype=dtype, requires_grad=True)
    weight = (torch.randn(27, channels, channels, device="cuda") / (27 * channels) ** 0.5).to(dtype)
    weight.requires_grad_()
    grad = torch.randn_like(features)
    dense, square = torch.randn(scene.pair_count, channels, device="cuda", dtype=dtype), weight[0].detach()

    def ours() -> Tensor:
        return sparse_conv(features, weight, scene.table, scene.reverse, 1)

    def gather() -> Tensor:
        return by_torch(features, weight, scene)

    convolutions = {"ours": ours, "gather": gather}
    if (peer := by_spconv(scene, weight, features)) is not None:
        convolutions["spconv"] = peer

    def forward(function: Callable[[], Tensor]) -> Callable[[], object]:
        def run() -> object:
            with torch.no_grad():
                return function()

        return run

    def both(function: Callable[[], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.backward(function(), grad)

    return {
        "forward": {"mm": lambda: dense @ square} | {name: forward(f) for name, f in convolutions.items()},
        "forward + backward": {"mm": lambda: (dense @ square, dense @ square.T, dense.T @ dense)}
        | {name: both(f) for name, f in convolutions.items()},
    }


def largest_error(scene: Scene, channels: int, dtype: torch.dtype) -> float:
    """Of output and both gradients, relative to the largest entry, against `gather` in float64."""
    features = torch.randn(len(scene.sites), channels, device="cuda", dtype=dtype)
    weight = (torch.randn(27, channels, channels, device="cuda") / (27 * channels) ** 0.5).to(dtype)
    grad = torch.randn_like(features)

    def results(function, kind: torch.dtype) -> list[Tensor]:
        x, w = (t.detach().to(kind).requires_grad_() for t in (features, weight))
        out = function(x, w)
        return [out.detach(), *torch.autograd.grad(out, (x, w), grad.to(kind))]

    got = results(lambda x, w: sparse_conv(x, w, scene.table, scene.reverse, 1), dtype)
    want = results(lambda x, w: by_torch(x, w, scene), torch.float64)
    return max(float((g.double() - w).abs().max() / w.abs().max()) for g, w in zip(got, want, strict=True))


def timed(contestants: Contestants, repeats: int) -> dict[str, list[float]]:
    """Milliseconds of each repeat of each contestant, in turns, after two warm-ups."""
    flush = torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")
    for run in contestants.values():
        run(), run()
    events: dict[str, list[tuple[torch.cuda.Event, torch.cuda.Event]]] = {name: [] for name in contestants}
    for _ in range(repeats):
        for name, run in contestants.items():
            flush.zero_()
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            events[name].append((begin, end))
    torch.cuda.synchronize()
    return {name: [begin.elapsed_time(end) for begin, end in pairs] for name, pairs in events.items()}


def first_call(run: Callable[[], object]) -> float:
    """Seconds of a call until the GPU is done."""
    torch.cuda.synchronize()
    begin = time.perf_counter()
    run()
    torch.cuda.synchronize()
    return time.perf_counter() - begin


def ceilings(dtype: torch.dtype, repeats: int) -> str:
    """Copy bandwidth and the rate of a large product, measured here and now."""
    size = 8192
    a, b = (torch.randn(size, size, device="cuda", dtype=dtype) for _ in range(2))
    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    times = timed({"mm": lambda: a @ b, "copy": lambda: target.copy_(source)}, repeats)
    rate = 2 * size**3 / statistics.median(times["mm"]) / 1e9
    bandwidth = 2 * source.numel() / statistics.median(times["copy"]) / 1e6
    return f"{rate:.0f} TFLOP/s in a product of {size}^3, {bandwidth:.0f} GB/s copied"


def spread(times: list[float]) -> str:
    return f"{statistics.median(times):.3f} ({min(times):.3f} - {max(times):.3f})"


def report(scene: Scene, channels: list[int], name: str, repeats: int) -> None:
    """Time all contestants in one type and print them."""
    dtype = torch.float32 if name == "tf32" else getattr(torch, name)
    torch.backends.cuda.matmul.fp32_precision = "tf32" if name == "tf32" else "ieee"
    table = Table(
        title=f"submanifold 3x3x3, {len(scene.sites)} voxels, {scene.pair_count / len(scene.sites):.1f} "
        f"neighbours on average, {name}, {torch.cuda.get_device_name()}; {ceilings(dtype, repeats)}; "
        f"{repeats} repeats; milliseconds: median (fastest - slowest)"
    )
    columns = (
        "C",
        "what",
        "ours",
        "mm",
        "gather",
        "spconv",
        "ours / mm",
        "TFLOP/s",
        "first call, s",
        "error",
    )
    for column in columns:
        table.add_column(column, justify="right")
    for count in channels:
        for what, contestants in contests(scene, count, dtype).items():
            first = first_call(contestants["ours"])
            error = largest_error(scene, count, dtype)
            times = timed(contestants, repeats)
            ours, mm = statistics.median(times["ours"]), statistics.median(times["mm"])
            work = 2 * scene.pair_count * count**2 * (1 if what == "forward" else 3)
            table.add_row(
                str(count),
                what,
                *(spread(times[key]) if key in times else "-" for key in ("ours", "mm", "gather", "spconv")),
                f"{ours / mm:.2f}",
                f"{work / ours / 1e9:.1f}",
                f"{first:.1f}",
                f"{error:.0e}" + ("" if error <= TOLERANCES[name] else " TOO LARGE"),
            )
    Console(width=170).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time submanifold convolution on a GPU.")
    parser.add_argument("--voxels", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--channels", type=int, nargs="+", default=[16, 32, 64, 128, 256])
    parser.add_argument("--dtypes", nargs="+", default=["float16", "bfloat16", "tf32", "float32"])
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument(
        "--tuning", help="on, off, or a file of choices; default: $SPARSE3D_CONV_TUNING or on"
    )
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit(
            f"torch {torch.__version__} sees no CUDA device here; on the CPU run tools/bench_sparse_conv.py"
        )
    from sparse3d_ops.gpu import autotune

    if arguments.tuning:
        autotune.use(arguments.tuning)
    print(f"torch {torch.__version__}, tuning: {autotune.mode()}")
    for voxels in arguments.voxels:
        scene = lidar_scene(voxels)
        sites = scene.sites.cuda()
        maps = timed({"map": lambda sites=sites: kernel_map(sites)}, arguments.repeats)["map"]
        print(f"{voxels} voxels: kernel map (keys, hash table, table and reverse), ms: {spread(maps)}")
        for name in arguments.dtypes:
            report(scene, arguments.channels, name, arguments.repeats)


if __name__ == "__main__":
    main()
