"""Projection of 3-D Gaussians into an image: where each lands, the ellipse it becomes and how far it reaches.

Cameras have OpenCV's axes (x right, y down, z forward) and pixel centres at +0.5. A Gaussian's image is
exp(-q / 2) with q = a dx^2 + 2 b dx dy + c dy^2 and (a, b, c) its conic, the inverse of its covariance in the
image, which is taken to first order at its mean (Zwicker et al., "EWA Splatting", 2002; Kerbl et al., arXiv
2308.04079) and widened by `blur` px^2. All floats of a call have one dtype, float32 or float64. The same bits
for any number of threads.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sparse3d_ops.checks import as_arrays, check_same_device, check_tensor, plain

EXACT = (torch.float32, torch.float64)
# Below this opacity a splat does not count at a pixel: half a step of an 8-bit image.
LEAST_ALPHA = 1 / 255


class Projected(NamedTuple):
    """means2d (N, 2) px; conics (N, 3), 1 / px^2; depths (N,) along the camera's axis, metres; reach (N, 2)
    px: half of the box outside of which the opacity is below LEAST_ALPHA; compensation (N,): the share of its
    mass that `blur` leaves it, with which `antialiased` rendering scales the opacity (Yu et al.,
    "Mip-Splatting", arXiv 2311.16493). All are 0 for what is not seen."""

    means2d: Tensor
    conics: Tensor
    depths: Tensor
    reach: Tensor
    compensation: Tensor


def project_gaussians(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
    *,
    near: float = 0.01,
    blur: float = 0.3,
    orthographic: bool = False,
) -> Projected:
    """(N, 3), (N, 4) as w x y z of any length, (N, 3) standard deviations in metres, (N,) in [0, 1], (4, 4),
    (4,) as fx fy cx cy -> Projected in an image of `size` (width, height).

    Not seen: what is nearer than `near`, below LEAST_ALPHA, beside the image, or not finite. An orthographic
    camera has fx and fy in pixels a metre. Gradients go to means, quats, scales, the camera and the
    intrinsics; `reach` has none, and where a splat's slope is taken at the border (30 % of half the field of
    view outside of the image) the place of the border has none.
    """
    return Projected(
        *project_splats(
            means,
            quats,
            scales,
            opacities,
            world_to_camera,
            intrinsics,
            size[0],
            size[1],
            near,
            blur,
            orthographic,
        )
    )


def check_cloud(means: Tensor, quats: Tensor, scales: Tensor, axes: int, opacities: Tensor) -> None:
    """Raise a ValueError unless these are parts of one cloud, with `axes` scales each."""
    count, dtype = means.shape[0] if means.dim() else 0, means.dtype
    check_tensor("means", means, ("N", 3), EXACT)
    check_tensor("quats", quats, (count, 4), (dtype,))
    check_tensor("scales", scales, (count, axes), (dtype,))
    check_tensor("opacities", opacities, (count,), (dtype,))
    check_same_device(("means", means), ("quats", quats), ("scales", scales), ("opacities", opacities))


def check_camera(world_to_camera: Tensor, intrinsics: Tensor, width: int, height: int, like: Tensor) -> None:
    """Raise a ValueError unless this is a camera for means `like`."""
    check_tensor("world_to_camera", world_to_camera, (4, 4), (like.dtype,))
    check_tensor("intrinsics", intrinsics, (4,), (like.dtype,))
    check_same_device(("means", like), ("world_to_camera", world_to_camera), ("intrinsics", intrinsics))
    check_size(width, height)


def check_size(width: int, height: int) -> None:
    """Raise a ValueError for an image without pixels, or of more than its tiles can be numbered for."""
    if not (0 < width <= 1 << 15 and 0 < height <= 1 << 15):
        raise ValueError(f"size is {width} x {height}, expected 1 to {1 << 15} pixels each way")


def camera_gradients(of_camera: Tensor) -> tuple[Tensor, Tensor]:
    """(16,) as the bodies give them -> of world_to_camera (4, 4), whose last row has no gradient,
    and of the intrinsics (4,)."""
    of_world = of_camera[:12].reshape(3, 4)
    return torch.cat((of_world, torch.zeros_like(of_world[:1]))), of_camera[12:]


def _limits(like: Tensor, width: int, height: int, near: float, blur: float) -> Tensor:
    return torch.tensor([width, height, near, blur, LEAST_ALPHA], dtype=like.dtype, device=like.device)


@torch.library.custom_op("sparse3d::project_splats", mutates_args=(), device_types="cpu")
def project_splats(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    near: float,
    blur: float,
    orthographic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The op behind `project_gaussians`."""
    from sparse3d_ops.cpu import splat_projection as body

    out = _room(means, quats, scales, opacities, world_to_camera, intrinsics, width, height, near, blur)
    limits = _limits(means, width, height, near, blur)
    inputs = (means, quats, scales, opacities, world_to_camera, intrinsics, limits)
    arguments = *as_arrays(*inputs), orthographic, *as_arrays(*out)
    body.project(*arguments)
    return out


