"""Blending of surfels, or of Gaussians with their geometry, front to back.

At a pixel, with d its place from the centre of splat i and its slopes S (`surfel_projection`):

    w = 1 + S_2 . d,  q = |(S_0 . d, S_1 . d)|^2 / w^2,  z_i = z of the centre / w
    where z_i < near or low_pass |d|^2 < q:  q = low_pass |d|^2,  z_i = z of the centre

and for an orthographic camera q = |(S_0 . d, S_1 . d)|^2 and z_i = z of the centre (1 + S_2 . d), with

    alpha_i, T_i, w_i, image and transmittance as in `splat_blend`

    depth = sum of w_i z_i,  nearness = sum of w_i / z_i,
    median = z_i of the splat after which T first is 1/2 or less (0 and splat -1 where there is none),
    distortion = sum over pairs i < j of w_i w_j (1 / z_i - 1 / z_j)^2

(Huang et al., arXiv 2403.17888). None of the sums is divided by the opacity. A Gaussian is a surfel with
S_2 = 0 that has no low-pass: `gaussian_slopes`. All floats of a call have one dtype, float32 or float64.
Bitwise the same for any number of threads: sums are taken in the order of tiles, without atomics.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sparse3d_ops.checks import as_arrays, check_same_device, check_tensor, plain
from sparse3d_ops.splat_blend import MOST_ALPHA, STOP, check_features
from sparse3d_ops.splat_projection import EXACT, LEAST_ALPHA
from sparse3d_ops.splat_tiles import Tiles, check_lists, check_tiles
from sparse3d_ops.surfel_projection import LOW_PASS

# In the place of LOW_PASS: no low-pass, as it ends within 1e-9 px.
NO_LOW_PASS = 1e20
# What the paper's implementation takes for the distortion's depths, metres.
DEPTH_RANGE = (0.2, 1000.0)
# Columns of a surfel's gradient before its features: centre, slopes, depth, opacity, absolute centre.
GRADIENTS = 12


class Geometry(NamedTuple):
    """image (H, W, C), transmittance (H, W), depth (H, W) metres and nearness (H, W) 1 / metre times the
    opacity, median (H, W) metres, distortion (H, W), median_splat (H, W) int32."""

    image: Tensor
    transmittance: Tensor
    depth: Tensor
    nearness: Tensor
    median: Tensor
    distortion: Tensor
    median_splat: Tensor


def blend_surfels(
    means2d: Tensor,
    slopes: Tensor,
    depths: Tensor,
    opacities: Tensor,
    features: Tensor,
    tiles: Tiles,
    size: tuple[int, int],
    absolute: Tensor | None = None,
    *,
    near: float = 0.01,
    low_pass: float = LOW_PASS,
    orthographic: bool = False,
    depth_range: tuple[float, float] = DEPTH_RANGE,
) -> Geometry:
    """(N, 2) px, (N, 3, 2), (N,), (N,), (N, C) and the tiles' lists -> Geometry of `size` (width, height).

    The distortion is of depths m = far / (far - near') (1 - near' / z) with `depth_range` (near', far), as in
    the paper. Normals are features. `orthographic` as the surfels were projected. Gradients go to the five;
    `absolute`, zeros (N, 2), gets the sum over pixels of the absolute gradients in means2d.
    """
    if absolute is None:
        absolute = means2d.new_zeros(0, 2)
    inputs = (means2d, slopes, depths, opacities, features, absolute)
    found = Geometry(*blend(*inputs, *tiles, size[0], size[1], near, low_pass, orthographic))
    first, last = depth_range
    return found._replace(distortion=found.distortion * (first * last / (last - first)) ** 2)


def blend_gaussians(
    means2d: Tensor,
    conics: Tensor,
    depths: Tensor,
    opacities: Tensor,
    features: Tensor,
    tiles: Tiles,
    size: tuple[int, int],
    absolute: Tensor | None = None,
    *,
    depth_range: tuple[float, float] = DEPTH_RANGE,
) -> Geometry:
    """As `blend_surfels` for the Gaussians of `project_gaussians`: each has one depth, that of its mean. The
    image is that of `blend_splats`, which is quicker where nothing but the image is wanted."""
    slopes = gaussian_slopes(conics)
    # No depth is cut: what is nearer than the camera's near plane has not been projected.
    rest = {"near": 0.0, "low_pass": NO_LOW_PASS, "depth_range": depth_range}
    return blend_surfels(means2d, slopes, depths, opacities, features, tiles, size, absolute, **rest)


def gaussian_slopes(conics: Tensor) -> Tensor:
    """(N, 3) -> (N, 3, 2): the Cholesky factor of each conic's matrix, and no change of depth. Rows of zeros
    stay zeros; gradients go through the rest."""
    a, b, c = conics.double().unbind(1)
    seen = a > 0
    root = torch.where(seen, a, 1).sqrt()
    # In double: the determinant of a needle is a small difference.
    rest = torch.where(seen, c - (b / root) ** 2, 1).clamp(min=torch.finfo(conics.dtype).tiny).sqrt()
    nothing = torch.zeros_like(a)
    rows = torch.stack((root, b / root, nothing, rest, nothing, nothing), 1)
    return (rows * seen[:, None]).to(conics.dtype).reshape(-1, 3, 2)


@torch.library.custom_op("sparse3d::blend_surfels", mutates_args=(), device_types="cpu")
def blend(
    means2d: Tensor,
    slopes: Tensor,
    depths: Tensor,
    opacities: Tensor,
    features: Tensor,
    absolute: Tensor,
    starts: Tensor,
    splats: Tensor,
    slots: Tensor,
    offsets: Tensor,
    width: int,
    height: int,
    near: float,
    low_pass: float,
    orthographic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The op behind `blend_surfels`; its distortion is of 1 / z, 1 / metre^2."""
    from numba import get_num_threads

    from sparse3d_ops.cpu import surfel_blend as body

    tiles, parts = Tiles(starts, splats, slots, offsets), (means2d, slopes, depths, opacities)
    _check(*parts, features, absolute, tiles, width, height, near, low_pass)
    out = _room(means2d, features, width, height)
    packed, limits = pack(*parts, features, near, low_pass, orthographic)
    lists, threads = as_arrays(starts, splats), get_num_threads()
    if not body.blend(packed, *lists, limits, orthographic, threads, *(x.numpy() for x in out)):  # pyright: ignore[reportCallIssue]
        check_lists(tiles, len(means2d))
    return out


@blend.register_kernel("cuda")
def _(
    means2d: Tensor,
    slopes: Tensor,
    depths: Tensor,
    opacities: Tensor,
    features: Tensor,
    absolute: Tensor,
    starts: Tensor,
    splats: Tensor,
    slots: Tensor,
    offsets: Tensor,
    width: int,
    height: int,
    near: float,
    low_pass: float,
    orthographic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from sparse3d_ops.gpu import surfel_blend as body

    tiles, parts = Tiles(starts, splats, slots, offsets), (means2d, slopes, depths, opacities)
    _check(*parts, features, absolute, tiles, width, height, near, low_pass)
    check_lists(tiles, len(means2d))
    out = _room(means2d, features, width, height)
    inputs = plain(*parts, features, starts, splats)
    body.blend(*inputs, limits_of(means2d, near, low_pass), orthographic, *out)  # pyright: ignore[reportArgumentType]
    return out


def _room(means2d: Tensor, features: Tensor, width: int, height: int):
    return (
        means2d.new_empty(height, width, features.shape[1]),
        means2d.new_empty(height, width),
        means2d.new_empty(height, width),
        means2d.new_empty(height, width),
        means2d.new_empty(height, width),
        means2d.new_empty(height, width),
        means2d.new_empty(height, width, dtype=torch.int32),
    )


def limits_of(like: Tensor, near: float, low_pass: float) -> Tensor:
    """The numbers that hold for all surfels."""
    numbers = [LEAST_ALPHA, MOST_ALPHA, STOP, near, low_pass]
    return torch.tensor(numbers, dtype=like.dtype, device=like.device)


def pack(means2d, slopes, depths, opacities, features, near: float, low_pass: float, orthographic: bool):
    """What the numba bodies read of the surfels, and the limits."""
    from sparse3d_ops.cpu import surfel_blend as body

    packed = means2d.new_empty(len(means2d), body.FEATURES + features.shape[1])
    limits = limits_of(means2d, near, low_pass)
    inputs = as_arrays(means2d, slopes, depths, opacities, features, limits)
    body.pack(*inputs, orthographic, packed.numpy())  # pyright: ignore[reportCallIssue]
    return as_arrays(packed, limits)


def check_surfels(means2d, slopes, depths, opacities, tiles: Tiles, width, height, near, low_pass) -> None:
    """Raise a ValueError unless these are surfels of one projection and lists of tiles of such an image."""
    count, dtype = means2d.shape[0] if means2d.dim() else 0, means2d.dtype
    check_tensor("means2d", means2d, ("N", 2), EXACT)
    check_tensor("slopes", slopes, (count, 3, 2), (dtype,))
    check_tensor("depths", depths, (count,), (dtype,))
    check_tensor("opacities", opacities, (count,), (dtype,))
    check_tiles(tiles, count, width, height)
    if not (near >= 0 and low_pass > 0):
        raise ValueError(f"near is {near} and low_pass {low_pass}, expected 0 or more, and above 0")
    parts = {"means2d": means2d, "slopes": slopes, "depths": depths, "opacities": opacities}
    check_same_device(*parts.items(), *tiles._asdict().items())


def _check(means2d, slopes, depths, opacities, features, absolute, tiles, width, height, near, low_pass):
    check_surfels(means2d, slopes, depths, opacities, tiles, width, height, near, low_pass)
    check_features(features, absolute, means2d)


@blend.register_fake
def _(
    means2d, slopes, depths, opacities, features, absolute, starts, splats, slots, offsets, width, height, *_
):
    return _room(means2d, features, width, height)


def _setup(ctx, inputs, output):
    *tensors, _, _, ctx.near, ctx.low_pass, ctx.orthographic = inputs
    ctx.wants_absolute = ctx.needs_input_grad[5]
    ctx.mark_non_differentiable(output[6])
    ctx.save_for_backward(*tensors[:5], *tensors[6:], *output[:6])


def _backward(ctx, *grads):
    *of_inputs, of_absolute = blend_backward(
        *ctx.saved_tensors, *grads[:6], ctx.near, ctx.low_pass, ctx.orthographic, ctx.wants_absolute
    )
    return *of_inputs, of_absolute if ctx.wants_absolute else None, *[None] * 9


blend.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op("sparse3d::blend_surfels_backward", mutates_args=(), device_types="cpu")
def blend_backward(
    means2d: Tensor,
    slopes: Tensor,
    depths: Tensor,
    opacities: Tensor,
    features: Tensor,
    starts: Tensor,
    splats: Tensor,
    slots: Tensor,
    offsets: Tensor,
    image: Tensor,
    transmittance: Tensor,
    depth: Tensor,
    nearness: Tensor,
    median: Tensor,
    distortion: Tensor,
    of_image: Tensor,
    of_transmittance: Tensor,
    of_depth: Tensor,
    of_nearness: Tensor,
    of_median: Tensor,
    of_distortion: Tensor,
    near: float,
    low_pass: float,
    orthographic: bool,
    wants_absolute: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `blend_surfels`: means2d (N, 2), slopes (N, 3, 2), depths (N,), opacities (N,), features
    (N, C), absolute (N, 2)."""
    from numba import get_num_threads

    from sparse3d_ops.cpu import surfel_blend as body

    tiles, parts = Tiles(starts, splats, slots, offsets), (means2d, slopes, depths, opacities, features)
    images = image, transmittance, depth, nearness, distortion
    grads = of_image, of_transmittance, of_depth, of_nearness, of_median, of_distortion
    of_slots, out = _room_for_backward(*parts, tiles, images, grads, near, low_pass)
    packed, limits = pack(*parts, near, low_pass, orthographic)
    lists, rows = as_arrays(slopes, starts, splats, slots), of_slots.numpy()
    how, arrays = (orthographic, get_num_threads()), as_arrays(*images, *grads)
    fine = body.blend_backward(packed, *lists, limits, *how, *arrays, wants_absolute, rows)  # pyright: ignore[reportCallIssue]
    if not (fine and body.sum_slots(rows, *as_arrays(offsets), out.numpy())):  # pyright: ignore[reportCallIssue]
        check_lists(tiles, len(means2d))
    return _columns(out)


@blend_backward.register_kernel("cuda")
def _(
    means2d: Tensor,
    slopes: Tensor,
    depths: Tensor,
    opacities: Tensor,
    features: Tensor,
    starts: Tensor,
    splats: Tensor,
    slots: Tensor,
    offsets: Tensor,
    image: Tensor,
    transmittance: Tensor,
    depth: Tensor,
    nearness: Tensor,
    median: Tensor,
    distortion: Tensor,
    of_image: Tensor,
    of_transmittance: Tensor,
    of_depth: Tensor,
    of_nearness: Tensor,
    of_median: Tensor,
    of_distortion: Tensor,
    near: float,
    low_pass: float,
    orthographic: bool,
    wants_absolute: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    from sparse3d_ops.gpu import surfel_blend as body

    tiles, parts = Tiles(starts, splats, slots, offsets), (means2d, slopes, depths, opacities, features)
    images = image, transmittance, depth, nearness, distortion
    grads = of_image, of_transmittance, of_depth, of_nearness, of_median, of_distortion
    of_slots, out = _room_for_backward(*parts, tiles, images, grads, near, low_pass)
    check_lists(tiles, len(means2d))
    limits = limits_of(means2d, near, low_pass)
    inputs = plain(*parts, *tiles)
    how = orthographic, wants_absolute
    body.blend_backward(*inputs, plain(*images, *grads), limits, *how, of_slots, out)  # pyright: ignore[reportCallIssue]
    return _columns(out)


def _room_for_backward(means2d, slopes, depths, opacities, features, tiles, images, grads, near, low_pass):
    """Rows for the gradients of the slots, and of the surfels: 12 columns and the channels."""
    (height, width), channels = images[1].shape, features.shape[1]
    parts = means2d, slopes, depths, opacities, features
    _check(*parts, means2d[:0], tiles, width, height, near, low_pass)
    for part in (images, grads):
        check_tensor("image", part[0], (height, width, channels), (means2d.dtype,))
        for tensor in part[1:]:
            check_tensor("map", tensor, (height, width), (means2d.dtype,))
    check_same_device(("means2d", means2d), *(("map", tensor) for tensor in (*images, *grads)))
    columns = GRADIENTS + channels
    return means2d.new_empty(len(tiles.splats), columns), means2d.new_empty(len(means2d), columns)


def _columns(out: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """(N, GRADIENTS + C) -> of the centre, slopes, depth, opacity, features, and absolutely of the centre."""
    slopes = out[:, 2:8].reshape(-1, 3, 2)
    parts = out[:, 0:2], slopes, out[:, 8], out[:, 9], out[:, GRADIENTS:], out[:, 10:12]
    # Not `contiguous`: of one surfel columns are that already, and results must not share their memory.
    return tuple(part.clone(memory_format=torch.contiguous_format) for part in parts)  # pyright: ignore[reportReturnType]


@blend_backward.register_fake
def _(means2d, slopes, depths, opacities, features, *rest):
    parts = (means2d, slopes, depths, opacities, features, means2d)
    return tuple(part.new_empty(part.shape) for part in parts)
