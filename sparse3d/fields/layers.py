"""The small networks of radiance fields, and their encodings as layers."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from sparse3d.fields.frequencies import coarse_to_fine, frequency_encode
from sparse3d.nn.linear import RepeatableLinear
from sparse3d_ops.hash_encoding import hash_encode, hash_levels


@dataclass(frozen=True)
class HashEncodingConfig:
    """A multiresolution hash grid. Instant-NGP has 16 levels of up to 2^19 entries, up to 2048 cells."""

    kind: Literal["hash"] = "hash"
    levels: int = 8
    features: int = 2  # a level
    log2_entries: int = 15  # of the rows of a level at most
    coarsest: int = 16  # cells along a side
    finest: int = 256  # cells along a side
    fine_end: float = 0.0  # part of the training after which all levels take part; 0: from the start

    @property
    def width(self) -> int:
        return 3 + self.levels * self.features

    def build(self) -> "HashEncoding":
        return HashEncoding(self)


@dataclass(frozen=True)
class FrequencyEncodingConfig:
    """Sines and cosines of 2^k pi x."""

    kind: Literal["frequency"] = "frequency"
    count: int = 10
    fine_end: float = 0.0  # part of the training after which all frequencies take part; 0: from the start

    @property
    def width(self) -> int:
        return 3 + 6 * self.count

    def build(self) -> "FrequencyEncoding":
        return FrequencyEncoding(self)


EncodingConfig = HashEncodingConfig | FrequencyEncodingConfig


class HashEncoding(nn.Module):
    """Positions (N, 3) in [-1, 1] -> (N, width): the position, and a hash grid's features of it."""

    def __init__(self, config: HashEncodingConfig):
        super().__init__()
        self.config = config
        most = 1 << config.log2_entries
        self.levels = hash_levels(config.coarsest, config.finest, config.levels, most)
        # U(-1e-4, 1e-4) as in the paper: close to nothing, so that the start does not depend on the seed.
        table = torch.rand(sum(self.levels.sizes), config.features) * 2e-4 - 1e-4
        self.table = nn.Parameter(table)
        self.register_buffer("mask", coarse_to_fine(0.0, config.levels, config.fine_end))

    mask: Tensor

    def advance(self, progress: float) -> None:
        """Let levels in."""
        self.mask.copy_(coarse_to_fine(progress, self.config.levels, self.config.fine_end))

    def forward(self, positions: Tensor) -> Tensor:
        features = hash_encode(self.table, positions * 0.5 + 0.5, *self.levels)
        if self.config.fine_end > 0:
            features = features * self.mask.repeat_interleave(self.config.features)
        return torch.cat([positions, features], 1)


class FrequencyEncoding(nn.Module):
    """Positions (N, 3) in [-1, 1] -> (N, width)."""

    def __init__(self, config: FrequencyEncodingConfig):
        super().__init__()
        self.config = config
        self.register_buffer("mask", coarse_to_fine(0.0, config.count, config.fine_end))

    mask: Tensor

    def advance(self, progress: float) -> None:
        """Let frequencies in."""
        self.mask.copy_(coarse_to_fine(progress, self.config.count, self.config.fine_end))

    def forward(self, positions: Tensor) -> Tensor:
        weights = self.mask if self.config.fine_end > 0 else None
        return frequency_encode(positions, self.config.count, weights)


def perceptron(sizes: list[int], *, bias: bool) -> nn.Sequential:
    """Linear layers between these widths with ReLU between them, He-initialised."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        linear = RepeatableLinear(inputs, outputs, bias=bias)
        nn.init.kaiming_uniform_(linear.weight, nonlinearity="relu")
        if bias:
            nn.init.zeros_(linear.bias)
        layers += [linear, nn.ReLU()]
    return nn.Sequential(*layers[:-1])


class SkipPerceptron(nn.Module):
    """`depth` hidden layers of `width`, all ReLU, that see the input once more after half of them; NeRF's."""

    def __init__(self, inputs: int, width: int, depth: int):
        super().__init__()
        first = (depth + 1) // 2
        self.lower = perceptron([inputs, *[width] * first], bias=True)
        self.upper = perceptron([width + inputs, *[width] * (depth - first)], bias=True)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.upper(torch.cat([torch.relu(self.lower(x)), x], 1)))


def bounded_exp(raw: Tensor) -> Tensor:
    """exp, from e^-15 to e^11 and with no gradient beyond: densities that overflow are never found back."""
    return raw.clamp(-15, 11).exp()
