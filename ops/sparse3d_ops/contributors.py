"""Which splats a pixel's light comes from: those of the largest weights, surfels or Gaussians.

Weights are those of `surfel_blend`, front to back. Whole numbers and order are the same on every device; of
equal weights the splat in front comes first. No gradients.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sparse3d_ops.splat_tiles import Tiles, check_lists
from sparse3d_ops.surfel_blend import NO_LOW_PASS, check_surfels, gaussian_slopes, limits_of, pack
from sparse3d_ops.surfel_projection import LOW_PASS


class Contributors(NamedTuple):
    """ids (H, W, K) int32, the largest weight first, -1 where there are no more, and weights (H, W, K)."""

    ids: Tensor
    weights: Tensor


def strongest_surfels(
    means2d: Tensor,
    slopes: Tensor,
    depths: Tensor,
    opacities: Tensor,
    tiles: Tiles,
    size: tuple[int, int],
    count: int,
    *,
    near: float = 0.01,
    low_pass: float = LOW_PASS,
    orthographic: bool = False,
) -> Contributors:
    """(N, 2) px, (N, 3, 2), (N,), (N,) and the tiles' lists -> the `count` strongest of each pixel of an
    image of `size` (width, height)."""
    inputs = means2d, slopes, depths, opacities
    return Contributors(*strongest(*inputs, *tiles, size[0], size[1], near, low_pass, orthographic, count))


def strongest_gaussians(
    means2d: Tensor,
    conics: Tensor,
    depths: Tensor,
    opacities: Tensor,
    tiles: Tiles,
    size: tuple[int, int],
    count: int,
) -> Contributors:
    """As `strongest_surfels` for the Gaussians of `project_gaussians`, conics (N, 3)."""
    slopes = gaussian_slopes(conics.detach())
    shape = (means2d, slopes, depths, opacities)
    return strongest_surfels(*shape, tiles, size, count, near=0.0, low_pass=NO_LOW_PASS)


@torch.library.custom_op("sparse3d::strongest_splats", mutates_args=(), device_types="cpu")
def strongest(
    means2d: Tensor,
    slopes: Tensor,
    depths: Tensor,
    opacities: Tensor,
    starts: Tensor,
    splats: Tensor,
    slots: Tensor,
    offsets: Tensor,
    width: int,
    height: int,
    near: float,
    low_pass: float,
    orthographic: bool,
    count: int,
) -> tuple[Tensor, Tensor]:
    """The op behind both."""
    from numba import get_num_threads

    from sparse3d_ops.cpu import contributors as body

    tiles, shape = Tiles(starts, splats, slots, offsets), (means2d, slopes, depths, opacities)
    _check(*shape, tiles, width, height, near, low_pass, count)
    ids, weights = _room(means2d, width, height, count)
    packed, limits = pack(*shape, means2d.new_empty(len(means2d), 0), near, low_pass, orthographic)
    lists = (x.contiguous().numpy() for x in (starts, splats))
    how = orthographic, get_num_threads()
    if not body.strongest(packed, *lists, limits, *how, ids.numpy(), weights.numpy()):  # pyright: ignore[reportCallIssue]
        check_lists(tiles, len(means2d))
    return ids, weights


@strongest.register_kernel("cuda")
def _(
    means2d: Tensor,
    slopes: Tensor,
    depths: Tensor,
    opacities: Tensor,
    starts: Tensor,
    splats: Tensor,
    slots: Tensor,
    offsets: Tensor,
    width: int,
    height: int,
    near: float,
    low_pass: float,
    orthographic: bool,
    count: int,
) -> tuple[Tensor, Tensor]:
    from sparse3d_ops.gpu import contributors as body

    tiles, shape = Tiles(starts, splats, slots, offsets), (means2d, slopes, depths, opacities)
    _check(*shape, tiles, width, height, near, low_pass, count)
    check_lists(tiles, len(means2d))
    ids, weights = _room(means2d, width, height, count)
    inputs = [x.detach().contiguous() for x in (*shape, starts, splats)]
    body.strongest(*inputs, limits_of(means2d, near, low_pass), orthographic, ids, weights)  # pyright: ignore[reportCallIssue]
    return ids, weights


@strongest.register_fake
def _(
    means2d, slopes, depths, opacities, starts, splats, slots, offsets, width, height, near, low, ortho, count
):
    return _room(means2d, width, height, count)


def _room(means2d: Tensor, width: int, height: int, count: int) -> tuple[Tensor, Tensor]:
    shape = height, width, count
    return means2d.new_empty(shape, dtype=torch.int32), means2d.new_empty(shape)


def _check(means2d, slopes, depths, opacities, tiles, width, height, near, low_pass, count) -> None:
    check_surfels(means2d, slopes, depths, opacities, tiles, width, height, near, low_pass)
    if count < 1:
        raise ValueError(f"count is {count}, expected at least 1 splat a pixel")
