"""What is known, or likely, of the depth of rays: the hyper-parameters of the losses in
`sparse3d.nn.depth_losses`, and where the light of a ray ends."""

from dataclasses import dataclass
from math import pi, sqrt
from typing import Literal

import torch
from torch import Tensor

from sparse3d.nn.sums import repeatable_sum
from sparse3d_ops.raymarch import Samples


@dataclass(frozen=True)
class DepthRankingConfig:
    """The order of depths in a map of unknown scale, and no jumps where that has none (SparseNeRF, arXiv
    2303.16196, Eq. 5, 6; 0.5 and 0.01 for LLFF's scenes, 0.2 and 1 for DTU's)."""

    weight: float = 0.2
    continuity: float = 1.0  # of the weight: pixels next to each other of like depth
    margin: float = 1e-4  # sides of the cube
    map: Literal["depth", "disparity"] = "depth"  # what it holds; disparity falls with the distance
    groups: int = 256  # a batch, of four rays each
    reach: int = 12  # pixels between the two of a pair, at most: far apart, monocular maps are wrong
    least: float = 0.02  # of the nearer one: a smaller step of the map tells no order

    def __post_init__(self):
        _check_positive(self, "weight", "groups", "reach")


@dataclass(frozen=True)
class MetricDepthConfig:
    """Depth as a sensor measured it: Huber's loss of the mean distance along the ray."""

    weight: float = 0.1
    within: float = 0.02  # sides of the cube: beyond, errors count linearly (edges, and wrong measurements)

    def __post_init__(self):
        _check_positive(self, "weight", "within")


@dataclass(frozen=True)
class ScenePointsConfig:
    """Points of structure from motion: the light of the rays through their pixels stops there (DS-NeRF, arXiv
    2107.02791, Eq. 7)."""

    weight: float = 0.01
    rays: int = 512  # a batch
    spread: float = 0.01  # sides of the cube: of a point of mean reprojection error; DS-NeRF takes 1 in NDC

    def __post_init__(self):
        _check_positive(self, "weight", "rays", "spread")


@dataclass(frozen=True)
class UnseenViewsConfig:
    """Depth is smooth in views that nobody took (RegNeRF, arXiv 2112.00724, Eq. 4), on patches."""

    weight: float = 0.1
    patches: int = 16  # a batch
    side: int = 8  # pixels of a patch
    stride: int = 1  # pixels between those of a patch
    jitter: float = 0.1  # of the distance to what is looked at: how far from between two cameras

    def __post_init__(self):
        _check_positive(self, "weight", "patches", "side", "stride")
        if self.side < 2:
            raise ValueError(f"side must be 2 or more, got {self.side}")


def ends_at(weights: Tensor, samples: Samples, distance: Tensor, spread: Tensor) -> Tensor:
    """Cross entropy of where the light of rays ends from a normal distribution around `distance` (R,) of
    deviation `spread` (R,): - sum_i log(w_i / dt_i) N(t_i; distance, spread) dt_i, mean over the rays.

    Of all ways to spread a ray's light it is least for the normal distribution itself. Samples that the
    renderer left out are not asked for light.
    """
    counts = samples.ray_starts.diff()
    of_samples = torch.repeat_interleave(
        torch.stack([distance, spread], 1), counts, 0, output_size=len(weights)
    )
    d, s = of_samples.unbind(1)
    mass = torch.exp(-((samples.t - d) / s).square() / 2) / (s * sqrt(2 * pi)) * samples.dt
    # DS-NeRF's 1e-5: the slope of the logarithm has to end somewhere.
    light = torch.log((weights + 1e-5) / samples.dt.clamp(min=1e-9))
    return -repeatable_sum(light * mass) / max(1, len(distance))


def _check_positive(config: object, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be above 0, got {getattr(config, name)}")