@project_splats.register_kernel("cuda")
def _(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    near: float,
    blur: float,
    orthographic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from sparse3d_ops.gpu import splat_projection as body

    out = _room(means, quats, scales, opacities, world_to_camera, intrinsics, width, height, near, blur)
    limits = _limits(means, width, height, near, blur)
    inputs = plain(means, quats, scales, opacities, world_to_camera, intrinsics, limits)
    body.project(inputs, out, orthographic)
    return out


def _room(means, quats, scales, opacities, world_to_camera, intrinsics, width, height, near, blur):
    check_cloud(means, quats, scales, 3, opacities)
    check_camera(world_to_camera, intrinsics, width, height, means)
    if not (near > 0 and blur >= 0):
        raise ValueError(f"near is {near} and blur {blur}, expected above 0, and 0 or more")
    count = means.shape[0]
    return (
        means.new_empty(count, 2),
        means.new_empty(count, 3),
        means.new_empty(count),
        means.new_empty(count, 2),
        means.new_empty(count),
    )


@project_splats.register_fake
def _(means, quats, scales, opacities, world_to_camera, intrinsics, width, height, near, blur, orthographic):
    count = means.shape[0]
    return (
        means.new_empty(count, 2),
        means.new_empty(count, 3),
        means.new_empty(count),
        means.new_empty(count, 2),
        means.new_empty(count),
    )


def _setup(ctx, inputs, output):
    means, quats, scales, _, world_to_camera, intrinsics, *ctx.rest = inputs
    ctx.mark_non_differentiable(output[3])
    ctx.save_for_backward(means, quats, scales, world_to_camera, intrinsics, output[3])


def _backward(ctx, of_means2d, of_conics, of_depths, of_reach, of_compensation):
    of_means, of_quats, of_scales, of_camera = project_splats_backward(
        *ctx.saved_tensors, of_means2d, of_conics, of_depths, of_compensation, *ctx.rest
    )
    return of_means, of_quats, of_scales, None, *camera_gradients(of_camera), *[None] * 5


project_splats.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op("sparse3d::project_splats_backward", mutates_args=(), device_types="cpu")
def project_splats_backward(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    reach: Tensor,
    of_means2d: Tensor,
    of_conics: Tensor,
    of_depths: Tensor,
    of_compensation: Tensor,
    width: int,
    height: int,
    near: float,
    blur: float,
    orthographic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `project_splats`: means (N, 3), quats (N, 4), scales (N, 3), and (16,) of the camera: the
    three upper rows of world_to_camera, then the intrinsics."""
    from sparse3d_ops.cpu import splat_projection as body

    out = means.new_empty(means.shape), quats.new_empty(quats.shape), scales.new_empty(scales.shape)
    slices = torch.empty(-(-len(means) // body.SLICE), 16, dtype=torch.float64)
    limits = _limits(means, width, height, near, blur)
    inputs = (means, quats, scales, world_to_camera, intrinsics, limits)
    grads = (reach, of_means2d, of_conics, of_depths, of_compensation)
    arguments = *as_arrays(*inputs), orthographic, *as_arrays(*grads, *out, slices)
    body.project_backward(*arguments)
    return *out, slices.sum(0).to(means.dtype)


@project_splats_backward.register_kernel("cuda")
def _(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    reach: Tensor,
    of_means2d: Tensor,
    of_conics: Tensor,
    of_depths: Tensor,
    of_compensation: Tensor,
    width: int,
    height: int,
    near: float,
    blur: float,
    orthographic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from sparse3d_ops.gpu import splat_projection as body

    out = means.new_empty(means.shape), quats.new_empty(quats.shape), scales.new_empty(scales.shape)
    limits = _limits(means, width, height, near, blur)
    inputs = plain(means, quats, scales, world_to_camera, intrinsics, limits)
    grads = plain(reach, of_means2d, of_conics, of_depths, of_compensation)
    of_camera = body.project_backward([*inputs, *grads], out, orthographic)
    return *out, of_camera.to(means.dtype)


@project_splats_backward.register_fake
def _(means, quats, scales, *rest):
    return (
        means.new_empty(means.shape),
        quats.new_empty(quats.shape),
        scales.new_empty(scales.shape),
        means.new_empty(16),
    )
