"""Time attention within sets, forward and backward, against the padded form by torch's own attention.

    python tools/bench_set_attention.py [--voxels 2000 10000 30000] [--threads 1 2] [--repeats 15]

The voxels are pillars of 32 cm (or voxels of 32 x 32 x 18.75 cm) of generated full-turn scans, a sample each;
sets, channels and heads are those of DSVT's configs. "padded": `scaled_dot_product_attention` over the sets'
slots, of which a part repeats a voxel and is masked, gathering and putting back included; the reference
computes that way. "with maps": the linear maps of queries, keys and values act on slots there, as in
the reference, and on voxels in ours, both timed with them.
"""

import argparse

import machine
import torch
from torch import Tensor

from sparse3d.data.minidrive import simulate
from sparse3d_ops.set_attention import padded_set_attention, set_attention
from sparse3d_ops.voxelize import voxelize
from sparse3d_ops.windows import padded_sets, window_sets

BOUNDS = [-74.88, -74.88, -2.0, 74.88, 74.88, 4.0]
# name: voxel size, grid, window (of odd blocks), shift, set size, channels, heads
CASES = {
    "Waymo pillar": ([0.32, 0.32, 6.0], [468, 468, 1], [24, 24, 1], [6, 6, 0], 36, 192, 8),
    "Waymo voxel": ([0.32, 0.32, 0.1875], [468, 468, 32], [24, 24, 32], [6, 6, 0], 48, 192, 8),
    "nuScenes": ([0.32, 0.32, 6.0], [468, 468, 1], [30, 30, 1], [15, 15, 0], 90, 128, 8),
}


def sites(count: int, voxel_size: list[float]) -> Tensor:
    """(count, 4) int32 voxels of as many generated scans as it takes."""
    parts, total = [], 0
    while total < count:
        points = torch.from_numpy(simulate(0, len(parts)).points)
        found, _, _ = voxelize(points, torch.zeros(len(points), dtype=torch.int64), voxel_size, BOUNDS)
        found = found[: count - total].clone()
        found[:, 0] = len(parts)
        parts.append(found)
        total += len(found)
    return torch.cat(parts)


def contest(board: machine.Board, limits, name: str, voxels: int, backward: bool) -> None:
    voxel_size, grid, window, shift, size, channels, heads = CASES[name]
    sets = window_sets(sites(voxels, voxel_size), grid, window, shift, size)
    slots = padded_sets(sets.order_y, sets.offsets, sets.set_window, size)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(voxels, channels, generator=generator)
    q, k, v = (torch.randn(voxels, channels, generator=generator, requires_grad=backward) for _ in range(3))
    weight = torch.randn(3 * channels, channels, generator=generator) / channels**0.5
    weight.requires_grad_(backward)
    grad = torch.randn(voxels, channels, generator=generator)

    def ours(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return set_attention(q, k, v, sets.order_y, sets.offsets, size, heads)

    def padded(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return padded_set_attention(q, k, v, slots.slots, slots.repeated, heads)

    def mapped_slots() -> Tensor:
        """The maps on slots, attention over them, put back."""
        there = x[slots.slots]
        q, k, v = ((there @ w.T).unflatten(2, (heads, -1)).transpose(1, 2) for w in weight.chunk(3))
        found = torch.nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=~slots.repeated[:, None, None, :]
        )
        seen = ~slots.repeated
        return torch.empty_like(x).index_copy(0, slots.slots[seen], found.transpose(1, 2).flatten(2)[seen])

    torch.testing.assert_close(ours(q, k, v), padded(q, k, v), rtol=1e-4, atol=1e-5)

    def timed(call, inputs):
        if not backward:
            return call
        return lambda: torch.autograd.grad(call(), inputs, grad)

    way = "forward and backward" if backward else "forward"
    lengths = sets.offsets.diff().double()
    flops = int(4 * channels * lengths.square().sum()) * (3.5 if backward else 1)  # 2 products, 5 more back
    filled = f"{float(lengths.mean()) / size:.0%} filled"
    work = machine.Work(4 * voxels * channels * (4 if not backward else 8), int(flops))
    with torch.set_grad_enabled(backward):
        contestants = {
            "sparse3d": timed(lambda: ours(q, k, v), (q, k, v)),
            "padded": timed(lambda: padded(q, k, v), (q, k, v)),
        }
        board.row(f"{name}, {way}", f"{voxels} voxels, {filled}", limits, work, contestants)
        maps = machine.Work(0, int(flops) + 6 * voxels * channels**2 * (3 if backward else 1))
        contestants = {
            "sparse3d": timed(lambda: ours(*(x @ w.T for w in weight.chunk(3))), (weight,)),
            "padded": timed(mapped_slots, (weight,)),
        }
        board.row(f"{name}, with maps, {way}", f"{voxels} voxels", limits, maps, contestants)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--voxels", type=int, nargs="+", default=[2000, 10_000, 30_000])
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    machine.add_arguments(parser)
    args = parser.parse_args()
    board = machine.Board("attention within sets, float32", ["padded"], args.repeats)
    for limits in machine.each_limit(args.threads):
        for name in args.cases:
            for voxels in args.voxels:
                for backward in (False, True):
                    contest(board, limits, name, voxels, backward)
    board.print()


if __name__ == "__main__":
    main()
