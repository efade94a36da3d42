"""Time rays through occupied space, compositing and sampling against a bare gather and against torch.

    python tools/bench_rays.py [--rays 4096 65536] [--resolution 128] [--threads 1 2] [--repeats 15]

The scene is a shell of three spheres in a cube; rays come from a sphere around it and jitter. "gather" is
what no renderer can leave out: four numbers of a table of resolution^3 rows for each sample, read in the same
order in the same run, by a numba loop that does nothing else; the last column is our time over it. Torch's
twins: `march` as every bin of every ray at once, looked up and compressed; compositing as sums over the whole
packed array (`cumsum`, `index_add_`) and their gradients; the distortion of dense (rays, bins). nerfacc has
packed compositing on CUDA alone; its dense functions, which are torch, run beside where it is installed.
"""

import argparse
import statistics

import machine
import numba
import numpy as np
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import normalize

from sparse3d_ops import composite as rendering
from sparse3d_ops import hashing, raymarch, sampling

SPHERES = (((-0.25, 0, 0), 0.35), ((0.3, 0.15, 0.1), 0.25), ((0.1, -0.32, 0.2), 0.18))
HALF = 0.75  # metres, of the cube's side
STOP = 1e-3


class Scene:
    """Rays, an occupancy, and the samples of the rays in it with densities and colours."""

    def __init__(self, rays: int, resolution: int):
        generator = torch.Generator().manual_seed(0)
        self.low = torch.full((3,), -HALF)
        self.high, self.step = -self.low, HALF / resolution
        axis = (torch.arange(resolution) + 0.5) / resolution * 2 * HALF - HALF
        places = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1)
        self.occupancy = torch.zeros(resolution, resolution, resolution, dtype=torch.bool)
        for centre, radius in SPHERES:
            self.occupancy |= ((places - torch.tensor(centre)).norm(dim=-1) - radius).abs() < 0.05
        self.blocks = raymarch.empty_blocks(self.occupancy)
        voxels = torch.nn.functional.pad(self.occupancy.nonzero().int(), (1, 0))
        self.table = hashing.build(hashing.pack(voxels))
        self.origins = normalize(torch.randn(rays, 3, generator=generator), dim=1) * 2.4
        targets = (torch.rand(rays, 3, generator=generator) - 0.5) * 1.2
        self.directions = normalize(targets - self.origins, dim=1)
        self.near, self.far = raymarch.ray_box(self.origins, self.directions, self.low, self.high)
        self.offset = torch.rand(rays, generator=generator)
        self.samples = self.march()
        count = len(self.samples.t)
        self.sigma = torch.rand(count, generator=generator) * 20
        self.values = torch.rand(count, 3, generator=generator)
        self.grad = torch.randn(rays, 3, generator=generator)
        self.ray = torch.repeat_interleave(self.samples.ray_starts.diff())
        self.cells = self.cells_of(self.samples.t)
        self.features = torch.randn(resolution**3, 4, generator=generator)

    def march(self) -> raymarch.Samples:
        limits = self.near, self.far, self.blocks, self.low, self.high
        return raymarch.march(self.origins, self.directions, *limits, self.step, self.offset)

    def traverse(self) -> raymarch.Intervals:
        size = 2 * HALF / len(self.blocks)
        return raymarch.traverse(
            self.origins, self.directions, self.near, self.far, *self.table, self.low, size
        )

    def cells_of(self, t: Tensor) -> Tensor:
        """Row of the grid of each sample."""
        places = self.origins[self.ray] + t[:, None] * self.directions[self.ray]
        size = len(self.blocks)
        i, j, k = ((places + HALF) * (size / (2 * HALF))).long().clamp(0, size - 1).unbind(1)
        return (i * size + j) * size + k


# ---- torch's twins -----------------------------------------------------------------------------------------


