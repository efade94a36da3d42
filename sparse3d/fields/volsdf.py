"""VolSDF: a signed distance with a density that makes it visible, and so a surface.

Title: Volume rendering of neural implicit surfaces (arXiv 2106.12052). Where we differ: sizes for a CPU, the
paper's in comments; the distance may live on a hash grid in the place of frequencies, which learns many times
faster on a CPU; distances count in half sides of the cube, and the eikonal loss takes all samples of the rays
beside as many random points as rays; no scene outside of the cube, what is behind it is the background. The
scale beta of the density may follow a schedule in the place of its gradient: photos whose pixels are means of
an area teach it the pixel's width, and a density that wide makes outlines too large by several beta, for
which the surface then shrinks. It need not where the density counts the distance along each ray, distance
over slope (Zhang et al., Towards unbiased volume rendering of neural implicit surfaces with geometry priors,
CVPR 2023): what grazes a surface without meeting it sees nothing of it, whatever beta. Colours may have an
encoding of their own, so that the distance's can be coarser than what is painted on it. And the search for
samples may read distances from a grid; then samples that it shows to be invisible are left out.
"""

from dataclasses import dataclass
from math import pi, sqrt
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from sparse3d.fields.distance_grid import DistanceGrid
from sparse3d.fields.error_bound import (
    ErrorBoundConfig,
    bound_error,
    laplace_density,
    place_samples,
    seen_samples,
)
from sparse3d.fields.frequencies import frequency_encode
from sparse3d.fields.layers import EncodingConfig, FrequencyEncodingConfig, perceptron
from sparse3d.fields.protocol import Rendered, Traced
from sparse3d.fields.sampled_field import rendered
from sparse3d.fields.samplers import of_samples, points_on
from sparse3d.fields.space import SpaceConfig
from sparse3d.nn.activations import Softplus, sigmoid
from sparse3d.nn.linear import RepeatableLinear
from sparse3d.nn.sums import repeatable_sum
from sparse3d_ops.composite import composite
from sparse3d_ops.raymarch import Samples

# Of the distance along a ray: a ray that comes no nearer than its reach sees nothing, and needs some slope.
_LEAST_SLOPE = 0.05


@dataclass(frozen=True)
class VolSDFConfig:
    """Networks, density and sampling. Learning rate of the paper: Adam, 5e-4, falling to a tenth; loss of
    colours: the absolute error."""

    kind: Literal["volsdf"] = "volsdf"
    space: SpaceConfig = SpaceConfig()
    encoding: EncodingConfig = FrequencyEncodingConfig(count=6)
    sampler: ErrorBoundConfig = ErrorBoundConfig()
    width: int = 64  # of hidden layers; 256
    depth: int = 3  # hidden layers of the distance; 8
    features: int = 15  # that the colours get from the distance's network; 256
    color_layers: int = 2  # hidden layers of the colours; 4
    color_encoding: EncodingConfig | None = None  # of the colours alone, beside the features
    direction_frequencies: int | None = 4  # null: surfaces look the same from everywhere
    radius: float = 0.5  # half sides, of the sphere that it starts as
    # how the density counts the distance from the surface: straight to it, as in the paper, or along the ray:
    # a surface is then as thick for a ray that grazes it as for one that meets it
    distance_along: Literal["normal", "ray"] = "normal"
    beta: float = 0.1  # half sides, scale of the density at the start
    least_beta: float = 1e-4  # half sides
    # half sides: the scale falls to this exponentially until `beta_end`, a part of the training; null: it is
    # learnt
    final_beta: float | None = None
    beta_end: float = 0.6
    eikonal: float = 0.1  # weight of the mean of (|gradient| - 1)^2
    # weight of the mean squared difference of the normals of a point that a ray sees and of one up to `reach`
    # beside it, along each axis (UNISURF, arXiv 2104.10078, Eq. 11: 0.005, of a reach of 0.01)
    smooth: float = 0.0
    reach: float = 0.03  # half sides

    def __post_init__(self):
        if self.space.unbounded:
            raise ValueError("VolSDF's sampler needs bounds: space.contraction must be 'none'")
        if self.final_beta is not None and not self.least_beta < self.final_beta <= self.beta:
            raise ValueError(f"final_beta must lie between least_beta and beta, got {self}")
        if not 0 < self.beta_end <= 1:
            raise ValueError(f"beta_end is a part of the training and lies in (0, 1], got {self.beta_end}")
        if self.smooth < 0 or not self.reach > 0:
            raise ValueError(f"smooth must not be below 0 and reach above it, got {self}")
        if min(self.width, self.depth, self.features, self.color_layers) < 1:
            raise ValueError(f"width, depth, features and color_layers must be at least 1, got {self}")


class Geometry(NamedTuple):
    """Signed distance (N,) in half sides, features (N, F), and the distance's gradient (N, 3)."""

    distance: Tensor
    features: Tensor
    gradient: Tensor


