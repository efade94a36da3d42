"""Time segment reductions and the trilinear gather against torch and torch-scatter, where it is installed.

    python tools/bench_segment.py [--rows 10000 100000 1000000] [--channels 32] [--threads 1 2] [--repeats 15]

Segments hold five rows on average. "sorted": rows of a segment follow each other, as after voxelisation;
torch then has `segment_reduce` beside `scatter_reduce_`, and both are timed. "any order": `scatter_reduce_`
and `index_add_` (sum). The trilinear gather takes the eight voxels around each of so many positions in a
volume of 100 000 voxels; torch has `embedding_bag` with weights and the formula (gather, multiply, sum).
"""

import argparse

import machine
import torch
from torch import Tensor

from sparse3d_ops.grid_sample import trilinear_corners, trilinear_gather
from sparse3d_ops.segment import segment_max, segment_mean, segment_sum

MEAN_LENGTH = 5
VOLUME = (50, 50, 40)
REDUCTIONS = {"sum": segment_sum, "mean": segment_mean, "max": lambda *a: segment_max(*a)[0]}


def reductions(board: machine.Board, limits, rows: int, channels: int, scatter) -> None:
    generator = torch.Generator().manual_seed(0)
    segments = rows // MEAN_LENGTH
    values = torch.randn(rows, channels, generator=generator)
    anywhere = torch.randint(0, segments, (rows,), generator=generator)
    for order, segment in (("sorted", anywhere.sort()[0]), ("any order", anywhere)):
        lengths = torch.bincount(segment, minlength=segments)
        index = segment[:, None].expand(-1, channels)
        for name, ours in REDUCTIONS.items():
            contestants = {
                "sparse3d": lambda ours=ours, segment=segment: ours(values, segment, segments),
                "scatter_reduce_": lambda name=name, index=index: scatter_reduce(
                    values, index, segments, name
                ),
            }
            if order == "sorted":
                contestants["segment_reduce / index_add_"] = lambda name=name, lengths=lengths: (
                    torch.segment_reduce(values, name, lengths=lengths, unsafe=True)
                )
            elif name == "sum":
                contestants["segment_reduce / index_add_"] = lambda segment=segment: values.new_zeros(
                    segments, channels
                ).index_add_(0, segment, values)
            if scatter is not None:
                contestants["torch-scatter"] = lambda name=name, segment=segment: scatter.scatter(
                    values, segment, 0, dim_size=segments, reduce=name
                )
            work = machine.Work(4 * channels * (rows + segments) + 8 * rows, rows * channels)
            board.row(f"{name}, {order}", f"{rows} x {channels}", limits, work, contestants)


def scatter_reduce(values: Tensor, index: Tensor, segments: int, name: str) -> Tensor:
    kind = "amax" if name == "max" else name
    return values.new_zeros(segments, values.shape[1]).scatter_reduce_(
        0, index, values, kind, include_self=False
    )


def gathers(board: machine.Board, limits, queries: int, channels: int) -> None:
    generator = torch.Generator().manual_seed(0)
    grid = torch.cartesian_prod(torch.arange(1), *(torch.arange(n) for n in VOLUME)).int()
    features = torch.randn(len(grid), channels, generator=generator)
    positions = torch.rand(queries, 3, generator=generator) * torch.tensor(VOLUME).float()
    batch = torch.zeros(queries, dtype=torch.int64)
    corners, weights = trilinear_corners(positions, batch, grid)
    # A missing corner reads row 0 with a weight of zero: torch's kernels know no missing rows.
    there, known = corners.clamp(min=0), torch.where(corners < 0, 0, weights)
    contestants = {
        "sparse3d": lambda: trilinear_gather(features, corners, weights),
        "embedding_bag": lambda: torch.nn.functional.embedding_bag(
            there, features, mode="sum", per_sample_weights=known
        ),
        "gather, multiply, sum": lambda: (features[there] * known[:, :, None]).sum(1),
    }
    torch.testing.assert_close(contestants["sparse3d"](), contestants["embedding_bag"]())
    work = machine.Work(queries * (32 + 32 + 4 * channels), 16 * queries * channels)
    board.row("trilinear gather", f"{queries} x {channels}", limits, work, contestants)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--channels", type=int, default=32)
    machine.add_arguments(parser)
    args = parser.parse_args()
    scatter = machine.optional("torch_scatter")
    peers = ["scatter_reduce_", "segment_reduce / index_add_", "torch-scatter"]
    sums = machine.Board("segment reductions, float32", peers, args.repeats)
    samples = machine.Board(
        "trilinear gather, float32", ["embedding_bag", "gather, multiply, sum"], args.repeats
    )
    for limits in machine.each_limit(args.threads):
        for rows in args.rows:
            reductions(sums, limits, rows, args.channels, scatter)
            gathers(samples, limits, rows, args.channels)
    sums.print()
    samples.print()


if __name__ == "__main__":
    main()