def march_in_torch(scene: Scene) -> Tensor:
    """Every bin of every ray, then those whose cell is occupied: t."""
    bins = int(((scene.far - scene.near).clamp_min(0).max() / scene.step).ceil())
    t = scene.near[:, None] + (torch.arange(bins) + scene.offset[:, None]) * scene.step
    there = t < scene.far[:, None]
    places = scene.origins[:, None] + t[..., None] * scene.directions[:, None]
    size = len(scene.occupancy)
    i, j, k = ((places + HALF) * (size / (2 * HALF))).nan_to_num(0).long().clamp(0, size - 1).unbind(-1)
    kept = there & scene.occupancy[i, j, k]
    return t[kept]


def composite_in_torch(sigma, values, dt, ray, ray_starts):
    """Sums over the whole packed array, less what came before each ray; without a stop."""
    depth = sigma * dt
    before = torch.nn.functional.pad(depth.cumsum(0), (1, 0))
    through = torch.exp(before[ray_starts[:-1]][ray] - before[:-1])
    weights = through * -torch.expm1(-depth)
    out = values.new_zeros(len(ray_starts) - 1, values.shape[1])
    return out.index_add(0, ray, weights[:, None] * values)


def distortion_in_torch(weights: Tensor, t: Tensor, dt: Tensor) -> Tensor:
    """Of dense (R, B), in O(B) by sums."""
    before, moment = weights.cumsum(1) - weights, (weights * t).cumsum(1) - weights * t
    return 2 * (weights * (t * before - moment)).sum(1) + (weights**2 * dt).sum(1) / 3


@numba.njit(parallel=True, nogil=True)
def gather(features, rows, out):
    """The bare gather: rows of four numbers."""
    for s in numba.prange(len(rows)):
        for c in range(4):
            out[s, c] = features[rows[s], c]


def importance_in_torch(edges: Tensor, weights: Tensor, uniforms: Tensor) -> Tensor:
    reached = torch.nn.functional.pad((weights / weights.sum(1, keepdim=True)).cumsum(1), (1, 0))
    upper = torch.searchsorted(reached, uniforms, right=True).clamp(1, weights.shape[1])
    low, high = reached.gather(1, upper - 1), reached.gather(1, upper)
    begin, end = edges.gather(1, upper - 1), edges.gather(1, upper)
    return begin + (uniforms - low) / (high - low) * (end - begin)


# ---- contests ----------------------------------------------------------------------------------------------

Contest = dict[str, machine.Call]


