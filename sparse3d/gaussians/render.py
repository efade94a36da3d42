"""What a camera sees of a cloud of Gaussians."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparse3d.gaussians import backends
from sparse3d.gaussians.cloud import SH0, GaussianCloud
from sparse3d.gaussians.lens_projection import project_through_lens
from sparse3d.geometry.cameras import Camera, Lens
from sparse3d_ops.spherical_harmonics import sh_colors
from sparse3d_ops.splat_blend import Blended
from sparse3d_ops.splat_projection import Projected, project_gaussians
from sparse3d_ops.splat_tiles import Tiles

Shade = Callable[[Tensor], Tensor]  # what makes other colours of those of N Gaussians, (N, 3)


@dataclass(frozen=True)
class SplatView:
    """A camera as the ops take it: world_to_camera (4, 4), intrinsics (4,) as fx fy cx cy, and the image's
    size (width, height). Through a `lens` that is no pinhole's a Gaussian is drawn to first order
    (`lens_projection`). An `orthographic` camera, whose rays are parallel, has fx and fy in pixels a metre
    and no lens."""

    world_to_camera: Tensor
    intrinsics: Tensor
    size: tuple[int, int]
    lens: Lens = Lens()
    orthographic: bool = False

    def __post_init__(self):
        if self.orthographic and self.has_lens:
            raise ValueError("an orthographic camera has no lens that bends rays")

    @staticmethod
    def of(camera: Camera, like: Tensor) -> "SplatView":
        """With the dtype and on the device of `like`."""
        pose = np.linalg.inv(camera.camera_to_world)
        numbers = [camera.fx, camera.fy, camera.cx, camera.cy]
        return SplatView(
            torch.as_tensor(pose).to(like),
            torch.tensor(numbers, dtype=torch.float64).to(like),
            (camera.width, camera.height),
            camera.lens,
        )

    @property
    def has_lens(self) -> bool:
        """Whether it bends rays."""
        return self.lens.fisheye or any(self.lens.coefficients)

    @property
    def centre(self) -> Tensor:
        """(3,): where the camera stands, world."""
        rotation = self.world_to_camera[:3, :3]
        return -rotation.T @ self.world_to_camera[:3, 3]

    def rays_to(self, points: Tensor) -> Tensor:
        """(N, 3) of any length: along the rays that meet points (N, 3), world."""
        if self.orthographic:
            return self.world_to_camera[2, :3].expand_as(points)
        return points - self.centre


@dataclass(frozen=True)
class SplatConfig:
    """How Gaussians are drawn. `antialiased` scales opacities by what the blur of half a pixel takes from
    small splats (Yu et al., "Mip-Splatting", arXiv 2311.16493); `classic` makes them larger instead."""

    mode: Literal["classic", "antialiased"] = "antialiased"
    near: float = 0.01  # metres
    blur: float = 0.3  # px^2, added to the variance of each splat in the image
    backend: backends.Backend = (
        "auto"  # whose kernels blend: gsplat's on a GPU where it is installed, or ours
    )


class Splats(NamedTuple):
    """A cloud as it stands before a view: where it lands (`projected`), the opacities that are blended (N,),
    the `tiles`' lists, the image's `size`, and where it was asked for `absolute` (N, 2), zeros whose gradient
    is that of `means2d` in absolute values (`blend_splats`)."""

    projected: Projected
    opacities: Tensor
    tiles: Tiles | backends.GsplatTiles
    absolute: Tensor | None
    size: tuple[int, int]

    @property
    def means2d(self) -> Tensor:
        """(N, 2) pixels."""
        return self.projected.means2d

    @property
    def reach(self) -> Tensor:
        """(N, 2) pixels, 0 where a Gaussian is not seen."""
        return self.projected.reach

    def blend(self, features: Tensor) -> Blended:
        """(N, C) -> the image (H, W, C) of any features, and the transmittance (H, W)."""
        return backends.blend(self.projected, self.opacities, features, self.tiles, self.size, self.absolute)


class SplatRendering(NamedTuple):
    """`color` (H, W, 3), `alpha` (H, W) and `depth` (H, W): the mean along the optical axis over what is
    seen, metres, 0 where nothing is. `splats` is what was drawn."""

    color: Tensor
    alpha: Tensor
    depth: Tensor
    splats: Splats


def splat(
    cloud: GaussianCloud, view: SplatView, config: SplatConfig | None = None, absolute: bool = False
) -> Splats:
    """Project a cloud of 3-D Gaussians. Where gradients are wanted, `projected.means2d` keeps its own in
    `.grad`, and so does `absolute` if it is asked for."""
    config = config or SplatConfig()
    projected, opacities = project_cloud(cloud, view, config)
    zeros = kept_gradients(projected.means2d, absolute)
    tiles = backends.tiles_of(projected, view.size, config.backend)
    return Splats(projected, opacities, tiles, zeros, view.size)


def project_cloud(cloud: GaussianCloud, view: SplatView, config: SplatConfig) -> tuple[Projected, Tensor]:
    """3-D Gaussians before a view, and the opacities (N,) that are to be blended."""
    opacities = torch.sigmoid(cloud.opacities)
    inputs = cloud.means, cloud.quats, torch.exp(cloud.scales), opacities.detach()
    camera = view.world_to_camera, view.intrinsics, view.size
    limits = {"near": config.near, "blur": config.blur}
    if view.has_lens:
        projected = project_through_lens(*inputs, *camera, view.lens, **limits)
    else:
        projected = project_gaussians(*inputs, *camera, orthographic=view.orthographic, **limits)
    return projected, opacities * projected.compensation if config.mode == "antialiased" else opacities


def kept_gradients(means2d: Tensor, absolute: bool) -> Tensor | None:
    """Let `means2d` (N, 2) keep its gradient where it has one; the zeros (N, 2) that get the absolute one, if
    that is asked for too."""
    if not means2d.requires_grad:
        return None
    means2d.retain_grad()
    return torch.zeros_like(means2d, requires_grad=True) if absolute else None


def colors(cloud: GaussianCloud, view: SplatView, degree: int | None = None) -> Tensor:
    """(N, 3): what a camera sees of each Gaussian, at least 0, from harmonics up to `degree`."""
    degree = cloud.sh_degree if degree is None else min(degree, cloud.sh_degree)
    if not degree:  # the same from everywhere
        return torch.relu(SH0 * cloud.sh0[:, 0] + 0.5)
    entries = (degree + 1) ** 2
    # Directions have no gradient, as in the paper's code: it would pull means towards better colours.
    directions = torch.nn.functional.normalize(view.rays_to(cloud.means.detach()), dim=1)
    coefficients = torch.cat((cloud.sh0, cloud.shN[:, : entries - 1]), 1)
    return torch.relu(sh_colors(coefficients, directions) + 0.5)


def render(
    cloud: GaussianCloud,
    view: SplatView,
    background: Tensor,
    config: SplatConfig | None = None,
    degree: int | None = None,
    shade: Shade | None = None,
    absolute: bool = False,
) -> SplatRendering:
    """A cloud in front of a background (3,), with colours from harmonics up to `degree` (all where None),
    changed by `shade`. `absolute`: count absolute gradients too (`splat`)."""
    splats = splat(cloud, view, config, absolute)
    shades = colors(cloud, view, degree)
    shades = shades if shade is None else shade(shades)
    features = torch.cat((shades, splats.projected.depths[:, None]), 1)
    image, transmittance = splats.blend(features)
    alpha = 1 - transmittance
    color = image[..., :3] + transmittance[..., None] * background
    depth = image[..., 3] / alpha.clamp(min=1e-6)
    return SplatRendering(color, alpha, depth, splats)
