"""Neighbours one after the other: along the Morton curve, on which formats that store differences within runs
of Gaussians lose the least."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.formats.buckets import Buckets
from sparse3d.gaussians.formats.source import BLOCK, Splats

_BITS = 21  # an axis; three of them fit into 63 bits


def in_order(cloud: GaussianCloud) -> GaussianCloud:
    """A cloud's Gaussians along the curve through its bounds; equal places keep their order."""
    return cloud[torch.argsort(morton(cloud.means), stable=True)]


@contextmanager
def ordered(splats: Splats, folder: str | Path) -> Iterator[Splats]:
    """All Gaussians along the curve through their bounds, while the context lasts. What is more than a block
    waits in a file without a name in `folder`; in memory are their places and numbers, 50 bytes each."""
    if splats.count <= BLOCK:
        yield Splats.of(in_order(splats.cloud()), splats.axes, splats.antialiased)
        return
    order = torch.argsort(_codes(splats), stable=True)
    place = torch.empty(splats.count, dtype=torch.int32)
    place[order] = torch.arange(splats.count, dtype=torch.int32)
    shapes = {name: part.shape[1:] for name, part in next(splats.blocks()).parameters().items()}
    columns = sum(shape.numel() for shape in shapes.values())
    with Buckets(folder, -(-splats.count // BLOCK), columns) as waiting:
        begin = 0
        for block in splats.blocks():
            table = torch.cat([part.reshape(len(block), -1) for part in block.parameters().values()], 1)
            waiting.put(table, place[begin : begin + len(block)] // BLOCK)
            begin += len(block)
        assert begin == splats.count, "the blocks are not what they were said to be"

        def blocks(rows: int) -> Iterator[GaussianCloud]:
            for number in range(0, -(-splats.count // BLOCK)):
                here = order[number * BLOCK : (number + 1) * BLOCK]
                # They were put there in the order in which they came.
                table = waiting.rows(number)[torch.argsort(torch.argsort(here))]
                cloud = _of_table(table, shapes)
                for first in range(0, len(cloud), rows):
                    yield cloud[first : first + rows]

        yield replace(splats, make_blocks=blocks)


def _codes(splats: Splats) -> Tensor:
    """(N,) int64: all places on the curve."""
    means, begin = torch.empty(splats.count, 3), 0
    for block in splats.blocks():
        means[begin : begin + len(block)] = block.means
        begin += len(block)
    bounds = means.aminmax(dim=0)
    return torch.cat([morton(part, bounds) for part in means.split(BLOCK)])


def _of_table(table: Tensor, shapes: dict[str, torch.Size]) -> GaussianCloud:
    widths = [shape.numel() for shape in shapes.values()]
    parts = zip(shapes.items(), table.split(widths, 1), strict=True)
    return GaussianCloud.of({name: part.reshape(-1, *shape) for (name, shape), part in parts})


def morton(points: Tensor, bounds: tuple[Tensor, Tensor] | None = None) -> Tensor:
    """(N, 3) finite -> (N,) int64: the bits of the cell in a grid of 2^21 a side over the bounds (lowest and
    highest, (3,); their own where none are given), taken in turn from z, y and x."""
    if not len(points):
        return torch.zeros(0, dtype=torch.int64, device=points.device)
    low, high = bounds or points.aminmax(dim=0)
    # Doubles: the differences of float32 bounds may leave the range of float32.
    low, high = low.double(), high.double()
    extent = torch.where(high > low, high - low, 1)
    cells = ((points.double() - low) / extent * ((1 << _BITS) - 1)).long()
    code = torch.zeros(len(points), dtype=torch.int64, device=points.device)
    for axis in range(3):
        code |= _spread(cells[:, axis]) << axis
    return code


def _spread(value: Tensor) -> Tensor:
    """Two zero bits after each of 21 bits."""
    for shift, mask in (
        (32, 0x1F00000000FFFF),
        (16, 0x1F0000FF0000FF),
        (8, 0x100F00F00F00F00F),
        (4, 0x10C30C30C30C30C3),
        (2, 0x1249249249249249),
    ):
        value = (value | (value << shift)) & mask
    return value
