"""The density of Gaussians under the law suite."""

import torch

from sparse3d_ops.gaussian_density import gaussian_density
from tests.ops.laws import OpLaw
from tests.oracles import gaussian_density as oracle


def _some(points, gaussians, voxels, channels=3, far=False):
    def make(dtype, device):
        places = torch.rand(points, 3, dtype=dtype) * 2
        voxel = torch.randint(-1, max(voxels, 1), (points,)) if voxels else torch.full((points,), -1)
        counts = torch.randint(0, 5, (voxels,)) * (gaussians > 0)
        starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
        order = torch.randint(0, max(gaussians, 1), (int(starts[-1]),))
        means = torch.rand(gaussians, 3, dtype=dtype) * 2 + 100 * far
        roots = torch.randn(gaussians, 3, 3, dtype=dtype)
        opacities, features = (
            torch.rand(gaussians, dtype=dtype),
            torch.randn(gaussians, channels, dtype=dtype),
        )
        lists = places, voxel, starts, order, means, roots, opacities, features
        return tuple(x.to(device) for x in lists)

    return make


def _broken(dtype, device):
    """NaN and infinity count for nothing."""
    points, voxel, starts, order, means, roots, opacities, features = _some(20, 6, 3)(dtype, device)
    means, opacities = means.clone(), opacities.clone()
    means[0], means[1] = float("nan"), float("inf")
    opacities[2] = float("nan")
    return points, voxel, starts, order, means, roots, opacities, features


CASES = {
    "empty": _some(4, 0, 2),
    "no_points": _some(0, 3, 2),
    "nowhere": _some(5, 3, 0),
    "single": _some(1, 1, 1, channels=1),
    "no_features": _some(6, 4, 3, channels=0),
    "far": _some(6, 4, 3, far=True),
    "broken": _broken,
    "many": _some(60, 20, 7),
}
LAWS = [OpLaw(gaussian_density, oracle.gaussian_density, CASES)]
