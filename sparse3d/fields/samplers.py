"""How the samples of a ray are chosen: where an occupancy grid is not empty, or where cheap densities say.

A sampler has `draw(origins, directions, offsets) -> Drawn`, differentiable proposals included, and
`advance(density, progress, step)` for what it learns between steps. `offsets` (R,) in [0, 1) jitter a ray's
samples.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from sparse3d.fields.layers import HashEncodingConfig, bounded_exp, perceptron
from sparse3d.fields.space import SpaceConfig
from sparse3d.fields.stepfun import evenly, interlevel_loss, resample
from sparse3d.nn.sums import repeatable_mean
from sparse3d_ops.composite import composite
from sparse3d_ops.raymarch import Samples, empty_blocks, march
from sparse3d_ops.segment import gather_rows

Density = Callable[[Tensor], Tensor]


class Histogram(NamedTuple):
    """Edges (R, B + 1) along rays and the weight (R, B) of each bin."""

    edges: Tensor
    weights: Tensor


class Drawn(NamedTuple):
    """Packed samples; `edges` (R, B + 1), in the measure of `SpaceConfig.warp`, and `proposals` only of a
    sampler that proposes."""

    samples: Samples
    edges: Tensor | None
    proposals: list[Histogram]


@dataclass(frozen=True)
class OccupancySamplerConfig:
    """Even steps where a grid of running densities is not empty (Instant-NGP, arXiv 2201.05989, appendix C;
    the update is that of NerfAcc, arXiv 2305.04966)."""

    kind: Literal["occupancy"] = "occupancy"
    resolution: int = 64  # cells along a side
    steps: int = 192  # along a side of the cube
    update_every: int = 16  # steps of the training
    warm_up: int = 64  # steps of the training in which every cell is looked at; then a quarter of them
    decay: float = 0.95  # of the running density, an update
    threshold: float = 0.01  # opacity of a step, below which a cell is empty

    def build(self, space: SpaceConfig) -> "OccupancySampler":
        return OccupancySampler(self, space)


@dataclass(frozen=True)
class ProposalSamplerConfig:
    """Small density networks propose, and learn to bound what the field finds (Mip-NeRF 360, arXiv
    2111.12077, section 3)."""

    kind: Literal["proposal"] = "proposal"
    proposals: tuple[int, ...] = (64,)  # bins of each proposal
    samples: int = 32  # bins of the field
    padding: float = 0.01  # weight that is added to each bin, so that none is never looked at
    encoding: HashEncodingConfig = field(
        default_factory=lambda: HashEncodingConfig(levels=5, log2_entries=13, finest=64)
    )
    width: int = 16

    def __post_init__(self):
        if not self.proposals or min(*self.proposals, self.samples) < 1:
            raise ValueError(f"at least one proposal and one bin each, got {self.proposals}, {self.samples}")

    def build(self, space: SpaceConfig) -> "ProposalSampler":
        return ProposalSampler(self, space)


SamplerConfig = OccupancySamplerConfig | ProposalSamplerConfig


class OccupancySampler(nn.Module):
    """See its config. Everything counts as occupied until the first update."""

    running: Tensor
    blocks: Tensor

    def __init__(self, config: OccupancySamplerConfig, space: SpaceConfig):
        super().__init__()
        if space.unbounded:
            raise ValueError(
                "an occupancy grid has bounds: choose sampler.kind 'proposal' or contraction 'none'"
            )
        self.config, self.space = config, space
        cells = (config.resolution,) * 3
        self.register_buffer("running", torch.zeros(cells))
        self.register_buffer("blocks", torch.zeros(cells, dtype=torch.uint8))

    @property
    def step(self) -> float:
        """Metres between samples."""
        return self.space.side / self.config.steps

    def draw(self, origins: Tensor, directions: Tensor, offsets: Tensor) -> Drawn:
        near, far = self.space.span(origins, directions)
        box = self.space.corners(origins)
        rays = origins.detach(), directions.detach(), near, far
        return Drawn(march(*rays, self.blocks, *box, self.step, offsets), None, [])

    @torch.no_grad()
    def advance(self, density: Density, progress: float, step: int) -> None:
        """Look at cells anew, each at a random place in it."""
        config = self.config
        if step % config.update_every:
            return
        count = config.resolution**3
        if step < config.warm_up:
            cells = torch.arange(count, device=self.running.device)
        else:
            cells = torch.randint(count, (count // 4,), device=self.running.device)
        at = torch.stack(torch.unravel_index(cells, self.running.shape), 1)
        low, _ = self.space.corners(self.running)
        places = low + (at + torch.rand(len(at), 3).to(low)) * (self.space.side / config.resolution)
        found = torch.zeros_like(self.running).view(-1)
        for part in torch.arange(len(cells), device=cells.device).split(1 << 18):
            # A cell that is drawn twice takes the larger density: which one comes last must not matter.
            found.scatter_reduce_(0, cells[part], density(places[part]).to(found), "amax")
        self.running.mul_(config.decay).clamp_(min=found.view_as(self.running))
        opacity = -torch.expm1(-self.running * self.step)
        self.blocks.copy_(empty_blocks(opacity > min(config.threshold, float(repeatable_mean(opacity)))))


class ProposalSampler(nn.Module):
    """See its config."""

    def __init__(self, config: ProposalSamplerConfig, space: SpaceConfig):
        super().__init__()
        self.config, self.space = config, space
        self.encodings = nn.ModuleList(config.encoding.build() for _ in config.proposals)
        widths = [config.encoding.width, config.width, 1]
        self.heads = nn.ModuleList(perceptron(widths, bias=False) for _ in config.proposals)

    def draw(self, origins: Tensor, directions: Tensor, offsets: Tensor) -> Drawn:
        space, config = self.space, self.config
        near, far = (space.warp(limit)[:, None] for limit in space.span(origins, directions))
        unit = evenly(len(origins), config.proposals[0], offsets)
        proposals = []
        for number in range(len(config.proposals)):
            edges = near + (far - near) * unit
            weights = self._weights(number, origins, directions, edges)
            proposals.append(Histogram(edges, weights))
            bins = (*config.proposals, config.samples)[number + 1]
            padded = weights.detach() + config.padding
            unit = resample(unit, padded, bins, offsets)
        edges = near + (far - near) * unit
        return Drawn(samples_between(space.unwarp(edges)), edges, proposals)

    def _weights(self, number: int, origins: Tensor, directions: Tensor, edges: Tensor) -> Tensor:
        samples = samples_between(self.space.unwarp(edges))
        points = points_on(origins, directions, samples)
        unit, inside = self.space.to_unit(points)
        raw = self.heads[number](self.encodings[number](unit))[:, 0]
        sigma = bounded_exp(raw).where(inside, 0.0) / (self.space.side / 2)
        none = sigma.new_zeros(len(sigma), 1)
        return composite(sigma, none, samples.dt, samples.ray_starts).weights.view(len(edges), -1)

    def loss(self, drawn: Drawn, weights: Tensor) -> Tensor:
        """How far the proposals fail to bound the field's weights (S,), mean over rays."""
        assert drawn.edges is not None
        found = weights.detach().view(len(drawn.edges), -1)
        return sum(
            (interlevel_loss(drawn.edges, found, p.edges, p.weights) for p in drawn.proposals),
            weights.new_zeros(()),
        )

    def advance(self, density: Density, progress: float, step: int) -> None:
        for encoding in self.encodings:
            encoding.advance(progress)  # pyright: ignore[reportCallIssue]


def samples_between(edges: Tensor) -> Samples:
    """Bins (R, B + 1), metres, as packed samples in their middles."""
    rays, bins = edges.shape[0], edges.shape[1] - 1
    starts = torch.arange(rays + 1, device=edges.device) * bins
    t = (edges[:, 1:] + edges[:, :-1]).flatten() / 2
    return Samples(starts, t, edges.diff(dim=1).flatten())


def points_on(origins: Tensor, directions: Tensor, samples: Samples) -> Tensor:
    """Where samples lie: (S, 3) world."""
    return of_samples(origins, samples) + samples.t[:, None] * of_samples(directions, samples)


def some_of(samples: Samples, chosen: Tensor) -> Samples:
    """The chosen samples, (S,) bool, each in its ray."""
    before = torch.nn.functional.pad(chosen.cumsum(0), (1, 0))
    return Samples(before[samples.ray_starts], samples.t[chosen], samples.dt[chosen])


def of_samples(rays: Tensor, samples: Samples) -> Tensor:
    """What belongs to each sample's ray: (R, C) -> (S, C)."""
    ray = torch.repeat_interleave(samples.ray_starts.diff(), output_size=len(samples.t))
    return gather_rows(rays, ray)
