"""Projection of 3-D Gaussians through lenses that are no pinholes, in differentiable torch.

A Gaussian's image is taken to first order at its mean, as for a pinhole: its covariance there is U U^T + blur
I with U = J W R diag(s), and J the derivative of the pixel in the point. Lens models and coefficients are
those of `sparse3d.geometry.lenses`. The result is that of `sparse3d_ops.splat_projection.project_gaussians`,
for the same lists and the same blending.
"""

import math
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from sparse3d.gaussians.shapes import rotation_matrices
from sparse3d.geometry import lenses
from sparse3d.geometry.cameras import Lens
from sparse3d_ops.splat_projection import LEAST_ALPHA, Projected, check_camera, check_cloud

# How far beyond what the image shows, in parts of the half of that, the derivative of a perspective lens is
# taken where it is: `sparse3d_ops.cpu.splat_projection`.
BORDER = 0.3
# Below this tangent of the angle to the axis a fisheye's derivative is the first terms of its series: the
# next is the square of this.
_NEAR_AXIS = 1e-3


def project_through_lens(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
    lens: Lens,
    *,
    near: float = 0.01,
    blur: float = 0.3,
) -> Projected:
    """As `project_gaussians`, behind a lens.

    Not seen is also what lies beyond the lens's one-to-one limit. Depths are along the camera's axis, of a
    fisheye distances from the camera: it sees what is beside and behind its plane. Gradients go to means,
    quats, scales, the camera and the intrinsics, not to the lens's coefficients.
    """
    check_cloud(means, quats, scales, 3, opacities)
    check_camera(world_to_camera, intrinsics, *size, means)
    turn, shift = world_to_camera[:3, :3], world_to_camera[:3, 3]
    points = means @ turn.T + shift
    seen = _seen(points, quats, scales, opacities, lens, near)
    # A point that is harmless stands for what is not seen, which gets no gradient.
    points = torch.where(seen[:, None], points, points.new_tensor([0.0, 0.0, 1.0]))
    quats = torch.where(seen[:, None], quats, quats.new_tensor([1.0, 0.0, 0.0, 0.0]))
    scales = torch.where(seen[:, None], scales, 1)
    focal, centre = intrinsics[:2], intrinsics[2:]
    if lens.fisheye:
        plane, jacobian = fisheye(points, lens)
        depths = points.norm(dim=1)
    else:
        plane, _ = perspective(points, lens)
        _, jacobian = perspective(_held(points, intrinsics, size, lens), lens)
        depths = points[:, 2]
    means2d = plane * focal + centre
    u = (focal[:, None] * jacobian) @ turn @ rotation_matrices(quats) * scales[:, None]
    sharp, a, b, d = _spread(u)
    determinant = sharp + blur * (a + d) + blur * blur
    a, d = a + blur, d + blur
    opacities = torch.where(seen, opacities, 1).detach()
    widest = torch.sqrt(2 * torch.log(opacities / LEAST_ALPHA))
    reach = (widest[:, None] * torch.stack((a, d), 1).sqrt()).detach()
    image = means2d.new_tensor([float(side) for side in size])
    seen = seen & (determinant > 0) & (determinant < math.inf)
    seen = seen & ((means2d + reach > 0) & (means2d - reach < image)).all(1)
    determinant = torch.where(seen, determinant, 1)
    conics = torch.stack((d, -b, a), 1) / determinant[:, None]
    # The root of 0, of flat Gaussians without blur, has no slope.
    flat = sharp <= 0
    compensation = torch.sqrt(torch.where(flat, 1, sharp) / determinant) * ~flat
    return Projected(
        torch.where(seen[:, None], means2d, 0),
        torch.where(seen[:, None], conics, 0),
        torch.where(seen, depths, 0),
        torch.where(seen[:, None], reach, 0),
        torch.where(seen, compensation, 0),
    )


def _seen(points, quats, scales, opacities, lens: Lens, near: float) -> Tensor:
    """(N,): what is in front of the lens, has an opacity and is finite."""
    points = points.detach()
    numbers = torch.cat((points, quats.detach(), scales.detach(), opacities.detach()[:, None]), 1)
    seen = numbers.isfinite().all(1) & (opacities > LEAST_ALPHA) & (quats.detach() != 0).any(1)
    limit = _limit(lens)
    beside = torch.hypot(points[:, 0], points[:, 1])
    if lens.fisheye:
        return seen & (points.norm(dim=1) >= near) & (torch.atan2(beside, points[:, 2]) <= limit)
    return seen & (points[:, 2] >= near) & (beside <= limit * points[:, 2])