def contests(scene: Scene, nerfacc) -> dict[str, tuple[int, Contest]]:
    """Number of samples and contestants by what is asked; all of one question are asked first to agree."""
    starts, t, dt = scene.samples
    sigma, values = (x.clone().requires_grad_() for x in (scene.sigma, scene.values))
    rays, bins = len(scene.near), 64
    dense = torch.rand(rays, bins, generator=torch.Generator().manual_seed(1))
    weights = (dense / dense.sum(1, keepdim=True)).requires_grad_()
    edges = sampling.edges_between(sampling.strata(dense), torch.zeros(rays), torch.ones(rays))
    middles, lengths = (edges[:, 1:] + edges[:, :-1]) / 2, edges.diff(dim=1)
    flat_starts, uniforms = torch.arange(rays + 1) * bins, sampling.strata(dense[:, :32])
    flat = dense.flatten() * 5, lengths.flatten(), flat_starts

    def ours(*args) -> Tensor:
        return rendering.composite(*args, dt, starts, STOP).out

    def torchs(*args) -> Tensor:
        return composite_in_torch(*args, dt, scene.ray, starts)

    def spread() -> Tensor:
        one = (x.flatten() for x in (weights, middles, lengths))
        return torch.autograd.grad(rendering.distortion(*one, flat_starts).sum(), weights)[0]

    samples, several = len(t), rays * bins
    found: dict[str, tuple[int, Contest]] = {
        "march": (samples, {"sparse3d": lambda: scene.march()[1], "torch": lambda: march_in_torch(scene)}),
        "traverse": (len(scene.traverse().t0), {"sparse3d": lambda: scene.traverse().t0}),
        "composite": (
            samples,
            {
                "sparse3d": lambda: ours(scene.sigma, scene.values),
                "torch": lambda: torchs(scene.sigma, scene.values),
            },
        ),
        "composite and its gradients": (
            samples,
            {
                name: lambda f=f: torch.autograd.grad(f(sigma, values), (sigma, values), scene.grad)[1]
                for name, f in (("sparse3d", ours), ("torch", torchs))
            },
        ),
        "weights of 64 dense bins": (
            several,
            {"sparse3d": lambda: rendering.composite(flat[0], weights_only(flat[0]), *flat[1:]).weights},
        ),
        "distortion and its gradients": (
            several,
            {
                "sparse3d": spread,
                "torch": lambda: torch.autograd.grad(
                    distortion_in_torch(weights, middles, lengths).sum(), weights
                )[0],
            },
        ),
        "importance, 32 in 64 bins": (
            several,
            {
                "sparse3d": lambda: sampling.importance(edges, weights.detach(), uniforms),
                "torch": lambda: importance_in_torch(edges, weights.detach(), uniforms),
            },
        ),
    }
    if nerfacc is not None:
        found["weights of 64 dense bins"][1]["nerfacc"] = lambda: nerfacc.render_weight_from_density(
            edges[:, :-1], edges[:, 1:], dense * 5
        )[0].flatten()
    for what, (_, contestants) in found.items():
        want = contestants["sparse3d"]()
        for name, call in contestants.items():
            got = call()
            # In float32 a few samples fall into the cell beside. Torch's twins know no stop, which leaves out
            # as much, and the sums of a whole array lose digits.
            few = abs(len(got) - len(want)) < 1e-3 * len(want)
            close = few and (len(got) != len(want) or (got - want).abs().max() < 20 * STOP)
            assert close, f"{name} does not agree about {what}"
    return found


def weights_only(sigma: Tensor) -> Tensor:
    """Values of no channels."""
    return sigma[:, None][:, :0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rays", type=int, nargs="+", default=[4096, 65536])
    parser.add_argument("--resolution", type=int, default=128)
    machine.add_arguments(parser)
    args = parser.parse_args()
    nerfacc = machine.optional("nerfacc")
    table = Table(
        title=f"rays, float32, cpu, {args.repeats} repeats; milliseconds: median (fastest - slowest)"
    )
    for name in ("what", "rays", "samples", "threads", "sparse3d", "torch", "nerfacc", "gather"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for name in ("M rays/s", "M samples/s", "best peer / sparse3d", "sparse3d / gather"):
        table.add_column(name, justify="right")
    for limits in machine.each_limit(args.threads):
        for rays in args.rays:
            scene = Scene(rays, args.resolution)
            for what, (samples, contestants) in contests(scene, nerfacc).items():
                rows = scene.cells.repeat(-(-samples // len(scene.cells)))[:samples].numpy()
                out, features = np.empty((samples, 4), np.float32), scene.features.numpy()
                bare = {"gather": lambda rows=rows, out=out, features=features: gather(features, rows, out)}
                times = machine.in_turns({**contestants, **bare}, args.repeats)
                cells = [
                    machine.spread(times[n]) if n in times else "-" for n in ("torch", "nerfacc", "gather")
                ]
                middle = {name: statistics.median(values) for name, values in times.items()}
                peers = [middle[name] for name in contestants if name != "sparse3d"]
                mine = middle["sparse3d"]
                table.add_row(
                    what,
                    str(rays),
                    str(samples),
                    str(limits.threads),
                    machine.spread(times["sparse3d"]),
                    *cells,
                    f"{rays / mine / 1e3:.2f}",
                    f"{samples / mine / 1e3:.1f}",
                    f"{min(peers) / mine:.2f}" if peers else "-",
                    f"{mine / middle['gather']:.1f}",
                )
    Console(width=230).print(table)


if __name__ == "__main__":
    main()
