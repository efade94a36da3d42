"""Blending by its formulas: tile after tile, splat after splat, over the pixels of the tile; plain torch."""

import torch
from torch import Tensor

from sparse3d_ops.splat_projection import LEAST_ALPHA
from tests.oracles.splat_tiles import TILE

MOST_ALPHA, STOP = 0.999, 1e-4


def pixel_centres(height: int, width: int, dtype: torch.dtype) -> Tensor:
    """(H, W, 2) as (x, y)."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return torch.stack((x, y), -1).to(dtype) + 0.5


def is_shown(mean: Tensor, conic: Tensor, opacity: Tensor) -> bool:
    a, b, c = conic.tolist()
    ellipse = a > 0 and a * c - b * b > 0
    return ellipse and float(opacity) > LEAST_ALPHA and bool(torch.isfinite(mean).all())


def blend_with(means2d_of, conics, opacities, features, starts, splats, width, height):
    """`means2d_of(n)` is the mean of a splat, (2,) or one for each pixel, (H, W, 2)."""
    dtype, channels = opacities.dtype, features.shape[1]
    centres = pixel_centres(height, width, dtype)
    across, rows = -(-width // TILE), []
    for top in range(0, height, TILE):
        row = []
        for left in range(0, width, TILE):
            tile = top // TILE * across + left // TILE
            area = slice(top, top + TILE), slice(left, left + TILE)
            image = torch.zeros(*centres[area].shape[:2], channels, dtype=dtype)
            through = torch.ones(centres[area].shape[:2], dtype=dtype)
            for n in splats[starts[tile] : starts[tile + 1]].tolist():
                mean = means2d_of(n)
                if not is_shown(mean.detach(), conics[n].detach(), opacities[n].detach()):
                    continue
                d = centres[area] - (mean if mean.dim() == 1 else mean[area])
                a, b, c = conics[n]
                q = a * d[..., 0] ** 2 + 2 * b * d[..., 0] * d[..., 1] + c * d[..., 1] ** 2
                alpha = (opacities[n] * torch.exp(-q / 2)).clamp(max=MOST_ALPHA)
                counts = (alpha >= LEAST_ALPHA) & (through >= STOP)
                weight = torch.where(counts, through * alpha, 0.0)
                image = image + weight[..., None] * features[n]
                through = through - weight
            row.append(torch.cat((image, through[..., None]), -1))
        rows.append(torch.cat(row, 1))
    seen = torch.cat(rows, 0)
    return seen[..., :channels], seen[..., channels]


def blend(
    means2d, conics, opacities, features, absolute, starts, splats, slots, offsets, width, height
) -> tuple[Tensor, Tensor]:
    return blend_with(lambda n: means2d[n], conics, opacities, features, starts, splats, width, height)


def blend_backward(
    means2d,
    conics,
    opacities,
    features,
    starts,
    splats,
    slots,
    offsets,
    image,
    transmittance,
    of_image,
    of_transmittance,
    wants_absolute,
) -> tuple[Tensor, ...]:
    """By autograd; every pixel has means of its own, so that their gradients can be told apart."""
    height, width = transmittance.shape
    each = means2d.detach()[:, None, None].expand(-1, height, width, -1).clone().requires_grad_()
    inputs = [each, *(x.detach().clone().requires_grad_() for x in (conics, opacities, features))]
    with torch.enable_grad():
        found = blend_with(lambda n: each[n], *inputs[1:], starts, splats, width, height)
        product = (found[0] * of_image).sum() + (found[1] * of_transmittance).sum()
        product = product + 0 * sum(x.nan_to_num(0, 0, 0).sum() for x in inputs)
        of_each, *rest = torch.autograd.grad(product, inputs)
    absolute = of_each.abs().sum((1, 2)) if wants_absolute else torch.zeros_like(means2d)
    return of_each.sum((1, 2)), *rest, absolute
