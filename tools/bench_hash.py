"""Time voxel keys, their sorted set and their hash table against torch and Open3D, where it is installed.

python tools/bench_hash.py [--points 10000 100000 1000000] [--threads 1 2] [--repeats 15]

pack      coordinates to keys; torch: shifts and ors
unique    sorted set, inverse and counts of the keys of points; torch.unique of the same
build     the table of the distinct keys; torch: the sort that searching them needs; Open3D: HashSet.insert
look up   rows of as many keys, half of them present; torch: searchsorted and a comparison; Open3D: find
"""

import argparse

import machine
import torch
from bench_voxelize import scan
from torch import Tensor

from sparse3d_ops.hashing import build, look_up, pack, unique, unpack


def cells(count: int) -> Tensor:
    """(count, 4) int32 voxels of points, in the order of the points, with repetitions."""
    points, frame = scan(count)
    xyz = (points[:, :3] / 0.1).floor().int().clamp(-(1 << 17), (1 << 17) - 1)
    return torch.cat([frame[:, None].int(), xyz], 1).contiguous()


def pack_by_torch(coordinates: Tensor) -> Tensor:
    b, x, y, z = coordinates.long().unbind(1)
    half = 1 << 17
    return (-(1 << 63)) | (b << 54) | ((x + half) << 36) | ((y + half) << 18) | (z + half)


def find_by_torch(ordered: Tensor, rows: Tensor, wanted: Tensor) -> Tensor:
    place = torch.searchsorted(ordered, wanted).clamp_(max=len(ordered) - 1)
    return torch.where(ordered[place] == wanted, rows[place], -1)


def by_open3d(open3d, keys: Tensor, wanted: Tensor):
    """Its keys are the coordinates: its hash of a 64-bit integer puts most of ours into few buckets."""
    core = open3d.core
    inserted, searched = (core.Tensor(unpack(t).numpy()) for t in (keys, wanted))

    def build_set():
        table = core.HashSet(len(keys), core.int32, core.SizeVector([4]), core.Device("CPU:0"))
        table.insert(inserted)
        return table

    full = build_set()
    return build_set, lambda: full.find(searched)


def compare(board: machine.Board, limits: machine.Limits, count: int) -> None:
    coordinates = cells(count)
    keys = pack(coordinates)
    assert torch.equal(keys, pack_by_torch(coordinates))
    distinct, inverse, _ = unique(keys)
    assert torch.equal(inverse, torch.unique(keys, return_inverse=True)[1])
    shuffled = distinct[torch.randperm(len(distinct), generator=torch.Generator().manual_seed(0))]
    table = build(shuffled)
    ordered, rows = shuffled.sort()
    wanted = torch.where(torch.arange(len(shuffled)) % 2 == 0, shuffled, shuffled ^ 1)
    assert torch.equal(look_up(*table, wanted).long(), find_by_torch(ordered, rows, wanted))
    m, size, few = len(distinct), f"{count} keys", f"{len(distinct)} keys"

    contestants: dict[str, machine.Call] = {
        "sparse3d": lambda: pack(coordinates),
        "torch": lambda: pack_by_torch(coordinates),
    }
    board.row("pack", size, limits, machine.Work(count * 24), contestants)
    contestants = {
        "sparse3d": lambda: unique(keys),
        "torch": lambda: torch.unique(keys, return_inverse=True, return_counts=True),
    }
    board.row("unique", f"{size}, {m} distinct", limits, machine.Work(count * 16 + m * 16), contestants)
    built: dict[str, machine.Call] = {
        "sparse3d": lambda: build(shuffled),
        "torch": lambda: shuffled.sort(),
    }
    found: dict[str, machine.Call] = {
        "sparse3d": lambda: look_up(*table, wanted),
        "torch": lambda: find_by_torch(ordered, rows, wanted),
    }
    if open3d := machine.optional("open3d"):
        built["Open3D"], found["Open3D"] = by_open3d(open3d, shuffled, wanted)
    board.row("build", few, limits, machine.Work(m * 8 + len(table[0]) * 12), built)
    board.row("look up", few, limits, machine.Work(m * 24), found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--points", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    machine.add_arguments(parser)
    args = parser.parse_args()
    board = machine.Board("voxel keys, int64", ["torch", "Open3D"], args.repeats)
    for limits in machine.each_limit(args.threads):
        for count in args.points:
            compare(board, limits, count)
    board.print()


if __name__ == "__main__":
    main()
