"""Time whole sparse networks as they are and under torch.compile, on a new frame each time.

python tools/bench_compile.py [--voxels 20000] [--backend inductor] [--threads 2] [--repeats 9]

The backbones are CenterPoint's, the U-Net is SpUNet. Every call gets a frame of another number of voxels, as
training does: a network that compiled again for each would stand out. inductor needs a C++ compiler on the
machine; it keeps what it compiled in TORCHINDUCTOR_CACHE_DIR.
"""

import argparse
import itertools
import statistics
import time

import machine
import torch
import torch._dynamo.testing
from rich.console import Console
from rich.table import Table
from scenes import lidar_sites
from torch import Tensor, nn

from sparse3d.models.spunet import SpUNet, SpUNetConfig
from sparse3d.models.voxel_backbone import VoxelBackbone, VoxelBackbone8xConfig, VoxelResBackbone8xConfig
from sparse3d.tensor import SparseTensor

SHAPE = (1200, 1200, 60)
CLASSES = 19  # as SemanticKITTI has


class FromRows(nn.Module):
    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, features: Tensor, coordinates: Tensor) -> Tensor:
        return self.network(SparseTensor(features, coordinates, batch_size=1, shape=SHAPE)).features


class SparseStages(nn.Module):
    """A backbone without the dense map at its end, whose size would hide what compiling changes."""

    def __init__(self, backbone: VoxelBackbone):
        super().__init__()
        self.stem, self.stages, self.squeeze_z = backbone.stem, backbone.stages, backbone.squeeze_z

    def forward(self, x: SparseTensor) -> SparseTensor:
        x = self.stem(x)
        for stage in self.stages:
            x = stage(x)
        return self.squeeze_z(x)


def frames(count: int, voxels: int) -> list[tuple[Tensor, Tensor]]:
    """Frames of a few more voxels each."""
    sites = lidar_sites(voxels)
    sites = sites[sites[:, 0] == 0]
    made = []
    for k in range(count):
        part = sites[: len(sites) - 97 * k].clone()  # a view would be compiled for apart
        made.append((torch.randn(len(part), 4), part))
    return made


def networks() -> dict[str, nn.Module]:
    """What is timed, by its name."""
    backbones = {"backbone": VoxelBackbone8xConfig(), "residual backbone": VoxelResBackbone8xConfig()}
    made = {name: FromRows(SparseStages(VoxelBackbone(4, SHAPE, c))) for name, c in backbones.items()}
    return made | {"U-Net": FromRows(SpUNet(4, CLASSES, SpUNetConfig()))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--voxels", type=int, default=20_000)
    parser.add_argument("--backend", default="inductor")
    parser.add_argument("--networks", nargs="+", default=["backbone", "residual backbone", "U-Net"])
    machine.add_arguments(parser)
    parser.set_defaults(threads=[2], repeats=9)
    arguments = parser.parse_args()
    print(machine.words())
    machine.use_threads(arguments.threads[0])
    made = frames(9, arguments.voxels)
    table = Table(
        title=f"{len(made[0][1])} voxels and fewer, a new number each call, float32, cpu, "
        f"{arguments.threads[0]} threads, {arguments.repeats} repeats; "
        "milliseconds: median (fastest - slowest)"
    )
    columns = ("network", "what", "eager", "compiled", "compiled / eager", "graphs", "first calls, s")
    for column in columns:
        table.add_column(column, justify="right")
    for name in arguments.networks:
        network = networks()[name]
        for what, backward in (("forward", False), ("forward + backward", True)):
            torch._dynamo.reset()
            counter = torch._dynamo.testing.CompileCounterWithBackend(arguments.backend)
            compiled = torch.compile(network, fullgraph=True, backend=counter, dynamic=True)
            turn = itertools.count()

            def run(module: nn.Module, backward: bool = backward, turn=turn) -> None:
                with torch.set_grad_enabled(backward):
                    out = module(*made[next(turn) % len(made)])
                    if backward:
                        out.square().mean().backward()

            begin = time.perf_counter()
            run(compiled)
            run(compiled)
            first = time.perf_counter() - begin
            times = machine.in_turns(
                {"eager": lambda run=run, n=network: run(n), "compiled": lambda run=run, c=compiled: run(c)},
                arguments.repeats,
            )
            eager, fast = (statistics.median(times[key]) for key in ("eager", "compiled"))
            cells = (machine.spread(times["eager"]), machine.spread(times["compiled"]), f"{fast / eager:.2f}")
            table.add_row(name, what, *cells, str(counter.frame_count), f"{first:.1f}")
            print(
                name, what, *cells, counter.frame_count, f"{first:.1f}", flush=True
            )  # compiling takes minutes
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
