"""Whose kernels blend Gaussians: sparse3d's own, or on a GPU gsplat's, where it is installed.

Both take what `project_gaussians` gives and mean the same by it (Kerbl et al., arXiv 2308.04079), so
projection is always ours. gsplat adds gradients with float atomics: with it two runs of one seed differ.
Tensors on a CPU and float64 go to our kernels. A pixel ends with gsplat before the splat that would leave
less than 1e-4 of the light, with us behind it.
"""

import importlib.util
import weakref
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from sparse3d.errors import require_extra
from sparse3d_ops.splat_blend import Blended, blend_splats
from sparse3d_ops.splat_projection import Projected
from sparse3d_ops.splat_tiles import TILE, Tiles, list_splats, tile_counts

Backend = Literal["auto", "sparse3d", "gsplat"]


class GsplatTiles(NamedTuple):
    """Lists of splats a tile in gsplat's form: offsets (1, down, across) int32, where that of a tile begins,
    and rows (M,) int32."""

    offsets: Tensor
    rows: Tensor


def chosen(backend: Backend, like: Tensor) -> Literal["sparse3d", "gsplat"]:
    """What `backend` means for tensors like this one: "auto" is gsplat for float32 on a GPU where it is
    installed. MissingExtraError where it is asked for by name and is not there."""
    if backend == "gsplat":
        require_extra("gsplat", "gsplat")
        return "gsplat"
    usable = like.is_cuda and like.dtype == torch.float32
    if backend == "auto" and usable and importlib.util.find_spec("gsplat") is not None:
        return "gsplat"
    return "sparse3d"


def tiles_of(projected: Projected, size: tuple[int, int], backend: Backend = "auto") -> Tiles | GsplatTiles:
    """The splats of each tile of an image of `size` (width, height), front to back, for `blend`."""
    means2d, depths = projected.means2d.detach(), projected.depths.detach()
    if chosen(backend, means2d) == "sparse3d":
        return list_splats(means2d, projected.reach, depths, size)
    gsplat = require_extra("gsplat", "gsplat")
    across, down = tile_counts(*size)
    radii = projected.reach.ceil().int()  # 0 is not seen there, too
    _, keys, rows = gsplat.isect_tiles(means2d[None], radii[None], depths[None], TILE, across, down)
    return GsplatTiles(gsplat.isect_offset_encode(keys, 1, across, down), rows)


def blend(
    projected: Projected,
    opacities: Tensor,
    features: Tensor,
    tiles: Tiles | GsplatTiles,
    size: tuple[int, int],
    absolute: Tensor | None = None,
) -> Blended:
    """`blend_splats` of what `tiles_of` listed, by the same kernels: (N,), (N, C) -> the image (H, W, C) and
    the transmittance (H, W). With gsplat the gradient of `absolute` needs the image to be kept until the way
    back, also where only the transmittance has a gradient."""
    if isinstance(tiles, Tiles):
        splats = projected.means2d, projected.conics, opacities, features
        return blend_splats(*splats, tiles, size, absolute)
    gsplat = require_extra("gsplat", "gsplat")
    means2d, given = projected.means2d[None], None
    if absolute is not None and absolute.requires_grad:
        given = _Given()
        means2d = given.means2d = _WithAbsolute.apply(projected.means2d, absolute, weakref.ref(given))
    splats = means2d, projected.conics[None], features[None], opacities[None]
    image, alpha = gsplat.rasterize_to_pixels(*splats, *size, TILE, *tiles, absgrad=given is not None)
    if given is not None:
        image = _Keep.apply(image, given)
    return Blended(image[0], 1 - alpha[0, ..., 0])


class _Given:
    """The means (1, N, 2) that gsplat was given: on the way back it leaves their absolute gradient in their
    attribute `absgrad`."""

    means2d: Tensor | None = None


class _WithAbsolute(torch.autograd.Function):
    """(N, 2), (N, 2), a weak reference to what the result will be part of -> (1, N, 2). Strong, the result
    and its own graph would hold each other."""

    @staticmethod
    def forward(ctx: Any, means2d: Tensor, absolute: Tensor, given: Any) -> Tensor:
        ctx.given = given
        return means2d[None].clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0][0], ctx.given().means2d.absgrad[0], None


class _Keep(torch.autograd.Function):
    """The image as it is; its graph keeps what `_WithAbsolute` reads."""

    @staticmethod
    def forward(ctx: Any, image: Tensor, given: _Given) -> Tensor:
        ctx.given = given
        return image.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Any:
        return grads[0], None
