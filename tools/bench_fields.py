"""Time a step of each radiance field's training against the same step in plain torch and a bare gather.

    python tools/bench_fields.py [--fields voxels hash lowrank nerf volsdf] [--rays 1024] [--steps 150]
        [--threads 2]

Each field, as its config in configs/radiance has it, first learns the three spheres for --steps steps: what a
step costs depends on how much of space is known to be empty. A step is what a training does: choose samples,
render, gradients, Adam. "torch" is the same field with the same parameters on the same samples, its parts
replaced by what torch offers: linear layers, the hash grid and the voxels' trilinear sums by indexing, planes
and lines by grid_sample, compositing by sums over the whole packed array. Choosing samples stays ours in
both: torch has no way to skip empty space, and what the obvious way costs is in bench_rays.py. "gather" reads
eight numbers, what a voxel field's sample needs at least, for each sample from a table of 128^3 rows in a
numba loop that does nothing else, in the same run.
"""

import argparse
import contextlib
import statistics
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from unittest import mock

import machine
import numba
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn
from torch.nn.functional import grid_sample, normalize

from sparse3d import config as configs
from sparse3d.data.three_spheres import trace
from sparse3d.fields.build import Field, build_field
from sparse3d.fields.samplers import points_on
from sparse3d.fields.voxel_field import VoxelField
from sparse3d.nn.linear import RepeatableLinear
from sparse3d.recipes.radiance.config import RadianceConfig
from sparse3d_ops.composite import Composite

RATES = {"voxels": 0.1, "hash": 1e-2, "lowrank": 2e-2, "nerf": 3e-3, "volsdf": 2e-3}
GRID = 128
PRIMES = 1, 2654435761, 805459861


@dataclass(frozen=True, eq=False)
class Rays:
    """Rays of random cameras around the spheres and the colours that they see."""

    origins: Tensor
    directions: Tensor
    offsets: Tensor
    colors: Tensor


def some_rays(count: int, generator: torch.Generator) -> Rays:
    origins = normalize(torch.randn(count, 3, generator=generator), dim=1) * 2.4
    aims = (torch.rand(count, 3, generator=generator) - 0.5) * 1.5
    directions = normalize(aims - origins, dim=1)
    colors, _ = trace(origins.double().numpy(), directions.double().numpy())
    offsets = torch.rand(count, generator=generator)
    return Rays(origins, directions, offsets, torch.from_numpy(colors).float())


class Training:
    """A field that learns the spheres; `step` is one step of it."""

    def __init__(self, name: str, rays: int, steps: int):
        config = configs.load(RadianceConfig, name)
        torch.manual_seed(0)
        self.field: Field = build_field(config.model)
        self.wanted = [p for p in self.field.parameters() if p.requires_grad]
        self.optimizer = torch.optim.Adam(self.wanted, RATES[name], eps=1e-15)
        generator = torch.Generator().manual_seed(0)
        for step in range(steps):
            self.field.advance(step / steps, step)
            self.step(some_rays(rays, generator))
            if isinstance(self.field, VoxelField) and step == steps // 2:
                self.field.prune()
                self.wanted = list(self.field.parameters())
                self.optimizer = torch.optim.Adam(self.wanted, RATES[name], eps=1e-15)
        self.optimizer.param_groups[0]["lr"] = 0.0  # what is timed stays the same
        self.rays = some_rays(rays, generator)
        white = torch.ones(3)
        traced = self.field.trace(self.rays.origins, self.rays.directions, white, self.rays.offsets)
        places = points_on(self.rays.origins, self.rays.directions, traced.samples)
        low, _ = config.model.space.corners(places)
        cells = ((places - low) * (GRID / config.model.space.side)).long().clamp(0, GRID - 1)
        self.cells = torch.sum(cells * torch.tensor([GRID * GRID, GRID, 1]), 1).numpy()

    def step(self, rays: Rays) -> float:
        torch.manual_seed(0)
        traced = self.field.trace(rays.origins, rays.directions, torch.ones(3), rays.offsets)
        error = (traced.seen.color - rays.colors).square().sum(1).mean()
        loss = error + sum(traced.terms.values())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


# ---- torch's twins -----------------------------------------------------------------------------------------


def hash_encode_in_torch(table, positions, resolutions, sizes, tangents=None) -> Tensor:
    out, begin = [], 0
    positions = positions.clamp(0, 1)
    for resolution, size in zip(resolutions, sizes, strict=True):
        scaled = positions * resolution
        cell = scaled.detach().long().clamp(max=resolution - 1)
        upper = scaled - cell
        level = 0
        for corner in range(8):
            bits = torch.tensor([corner >> 2 & 1, corner >> 1 & 1, corner & 1])
            x, y, z = (cell + bits).unbind(1)
            if (resolution + 1) ** 3 <= size:
                row = (x * (resolution + 1) + y) * (resolution + 1) + z
            else:
                row = (x * PRIMES[0] ^ y * PRIMES[1] ^ z * PRIMES[2]) & (size - 1)
            weight = torch.where(bits.bool(), upper, 1 - upper).prod(1)
            level = level + weight[:, None] * table[begin + row]
        out.append(level)
        begin += size
    return torch.cat(out, 1)


