"""What keeps Gaussians honest where few photos see them.

With few views a photo can be explained by Gaussians that stand anywhere along its rays: right before the
lens, or piled up behind each other. Each of these says that it is not so, and names its source; none needs
weights of a network.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.losses import photometric
from sparse3d.gaussians.voxel_index import VoxelIndex
from sparse3d.nn.sums import repeatable_mean, repeatable_sum

_MOST_OPACITY = 0.9999


@dataclass(frozen=True)
class OpacityDropConfig:
    """Each step does without some of the Gaussians, so that no photo hangs on a few of them; the others are
    more opaque for it. DropGaussian (arXiv 2504.00773), whose rate grows from 0 to 0.2 over the training;
    DropoutGS (arXiv 2504.09491) drops likewise."""

    rate: float = 0.2  # of the Gaussians, at the end
    grows: bool = True  # from 0 with the progress of the training

    def __post_init__(self):
        if not 0 < self.rate < 1:
            raise ValueError(f"rate must lie in (0, 1), got {self.rate}")


@dataclass(frozen=True)
class FloatersConfig:
    """A ray ends at one depth: where its mean depth is not its median one, light was lost to what floats
    before the surface. SparseGS (arXiv 2312.00206, Sec. 3.4) prunes by the difference of both; here it is a
    loss, in parts of the median depth, that moves what is seen."""

    weight: float = 0.1
    least_alpha: float = 0.5  # where less is seen there is no surface

    def __post_init__(self):
        if not self.weight > 0:
            raise ValueError(f"weight must be above 0, got {self.weight}")


@dataclass(frozen=True)
class NearLensConfig:
    """Nothing stands right before a lens: the mean opacity of the Gaussians that are nearer to a camera than
    a share of the distance to what it looks at. FreeNeRF (arXiv 2303.07418, Sec. 4.4) says it of samples."""

    weight: float = 0.01
    share: float = 0.2  # of the distance to what is seen

    def __post_init__(self):
        if not (self.weight > 0 and 0 < self.share < 1):
            raise ValueError(f"expected a weight above 0 and a share in (0, 1), got {self}")


@dataclass(frozen=True)
class CoRegularizationConfig:
    """Two clouds learn from the same photos; where they disagree both are likely wrong. CoR-GS (arXiv
    2405.12110): co-pruning drops what has no counterpart, and views that nobody took must look the same."""

    weight: float = 1.0  # of the disagreement in unseen views
    ssim: float = 0.2  # share of structural similarity in it
    apart: float = 0.05  # of the scene: a Gaussian without one of the other cloud so near is dropped
    prune_every: int = 500  # steps; CoR-GS: every fifth time that the cloud is densified
    start_step: int = 500  # before, both clouds are still finding their places

    def __post_init__(self):
        if not (self.weight > 0 and self.apart > 0 and self.prune_every >= 1 and 0 <= self.ssim <= 1):
            raise ValueError(f"expected positive numbers and a share of SSIM in [0, 1], got {self}")


@dataclass(frozen=True)
class SmoothUnseenConfig:
    """Depth is smooth in views that nobody took (RegNeRF, arXiv 2112.00724), more so where the picture is
    even (monodepth, Godard et al., arXiv 1609.03677, Eq. 3): `unseen_roughness`."""

    weight: float = 0.1
    edge: float = 10.0  # how fast a step of the colours excuses one of the depth; 0: never
    jitter: float = 0.1  # of the distance to what is looked at: how far from between two cameras

    def __post_init__(self):
        if not self.weight > 0 or self.edge < 0:
            raise ValueError(f"expected a weight above 0 and an edge not below 0, got {self}")


def with_dropped(
    cloud: GaussianCloud, config: OpacityDropConfig, progress: float, generator: torch.Generator
) -> GaussianCloud:
    """The cloud without some of its Gaussians, at a part `progress` in [0, 1] of the training: opacities of
    the dropped are 0, those of the others divided by 1 - rate. Gradients flow to those that stay."""
    rate = config.rate * progress if config.grows else config.rate
    draws = torch.rand(len(cloud), generator=generator, device=generator.device).to(cloud.means.device)
    opacity = (torch.sigmoid(cloud.opacities) / (1 - rate)).clamp(max=_MOST_OPACITY)
    logits = torch.logit(opacity).masked_fill(draws < rate, -float("inf"))
    return GaussianCloud.of(cloud.parameters() | {"opacities": logits})


def floaters(depth: Tensor, median: Tensor, alpha: Tensor, least_alpha: float = 0.5) -> Tensor:
    """Mean of |depth - median| / median over the pixels (H, W) that see a surface; depths along the optical
    axis, metres. The median, a choice of one Gaussian, gets no gradient."""
    seen = (alpha.detach() >= least_alpha) & (median > 0)
    median = median.detach().where(seen, 1.0)
    off = ((depth - median).abs() / median).where(seen, 0.0)
    return repeatable_sum(off) / seen.sum().clamp(min=1)


def near_lens(cloud: GaussianCloud, centre: Tensor, depth: Tensor, alpha: Tensor, share: float) -> Tensor:
    """Sum of the opacities of Gaussians nearer to a camera at `centre` (3,) than `share` times the median of
    the depths (H, W) that it sees, over the number of all Gaussians; 0 for a camera that sees nothing."""
    seen = depth.detach()[alpha.detach() > 0.5]
    if not len(seen) or not len(cloud):
        return cloud.opacities.sum() * 0
    away = (cloud.means.detach() - centre).norm(dim=1)
    near = away < share * seen.median()
    return repeatable_sum(torch.sigmoid(cloud.opacities).where(near, 0.0)) / len(cloud)


def disagreement(one: Tensor, other: Tensor, ssim: float = 0.2) -> Tensor:
    """How unlike two pictures (H, W, 3) of one view are, with gradients to both."""
    return photometric(one, other, ssim)


def has_counterpart(means: Tensor, other: Tensor, within: float) -> Tensor:
    """(N,) bool: whether one of the means (M, 3) of another cloud lies within `within` metres of each of
    (N, 3). Means that are not finite have none."""
    if not len(other):
        return torch.zeros(len(means), dtype=torch.bool, device=means.device)
    _, distances = VoxelIndex(other, within).nearest(means.detach(), 1, within)
    return distances[:, 0] <= within


def unseen_roughness(depth: Tensor, alpha: Tensor, color: Tensor, edge: float = 10.0) -> Tensor:
    """Mean of |second difference of 1 / depth| exp(-edge |steps of colour|) over three pixels in a row,
    weighted by their opacities, in parts of the mean of 1 / depth: 0 for every plane, however it is turned
    (the inverse of a plane's depth is linear in a pinhole's picture). Depth (H, W) along the optical axis,
    opacity (H, W), picture (H, W, 3); gradients to depth alone: to become transparent is no way out.

    RegNeRF's (Eq. 4) squares the first difference of depth, which only planes that face the camera have not.
    """
    o, c = alpha.detach(), color.detach()
    seen = (o > 0.5) & (depth.detach() > 0)
    disparity = (1 / depth.where(seen, 1.0)).where(seen, 0.0)
    # With its gradient: a scene that moves away as a whole must not pay.
    mean = (repeatable_sum(disparity) / seen.sum().clamp(min=1)).clamp(min=1e-9)
    total = depth.sum() * 0
    for axis in (0, 1):
        length = depth.shape[axis] - 2
        if length < 1:
            continue
        near, middle, far = ([v.narrow(axis, k, length) for v in (disparity, o * seen, c)] for k in range(3))
        bend = (near[0] - 2 * middle[0] + far[0]).abs()
        steps = ((near[2] - middle[2]).abs() + (middle[2] - far[2]).abs()).mean(2)
        weight = near[1] * middle[1] * far[1] * torch.exp(-edge * steps)
        total = total + repeatable_mean(bend * weight) / mean
    return total
