"""Surfels by their definition: rays meet planes, pixel by pixel, in plain torch."""

import math

import torch

LEAST_ALPHA, MOST_ALPHA, STOP = 1 / 255, 0.999, 1e-4


def rotation(quat):
    w, x, y, z = quat / quat.norm()
    return torch.stack(
        (
            torch.stack((1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y))),
            torch.stack((2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x))),
            torch.stack((2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y))),
        )
    )


def project(means, quats, scales, opacities, world_to_camera, intrinsics, width, height, near, orthographic):
    """From the matrix that takes (u, v, 1) to z times the pixel: its inverse says what a pixel sees, and the
    outline is that of the paper's supplement. Of parallel rays that is a matrix of two rows."""
    fx, fy, cx, cy = intrinsics
    one, zero = torch.ones_like(fx), torch.zeros_like(fx)
    lens = torch.stack((fx, zero, cx, zero, fy, cy, zero, zero, one)).reshape(3, 3)
    rows = []
    for mean, quat, scale, opacity in zip(means, quats, scales, opacities, strict=True):
        nothing = [means.new_zeros(shape) for shape in ((2,), (3, 2), (), (3,), (2,))]
        rows.append(nothing)
        p = world_to_camera[:3, :3] @ mean + world_to_camera[:3, 3]
        if not (p[2] >= near and opacity > LEAST_ALPHA and (scale > 0).all() and quat.norm() > 0):
            continue
        r = rotation(quat)
        axes = world_to_camera[:3, :3] @ r
        if orthographic:
            rows[-1] = _parallel(p, axes, scale, opacity, intrinsics, width, height, r[:, 2]) or nothing
            continue
        to_image = lens @ torch.stack((axes[:, 0] * scale[0], axes[:, 1] * scale[1], p), 1)
        middle = to_image[:2, 2] / p[2]
        shift = torch.eye(3, dtype=means.dtype)
        shift = torch.cat((shift[:, :2], torch.cat((middle, one[None]))[:, None]), 1)
        normal = torch.linalg.cross(axes[:, 0], axes[:, 1])
        facing = normal @ p
        if facing.abs() <= 1e-4 * normal.norm() * p.norm():
            slopes = means.new_tensor([[1e6, 0], [0, 1e6], [0, 0]])
            from_image = torch.cat((slopes, means.new_tensor([[0], [0], [1]])), 1)
        else:
            from_image = torch.linalg.inv(to_image) @ shift
            slopes = from_image[:, :2] / from_image[2, 2]
        square = 2 * math.log(float(opacity) / LEAST_ALPHA)
        m = torch.linalg.inv(from_image.detach())  # from (u, v, 1) to z (d, 1)
        f = means.new_tensor([square, square, -1])
        below = (f * m[2] * m[2]).sum()
        box = middle.detach().abs() + means.new_tensor([width + 1, height + 1])
        if below < 0:
            centre = (f * m[:2] * m[2]).sum(1) / below
            half = (centre**2 - (f * m[:2] ** 2).sum(1) / below).sqrt()
            box = torch.minimum(box, (centre.abs() + half).clamp(min=math.sqrt(square / 2)))
        size = means.new_tensor([width, height])
        if not ((middle + box > 0) & (middle - box < size)).all():
            continue
        rows[-1] = [middle, slopes, p[2], r[:, 2] * (-1 if facing > 0 else 1), box]
    shapes = ((0, 2), (0, 3, 2), (0,), (0, 3), (0, 2))
    if not rows:
        return tuple(means.new_zeros(shape) for shape in shapes)
    return tuple(torch.stack(parts) for parts in zip(*rows, strict=True))


