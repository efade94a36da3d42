"""What a rendering is asked to be: like its photo, and no more opaque or larger than it must.

Pictures are (H, W, 3) in [0, 1]; a loss is a mean, repeatable bit for bit. Each comes with a dataclass that
names its source; `weight` is its factor in the sum. Losses for few views: `sparse3d.gaussians.few_views`;
on depth alone: `sparse3d.nn.depth_losses`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.nn import depth_losses
from sparse3d.nn.sums import repeatable_mean, repeatable_sum
from sparse3d_ops.structural_similarity import ssim_map


@dataclass(frozen=True)
class OpacityConfig:
    """Opacities are low where nothing asks for them: what is not needed dies, and can be used elsewhere
    (3DGS-MCMC, arXiv 2404.09591, Eq. 10)."""

    weight: float = 0.01

    def __post_init__(self):
        _check(self.weight)


@dataclass(frozen=True)
class ScaleConfig:
    """Gaussians are small, likewise (3DGS-MCMC, Eq. 10): the mean of their deviations, in lengths of the
    scene."""

    weight: float = 0.01

    def __post_init__(self):
        _check(self.weight)


@dataclass(frozen=True)
class AlphaConfig:
    """Where photos have an opacity, the rendering has the same: absolute difference."""

    weight: float = 0.1

    def __post_init__(self):
        _check(self.weight)


@dataclass(frozen=True)
class DepthConfig:
    """Depth as it was measured: Huber's loss, in lengths of the scene (`depth_losses.metric_depth`)."""

    weight: float = 0.1
    within: float = 0.02  # of the scene: beyond, errors count linearly
    least_alpha: float = 0.5  # where less is seen there is no depth to compare

    def __post_init__(self):
        _check(self.weight)
        _check(self.within)


@dataclass(frozen=True)
class RelativeDepthConfig:
    """Depth as a map of unknown scale and shift has it (`depth_losses.relative_depth`), in squares of the
    picture and, where their weight is not 0, as a whole (SparseGS, arXiv 2312.00206: 0.15 and 0.05, squares
    of 128 pixels)."""

    weight: float = 0.05  # of the whole picture
    local: float = 0.15  # of squares, their mean
    side: int = 128  # pixels of a square
    disparity: bool = True  # the map holds 1 / depth, as monocular ones do
    least_alpha: float = 0.5  # where less is seen there is no depth to compare

    def __post_init__(self):
        if min(self.weight, self.local) < 0 or not self.weight + self.local > 0 or self.side < 2:
            raise ValueError(f"expected weights not below 0, one of them above, and a side of 2, got {self}")


def photometric(rendered: Tensor, photo: Tensor, ssim: float = 0.2, mask: Tensor | None = None) -> Tensor:
    """(1 - ssim) |rendered - photo| + ssim (1 - SSIM), means over the pixels, of the mask (H, W) bool where
    one is given: hidden pixels are taken to be right. ValueError for pictures smaller than SSIM's window of
    11 x 11, but for ssim = 0."""
    if mask is not None:
        rendered = rendered.where(mask[..., None], photo)
        share = repeatable_mean(mask.to(photo.dtype)).clamp(min=1e-9)
    else:
        share = 1.0
    error = repeatable_mean((rendered - photo).abs()) / share
    if ssim == 0:
        return error
    return (1 - ssim) * error + ssim * (1 - repeatable_mean(ssim_map(rendered, photo))) / share


def opacity_mean(opacities: Tensor) -> Tensor:
    """Mean opacity of logits (N,)."""
    return repeatable_mean(torch.sigmoid(opacities)) if len(opacities) else opacities.sum()


def scale_mean(scales: Tensor, unit: Tensor | float = 1.0) -> Tensor:
    """Mean deviation of logarithms (N, K), in lengths of `unit` metres."""
    return repeatable_mean(scales.exp()) / unit if len(scales) else scales.sum()


def alpha_error(alpha: Tensor, photo: Tensor) -> Tensor:
    """Mean absolute difference of opacities (H, W)."""
    return repeatable_mean((alpha - photo).abs())


def depth_error(depth: Tensor, alpha: Tensor, measured: Tensor, unit: float, config: DepthConfig) -> Tensor:
    """`DepthConfig` without its weight: depth (H, W), metres, and opacity of a rendering, measured depth
    (H, W), NaN or 0 where unknown, and the length of the scene, metres."""
    known = (measured > 0) & torch.isfinite(measured) & (alpha.detach() >= config.least_alpha)
    wanted = (measured / unit).where(known, float("nan")).flatten()
    return depth_losses.metric_depth((depth / unit).flatten(), wanted, config.within)


def relative_depth_error(depth: Tensor, alpha: Tensor, prior: Tensor, config: RelativeDepthConfig) -> Tensor:
    """`RelativeDepthConfig` with its weights: depth and opacity (H, W) of a rendering, and a map (H, W), NaN
    where unknown."""
    known = torch.isfinite(prior) & (alpha.detach() >= config.least_alpha) & (depth.detach() > 0)
    wanted = prior.where(known, float("nan"))
    if config.disparity:
        depth = 1 / depth.where(known, 1.0)
    total = depth.sum() * 0
    if config.weight:
        total = total + config.weight * depth_losses.relative_depth(depth.flatten(), wanted.flatten())
    if config.local:
        parts = []
        for rows in range(0, depth.shape[0], config.side):
            for columns in range(0, depth.shape[1], config.side):
                square = slice(rows, rows + config.side), slice(columns, columns + config.side)
                parts.append(depth_losses.relative_depth(depth[square].flatten(), wanted[square].flatten()))
        total = total + config.local * repeatable_sum(torch.stack(parts)) / len(parts)
    return total


def _check(weight: float) -> None:
    if not weight > 0:
        raise ValueError(f"weight must be above 0, got {weight}; leave the loss out instead")
