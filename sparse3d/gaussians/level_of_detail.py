"""Fewer, larger Gaussians in place of many: those of a voxel become one by matching moments.

Gaussian i counts by its mass m_i = o_i A_i, its opacity times the mean area A_i of its shadow over all
directions (a quarter of its surface, Cauchy): what it takes of a picture, so that a large faint one and a
small dense one weigh alike. The one that stands for them has

    mean = sum m_i mean_i / M,   covariance = sum m_i (Sigma_i + (mean_i - mean)(mean_i - mean)^T) / M,
    colour coefficients = sum m_i c_i / M,   opacity = M / A,   M = sum m_i

so mass, mean and covariance stay; where that asks for more than an opaque Gaussian can give, its opacity is
`MOST_OPACITY` and mass is lost (Gaussians one behind the other hide each other). After Kerbl et al., "A
Hierarchical 3D Gaussian Representation for Real-Time Rendering of Very Large Datasets", arXiv 2406.12080,
Sec. 4.2, with the hash's voxels in place of a tree of boxes.
"""

import math

import torch
from torch import Tensor

from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.shapes import covariances, from_covariances
from sparse3d.gaussians.voxel_index import VoxelIndex
from sparse3d_ops.segment import segment_sum

MOST_OPACITY = 0.999
# Thomsen's approximation of an ellipsoid's surface, within 1.1 %.
_POWER = 1.6075


def shadow_area(scales: Tensor) -> Tensor:
    """Mean area of the shadow of an ellipsoid with half axes of one deviation over all directions, square
    metres: logarithms (N, 3) or (N, 2) -> (N,)."""
    a, b = scales[:, 0].exp(), scales[:, 1].exp()
    c = scales[:, 2].exp() if scales.shape[1] == 3 else torch.zeros_like(a)
    sides = ((a * b) ** _POWER + (a * c) ** _POWER + (b * c) ** _POWER) / 3
    return math.pi * sides ** (1 / _POWER)


def mass(cloud: GaussianCloud) -> Tensor:
    """(N,) square metres: opacity times the mean area of the shadow."""
    return torch.sigmoid(cloud.opacities) * shadow_area(cloud.scales)


def match_moments(cloud: GaussianCloud, group: Tensor, groups: int) -> GaussianCloud:
    """One Gaussian for each group: (N,) int64 in [0, groups) -> `groups` Gaussians. A group of one stays as
    it is, up to rounding and the order of its axes. Computed in float64. ValueError for a group without a
    Gaussian of finite values and some mass."""
    wide = cloud.to(torch.float64)
    m = mass(wide)[:, None]
    total = segment_sum(m, group, groups)
    if not bool((torch.isfinite(total) & (total > 0)).all()):
        raise ValueError("a group has no mass, or one that is not finite; repair the cloud first")

    def mean_of(values: Tensor) -> Tensor:
        flat = values.flatten(1)
        return (segment_sum(m * flat, group, groups) / total).view(groups, *values.shape[1:])

    means = mean_of(wide.means)
    off = wide.means - means[group]
    matrices = mean_of(covariances(wide.scales, wide.quats) + off[:, :, None] * off[:, None, :])
    scales, quats = from_covariances(matrices, wide.scales.shape[1])
    opacity = (total[:, 0] / shadow_area(scales)).clamp(max=MOST_OPACITY)
    merged = GaussianCloud(means, scales, quats, torch.logit(opacity), mean_of(wide.sh0), mean_of(wide.shN))
    return merged.to(cloud.means.dtype)


def coarser(cloud: GaussianCloud, voxel_size: float) -> GaussianCloud:
    """One Gaussian a voxel, in the order of the voxels. Gaussians without a voxel (not finite, or very far
    away) or without mass are left out."""
    heavy = mass(cloud.to(torch.float64))
    cloud = cloud[torch.isfinite(heavy) & (heavy > 0)]
    index = VoxelIndex(cloud.means, voxel_size)
    kept = index.voxel >= 0
    return match_moments(cloud[kept], index.voxel[kept], len(index))


def levels(cloud: GaussianCloud, voxel_size: float, count: int, growth: float = 2.0) -> list[GaussianCloud]:
    """`count` clouds, each from the one before: one Gaussian a voxel of `voxel_size` metres, then of `growth`
    times that, and so on. Mass and mean of the whole stay on all levels, but for what is opaque."""
    if not growth > 1:
        raise ValueError(f"growth must be above 1, got {growth}")
    found: list[GaussianCloud] = []
    for number in range(count):
        found.append(coarser(found[-1] if found else cloud, voxel_size * growth**number))
    return found
