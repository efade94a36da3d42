"""What is likely of a scene before much of it was seen: losses on what rays passed through, for few views.

Notation of the volume rendering: samples i of a ray at t_i of length dt_i, density sigma_i, weights w_i =
T_i alpha_i, opacity o = sum w_i. All losses are means over rays, have no dimension where lengths are given in
the same unit, and carry their gradients to sigma and w. Each comes with a dataclass of its
hyper-parameters that names where it is from; `weight` is the factor in the sum of losses.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.fields.space import SpaceConfig
from sparse3d.nn.sums import repeatable_mean, repeatable_sum
from sparse3d_ops.composite import distortion
from sparse3d_ops.raymarch import Samples


@dataclass(frozen=True)
class OcclusionConfig:
    """Nothing stands right before the lens (FreeNeRF, arXiv 2303.07418, Sec. 4.4, which takes the first 10 of
    128 samples of LLFF's scenes and 20 of DTU's)."""

    weight: float = 0.01
    share: float = 0.1  # of the way of a ray through the field that counts as near

    def __post_init__(self):
        _check(self.weight)
        if not 0 < self.share < 1:
            raise ValueError(f"share is a part of the ray in (0, 1), got {self.share}")


@dataclass(frozen=True)
class DistortionConfig:
    """A ray meets one thing, not a haze (mip-NeRF 360, arXiv 2111.12077, Eq. 15), in sides of the cube, or in
    the measure that a space with a contraction spreads samples evenly in."""

    weight: float = 0.01  # of the paper, whose rays are of length 1

    def __post_init__(self):
        _check(self.weight)


@dataclass(frozen=True)
class SparsityConfig:
    """Most of space is empty: Cauchy's penalty of the densities (Plenoxels, arXiv 2112.05131, Eq. 5, after
    SNeRG, arXiv 2103.14645)."""

    weight: float = 1e-4
    scale: float = 2.0  # s in log(1 + s sigma^2)

    def __post_init__(self):
        _check(self.weight)
        if not self.scale > 0:
            raise ValueError(f"scale must be above 0, got {self.scale}")


@dataclass(frozen=True)
class OpacityEntropyConfig:
    """A ray is stopped or gets through: the entropy of its opacity, for things before a plain background
    (Neural Volumes, arXiv 1906.07751, Eq. 7, has a beta prior with the same modes)."""

    weight: float = 1e-3

    def __post_init__(self):
        _check(self.weight)


@dataclass(frozen=True)
class SilhouetteConfig:
    """Where photos have an opacity, the field has the same: what a field of random backgrounds learns
    (Instant-NGP, arXiv 2201.05989), without the noise. For photos with alpha alone."""

    weight: float = 0.1

    def __post_init__(self):
        _check(self.weight)


def occlusion(sigma: Tensor, samples: Samples, near: Tensor) -> Tensor:
    """Mean optical depth of what lies up to `near` (R,), metres along the rays: (S,), samples."""
    reach = torch.repeat_interleave(near, samples.ray_starts.diff(), output_size=len(samples.t))
    depth = (sigma * samples.dt).where(samples.t < reach, 0.0)
    return repeatable_sum(depth) / max(1, len(near))


def spread(weights: Tensor, samples: Samples, space: SpaceConfig) -> Tensor:
    """Mean distortion of the weights (S,): 0 where each ray sees one sample of no length."""
    low, high = (space.warp((samples.t + part * samples.dt).clamp(min=0)) for part in (-0.5, 0.5))
    unit = 1.0 if space.unbounded else space.side
    of_rays = distortion(weights, (low + high) / (2 * unit), (high - low) / unit, samples.ray_starts)
    return repeatable_mean(of_rays)


def cauchy(sigma: Tensor, samples: Samples, unit: float, scale: float = 2.0) -> Tensor:
    """sum_i log(1 + scale (sigma_i unit)^2) dt_i / unit, mean over rays: sigma (S,) 1 / metre counts per
    `unit` metres. Grows with the logarithm of large densities: it takes away haze and leaves walls."""
    penalty = torch.log1p(scale * (sigma * unit).square()) * samples.dt / unit
    return repeatable_sum(penalty) / max(1, len(samples.ray_starts) - 1)


def opacity_entropy(opacity: Tensor) -> Tensor:
    """-o log o - (1 - o) log(1 - o) of (R,), mean: 0 for 0 and 1, log 2 at a half."""
    # Beyond these ends the slope, log((1 - o) / o), would outgrow all other losses.
    o = opacity.clamp(1e-4, 1 - 1e-4)
    return -repeatable_mean(o * o.log() + (1 - o) * torch.log1p(-o))


def silhouette(opacity: Tensor, alpha: Tensor) -> Tensor:
    """Mean squared difference of opacities (P,) from those of photos (P,)."""
    return repeatable_mean((opacity - alpha).square())


def _check(weight: float) -> None:
    if not weight > 0:
        raise ValueError(f"weight must be above 0, got {weight}; leave the prior out instead")
