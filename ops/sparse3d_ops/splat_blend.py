"""Blending of projected Gaussians, front to back.

At a pixel, with q the form of splat i there (`splat_projection`), o its opacity and f its features:

    alpha_i = min(o_i exp(-q_i / 2), MOST_ALPHA),  0 where that is below LEAST_ALPHA
    T_i = prod_{j < i} (1 - alpha_j),  w_i = T_i alpha_i,  0 where T_i < STOP
    image = sum of w_i f_i,  transmittance = what is left of 1 after all w_i

(Kerbl et al., arXiv 2308.04079). A background is `image + transmittance * background`; the expected depth is
a feature. All floats of a call have one dtype, float32 or float64. Bitwise the same for any number of
threads: sums are taken in the order of tiles, without atomics.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sparse3d_ops.checks import as_arrays, check_same_device, check_tensor, plain
from sparse3d_ops.splat_projection import EXACT, LEAST_ALPHA
from sparse3d_ops.splat_tiles import Tiles, check_lists, check_tiles

MOST_ALPHA = 0.999
STOP = 1e-4
# Columns of a splat's gradient before its features: mean, conic, opacity, absolute mean.
GRADIENTS = 8


class Blended(NamedTuple):
    """image (H, W, C) and transmittance (H, W)."""

    image: Tensor
    transmittance: Tensor


def blend_splats(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    tiles: Tiles,
    size: tuple[int, int],
    absolute: Tensor | None = None,
) -> Blended:
    """(N, 2) px, (N, 3), (N,), (N, C) and the tiles' lists -> Blended of `size` (width, height).

    What has no opacity above LEAST_ALPHA, no ellipse as its conic or no finite mean changes nothing.
    Gradients go to the four. `absolute`, zeros (N, 2), gets the sum over pixels of the absolute gradients in
    means2d (Ye et al., "AbsGS", arXiv 2404.10484), which says where a splat should be split.
    """
    if absolute is None:
        absolute = means2d.new_zeros(0, 2)
    return Blended(*blend(means2d, conics, opacities, features, absolute, *tiles, size[0], size[1]))


@torch.library.custom_op("sparse3d::blend_splats", mutates_args=(), device_types="cpu")
def blend(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    absolute: Tensor,
    starts: Tensor,
    splats: Tensor,
    slots: Tensor,
    offsets: Tensor,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor]:
    """The op behind `blend_splats`."""
    from numba import get_num_threads

    from sparse3d_ops.cpu import splat_blend as body

    tiles = Tiles(starts, splats, slots, offsets)
    image, through = _room(means2d, conics, opacities, features, absolute, tiles, width, height)
    packed, limits = _pack(means2d, conics, opacities, features)
    arguments = packed, *as_arrays(starts, splats), limits, get_num_threads(), *as_arrays(image, through)
    if not body.blend(*arguments):
        check_lists(tiles, len(means2d))
    return image, through


@blend.register_kernel("cuda")
def _(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    absolute: Tensor,
    starts: Tensor,
    splats: Tensor,
    slots: Tensor,
    offsets: Tensor,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor]:
    from sparse3d_ops.gpu import splat_blend as body

    tiles = Tiles(starts, splats, slots, offsets)
    image, through = _room(means2d, conics, opacities, features, absolute, tiles, width, height)
    check_lists(tiles, len(means2d))
    inputs = plain(means2d, conics, opacities, features, starts, splats, _limits(means2d))
    body.blend(*inputs, image=image, through=through)
    return image, through


def _pack(means2d: Tensor, conics: Tensor, opacities: Tensor, features: Tensor):
    """What the numba bodies read of the splats, and the limits."""
    from sparse3d_ops.cpu import splat_blend as body

    packed = means2d.new_empty(len(means2d), body.FEATURES + features.shape[1])
    limits = _limits(means2d)
    body.pack(*as_arrays(means2d, conics, opacities, features, limits, packed))
    return as_arrays(packed, limits)


def _limits(like: Tensor) -> Tensor:
    return torch.tensor([LEAST_ALPHA, MOST_ALPHA, STOP], dtype=like.dtype, device=like.device)


def _room(means2d, conics, opacities, features, absolute, tiles, width, height):
    _check(means2d, conics, opacities, features, absolute, tiles, width, height)
    return means2d.new_empty(height, width, features.shape[1]), means2d.new_empty(height, width)


def _check(means2d, conics, opacities, features, absolute, tiles, width, height):
    count, dtype = means2d.shape[0] if means2d.dim() else 0, means2d.dtype
    check_tensor("means2d", means2d, ("N", 2), EXACT)
    check_tensor("conics", conics, (count, 3), (dtype,))
    check_tensor("opacities", opacities, (count,), (dtype,))
    check_features(features, absolute, means2d)
    check_tiles(tiles, count, width, height)
    parts = {"means2d": means2d, "conics": conics, "opacities": opacities}
    check_same_device(*parts.items(), *tiles._asdict().items())


def check_features(features: Tensor, absolute: Tensor, means2d: Tensor) -> None:
    """Raise a ValueError unless these are features of splats at `means2d`, and as many zeros or none."""
    count, dtype = means2d.shape[0], means2d.dtype
    check_tensor("features", features, (count, "C"), (dtype,))
    check_tensor("absolute", absolute, ("N", 2), (dtype,))
    if absolute.shape[0] not in (0, count):
        raise ValueError(f"absolute has {absolute.shape[0]} rows, expected {count}")
    check_same_device(("means2d", means2d), ("features", features), ("absolute", absolute))


@blend.register_fake
def _(means2d, conics, opacities, features, absolute, starts, splats, slots, offsets, width, height):
    return means2d.new_empty(height, width, features.shape[1]), means2d.new_empty(height, width)


def _setup(ctx, inputs, output):
    *tensors, ctx.width, ctx.height = inputs
    ctx.wants_absolute = ctx.needs_input_grad[4]
    ctx.save_for_backward(*tensors[:4], *tensors[5:], *output)


def _backward(ctx, of_image, of_transmittance):
    of_means2d, of_conics, of_opacities, of_features, of_absolute = blend_backward(
        *ctx.saved_tensors, of_image, of_transmittance, ctx.wants_absolute
    )
    absolute = of_absolute if ctx.wants_absolute else None
    return of_means2d, of_conics, of_opacities, of_features, absolute, *[None] * 6


blend.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op("sparse3d::blend_splats_backward", mutates_args=(), device_types="cpu")
def blend_backward(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    starts: Tensor,
    splats: Tensor,
    slots: Tensor,
    offsets: Tensor,
    image: Tensor,
    transmittance: Tensor,
    of_image: Tensor,
    of_transmittance: Tensor,
    wants_absolute: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `blend_splats`: means2d (N, 2), conics (N, 3), opacities (N,), features (N, C), absolute
    (N, 2)."""
    from numba import get_num_threads

    from sparse3d_ops.cpu import splat_blend as body

    tiles = Tiles(starts, splats, slots, offsets)
    images = image, transmittance, of_image, of_transmittance
    of_slots, out = _room_for_backward(means2d, conics, opacities, features, tiles, *images)
    packed, limits = _pack(means2d, conics, opacities, features)
    lists, rows = as_arrays(conics, starts, splats, slots), of_slots.numpy()
    arguments = packed, *lists, limits, get_num_threads(), *as_arrays(*images), wants_absolute, rows
    if not (body.blend_backward(*arguments) and body.sum_slots(*as_arrays(of_slots, offsets, out))):
        check_lists(tiles, len(means2d))
    return _columns(out)


