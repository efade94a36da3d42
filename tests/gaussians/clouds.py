"""Clouds for tests."""

import torch

from sparse3d.gaussians.cloud import GaussianCloud

DOUBLE = torch.float64


def some_cloud(count, degree=2, surfels=False, seed=0, dtype=DOUBLE, size=0.1):
    """`count` Gaussians in [-1, 1)^3 of all kinds of shapes, about `size` metres wide."""
    random = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=random, dtype=DOUBLE)

    means = torch.rand(count, 3, generator=random, dtype=DOUBLE) * 2 - 1
    scales = torch.tensor(size, dtype=DOUBLE).log() + 0.4 * normal(count, 2 if surfels else 3)
    quats, opacities = normal(count, 4) * 3, normal(count)
    sh0, shN = normal(count, 1, 3), normal(count, (degree + 1) ** 2 - 1, 3)
    return GaussianCloud(means, scales, quats, opacities, sh0, shN).to(dtype)


def same(cloud, other):
    """Whether all bits of two clouds agree."""
    pairs = zip(cloud.parameters().values(), other.parameters().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)
