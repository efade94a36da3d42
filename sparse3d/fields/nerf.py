"""NeRF: a network from place and direction to density and colour.

Title: NeRF: Representing scenes as neural radiance fields for view synthesis (arXiv 2003.08934). Where we
differ: a proposal network or an occupancy grid in the place of the coarse network; softplus in the place of
ReLU densities, which may die at the start (as Mip-NeRF, arXiv 2103.13415); sizes for a CPU, the paper's in
comments; frequencies may come in from coarse to fine (FreeNeRF), for few views.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sparse3d.fields.frequencies import frequency_encode
from sparse3d.fields.layers import FrequencyEncodingConfig, SkipPerceptron, perceptron
from sparse3d.fields.sampled_field import SampledField
from sparse3d.fields.samplers import ProposalSamplerConfig, SamplerConfig
from sparse3d.fields.space import SpaceConfig
from sparse3d.nn.activations import sigmoid, softplus
from sparse3d.nn.linear import RepeatableLinear


@dataclass(frozen=True)
class NeRFConfig:
    """Network and sampling. Learning rate of the paper: Adam, 5e-4 falling to 5e-5."""

    kind: Literal["nerf"] = "nerf"
    space: SpaceConfig = SpaceConfig()
    encoding: FrequencyEncodingConfig = FrequencyEncodingConfig()
    direction_frequencies: int = 4
    sampler: SamplerConfig = ProposalSamplerConfig()
    width: int = 64  # of hidden layers; the paper's: 256
    depth: int = 4  # hidden layers before the density; the paper's: 8
    initial_density: float = 0.0  # of the density per half side, before softplus
    stop: float = 1e-4  # light below which a ray ends

    def __post_init__(self):
        if self.width < 2 or self.depth < 2:
            raise ValueError(f"width and depth must be at least 2, got {self.width} and {self.depth}")


class NeRF(SampledField):
    """See the module."""

    def __init__(self, config: NeRFConfig = NeRFConfig()):
        super().__init__(config.space, config.sampler, config.stop)
        self.config, width = config, config.width
        self.encoding = config.encoding.build()
        self.trunk = SkipPerceptron(config.encoding.width, width, config.depth)
        self.density_and_features = RepeatableLinear(width, 1 + width)
        inputs = width + 3 + 6 * config.direction_frequencies
        self.color_net = perceptron([inputs, width // 2, 3], bias=True)

    def raw_density(self, unit: Tensor) -> Tensor:
        return self._density(self._features(unit))

    def evaluate(self, unit: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        features = self._features(unit)
        seen_along = frequency_encode(directions, self.config.direction_frequencies)
        return self._density(features), sigmoid(self.color_net(torch.cat([features[:, 1:], seen_along], 1)))

    def _features(self, unit: Tensor) -> Tensor:
        return self.density_and_features(self.trunk(self.encoding(unit)))

    def _density(self, features: Tensor) -> Tensor:
        # Ten units of raw density to a half side: an opaque surface is a few per cent of the cube thick.
        return 10 * softplus(features[:, 0] + self.config.initial_density)