@blend_backward.register_kernel("cuda")
def _(
    means2d: Tensor,
    conics: Tensor,
    opacities: Tensor,
    features: Tensor,
    starts: Tensor,
    splats: Tensor,
    slots: Tensor,
    offsets: Tensor,
    image: Tensor,
    transmittance: Tensor,
    of_image: Tensor,
    of_transmittance: Tensor,
    wants_absolute: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from sparse3d_ops.gpu import splat_blend as body

    tiles = Tiles(starts, splats, slots, offsets)
    images = image, transmittance, of_image, of_transmittance
    of_slots, out = _room_for_backward(means2d, conics, opacities, features, tiles, *images)
    check_lists(tiles, len(means2d))
    inputs = plain(means2d, conics, opacities, features, *tiles, *images, _limits(means2d))
    body.blend_backward(*inputs, wants_absolute=wants_absolute, of_slots=of_slots, out=out)
    return _columns(out)


def _room_for_backward(
    means2d, conics, opacities, features, tiles, image, transmittance, of_image, of_transmittance
):
    """Rows for the gradients of the slots, and of the splats: 8 columns and the channels."""
    (height, width), channels = transmittance.shape, features.shape[1]
    _check(means2d, conics, opacities, features, means2d[:0], tiles, width, height)
    for name, tensor in (("image", image), ("of_image", of_image)):
        check_tensor(name, tensor, (height, width, channels), (means2d.dtype,))
    check_tensor("of_transmittance", of_transmittance, (height, width), (means2d.dtype,))
    check_same_device(("means2d", means2d), ("image", image), ("of_image", of_image))
    columns = GRADIENTS + channels
    return means2d.new_empty(len(tiles.splats), columns), means2d.new_empty(len(means2d), columns)


def _columns(out: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(N, GRADIENTS + C) -> of the mean, the conic, the opacity, the features, and absolutely of the mean."""
    parts = out[:, 0:2], out[:, 2:5], out[:, 5], out[:, GRADIENTS:], out[:, 6:8]
    # Not `contiguous`: of one splat columns are that already, and results must not share their memory.
    return tuple(part.clone(memory_format=torch.contiguous_format) for part in parts)  # pyright: ignore[reportReturnType]


@blend_backward.register_fake
def _(means2d, conics, opacities, features, *rest):
    return (
        torch.empty_like(means2d),
        torch.empty_like(conics),
        torch.empty_like(opacities),
        torch.empty_like(features),
        torch.empty_like(means2d),
    )
