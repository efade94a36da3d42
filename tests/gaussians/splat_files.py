"""Clouds for the tests of files, and what a file may change of them."""

import torch

from sparse3d.gaussians.cloud import GaussianCloud


def some_cloud(count=300, degree=3, surfels=False, seed=0):
    """Gaussians as training leaves them: millimetres to decimetres, colours about 0 to 1, small harmonics."""
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=draw)

    return GaussianCloud(
        means=normal(count, 3) * 2 + torch.tensor([1.0, -3.0, 0.5]),
        scales=normal(count, 2 if surfels else 3) - 4,
        quats=torch.nn.functional.normalize(normal(count, 4), dim=1),
        opacities=2 * normal(count),
        sh0=normal(count, 1, 3),
        shN=(0.2 * normal(count, (degree + 1) ** 2 - 1, 3)).clamp(-0.9, 0.9),
    )


def assert_same(a, b):
    """Bit for bit."""
    for name, value in a.parameters().items():
        assert torch.equal(value, b.parameters()[name]), name