class VolSDF(nn.Module):
    """See the module."""

    def __init__(self, config: VolSDFConfig = VolSDFConfig()):
        super().__init__()
        self.config, self.space = config, config.space
        self.encoding = config.encoding.build()
        self.distance_net = _distance_net(config)
        directions = 0 if config.direction_frequencies is None else 3 + 6 * config.direction_frequencies
        own = config.color_encoding
        self.color_encoding = None if own is None else own.build()
        inputs = 6 + directions + config.features + (0 if own is None else own.width)
        self.color_net = perceptron([inputs, *[config.width] * config.color_layers, 3], bias=True)
        self.raw_beta = nn.Parameter(torch.tensor(config.beta), requires_grad=config.final_beta is None)
        self.grid = DistanceGrid(config.sampler.grid) if config.sampler.grid else None
        if self.grid is not None:
            self.grid.fill(lambda unit: self._raw(unit)[:, 0])

    @property
    def beta(self) -> Tensor:
        """Scale of the density, half sides."""
        return self.raw_beta.abs() + self.config.least_beta

    @property
    def unit(self) -> float:
        """Metres in a half side."""
        return self.space.side / 2

    def distance(self, points: Tensor) -> Tensor:
        """(N, 3) world -> (N,) signed distance in metres, negative inside."""
        return self._raw(self.space.to_unit(points)[0])[:, 0] * self.unit

    def density(self, points: Tensor) -> Tensor:
        """(N, 3) world -> (N,) in 1 / metre, 0 outside of the field."""
        unit, inside = self.space.to_unit(points)
        return (laplace_density(self._raw(unit)[:, 0], self.beta) / self.unit).where(inside, 0.0)

    def color(self, points: Tensor, directions: Tensor) -> Tensor:
        """(N, 3) world, (N, 3) unit viewing directions -> (N, 3) in [0, 1]."""
        unit = self.space.to_unit(points)[0]
        return self._shade(unit, directions, self._geometry(unit))

    def render(
        self,
        origins: Tensor,
        directions: Tensor,
        background: Tensor | None = None,
        *,
        offsets: Tensor | None = None,
        normals: bool = False,
    ) -> Rendered:
        """(R, 3), (R, 3) unit -> what rays see over `background`, (3,) or (R, 3), black where it is None.

        `offsets` (R,) in [0, 1) jitter the samples of each ray, the middle where None. With `normals`, also
        the mean of the distance's gradients.
        """
        offsets = torch.full_like(origins[:, 0], 0.5) if offsets is None else offsets
        return self._render(origins, directions, background, offsets, normals)[0].seen

    def trace(self, origins: Tensor, directions: Tensor, background: Tensor, offsets: Tensor) -> Traced:
        """See `RadianceField.trace`. Terms: `eikonal`, on the samples and on random points, and `smooth`."""
        traced, gradient = self._render(origins, directions, background, offsets, False)
        anywhere = torch.rand_like(origins) * 2 - 1
        terms = {"eikonal": (self._eikonal(gradient) + self._eikonal(self._geometry(anywhere).gradient)) / 2}
        if self.config.smooth > 0:
            terms["smooth"] = self.config.smooth * self._bends(origins, directions, traced.seen)
        return traced._replace(terms=terms)

    def advance(self, progress: float, step: int) -> None:
        """See `RadianceField.advance`. The scale of the density, the encoding's mask and the grid follow."""
        self.encoding.advance(progress)
        if self.color_encoding is not None:
            self.color_encoding.advance(progress)
        config = self.config
        if config.final_beta is not None:
            fallen = (config.final_beta / config.beta) ** min(1.0, progress / config.beta_end)
            self.raw_beta.data.fill_(config.beta * fallen - config.least_beta)
        if self.grid is not None and step % config.sampler.refresh_every == 0:
            self.grid.fill(lambda unit: self._raw(unit)[:, 0])

    def eikonal(self, points: Tensor) -> Tensor:
        """The loss that makes a distance of what is learnt, at points (N, 3), world."""
        return self._eikonal(self._geometry(self.space.to_unit(points)[0]).gradient)

    def _eikonal(self, gradient: Tensor) -> Tensor:
        return self.config.eikonal * (
            repeatable_sum((gradient.norm(dim=1) - 1).square()) / max(1, len(gradient))
        )

    def _render(
        self, origins: Tensor, directions: Tensor, background: Tensor | None, offsets: Tensor, normals: bool
    ) -> tuple[Traced, Tensor]:
        samples = self._samples(origins, directions, offsets)
        unit, inside = self.space.to_unit(points_on(origins, directions, samples))
        geometry = self._geometry(unit)
        shade = self._shade(unit, of_samples(directions, samples), geometry)
        sigma = (self._sigma(geometry, of_samples(directions, samples)) / self.unit).where(inside, 0.0)
        values = [shade, samples.t[:, None]]
        if normals:
            values.append(nn.functional.normalize(geometry.gradient, dim=1))
        result = composite(sigma, torch.cat(values, 1), samples.dt, samples.ray_starts)
        traced = Traced(rendered(result, background), samples, sigma, result.weights, {})
        return traced, geometry.gradient

    def _sigma(self, geometry: Geometry, directions: Tensor) -> Tensor:
        """Densities (S,) per half side, as rays in these directions (S, 3) meet them."""
        distance = geometry.distance
        if self.config.distance_along == "ray":
            slope = (geometry.gradient * directions).sum(1)
            distance = distance / slope.abs().clamp(min=_LEAST_SLOPE)
        return laplace_density(distance, self.beta)

    def _bends(self, origins: Tensor, directions: Tensor, seen: Rendered) -> Tensor:
        """How much normals differ from those beside them, where rays see the surface."""
        there = seen.opacity.detach() > 0.5
        points = (origins + seen.depth[:, None] * directions).detach()[there]
        unit = self.space.to_unit(points)[0]
        beside = unit + (torch.rand_like(unit) * 2 - 1) * self.config.reach
        normals = nn.functional.normalize(self._geometry(torch.cat([unit, beside])).gradient, dim=1)
        one, other = normals.chunk(2)
        return repeatable_sum((one - other).square()) / max(1, len(one))

    @torch.no_grad()
    def _samples(self, origins: Tensor, directions: Tensor, offsets: Tensor) -> Samples:
        """Where the opacity is bounded; of a grid's distances only what they say may be seen."""
        config, beta = self.config.sampler, float(self.beta) * self.unit
        slack = 0.0 if self.grid is None else float(self.grid.slack) * self.unit
        near, far = self.space.span(origins, directions)

        def distance(t: Tensor, rays: Tensor) -> Tensor:
            points = (origins[rays, None] + t[..., None] * directions[rays, None]).flatten(0, 1)
            if self.grid is None:
                return self.distance(points).view(t.shape)
            return self.grid(self.space.to_unit(points)[0]).view(t.shape) * self.unit

        # A surface that is known to `slack` must not be sampled as if it were known to less.
        bounded = bound_error(distance, near, far, max(beta, slack), config)
        # Rounding may put a sample a little beyond the ray's end.
        t = place_samples(bounded, config, offsets).clamp(max=far[:, None])
        dt = torch.cat([t, far[:, None]], 1).diff(dim=1)
        if self.grid is None:
            kept = torch.ones_like(t, dtype=torch.bool)
        else:
            d = distance(t, torch.arange(len(t), device=t.device))
            kept = seen_samples(d, dt, slack, beta)
        starts = torch.nn.functional.pad(kept.sum(1).cumsum(0), (1, 0))
        return Samples(starts, t[kept], dt[kept])

    def _raw(self, unit: Tensor) -> Tensor:
        return self.distance_net(self.encoding(unit))

    def _geometry(self, unit: Tensor) -> Geometry:
        keep = torch.is_grad_enabled()
        with torch.enable_grad():
            at = unit if unit.requires_grad else unit.detach().requires_grad_()
            raw = self._raw(at)
            (gradient,) = torch.autograd.grad(raw[:, 0].sum(), at, create_graph=keep)
        if not keep:
            raw = raw.detach()
        return Geometry(raw[:, 0], raw[:, 1:], gradient)

    def _shade(self, unit: Tensor, directions: Tensor, geometry: Geometry) -> Tensor:
        inputs, count = [unit, geometry.gradient], self.config.direction_frequencies
        if count is not None:
            inputs.append(frequency_encode(directions, count))
        if self.color_encoding is not None:
            inputs.append(self.color_encoding(unit))
        return sigmoid(self.color_net(torch.cat([*inputs, geometry.features], 1)))


def _distance_net(config: VolSDFConfig) -> nn.Sequential:
    """Softplus layers that start as the distance from a sphere (Atzmon and Lipman, arXiv 1911.10414): the
    hidden layers keep a norm of the position, the last one sums it up; the encoding joins in from zero."""
    layers: list[nn.Module] = []
    inputs = config.encoding.width
    for number in range(config.depth):
        linear = RepeatableLinear(inputs, config.width)
        nn.init.normal_(linear.weight, 0, sqrt(2 / config.width))
        nn.init.zeros_(linear.bias)
        if number == 0 and config.encoding.kind == "frequency":
            nn.init.zeros_(linear.weight[:, 3:])
        layers += [linear, Softplus(100)]
        inputs = config.width
    last = RepeatableLinear(inputs, 1 + config.features)
    nn.init.normal_(last.weight, 0, sqrt(1 / inputs))
    nn.init.zeros_(last.bias)
    nn.init.normal_(last.weight[:1], sqrt(pi / inputs), 1e-4)
    nn.init.constant_(last.bias[:1], -config.radius)
    return nn.Sequential(*layers, last)