def _spread(u: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(N, 2, 3) -> determinant and entries xx, xy, yy of U U^T. The determinant as a sum of squares: that of
    a needle would cancel."""
    x, y = u.unbind(1)
    minors = torch.linalg.cross(x, y)
    return (minors**2).sum(1), (x * x).sum(1), (x * y).sum(1), (y * y).sum(1)


def perspective(points: Tensor, lens: Lens) -> tuple[Tensor, Tensor]:
    """(N, 3) in front of the camera -> (N, 2) on the lens's plane and the derivative (N, 2, 3)."""
    k1, k2, p1, p2, k3, k4, k5, k6 = _coefficients(lens)
    z = points[:, 2]
    x, y = points[:, 0] / z, points[:, 1] / z
    s = x * x + y * y
    over, under = 1 + s * (k1 + s * (k2 + s * k3)), 1 + s * (k4 + s * (k5 + s * k6))
    c = over / under
    slope = (k1 + s * (2 * k2 + s * 3 * k3) - c * (k4 + s * (2 * k5 + s * 3 * k6))) / under
    plane = torch.stack(
        (
            x * c + 2 * p1 * x * y + p2 * (s + 2 * x * x),
            y * c + p1 * (s + 2 * y * y) + 2 * p2 * x * y,
        ),
        1,
    )
    xx = c + 2 * x * x * slope + 2 * p1 * y + 6 * p2 * x
    xy = 2 * x * y * slope + 2 * p1 * x + 2 * p2 * y
    yy = c + 2 * y * y * slope + 6 * p1 * y + 2 * p2 * x
    rows = (xx, xy, -(xx * x + xy * y), xy, yy, -(xy * x + yy * y))
    return plane, (torch.stack(rows, 1) / z[:, None]).reshape(-1, 2, 3)


def fisheye(points: Tensor, lens: Lens) -> tuple[Tensor, Tensor]:
    """(N, 3) other than 0 -> (N, 2) on the lens's plane and the derivative (N, 2, 3). The plane's point is
    (X, Y) m(t) / r with r = |(X, Y)| and t the angle to the axis."""
    k1, k2, k3, k4 = _coefficients(lens)[:4]
    x, y, z = points.unbind(1)
    square = x * x + y * y
    length = square + z * z
    axis = (square < (_NEAR_AXIS * z) ** 2) & (z > 0)
    r = torch.where(axis, 1, square).sqrt()
    t = torch.atan2(r, torch.where(axis, 1, z))
    s = t * t
    value = t * (1 + s * (k1 + s * (k2 + s * (k3 + s * k4))))
    slope = 1 + s * (3 * k1 + s * (5 * k2 + s * (7 * k3 + s * 9 * k4)))
    # m / r, what it changes by with X and Y is these times `pull`, and with Z m' / length.
    tangent = torch.where(axis, square, 0) / torch.where(axis, z, 1) ** 2
    front = torch.where(axis, z, 1)
    ratio = torch.where(axis, (1 + tangent * (k1 - 1 / 3)) / front, value / r)
    slope = torch.where(axis, 1 + 3 * k1 * tangent, slope)
    pull = torch.where(axis, (2 * k1 - 2 / 3) / front**3, (slope * z / length - ratio) / (r * r))
    back = -slope / length
    rows = (ratio + x * x * pull, x * y * pull, x * back, x * y * pull, ratio + y * y * pull, y * back)
    return points[:, :2] * ratio[:, None], torch.stack(rows, 1).reshape(-1, 2, 3)


def _held(points: Tensor, intrinsics: Tensor, size: tuple[int, int], lens: Lens) -> Tensor:
    """Points with their slopes within what the image shows and a border: farther out, splats beside the
    camera would become huge."""
    low, high = _shown(tuple(intrinsics.tolist()), size, lens)
    low, high = points.new_tensor(low), points.new_tensor(high)
    slopes = torch.minimum(torch.maximum(points[:, :2] / points[:, 2:], low), high)
    return torch.cat((slopes * points[:, 2:], points[:, 2:]), 1)


@lru_cache(maxsize=1024)
def _shown(intrinsics: tuple[float, ...], size: tuple[int, int], lens: Lens):
    """Least and largest slope x / z, y / z, two each, of what a perspective lens shows, with the border.
    Pixels along the image's edge say so; what has no ray of these counts as the lens's limit."""
    focal, centre = np.array(intrinsics[:2]), np.array(intrinsics[2:])
    part = np.linspace(0, 1, 65)
    edge = [(part, part * 0), (part, part * 0 + 1), (part * 0, part), (part * 0 + 1, part)]
    pixels = np.concatenate([np.stack(xy, 1) for xy in edge]) * size
    limit = _limit(lens)
    rows = np.ones(len(pixels))
    k = np.tile(_coefficients(lens), (len(pixels), 1))
    rays = lenses.to_direction((pixels - centre) / focal, rows * lenses.PERSPECTIVE, k, rows * limit)
    slopes = rays[:, :2] / rays[:, 2:]
    if np.isnan(slopes).any():
        slopes = np.concatenate((slopes, [[limit, limit], [-limit, -limit]]))
    low, high = np.nanmin(slopes, 0), np.nanmax(slopes, 0)
    border = BORDER * (high - low) / 2
    return tuple(low - border), tuple(high + border)


def _coefficients(lens: Lens) -> tuple[float, ...]:
    """All that there are, zeros for those not given."""
    return (*lens.coefficients, *[0.0] * (lenses.COEFFICIENTS - len(lens.coefficients)))


@lru_cache(maxsize=64)
def _limit(lens: Lens) -> float:
    kind = lenses.FISHEYE if lens.fisheye else lenses.PERSPECTIVE
    return float(lenses.one_to_one_limit(kind, np.array(_coefficients(lens))))
