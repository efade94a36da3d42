"""The projection of Gaussians by its definition, one Gaussian after the other, in plain torch."""

import math

import torch
from torch import Tensor

from sparse3d_ops.splat_projection import LEAST_ALPHA

BORDER = 0.3


def rotation(quat: Tensor) -> Tensor:
    w, x, y, z = quat / quat.norm()
    return torch.stack(
        [
            torch.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)]),
            torch.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)]),
            torch.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)]),
        ]
    )


def place(p: Tensor, intrinsics: Tensor, orthographic: bool) -> Tensor:
    """Where a point of the camera's frame lands, px."""
    return intrinsics[:2] * (p[:2] if orthographic else p[:2] / p[2]) + intrinsics[2:]


def held(p: Tensor, intrinsics: Tensor, size: Tensor) -> Tensor:
    """The point at the same depth that is not farther beside the image than its border, at which the
    derivative is taken; the border is a constant."""
    focal, centre = intrinsics[:2].detach(), intrinsics[2:].detach()
    border = BORDER * size / 2 / focal
    slope = torch.clamp(p[:2] / p[2], -centre / focal - border, (size - centre) / focal + border)
    return torch.cat((slope * p[2], p[2:]))


def project_one(mean, quat, scale, opacity, world, intrinsics, size, near, blur, orthographic):
    """(u, v, a, b, c, depth, reach x, reach y, compensation), or None where it is not seen."""
    p = world[:3, :3] @ mean + world[:3, 3]
    finite = all(bool(torch.isfinite(x).all()) for x in (p, quat, scale, opacity))
    if not finite or p[2] < near or opacity <= LEAST_ALPHA or quat.norm() == 0:
        return None
    middle = place(p, intrinsics, orthographic)
    at = p if orthographic else held(p, intrinsics, size)
    jacobian = torch.autograd.functional.jacobian(
        lambda q: place(q, intrinsics, orthographic), at, create_graph=torch.is_grad_enabled()
    )
    root = jacobian @ world[:3, :3] @ rotation(quat) @ torch.diag(scale)
    sharp = root @ root.T
    wide = sharp + blur * torch.eye(2, dtype=mean.dtype)
    widest = torch.sqrt(2 * torch.log(opacity / LEAST_ALPHA))
    reach = widest * torch.sqrt(torch.diagonal(wide))
    beside = (middle + reach <= 0).any() or (middle - reach >= size).any()
    if not torch.linalg.det(wide) > 0 or beside:
        return None
    conic = torch.linalg.inv(wide)
    share = torch.sqrt(torch.linalg.det(sharp) / torch.linalg.det(wide))
    return torch.cat(
        (middle, torch.stack((conic[0, 0], conic[0, 1], conic[1, 1], p[2])), reach.detach(), share[None])
    )


def project_with_gradients(
    means, quats, scales, opacities, world, intrinsics, width, height, near, blur, orthographic
) -> tuple[Tensor, ...]:
    size = torch.tensor([width, height], dtype=means.dtype)
    camera = world, intrinsics, size, near, blur, orthographic
    rows = [means.new_zeros(0, 9)]
    for splat in zip(means, quats, scales, opacities, strict=True):
        row = project_one(*splat, *camera)
        rows.append(means.new_zeros(1, 9) if row is None else row[None])
    out = torch.cat(rows)
    return out[:, :2], out[:, 2:5], out[:, 5], out[:, 6:8], out[:, 8]


@torch.no_grad()
def project(*args) -> tuple[Tensor, ...]:
    return project_with_gradients(*args)


def project_backward(
    means,
    quats,
    scales,
    world,
    intrinsics,
    reach,
    of_means2d,
    of_conics,
    of_depths,
    of_compensation,
    width,
    height,
    near,
    blur,
    orthographic,
) -> tuple[Tensor, ...]:
    """By autograd through the definition; what has a reach is seen."""
    inputs = [x.detach().clone().requires_grad_() for x in (means, quats, scales, world, intrinsics)]
    # An opacity that makes it seen, wherever in the image it is: the gradients do not depend on it.
    opacities = torch.where(reach[:, 0] > 0, 1.0, 0.0).to(means.dtype)
    with torch.enable_grad():
        camera = *inputs[3:], width, height, near, blur, orthographic
        found = project_with_gradients(*inputs[:3], opacities, *camera)
        grads = of_means2d, of_conics, of_depths, None, of_compensation
        product = sum((x * g).sum() for x, g in zip(found, grads, strict=True) if g is not None)
        product = product + 0 * sum(x.sum() for x in inputs)
        of_means, of_quats, of_scales, of_world, of_intrinsics = torch.autograd.grad(product, inputs)
    return of_means, of_quats, of_scales, torch.cat((of_world[:3].flatten(), of_intrinsics))


def image(means2d, conics, opacities, x: float, y: float) -> float:
    """What the first splat alone shows at a place, px."""
    dx, dy = x - float(means2d[0, 0]), y - float(means2d[0, 1])
    a, b, c = conics[0].tolist()
    return float(opacities[0]) * math.exp(-(a * dx * dx + 2 * b * dx * dy + c * dy * dy) / 2)