def _parallel(p, axes, scale, opacity, intrinsics, width, height, normal):
    """A row for an orthographic camera; None for what is beside the image."""
    focal = intrinsics[:2]
    middle = focal * p[:2] + intrinsics[2:]
    along = axes[:, :2] * scale  # metres in the camera's frame of one step in u and in v
    to_image = focal[:, None] * along[:2]
    square = 2 * math.log(float(opacity) / LEAST_ALPHA)
    facing = torch.linalg.cross(axes[:, 0], axes[:, 1])
    if facing[2].abs() <= 1e-4 * facing.norm():
        slopes = p.new_tensor([[1e6, 0], [0, 1e6], [0, 0]])
        half = p.new_zeros(2)
    else:
        from_image = torch.linalg.inv(to_image)
        slopes = torch.cat((from_image, (along[2] @ from_image / p[2])[None]))
        half = math.sqrt(square) * to_image.detach().norm(dim=1)
    box = middle.detach().abs() + p.new_tensor([width + 1, height + 1])
    box = torch.minimum(box, half.clamp(min=math.sqrt(square / 2)))
    if not ((middle + box > 0) & (middle - box < p.new_tensor([width, height]))).all():
        return None
    return [middle, slopes, p[2], normal * (-1 if facing[2] > 0 else 1), box]


def at_pixels(means2d, slopes, depths, opacities, width, height, near, low_pass, orthographic):
    """alpha, depth (N, H, W) of every splat at every pixel, the nearest splat first, and their order."""
    order = torch.argsort(depths, stable=True)
    order = order[depths[order] > 0]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    pixels = torch.stack((x, y), -1).to(means2d) + 0.5
    d = pixels - means2d[order, None, None]
    u, v, w = torch.einsum("nki,nhwi->knhw", slopes[order], d)
    share, deep = (1, 1 + w) if orthographic else (1 + w, 1 / (1 + w))
    exact, dot = (u / share) ** 2 + (v / share) ** 2, low_pass * (d * d).sum(-1)
    z = depths[order, None, None] * deep
    met = (z >= near) & (exact <= dot)
    z = torch.where(met, z, depths[order, None, None])
    alpha = opacities[order, None, None] * torch.exp(-torch.where(met, exact, dot) / 2)
    alpha = alpha.clamp(max=MOST_ALPHA)
    return alpha * (alpha >= LEAST_ALPHA), z, order


def weights_at_pixels(alpha):
    """Weights (N, H, W), light before each splat, and light behind all."""
    light, weights, before = torch.ones_like(alpha[:1].sum(0)), [], []
    for one in alpha:
        before.append(light)
        weights.append(one * light * (light >= STOP))
        light = light - weights[-1]
    none = alpha.new_zeros(alpha.shape)
    return torch.stack(weights) if weights else none, torch.stack(before) if before else none, light


def blend(means2d, slopes, depths, opacities, features, absolute, *lists_and_limits):
    alpha, z, order = at_pixels(means2d, slopes, depths, opacities, *lists_and_limits[4:])
    weights, before, light = weights_at_pixels(alpha)
    image = torch.einsum("nhw,nc->hwc", weights, features[order])
    median, which = torch.zeros_like(light), torch.full(light.shape, -1, dtype=torch.int32)
    for i, n in enumerate(order):
        passes = (before[i] > 0.5) & (before[i] - weights[i] <= 0.5)
        median, which = torch.where(passes, z[i], median), torch.where(passes, n.int(), which)
    spread = torch.zeros_like(light)
    for i in range(len(order)):
        for j in range(i):
            spread = spread + weights[i] * weights[j] * (1 / z[i] - 1 / z[j]) ** 2
    return image, light, (weights * z).sum(0), (weights / z).sum(0), median, spread, which


def strongest(means2d, slopes, depths, opacities, *lists_and_limits):
    """Of each pixel the splats of the largest weights, of equal ones that in front."""
    *camera, count = lists_and_limits[4:]
    width, height = camera[:2]
    alpha, _, order = at_pixels(means2d, slopes, depths, opacities, *camera)
    found = weights_at_pixels(alpha)[0]
    ids = torch.full((height, width, count), -1, dtype=torch.int32)
    weights = means2d.new_zeros(height, width, count)
    for y in range(height):
        for x in range(width):
            ranks = sorted((-float(w), i) for i, w in enumerate(found[:, y, x]) if w > 0)
            for place, (weight, i) in enumerate(ranks[:count]):
                ids[y, x, place], weights[y, x, place] = int(order[i]), -weight
    return ids, weights
