"""Projection of surfels, flat Gaussians, into an image: where each lands and which of its points pixels see.

A surfel is a disc in the plane of its first two axes: p + u s_u a + v s_v b with weight
exp(-(u^2 + v^2) / 2). The ray of a pixel meets that plane in one point, exactly (Huang et al., "2D Gaussian
Splatting for Geometrically Accurate Radiance Fields", arXiv 2403.17888). With d the pixel's place from the
image of the centre p, and `slopes` S (3, 2):

    w = 1 + S_2 . d,   u = S_0 . d / w,   v = S_1 . d / w,   depth = depth of the centre / w

which is the 3 x 3 matrix from pixels to (u, v) without its constants, as they are 0, 0 and 1: nothing cancels
far from the image's corner. The rays of an orthographic camera are parallel, and there

    u = S_0 . d,   v = S_1 . d,   depth = depth of the centre (1 + S_2 . d).

Cameras have OpenCV's axes (x right, y down, z forward) and pixel centres at +0.5. All floats of a call have
one dtype, float32 or float64. The same bits for any number of threads.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sparse3d_ops.checks import as_arrays, plain
from sparse3d_ops.splat_projection import LEAST_ALPHA, camera_gradients, check_camera, check_cloud

# The screen-space low-pass of the paper is a Gaussian of standard deviation sqrt(1/2) px around the centre:
# exp(-LOW_PASS d^2 / 2).
LOW_PASS = 2.0
# A surfel is edge-on where the sine of the angle between its plane and the ray through its centre is below
# this: its image is then thinner than the low-pass by far, and its slopes would overflow.
EDGE = 1e-4
# The slopes of such a surfel: nothing but its centre is on it.
NOWHERE = 1e6


class ProjectedSurfels(NamedTuple):
    """means2d (N, 2) px; slopes (N, 3, 2), 1 / px; depths (N,) of the centres along the camera's axis,
    metres; normals (N, 3), of length 1, in the world, facing the camera; reach (N, 2) px: half of a box
    around means2d outside of which the opacity is below LEAST_ALPHA. All are 0 for what is not seen."""

    means2d: Tensor
    slopes: Tensor
    depths: Tensor
    normals: Tensor
    reach: Tensor


def project_surfels(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    size: tuple[int, int],
    *,
    near: float = 0.01,
    orthographic: bool = False,
) -> ProjectedSurfels:
    """(N, 3), (N, 4) as w x y z of any length, (N, 2) standard deviations in metres, (N,) in [0, 1], (4, 4),
    (4,) as fx fy cx cy -> ProjectedSurfels in an image of `size` (width, height).

    Not seen: what has its centre nearer than `near`, is below LEAST_ALPHA, beside the image, not finite or
    without extent. One that is seen edge-on (to 1e-4 of its distance) is the dot that the low-pass makes of
    it, with no gradient in its slopes. An orthographic camera has fx and fy in pixels a metre. Gradients go
    to means, quats, scales, the camera and the intrinsics; `reach` has none.
    """
    width, height = size
    inputs = (means, quats, scales, opacities, world_to_camera, intrinsics)
    return ProjectedSurfels(*surfel_forms(*inputs, width, height, near, orthographic))


def _limits(like: Tensor, width: int, height: int, near: float) -> Tensor:
    numbers = [width, height, near, LEAST_ALPHA, LOW_PASS]
    return torch.tensor(numbers, dtype=like.dtype, device=like.device)


@torch.library.custom_op("sparse3d::project_surfels", mutates_args=(), device_types="cpu")
def surfel_forms(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    width: int,
    height: int,
    near: float,
    orthographic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """The op behind `project_surfels`."""
    from sparse3d_ops.cpu import surfel_projection as body

    out = _room(means, quats, scales, opacities, world_to_camera, intrinsics, width, height, near)
    inputs = (means, quats, scales, opacities, world_to_camera, intrinsics)
    limits = _limits(means, width, height, near)
    body.project(*as_arrays(*inputs, limits), orthographic, *as_arrays(*out))  # pyright: ignore[reportCallIssue]
    return out


@surfel_forms.register_kernel("cuda")
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
    orthographic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    from sparse3d_ops.gpu import surfel_projection as body

    out = _room(means, quats, scales, opacities, world_to_camera, intrinsics, width, height, near)
    inputs = plain(means, quats, scales, opacities, world_to_camera, intrinsics)
    body.project([*inputs, _limits(means, width, height, near)], out, orthographic)
    return out


def _room(means, quats, scales, opacities, world_to_camera, intrinsics, width, height, near):
    check_cloud(means, quats, scales, 2, opacities)
    check_camera(world_to_camera, intrinsics, width, height, means)
    if not near > 0:
        raise ValueError(f"near is {near}, expected above 0")
    return _empty(means)


def _empty(means: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    count = means.shape[0]
    return (
        means.new_empty(count, 2),
        means.new_empty(count, 3, 2),
        means.new_empty(count),
        means.new_empty(count, 3),
        means.new_empty(count, 2),
    )


@surfel_forms.register_fake
def _(means, quats, scales, opacities, world_to_camera, intrinsics, width, height, near, orthographic):
    return _empty(means)


def _setup(ctx, inputs, output):
    means, quats, scales, _, world_to_camera, intrinsics, *_, ctx.orthographic = inputs
    ctx.mark_non_differentiable(output[4])
    ctx.save_for_backward(means, quats, scales, world_to_camera, intrinsics, output[4])


def _backward(ctx, of_means2d, of_slopes, of_depths, of_normals, of_reach):
    of_means, of_quats, of_scales, of_camera = surfel_forms_backward(
        *ctx.saved_tensors, of_means2d, of_slopes, of_depths, of_normals, ctx.orthographic
    )
    return of_means, of_quats, of_scales, None, *camera_gradients(of_camera), *[None] * 4


surfel_forms.register_autograd(_backward, setup_context=_setup)


@torch.library.custom_op("sparse3d::project_surfels_backward", mutates_args=(), device_types="cpu")
def surfel_forms_backward(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    reach: Tensor,
    of_means2d: Tensor,
    of_slopes: Tensor,
    of_depths: Tensor,
    of_normals: Tensor,
    orthographic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of `project_surfels`: means (N, 3), quats (N, 4), scales (N, 2), and (16,) of the camera: the
    three upper rows of world_to_camera, then the intrinsics."""
    from sparse3d_ops.cpu import surfel_projection as body

    out = means.new_empty(means.shape), quats.new_empty(quats.shape), scales.new_empty(scales.shape)
    slices = torch.empty(-(-len(means) // body.SLICE), 16, dtype=torch.float64)
    inputs = (means, quats, scales, world_to_camera, intrinsics, reach)
    grads = (of_means2d, of_slopes, of_depths, of_normals)
    body.project_backward(*as_arrays(*inputs), orthographic, *as_arrays(*grads, *out, slices))  # pyright: ignore[reportCallIssue]
    return *out, slices.sum(0).to(means.dtype)


@surfel_forms_backward.register_kernel("cuda")
def _(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    world_to_camera: Tensor,
    intrinsics: Tensor,
    reach: Tensor,
    of_means2d: Tensor,
    of_slopes: Tensor,
    of_depths: Tensor,
    of_normals: Tensor,
    orthographic: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from sparse3d_ops.gpu import surfel_projection as body

    out = means.new_empty(means.shape), quats.new_empty(quats.shape), scales.new_empty(scales.shape)
    inputs = plain(means, quats, scales, world_to_camera, intrinsics, reach)
    grads = plain(of_means2d, of_slopes, of_depths, of_normals)
    of_camera = body.project_backward([*inputs, *grads], out, orthographic)
    return *out, of_camera.to(means.dtype)


@surfel_forms_backward.register_fake
def _(means, quats, scales, *rest):
    return (
        means.new_empty(means.shape),
        quats.new_empty(quats.shape),
        scales.new_empty(scales.shape),
        means.new_empty(16),
    )
