"""What stands behind a field where nobody says it: a colour, or colours of directions, learned with it.

A haze of the background's colour before it looks like nothing at all: photos cannot tell the two apart. So
what is opaque costs a little while things take shape (`weight`), and what does not need to be is not.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from sparse3d.nn.activations import sigmoid
from sparse3d_ops.spherical_harmonics import C0, sh_colors


@dataclass(frozen=True)
class LearnedBackgroundConfig:
    """Spherical harmonics of the direction, below a sigmoid."""

    rate: float = 0.2  # what a step of Adam at its full rate moves below the sigmoid, of one colour

    sh_degree: int = 0  # 0 to 4; 0 is one colour, for plain walls; more is for skies
    weight: float = 0.01  # of the mean opacity of a batch's rays at the start; it falls to nothing at the end

    def __post_init__(self):
        if not 0 <= self.sh_degree <= 4:
            raise ValueError(f"sh_degree must be 0 to 4, got {self.sh_degree}")
        if self.weight < 0 or self.rate <= 0:
            raise ValueError(f"weight must be at least 0 and rate above 0, got {self.weight} and {self.rate}")


class LearnedBackground(nn.Module):
    """Unit directions (R, 3) -> colours (R, 3) in [0, 1]; grey at the start. `coefficients` (K, 3), times
    `unit`, are of the harmonics over the first one; `weight` is that of the opacity at present."""

    weight: Tensor

    def __init__(self, config: LearnedBackgroundConfig = LearnedBackgroundConfig(), unit: float = 1.0):
        super().__init__()
        self.config, self.unit = config, unit
        self.coefficients = nn.Parameter(torch.zeros((config.sh_degree + 1) ** 2, 3))
        self.register_buffer("weight", torch.tensor(config.weight))

    def advance(self, progress: float) -> None:
        """To be called before each step of a training, `progress` in [0, 1) of it."""
        self.weight.fill_(self.config.weight * (1 - progress))

    def forward(self, directions: Tensor) -> Tensor:
        entries = (self.unit / C0 * self.coefficients).expand(len(directions), -1, -1)
        return sigmoid(sh_colors(entries, directions))


Background = tuple[float, float, float] | LearnedBackground


def behind(background: Background, directions: Tensor) -> Tensor:
    """What stands behind rays (R, 3): (3,) or (R, 3)."""
    if isinstance(background, LearnedBackground):
        return background(directions)
    return torch.tensor(background, dtype=directions.dtype, device=directions.device)
