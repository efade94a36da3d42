"""What differs from photo to photo and is not of the scene: exposure, white balance, weather.

`Exposure`: an affine map of the colours for each photo (Kerbl et al., "A Hierarchical 3D Gaussian
Representation", arXiv 2406.12080, Sec. 6; also in the reference code of arXiv 2308.04079).
`AppearanceEmbedding`: a code for each photo that a small network turns into a gain and an offset of each
Gaussian's colour (NeRF in the Wild, arXiv 2008.02268, for the codes; WildGaussians, arXiv 2407.08447, Sec.
3.2, for the affine change of Gaussians). Both change nothing at the start, and views that no photo was taken
of are drawn without them.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from sparse3d.nn.sums import repeatable_mean


@dataclass(frozen=True)
class ExposureConfig:
    """One affine map a photo."""

    kind: Literal["exposure"] = "exposure"
    lr: float = 0.01  # at the start; 0.001 at the end, in the reference's code
    anchored: float = 0.01  # weight of the loss that keeps the mean map at no change

    def __post_init__(self):
        if not self.lr > 0 or self.anchored < 0:
            raise ValueError(f"expected an lr above 0 and a weight not below 0, got {self}")


@dataclass(frozen=True)
class AppearanceConfig:
    """One code a photo."""

    kind: Literal["embedding"] = "embedding"
    size: int = 16  # of a code
    width: int = 32  # of the hidden layer
    lr: float = 1e-3

    def __post_init__(self):
        if min(self.size, self.width) < 1 or not self.lr > 0:
            raise ValueError(f"expected sizes of 1 or more and an lr above 0, got {self}")


class Exposure(nn.Module):
    """`matrices` (P, 3, 4): colour' = matrix[:, :3] colour + matrix[:, 3] for each of P photos."""

    def __init__(self, photos: int):
        super().__init__()
        self.matrices = nn.Parameter(torch.eye(3, 4).repeat(photos, 1, 1))

    def forward(self, color: Tensor, photo: int) -> Tensor:
        """(..., 3) as the scene is -> as the photo shows it."""
        matrix = self.matrices[photo]
        parts = [color[..., c, None] * matrix[:, c] for c in range(3)]
        return parts[0] + parts[1] + parts[2] + matrix[:, 3]

    def drift(self) -> Tensor:
        """Squared distance of the mean map from no change: a scene that is darker, seen by photos that are
        all brighter, looks the same, and this takes the choice away."""
        mean = self.matrices.mean(0)
        return repeatable_mean((mean - torch.eye(3, 4).to(mean)).square())


class AppearanceEmbedding(nn.Module):
    """Codes of P photos, and the network that reads them."""

    def __init__(self, photos: int, config: AppearanceConfig = AppearanceConfig()):
        super().__init__()
        self.codes = nn.Parameter(torch.zeros(photos, config.size))
        self.hidden = nn.Linear(config.size + 3, config.width)
        self.out = nn.Linear(config.width, 6)
        nn.init.normal_(self.codes, std=0.1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, colors: Tensor, base: Tensor, photo: int) -> Tensor:
        """Colours (N, 3) of Gaussians as a view sees them -> as the photo shows them. `base` (N, 3): their
        colours in all directions, which say what they are made of; they get no gradient here."""
        code = self.codes[photo].expand(len(colors), -1)
        hidden = torch.relu(self.hidden(torch.cat([code, base.detach()], 1)))
        gain, offset = self.out(hidden).split(3, 1)
        return colors * torch.exp(gain) + offset
