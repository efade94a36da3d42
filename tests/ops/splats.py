"""From Gaussians to an image, as the tests of its parts need it."""

from typing import NamedTuple

import torch
from torch import Tensor

from sparse3d_ops.splat_blend import Blended, blend_splats
from sparse3d_ops.splat_projection import project_gaussians
from sparse3d_ops.splat_tiles import list_splats
from tests.ops.cases_splat_projection import camera, cloud

SIZE = 37, 21  # pixels: no multiple of a tile's


class Scene(NamedTuple):
    means: Tensor
    quats: Tensor
    scales: Tensor
    opacities: Tensor
    features: Tensor
    pose: Tensor
    lens: Tensor


def scene(count=24, channels=3, dtype=torch.float64, size=SIZE, seed=0) -> Scene:
    torch.manual_seed(seed)
    return Scene(*cloud(count, dtype), torch.rand(count, channels, dtype=dtype), *camera(*size, dtype))


def draw(s: Scene, size=SIZE, antialiased=False, absolute=None, **kwargs) -> Blended:
    projected = project_gaussians(*s[:4], s.pose, s.lens, size, **kwargs)
    tiles = list_splats(projected.means2d.detach(), projected.reach, projected.depths.detach(), size)
    opacities = s.opacities * projected.compensation if antialiased else s.opacities
    return blend_splats(projected.means2d, projected.conics, opacities, s.features, tiles, size, absolute)
