"""A radiance field as few outer products of planes and lines, for densities and for colours.

Title: TensoRF: tensorial radiance fields (arXiv 2203.09517), its vector-matrix decomposition. It starts
coarse; `grow` puts a lattice point between any two. Where we differ: growing doubles the lattice, so that the
field stays what it was exactly; empty space is skipped by an occupancy grid; directions reach the colours'
network as spherical harmonics; sizes for a CPU, the paper's in comments.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sparse3d.fields.layers import perceptron
from sparse3d.fields.sampled_field import SampledField
from sparse3d.fields.samplers import Drawn, OccupancySamplerConfig, SamplerConfig, points_on, some_of
from sparse3d.fields.space import SpaceConfig
from sparse3d.nn.activations import sigmoid, softplus
from sparse3d.nn.linear import RepeatableLinear
from sparse3d_ops.composite import composite
from sparse3d_ops.low_rank import plane_line_products
from sparse3d_ops.spherical_harmonics import sh_basis

DENSITY_SCALE = 37.5  # per half side: the paper's 25 per unit, of cubes that are three units wide


@dataclass(frozen=True)
class LowRankFieldConfig:
    """Components, networks and sampling. Learning rates of the paper: Adam, 0.02 for planes and lines, 1e-3
    for networks."""

    kind: Literal["lowrank"] = "lowrank"
    space: SpaceConfig = SpaceConfig()
    sampler: SamplerConfig = OccupancySamplerConfig()
    resolution: int = 32  # cells along a side, before it grows; the paper's: 128, which ends at 300
    density_components: int = 8  # of each of the three modes; the paper's: 16
    color_components: int = 16  # of each of the three modes; the paper's: 48
    features: int = 27  # that the colour network gets
    width: int = 32  # of hidden layers; the paper's: 128
    color_layers: int = 1  # hidden layers of the colour network; the paper's: 2
    sh_degree: int = 2  # of the encoding of directions, 0 to 4
    initial_density: float = -4.6  # before softplus: what passes for empty at the start; the paper's: -10
    stop: float = 1e-4  # light below which a ray ends

    def __post_init__(self):
        if not 0 <= self.sh_degree <= 4:
            raise ValueError(f"sh_degree must be 0 to 4, got {self.sh_degree}")
        sizes = ("resolution", "density_components", "color_components", "features", "width", "color_layers")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class PlanesAndLines(nn.Module):
    """Positions (N, 3) in [-1, 1] -> components (N, 3 C); tables as in `sparse3d_ops.low_rank`."""

    def __init__(self, resolution: int, components: int):
        super().__init__()
        points = resolution + 1
        # The paper's start: normal, and a tenth in size.
        self.planes = nn.Parameter(0.1 * torch.randn(3 * points**2, components))
        self.lines = nn.Parameter(0.1 * torch.randn(3 * points, components))

    @property
    def points(self) -> int:
        """Lattice points along a side."""
        return len(self.lines) // 3

    def forward(self, unit: Tensor) -> Tensor:
        return plane_line_products(self.planes, self.lines, unit * 0.5 + 0.5)

    @torch.no_grad()
    def grow(self) -> None:
        """Halve the cells. The values stay what they were, everywhere."""
        points = self.points
        planes = self.planes.view(3, points, points, -1)
        self._replace(_doubled(_doubled(planes, 1), 2), _doubled(self.lines.view(3, points, -1), 1))

    def reshape_for(self, planes: Tensor, lines: Tensor) -> None:
        """Take on the shapes of these."""
        self._replace(self.planes.new_zeros(planes.shape), self.lines.new_zeros(lines.shape))

    def _replace(self, planes: Tensor, lines: Tensor) -> None:
        self.planes = nn.Parameter(planes.reshape(-1, planes.shape[-1]).detach())
        self.lines = nn.Parameter(lines.reshape(-1, lines.shape[-1]).detach())


class LowRankField(SampledField):
    """See the module. Its planes and lines are replaced by others when it grows."""

    def __init__(self, config: LowRankFieldConfig = LowRankFieldConfig()):
        super().__init__(config.space, config.sampler, config.stop)
        self.config = config
        self.density_parts = PlanesAndLines(config.resolution, config.density_components)
        self.color_parts = PlanesAndLines(config.resolution, config.color_components)
        self.basis = RepeatableLinear(3 * config.color_components, config.features, bias=False)
        inputs = config.features + (config.sh_degree + 1) ** 2
        self.color_net = perceptron([inputs, *[config.width] * config.color_layers, 3], bias=True)

    def raw_density(self, unit: Tensor) -> Tensor:
        return DENSITY_SCALE * softplus(self.density_parts(unit).sum(1) + self.config.initial_density)

    def evaluate(self, unit: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        inputs = [self.basis(self.color_parts(unit)), sh_basis(directions, self.config.sh_degree)]
        return self.raw_density(unit), sigmoid(self.color_net(torch.cat(inputs, 1)))

    def draw(self, origins: Tensor, directions: Tensor, offsets: Tensor) -> Drawn:
        """As the sampler has them, without those behind what stops a ray: densities cost little, but colours
        and gradients of what is not seen would be most of the work. A sampler that proposes keeps them."""
        drawn = super().draw(origins, directions, offsets)
        if drawn.proposals:
            return drawn
        samples = drawn.samples
        with torch.no_grad():
            sigma = self.density(points_on(origins, directions, samples))
            none = sigma.new_zeros(len(sigma), 0)
            weights = composite(sigma, none, samples.dt, samples.ray_starts, self.stop).weights
        return drawn._replace(samples=some_of(samples, weights != 0))

    def grow(self) -> None:
        """Halve the cells. The field stays what it was."""
        self.density_parts.grow()
        self.color_parts.grow()

    def reshape_for(self, tensors: dict[str, Tensor]) -> None:
        """Take on the shape of a state dict, so that it can be loaded."""
        for name in ("density_parts", "color_parts"):
            parts: PlanesAndLines = getattr(self, name)
            parts.reshape_for(tensors[f"{name}.planes"], tensors[f"{name}.lines"])


def _doubled(values: Tensor, axis: int) -> Tensor:
    """Points with one more between any two neighbours along an axis, in their middle."""
    low, high = values.narrow(axis, 0, values.shape[axis] - 1), values.narrow(axis, 1, values.shape[axis] - 1)
    pairs = torch.stack([low, (low + high) / 2], axis + 1).flatten(axis, axis + 1)
    return torch.cat([pairs, values.narrow(axis, values.shape[axis] - 1, 1)], axis)
