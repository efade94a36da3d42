"""Gaussians that come block by block, so that a file of any size is read, changed and written in bounded
memory.

A `Splats` says from the header of a file how many there are and of which kind; its blocks are clouds in the
order of the file. They may be asked for again and are the same.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import torch

from sparse3d.gaussians.cloud import GaussianCloud

# About 60 MB of Gaussians of degree 3; whole chunks of 256, as compressed .ply has them.
BLOCK = 1 << 18


@dataclass(frozen=True)
class Splats:
    """`count` Gaussians of an SH degree, or surfels. `make_blocks(rows)` gives them as clouds of about so
    many.

    `axes` are those of the numbers as they come (`frames`); `antialiased` says that they were trained with
    the screen-space filter of Mip-Splatting (arXiv 2311.16493), which the renderer has to repeat.
    """

    count: int
    sh_degree: int
    surfels: bool
    axes: str
    make_blocks: Callable[[int], Iterable[GaussianCloud]]
    antialiased: bool = False

    @staticmethod
    def of(cloud: GaussianCloud, axes: str, antialiased: bool = False) -> "Splats":
        """From memory."""

        def blocks(rows: int) -> Iterator[GaussianCloud]:
            for begin in range(0, len(cloud), rows):
                yield cloud[begin : begin + rows]

        return Splats(len(cloud), cloud.sh_degree, cloud.surfels, axes, blocks, antialiased)

    def blocks(self, rows: int = BLOCK) -> Iterator[GaussianCloud]:
        """float32 on the CPU, without gradients."""
        for block in self.make_blocks(rows):
            yield GaussianCloud.of(
                {k: v.detach().to("cpu", torch.float32) for k, v in block.parameters().items()}
            )

    def cloud(self) -> GaussianCloud:
        """All of them at once."""
        return joined(list(self.blocks(max(self.count, 1))))

    def mapped(self, change: Callable[[GaussianCloud], GaussianCloud], **described: object) -> "Splats":
        """With each block changed; `described` are the fields of this that change with them."""

        def blocks(rows: int) -> Iterator[GaussianCloud]:
            return map(change, self.make_blocks(rows))

        return replace(self, make_blocks=blocks, **described)  # pyright: ignore[reportArgumentType]


def joined(clouds: list[GaussianCloud]) -> GaussianCloud:
    """Clouds of one kind, one after the other; a single one as it is."""
    if len(clouds) == 1:
        return clouds[0]
    parts = [cloud.parameters() for cloud in clouds]
    return GaussianCloud.of({name: torch.cat([part[name] for part in parts]) for name in parts[0]})


def regrouped(blocks: Iterable[GaussianCloud], rows: int) -> Iterator[GaussianCloud]:
    """The same Gaussians in blocks of exactly `rows`, the last one of what is left."""
    waiting: list[GaussianCloud] = []
    for block in blocks:
        waiting.append(block)
        while (have := sum(map(len, waiting))) >= rows:
            cloud = joined(waiting)
            yield cloud[:rows]
            waiting = [cloud[rows:]] if have > rows else []
    if waiting:
        yield joined(waiting)
