"""A radiance field on a multiresolution hash grid with two small networks.

Title: Instant neural graphics primitives with a multiresolution hash encoding (arXiv 2201.05989). Where we
differ: sizes that a CPU trains in minutes (the paper's in comments); the position itself stands beside the
grid's features; unbounded scenes go through MERF's contraction and proposals; parameters repeat bit for bit.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from sparse3d.fields.layers import HashEncodingConfig, bounded_exp, perceptron
from sparse3d.fields.sampled_field import SampledField
from sparse3d.fields.samplers import OccupancySamplerConfig, SamplerConfig
from sparse3d.fields.space import SpaceConfig
from sparse3d.nn.activations import sigmoid
from sparse3d_ops.spherical_harmonics import sh_basis


@dataclass(frozen=True)
class HashFieldConfig:
    """Grid, networks and sampling. Learning rate of the paper: Adam, 1e-2."""

    kind: Literal["hash"] = "hash"
    space: SpaceConfig = SpaceConfig()
    encoding: HashEncodingConfig = HashEncodingConfig()  # the paper's: 16 levels, 2^19 entries, 16 to 2048
    sampler: SamplerConfig = OccupancySamplerConfig()
    width: int = 32  # of hidden layers; the paper's: 64
    color_layers: int = 2  # hidden layers of the colour network; that of the density has one
    features: int = 15  # that the colour network gets from the density's
    sh_degree: int = 3  # of the encoding of directions, 0 to 4
    initial_density: float = -1.0  # logarithm of the density per half side
    stop: float = 1e-4  # light below which a ray ends

    def __post_init__(self):
        if not 0 <= self.sh_degree <= 4:
            raise ValueError(f"sh_degree must be 0 to 4, got {self.sh_degree}")
        if min(self.width, self.color_layers, self.features) < 1:
            raise ValueError(f"width, color_layers and features must be at least 1, got {self}")


class HashField(SampledField):
    """See the module."""

    def __init__(self, config: HashFieldConfig = HashFieldConfig()):
        super().__init__(config.space, config.sampler, config.stop)
        self.config = config
        self.encoding = config.encoding.build()
        self.density_net = perceptron([config.encoding.width, config.width, 1 + config.features], bias=False)
        inputs = config.features + (config.sh_degree + 1) ** 2
        self.color_net = perceptron([inputs, *[config.width] * config.color_layers, 3], bias=False)

    def raw_density(self, unit: Tensor) -> Tensor:
        return self._density(self._features(unit))

    def evaluate(self, unit: Tensor, directions: Tensor) -> tuple[Tensor, Tensor]:
        features = self._features(unit)
        inputs = torch.cat([features[:, 1:], sh_basis(directions, self.config.sh_degree)], 1)
        return self._density(features), sigmoid(self.color_net(inputs))

    def _features(self, unit: Tensor) -> Tensor:
        return self.density_net(self.encoding(unit))

    def _density(self, features: Tensor) -> Tensor:
        return bounded_exp(features[:, 0] + self.config.initial_density)
