"""Time drawing Gaussians, forward and with gradients, against torch and against the machine's limit.

    python tools/bench_splats.py [--splats 20000 100000 500000] [--sizes 400x400 1280x720] [--threads 2]
                                 [--repeats 15] [--twin-repeats 3] [--device cpu]

The cloud fills a cube in front of the camera; splats are as large as so many should be to cover it. Drawing
is projection, lists of tiles and blending of three channels. "torch" is our twin: the maths in plain torch,
tile after tile, all splats of a tile against all its pixels at once, gradients by autograd; both images are
compared first. "pairs" are the splats that count at a pixel, over all pixels: what no renderer can leave out.
"peak" is the time of their multiply-adds at the peak that this machine reached in the same run (on a CPU): 14
and one a channel for the image, and 14 and two a channel more for the gradients. With --device cuda gsplat
runs beside where it is installed.
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

from sparse3d_ops.splat_blend import MOST_ALPHA, STOP, blend_splats
from sparse3d_ops.splat_projection import LEAST_ALPHA, Projected, project_gaussians
from sparse3d_ops.splat_tiles import TILE, Tiles, list_splats

CHANNELS = 3
# Multiply-adds of a pair. The form 4, the power of two 7, alpha, weight and what is left 3; back: what lies
# behind and dL/dalpha 5, the six sums 6, absolute values none, the form's again with the image's.
FORWARD, BACKWARD = 14 + CHANNELS, 14 + CHANNELS + 11 + 2 * CHANNELS + 3


class Scene:
    """A cloud of so many Gaussians, a camera, and the lists of one projection."""

    def __init__(self, count: int, size: tuple[int, int], device: str):
        g = torch.Generator().manual_seed(0)
        scale = 0.012 * (20_000 / count) ** (1 / 3)
        self.size = width, height = size
        self.splats = [
            torch.rand(count, 3, generator=g) * 2 - 1,
            torch.randn(count, 4, generator=g),
            torch.exp(torch.randn(count, 3, generator=g) * 0.4) * scale,
            torch.rand(count, generator=g) * 0.9 + 0.05,
            torch.rand(count, CHANNELS, generator=g),
        ]
        pose = torch.eye(4)
        pose[2, 3] = 3.0
        lens = torch.tensor([height * 1.2, height * 1.2, width / 2, height / 2])
        self.splats = [x.to(device) for x in self.splats]
        self.pose, self.lens = pose.to(device), lens.to(device)
        self.weight = torch.randn(height, width, CHANNELS, generator=g).to(device)

    def project(self, splats: list[Tensor]) -> tuple[Projected, Tiles]:
        found = project_gaussians(*splats[:4], self.pose, self.lens, self.size)
        return found, list_splats(found.means2d.detach(), found.reach, found.depths.detach(), self.size)

    def draw(self, splats: list[Tensor]) -> Tensor:
        found, tiles = self.project(splats)
        return blend_splats(found.means2d, found.conics, splats[3], splats[4], tiles, self.size).image

    def draw_in_torch(self, splats: list[Tensor]) -> Tensor:
        return draw_in_torch(*splats, self.pose, self.lens, self.size)

    def draw_by_gsplat(self, splats: list[Tensor], gsplat) -> Tensor:
        lens = torch.zeros(3, 3, device=self.lens.device)
        lens[0, 0], lens[1, 1], lens[0, 2], lens[1, 2], lens[2, 2] = *self.lens, 1.0
        camera = self.pose[None], lens[None], *self.size
        return gsplat.rasterization(*splats, *camera, packed=False)[0][0]

    def slopes(self, draw) -> Tensor:
        splats = [x.clone().requires_grad_() for x in self.splats]
        return torch.autograd.grad((draw(splats) * self.weight).sum(), splats)[0]

    def pairs(self) -> int:
        found, tiles = self.project(self.splats)
        arrays = [x.cpu().numpy() for x in (found.means2d, found.conics, self.splats[3], *tiles[:2])]
        return int(count_pairs(*arrays, *self.size))


@numba.njit(parallel=True)
def count_pairs(means2d, conics, opacities, starts, splats, width, height):
    """Splats that count at a pixel, summed over the pixels."""
    across, pairs = (width + TILE - 1) // TILE, 0
    for tile in numba.prange(len(starts) - 1):
        for y in range(tile // across * TILE, min(tile // across * TILE + TILE, height)):
            for x in range(tile % across * TILE, min(tile % across * TILE + TILE, width)):
                light = 1.0
                for k in range(starts[tile], starts[tile + 1]):
                    n = splats[k]
                    dx, dy = x + 0.5 - means2d[n, 0], y + 0.5 - means2d[n, 1]
                    q = conics[n, 0] * dx * dx + 2 * conics[n, 1] * dx * dy + conics[n, 2] * dy * dy
                    alpha = min(opacities[n] * np.exp(-0.5 * q), MOST_ALPHA)
                    if alpha >= LEAST_ALPHA:
                        pairs += 1
                        light *= 1 - alpha
                        if light < STOP:
                            break
    return pairs


# ---- torch's twin ------------------------------------------------------------------------------------------


def project_in_torch(means, quats, scales, pose, lens, blur=0.3) -> tuple[Tensor, Tensor, Tensor]:
    """Means (N, 2), covariances (N, 2, 2) and depths (N,) in the image; slopes are held nowhere."""
    p = means @ pose[:3, :3].T + pose[:3, 3]
    w, x, y, z = normalize(quats, dim=1).unbind(1)
    entries = (
        *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    turn, none, (px, py, pz) = torch.stack(entries, 1).view(-1, 3, 3), torch.zeros_like(p[:, 0]), p.unbind(1)
    slopes = (lens[0] / pz, none, -lens[0] * px / pz**2, none, lens[1] / pz, -lens[1] * py / pz**2)
    root = torch.stack(slopes, 1).view(-1, 2, 3) @ pose[:3, :3] @ turn * scales[:, None]
    middle = torch.stack((lens[0] * px / pz + lens[2], lens[1] * py / pz + lens[3]), 1)
    return middle, root @ root.mT + blur * torch.eye(2, device=means.device), pz


def draw_in_torch(means, quats, scales, opacities, features, pose, lens, size) -> Tensor:
    """Tile after tile: all its splats against all its pixels."""
    middle, wide, depths = project_in_torch(means, quats, scales, pose, lens)
    conics = torch.linalg.inv(wide)
    reach = (2 * torch.log(opacities / LEAST_ALPHA)).sqrt()[:, None] * wide.diagonal(dim1=1, dim2=2).sqrt()
    order = torch.argsort(depths.detach(), stable=True)
    low, high = ((middle + side * reach).detach()[order] for side in (-1, 1))
    width, height = size
    rows = []
    for top in range(0, height, TILE):
        there = order[(low[:, 1] < top + TILE) & (high[:, 1] > top)]
        left_of, right_of = middle[there, 0] - reach[there, 0], middle[there, 0] + reach[there, 0]
        row = []
        for left in range(0, width, TILE):
            here = there[(left_of < left + TILE) & (right_of > left)]
            y, x = torch.meshgrid(
                torch.arange(top, min(top + TILE, height), device=means.device),
                torch.arange(left, min(left + TILE, width), device=means.device),
                indexing="ij",
            )
            d = torch.stack((x, y), -1).view(-1, 1, 2) + 0.5 - middle[here]
            power = -0.5 * torch.einsum("pki,kij,pkj->pk", d, conics[here], d)
            alpha = (opacities[here] * torch.exp(power)).clamp(max=MOST_ALPHA)
            alpha = torch.where(alpha >= LEAST_ALPHA, alpha, 0.0)
            light = torch.cumprod(torch.nn.functional.pad(1 - alpha[:, :-1], (1, 0), value=1.0), 1)
            weights = torch.where(light >= STOP, light * alpha, 0.0)
            row.append((weights @ features[here]).view(*x.shape, -1))
        rows.append(torch.cat(row, 1))
    return torch.cat(rows, 0)


# ---- contests ----------------------------------------------------------------------------------------------


def synchronized(call: machine.Call, device: str) -> machine.Call:
    """A call that ends when the device is done."""
    if device == "cpu":
        return call

    def wait():
        call()
        torch.cuda.synchronize()

    return wait


def milliseconds(call: machine.Call, repeats: int) -> list[float]:
    return machine.in_turns({"one": call}, repeats)["one"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--splats", type=int, nargs="+", default=[20_000, 100_000, 500_000])
    parser.add_argument("--sizes", nargs="+", default=["400x400", "1280x720"])
    parser.add_argument("--twin-repeats", type=int, default=3, help="0: without torch's twin")
    parser.add_argument("--device", default="cpu", choices=("cpu", "cuda"))
    machine.add_arguments(parser)
    args = parser.parse_args()
    gsplat = machine.optional("gsplat") if args.device == "cuda" else None
    table = Table(
        title=f"drawing splats, float32, {args.device}, {args.repeats} repeats (torch {args.twin_repeats}); "
        "milliseconds: median (fastest - slowest)"
    )
    names = "what splats size threads sparse3d torch gsplat torch/sparse3d Mpairs peak sparse3d/peak".split()
    for name in names:
        table.add_column(name, justify="left" if name == "what" else "right")
    for limits in machine.each_limit(args.threads):
        for size in args.sizes:
            for count in args.splats:
                width, height = (int(x) for x in size.split("x"))
                scene = Scene(count, (width, height), args.device)
                for row in rows_of(scene, limits, args, gsplat):
                    table.add_row(*row)
    Console(width=200).print(table)


def rows_of(scene: Scene, limits: machine.Limits, args, gsplat) -> list[list[str]]:
    """Two rows of the table: the image, and with its gradients."""
    count, pairs, device = len(scene.splats[0]), scene.pairs(), args.device
    draws = {"sparse3d": scene.draw}
    if args.twin_repeats:
        draws["torch"] = scene.draw_in_torch
    if gsplat is not None:
        draws["gsplat"] = lambda splats: scene.draw_by_gsplat(splats, gsplat)
    want = scene.draw(scene.splats)
    for name, draw in draws.items():
        # A pixel may lose a splat whose alpha is just 1 / 255 in one of them.
        assert (draw(scene.splats) - want).abs().max() < 2e-2, f"{name} draws something else"
    rows = []
    for what, adds in (("image", FORWARD), ("image and gradients", BACKWARD)):
        times = {}
        for name, draw in draws.items():
            call = (lambda d=draw: d(scene.splats)) if adds == FORWARD else (lambda d=draw: scene.slopes(d))
            repeats = args.twin_repeats if name == "torch" else args.repeats
            times[name] = milliseconds(synchronized(call, device), repeats)
        ours = statistics.median(times["sparse3d"])
        peak = 2e-6 * adds * pairs / limits.gflops if device == "cpu" else float("nan")
        cells = [
            machine.spread(times[name]) if name in times else "-" for name in ("sparse3d", "torch", "gsplat")
        ]
        factor = f"{statistics.median(times['torch']) / ours:.1f}" if "torch" in times else "-"
        size, threads = f"{scene.size[0]}x{scene.size[1]}", str(limits.threads)
        last = [f"{peak:.3g}", f"{ours / peak:.1f}"] if device == "cpu" else ["-", "-"]
        rows.append([what, str(count), size, threads, *cells, factor, f"{pairs / 1e6:.2f}", *last])
    return rows


if __name__ == "__main__":
    main()
