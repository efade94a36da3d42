"""What is known, or likely, of depth: its order, its measured value, its smoothness where nothing was seen.

Depths are numbers (N,) in one unit for all arguments of a loss. Losses are means over what they are given,
and 0 for nothing at all (a batch may hold no pixel of known depth).
"""

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


def ranking(nearer: Tensor, farther: Tensor, margin: float) -> Tensor:
    """mean max(nearer - farther + margin, 0) of pairs (Q,): rendered depths of pixels whose order is known.
    It has no gradient where the order is right by the margin."""
    return _mean((nearer - farther + margin).clamp(min=0))


def continuity(depth: Tensor, neighbour: Tensor, margin: float) -> Tensor:
    """mean max(|depth - neighbour| - margin, 0) of pairs (Q,) that are next to each other and of like
    depth."""
    return _mean(((depth - neighbour).abs() - margin).clamp(min=0))


def metric_depth(depth: Tensor, measured: Tensor, within: float) -> Tensor:
    """Huber's loss of rendered depths (N,) against measured ones (N,); pixels of unknown depth (NaN) do not
    count. e^2 / 2 within, then `within` (|e| - within / 2)."""
    known = torch.isfinite(measured)
    error = (depth[known] - measured[known]).abs()
    small = error.clamp(max=within)
    return _mean(small * (error - small / 2))


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


def roughness(depth: Tensor, opacity: Tensor) -> Tensor:
    """Mean over patches (N, h, w) of squared differences of depths next to each other, each weighted by the
    product of the two opacities, which gets no gradient: to become transparent is no way out.

    0 for a plane that faces the camera where depth is that along the optical axis; a slanted one has some.
    """
    o = opacity.detach()
    across = (o[:, :, 1:] * o[:, :, :-1] * (depth[:, :, 1:] - depth[:, :, :-1]).square()).flatten()
    down = (o[:, 1:] * o[:, :-1] * (depth[:, 1:] - depth[:, :-1]).square()).flatten()
    return _mean(across) + _mean(down)


def _mean(values: Tensor) -> Tensor:
    return repeatable_sum(values) / max(1, values.numel())


def _check_positive(config: object, *names: str) -> None:
    for name in names:
        if not getattr(config, name) > 0:
            raise ValueError(f"{name} must be above 0, got {getattr(config, name)}")