def products_in_torch(planes: Tensor, lines: Tensor, positions: Tensor) -> Tensor:
    side, at, out = len(lines) // 3, 2 * positions - 1, []
    for mode in range(3):
        first, second = (axis for axis in range(3) if axis != mode)
        plane = planes.view(3, side, side, -1)[mode].permute(2, 0, 1)
        line = lines.view(3, side, 1, -1)[mode].permute(2, 0, 1)
        along = torch.stack([torch.zeros_like(at[:, mode]), at[:, mode]], 1)
        plane, line = (
            grid_sample(table[None], grid[None, None], padding_mode="border", align_corners=True)[0, :, 0].T
            for table, grid in ((plane, at[:, [second, first]]), (line, along))
        )
        out.append(plane * line)
    return torch.cat(out, 1)


def composite_in_torch(sigma, values, dt, ray_starts, stop=0.0) -> Composite:
    """Sums over the whole packed array, less what came before each ray; without a stop."""
    rays = len(ray_starts) - 1
    ray = torch.repeat_interleave(ray_starts.diff())
    depth = (sigma * dt).double()  # the sum of all rays has no digits left in float32
    before = torch.nn.functional.pad(depth.cumsum(0), (1, 0))
    weights = (torch.exp(before[ray_starts[:-1]][ray] - before[:-1]) * -torch.expm1(-depth)).float()
    out = values.new_zeros(rays, values.shape[1]).index_add(0, ray, weights[:, None] * values)
    return Composite(out, values.new_zeros(rays).index_add(0, ray, weights), weights)


def interpolate_in_torch(values: Tensor, corners: Tensor, weights: Tensor) -> Tensor:
    return (values[corners.long()] * weights[..., None]).sum(1)


@contextlib.contextmanager
def in_torch() -> Iterator[None]:
    """Fields are made of torch's own operations alone, but for the choice of samples."""
    fields = "sparse3d.fields."
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.object(RepeatableLinear, "forward", nn.Linear.forward))
        for module in ("low_rank", "sampled_field", "samplers", "volsdf", "voxel_field"):
            stack.enter_context(mock.patch(f"{fields}{module}.composite", composite_in_torch))
        stack.enter_context(mock.patch(f"{fields}layers.hash_encode", hash_encode_in_torch))
        stack.enter_context(mock.patch(f"{fields}low_rank.plane_line_products", products_in_torch))
        stack.enter_context(mock.patch(f"{fields}voxel_field.interpolate", interpolate_in_torch))
        stack.enter_context(mock.patch(f"{fields}samplers.gather_rows", lambda rows, which: rows[which]))
        yield


@numba.njit(parallel=True, nogil=True)
def gather(features, rows, out):
    """The bare gather: rows of eight numbers."""
    for s in numba.prange(len(rows)):
        for c in range(8):
            out[s, c] = features[rows[s], c]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--fields", nargs="+", choices=sorted(RATES), default=list(RATES))
    parser.add_argument("--rays", type=int, default=1024)
    parser.add_argument("--steps", type=int, default=150)
    machine.add_arguments(parser)
    args = parser.parse_args()
    trainings = {name: Training(name, args.rays, args.steps) for name in args.fields}
    table = Table(
        title=f"a step of {args.rays} rays, float32, cpu, {args.repeats} repeats; milliseconds: median "
        "(fastest - slowest)"
    )
    for name in ("field", "threads", "samples", "sparse3d", "torch", "gather"):
        table.add_column(name, justify="left" if name == "field" else "right")
    for name in ("thousand rays/s", "M samples/s", "torch / sparse3d", "sparse3d / gather"):
        table.add_column(name, justify="right")
    features = np.random.default_rng(0).random((GRID**3, 8), np.float32)
    for limits in machine.each_limit(args.threads):
        for name, training in trainings.items():
            row = compare(training, features, args.repeats)
            table.add_row(name, str(limits.threads), *row)
    Console(width=200).print(table)


def compare(training: Training, features: np.ndarray, repeats: int) -> list[str]:
    """The cells of a row."""
    out = np.empty((len(training.cells), 8), np.float32)

    def ours() -> float:
        return training.step(training.rays)

    def torchs() -> float:
        with in_torch():
            return training.step(training.rays)

    assert abs(ours() - torchs()) < 1e-2 * abs(ours()), "the two do not agree"
    calls: dict[str, Callable[[], object]] = {
        "sparse3d": ours,
        "torch": torchs,
        "gather": lambda: gather(features, training.cells, out),
    }
    times = machine.in_turns(calls, repeats)
    middle = {name: statistics.median(values) for name, values in times.items()}
    mine, samples, rays = middle["sparse3d"], len(training.cells), len(training.rays.origins)
    return [
        str(samples),
        *(machine.spread(times[name]) for name in calls),
        f"{rays / mine:.1f}",
        f"{samples / mine / 1e3:.2f}",
        f"{middle['torch'] / mine:.2f}",
        f"{mine / middle['gather']:.0f}",
    ]


if __name__ == "__main__":
    main()
