"""What a camera sees of a cloud with its geometry: depth, its median, normals, and how far depth is spread.

For surfels these are of the exact points in which rays meet them; a Gaussian has one depth, that of its mean,
and its normal is its shortest axis.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.render import Shade, SplatConfig, SplatView, colors, kept_gradients, project_cloud
from sparse3d.gaussians.shapes import rotation_matrices
from sparse3d.geometry.cameras import Camera
from sparse3d_ops.contributors import Contributors, strongest_gaussians, strongest_surfels
from sparse3d_ops.splat_tiles import Tiles, list_splats
from sparse3d_ops.surfel_blend import blend_gaussians, blend_surfels
from sparse3d_ops.surfel_projection import project_surfels


class Drawn(NamedTuple):
    """What strategies count (`gaussians.strategies.Statistics`)."""

    means2d: Tensor
    absolute: Tensor | None
    reach: Tensor
    size: tuple[int, int]


class SplatGeometry(NamedTuple):
    """`color` (H, W, 3) and `alpha` (H, W); `depth` (H, W): the mean along the optical axis over what is
    seen, metres, and `median` (H, W): where half of the light is gone, both 0 where nothing is; `normal`
    (H, W, 3): sum of the weights times normals, world, towards the camera; `distortion` (H, W): how far what
    is seen lies apart (`sparse3d_ops.surfel_blend`)."""

    color: Tensor
    alpha: Tensor
    depth: Tensor
    median: Tensor
    normal: Tensor
    distortion: Tensor
    splats: Drawn


def render_geometry(
    cloud: GaussianCloud,
    view: SplatView,
    background: Tensor,
    config: SplatConfig | None = None,
    degree: int | None = None,
    shade: Shade | None = None,
    absolute: bool = False,
) -> SplatGeometry:
    """A cloud of Gaussians or surfels in front of a background (3,), with colours from harmonics up to
    `degree` (all where None), changed by `shade`; `absolute` as in `render.render`. Surfels have a low-pass
    of their own: `config.mode` and `blur` are for Gaussians."""
    config = config or SplatConfig()
    shades = colors(cloud, view, degree)
    shades = shades if shade is None else shade(shades)
    means2d, form, depths, opacities, normals, reach, tiles = _project(cloud, view, config)
    zeros = kept_gradients(means2d, absolute)
    features = torch.cat((shades, normals), 1)
    rest = (depths, opacities, features, tiles, view.size, zeros)
    if cloud.surfels:
        seen = blend_surfels(means2d, form, *rest, near=config.near, orthographic=view.orthographic)
    else:
        seen = blend_gaussians(means2d, form, *rest)
    alpha = 1 - seen.transmittance
    color = seen.image[..., :3] + seen.transmittance[..., None] * background
    return SplatGeometry(
        color,
        alpha,
        seen.depth / alpha.clamp(min=1e-6),
        seen.median,
        seen.image[..., 3:],
        seen.distortion,
        Drawn(means2d, zeros, reach, view.size),
    )


class _Projection(NamedTuple):
    """A cloud before a view: `form` are slopes of surfels, conics of Gaussians; normals in the world."""

    means2d: Tensor
    form: Tensor
    depths: Tensor
    opacities: Tensor
    normals: Tensor
    reach: Tensor
    tiles: Tiles


def _project(cloud: GaussianCloud, view: SplatView, config: SplatConfig) -> _Projection:
    if cloud.surfels:
        if view.has_lens:
            raise ValueError("surfels are not drawn through a lens; undistort the photos first")
        opacities = torch.sigmoid(cloud.opacities)
        inputs = cloud.means, cloud.quats, torch.exp(cloud.scales), opacities.detach()
        camera = view.world_to_camera, view.intrinsics, view.size
        options = {"near": config.near, "orthographic": view.orthographic}
        means2d, form, depths, normals, reach = project_surfels(*inputs, *camera, **options)
    else:
        ball, opacities = project_cloud(cloud, view, config)
        means2d, form, depths, reach, _ = ball
        normals = shortest_axes(cloud, view)
    tiles = list_splats(means2d.detach(), reach, depths.detach(), view.size)
    return _Projection(means2d, form, depths, opacities, normals, reach, tiles)


@torch.no_grad()
def contributors(
    cloud: GaussianCloud, view: SplatView, count: int, config: SplatConfig | None = None
) -> Contributors:
    """The `count` Gaussians or surfels of which each pixel's light comes the most: ids (H, W, count), -1
    where there are no more, and what part of the light each gives, (H, W, count)."""
    config = config or SplatConfig()
    found = _project(cloud, view, config)
    shape = found.means2d, found.form, found.depths, found.opacities, found.tiles, view.size, count
    if not cloud.surfels:
        return strongest_gaussians(*shape)
    return strongest_surfels(*shape, near=config.near, orthographic=view.orthographic)


def shortest_axes(cloud: GaussianCloud, view: SplatView) -> Tensor:
    """(N, 3): the axis along which each Gaussian is the thinnest, world, towards a camera."""
    axes = rotation_matrices(cloud.quats)
    if cloud.surfels:
        normals = axes[:, :, 2]
    else:
        thinnest = cloud.scales.detach().argmin(1)
        normals = axes[torch.arange(len(axes), device=axes.device), :, thinnest]
    away = (view.rays_to(cloud.means.detach()) * normals.detach()).sum(1, keepdim=True) > 0
    return torch.where(away, -normals, normals)


def depth_normals(depth: Tensor, view: SplatView) -> Tensor:
    """(H, W) metres along the optical axis -> (H, W, 3): unit normals, world, towards the camera, of the
    surface through the points that the pixels' middles show, from differences across two pixels; 0 on the
    edge. Differentiable. A picture of 3 x 3 pixels at least has an inside; else all is 0. No lens."""
    height, width = depth.shape
    fx, fy, cx, cy = view.intrinsics
    y, x = torch.meshgrid(
        torch.arange(height, device=depth.device) + 0.5,
        torch.arange(width, device=depth.device) + 0.5,
        indexing="ij",
    )
    over = torch.ones_like(depth) if view.orthographic else depth
    points = torch.stack(((x - cx) / fx * over, (y - cy) / fy * over, depth), -1)
    if min(height, width) < 3:
        return torch.zeros_like(points)
    turned = surface_normals(points, view.world_to_camera[:3, :3])
    return torch.nn.functional.pad(turned, (0, 0, 1, 1, 1, 1))


def surface_normals(points: Tensor, rotation: Tensor) -> Tensor:
    """(H, W, 3) points that pixels show, in the camera's frame, and its rotation (3, 3) from the world's ->
    (H - 2, W - 2, 3): unit normals, world, towards the camera; NaN beside points that are."""
    across = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    normal = torch.linalg.cross(down, across)  # x right, y down: towards the camera
    normal = torch.nn.functional.normalize(normal, dim=-1)
    # Sums in a fixed order: a product may take another one.
    return sum((normal[..., k, None] * rotation[k] for k in range(1, 3)), normal[..., :1] * rotation[0])


def normals_of_depth(depth: np.ndarray, camera: Camera) -> np.ndarray:
    """(H, W) metres along the optical axis -> (H, W, 3): unit normals in the world of the surface through the
    points that the pixels' middles show, towards the camera; NaN on the edge and beside pixels of unknown
    depth."""
    height, width = depth.shape
    y, x = np.mgrid[:height, :width]
    rays = camera.unproject(np.stack([x, y], -1).reshape(-1, 2) + 0.5)
    points = (rays / rays[:, 2:] * depth.reshape(-1, 1)).reshape(height, width, 3)
    out = np.full((height, width, 3), np.nan)
    if min(height, width) < 3:
        return out
    rotation = torch.from_numpy(camera.camera_to_world[:3, :3].T.copy())
    out[1:-1, 1:-1] = surface_normals(torch.from_numpy(points), rotation).numpy()
    return out
