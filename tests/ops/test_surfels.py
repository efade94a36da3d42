"""Laws of surfels beyond the law suite."""

import math

import pytest
import torch

from sparse3d_ops.splat_blend import blend_splats
from sparse3d_ops.splat_projection import project_gaussians
from sparse3d_ops.splat_tiles import list_splats
from sparse3d_ops.surfel_blend import blend_gaussians, blend_surfels
from sparse3d_ops.surfel_projection import project_surfels
from tests.ops.cases_surfels import SIZE, camera, surfels
from tests.oracles import surfels as oracle

CPU = torch.device("cpu")


def scene(count=40, dtype=torch.float64, opacity=None):
    torch.manual_seed(3)
    means, quats, scales, opacities = surfels(count, dtype, CPU)
    return means, quats, scales, opacities if opacity is None else torch.full_like(opacities, opacity)


def render(
    means, quats, scales, opacities, features=None, view=None, orthographic=False, near=0.01, **options
):
    cloud = means, quats, scales, opacities
    view = view or camera(means.dtype, CPU, orthographic)
    limits = {"near": near, "orthographic": orthographic}
    projected = project_surfels(*cloud, *view, SIZE, **limits)
    tiles = list_splats(projected.means2d, projected.reach, projected.depths, SIZE)
    parts = projected.means2d, projected.slopes, projected.depths, opacities
    features = projected.normals if features is None else features
    return projected, blend_surfels(*parts, features, tiles, SIZE, **limits, **options)


def rays(dtype):
    """Origin (3,) and directions (H, W, 3) in the world, of depth 1."""
    world, (fx, fy, cx, cy) = camera(dtype, CPU)
    y, x = torch.meshgrid(torch.arange(SIZE[1]) + 0.5, torch.arange(SIZE[0]) + 0.5, indexing="ij")
    directions = torch.stack(((x - cx) / fx, (y - cy) / fy, torch.ones_like(x)), -1).to(dtype)
    return -world[:3, :3].T @ world[:3, 3], directions @ world[:3, :3]


def test_a_pixel_sees_the_point_where_its_ray_meets_the_plane():
    # From first principles, in the world: no projection, no homography.
    means, quats, scales, opacities = scene(1, opacity=0.9)
    means[0] = torch.tensor([0.9, 0.1, 2.0])
    scales[:] = 0.5
    _, seen = render(means, quats, scales, opacities)
    origin, directions = rays(torch.float64)
    r = oracle.rotation(quats[0])
    z = (r[:, 2] @ (means[0] - origin)) / (directions @ r[:, 2])
    local = (origin + z[..., None] * directions - means[0]) @ r[:, :2] / scales[0]
    alpha = 0.9 * torch.exp(-(local**2).sum(-1) / 2)
    counts = (alpha >= 1 / 255) & (seen.transmittance < 1)
    assert counts.sum() > 100
    torch.testing.assert_close(seen.transmittance[counts], 1 - alpha[counts])
    torch.testing.assert_close(seen.depth[counts], (alpha * z)[counts])
    torch.testing.assert_close(seen.nearness[counts], (alpha / z)[counts])
    half = alpha > 0.5
    torch.testing.assert_close(seen.median, z * half)
    assert torch.equal(seen.median_splat, half.int() - 1)
    assert not seen.distortion.any()


def test_tiles_leave_out_nothing_that_counts():
    torch.manual_seed(5)
    for scale in (0.02, 0.3, 2.0):
        means, quats, scales, opacities = surfels(40, torch.float64, CPU, scale)
        projected, seen = render(means, quats, scales, opacities)
        parts = projected.means2d, projected.slopes, projected.depths, opacities, projected.normals
        want = oracle.blend(*parts, None, *[None] * 4, *SIZE, 0.01, 2.0, False)
        torch.testing.assert_close(seen.image, want[0])
        torch.testing.assert_close(seen.median, want[4])


def test_a_quaternion_and_its_negative_are_one_rotation_and_its_length_is_none():
    means, quats, scales, opacities = scene()
    _, seen = render(means, quats, scales, opacities)
    _, again = render(means, -3 * quats, scales, opacities)
    for got, want in zip(again, seen, strict=True):
        torch.testing.assert_close(got, want)


def test_both_sides_of_a_surfel_are_the_same_but_for_the_sign_of_its_normal():
    means, quats, scales, opacities = scene()
    about_first_axis = torch.stack((-quats[:, 1], quats[:, 0], quats[:, 3], -quats[:, 2]), 1)
    one, seen = render(means, quats, scales, opacities)
    other, again = render(means, about_first_axis, scales, opacities)
    torch.testing.assert_close(other.normals, one.normals)
    for got, want in zip(again, seen, strict=True):
        torch.testing.assert_close(got, want)


def test_normals_face_the_camera_and_have_length_one():
    means, quats, scales, opacities = scene(opacity=0.9)
    projected, _ = render(means, quats, scales, opacities)
    seen = projected.depths > 0
    origin, _ = rays(torch.float64)
    assert (((means - origin) * projected.normals).sum(1)[seen] < 0).all() and seen.sum() > 10
    torch.testing.assert_close(projected.normals[seen].norm(dim=1), torch.ones(int(seen.sum())).double())
    assert not projected.normals[~seen].any()


def test_the_order_of_rows_does_not_matter():
    means, quats, scales, opacities = scene()
    order = torch.randperm(len(means))
    _, seen = render(means, quats, scales, opacities)
    _, again = render(means[order], quats[order], scales[order], opacities[order])
    for got, want in zip(again[:6], seen[:6], strict=True):
        assert torch.equal(got, want)
    known = seen.median_splat >= 0
    assert torch.equal(order[again.median_splat[known].long()], seen.median_splat[known].long())


UPRIGHT = torch.eye(4, dtype=torch.float64)
# 30 px a metre, square pixels.
PARALLEL = torch.tensor([30.0, 30.0, 18.5, 10.5], dtype=torch.float64)


def one(mean, turn, scales):
    """A surfel turned about the camera's y axis, opacity 0.9."""
    quat = [math.cos(turn / 2), 0, math.sin(turn / 2), 0]
    return [torch.tensor(x, dtype=torch.float64) for x in ([mean], [quat], [scales], [0.9])]


@pytest.mark.parametrize("turn", [0.0, 0.4, 1.2])
def test_parallel_rays_show_a_disc_as_an_ellipse_as_wide_as_the_cosine_of_its_tilt(turn):
    cloud = one([0.0, 0.0, 2.0], turn, [0.3, 0.1])
    _, seen = render(*cloud, view=(UPRIGHT, PARALLEL), orthographic=True)
    y, x = (torch.arange(n, dtype=torch.float64) - at for n, at in ((SIZE[1], 10), (SIZE[0], 18)))
    y, x = torch.meshgrid(y, x, indexing="ij")
    u, v = x / (30 * 0.3 * math.cos(turn)), y / (30 * 0.1)
    alpha = 0.9 * torch.exp(-(u**2 + v**2) / 2)
    counts = alpha >= 1 / 255
    torch.testing.assert_close(1 - seen.transmittance, alpha * counts)
    # u = 1 is 0.3 sin(turn) m nearer.
    depth = 2 - u * 0.3 * math.sin(turn)
    torch.testing.assert_close(seen.depth, alpha * depth * counts)
    torch.testing.assert_close(seen.nearness, alpha / depth * counts)
    torch.testing.assert_close(seen.median, depth * (alpha > 0.5))


def test_an_orthographic_camera_is_a_pinhole_that_stands_far_away_and_magnifies_as_much():
    means, quats, scales, opacities = scene()
    away = 1e6
    world, lens = camera(torch.float64, CPU, orthographic=True)
    moved, magnified = world.clone(), lens.clone()
    moved[2, 3] += away
    magnified[:2] *= away
    # Both cut what is behind the orthographic camera.
    _, far = render(means, quats, scales, opacities, view=(moved, magnified), near=away)
    _, flat = render(means, quats, scales, opacities, view=(world, lens), orthographic=True, near=1e-9)
    # What lies 1 m from the middle is magnified by 1e-6 of itself less.
    torch.testing.assert_close(far.image, flat.image, atol=1e-4, rtol=0)
    torch.testing.assert_close(far.transmittance, flat.transmittance, atol=1e-4, rtol=0)
    alpha = 1 - far.transmittance
    torch.testing.assert_close(far.depth - away * alpha, flat.depth, atol=1e-3, rtol=0)


@pytest.mark.parametrize("orthographic", [False, True])
@pytest.mark.parametrize("output", range(6))
def test_gradients_through_projection_and_blending_equal_finite_differences(output, orthographic):
    torch.manual_seed(2)
    means, quats, scales, opacities = surfels(5, torch.float64, CPU, 0.6)
    means[:] += torch.tensor([0.9, 0, 0.5])
    world, lens = camera(torch.float64, CPU, orthographic)
    features = torch.randn(5, 2, dtype=torch.float64)
    inputs = [
        x.clone().requires_grad_() for x in (means, quats, scales, opacities + 0.1, features, world, lens)
    ]

    def run(means, quats, scales, opacities, features, world, lens):
        cloud = means, quats, scales, opacities
        projected = project_surfels(*cloud, world, lens, SIZE, orthographic=orthographic)
        tiles = list_splats(projected.means2d, projected.reach, projected.depths, SIZE)
        parts = projected.means2d, projected.slopes, projected.depths, opacities
        features = torch.cat((features, projected.normals), 1)
        options = {"orthographic": orthographic, "depth_range": (1.0, 100.0)}
        return blend_surfels(*parts, features, tiles, SIZE, **options)[output]

    assert torch.autograd.gradcheck(run, inputs, eps=1e-6, atol=1e-6, rtol=1e-4, fast_mode=True)


def test_distortion_is_of_the_papers_depths_and_does_not_cancel_far_away():
    # Two discs 1 cm apart at 5 m, alpha 1/2 each, in float32.
    means = torch.tensor([[1.2, 0.1, 5.0], [1.2, 0.1, 5.01]])
    world, lens = torch.eye(4), torch.tensor([40.0, 40.0, 8.9, 10.3])
    opacities, features = torch.full((2,), 0.5), torch.zeros(2, 0)
    quats, scales = torch.tensor([[1.0, 0, 0, 0]] * 2), torch.full((2, 2), 30.0)
    projected = project_surfels(means, quats, scales, opacities, world, lens, SIZE)
    tiles = list_splats(projected.means2d, projected.reach, projected.depths, SIZE)
    got = blend_surfels(*projected[:3], opacities, features, tiles, SIZE).distortion
    far, near = 1000.0, 0.2
    m = [far / (far - near) * (1 - near / z) for z in (5.0, 5.01)]
    # Weights 1/2 and 1/4.
    assert got[10, 18].item() == pytest.approx((m[0] - m[1]) ** 2 / 8, rel=1e-3)


def gaussians(count, dtype):
    torch.manual_seed(7)
    means, quats, _, opacities = surfels(count, dtype, CPU)
    scales = (torch.rand(count, 3, dtype=dtype) + 0.05) * 0.3
    return means, quats, scales, opacities


def test_gaussians_with_their_geometry_have_the_image_of_gaussians():
    means, quats, scales, opacities = gaussians(60, torch.float64)
    features = torch.randn(60, 3, dtype=torch.float64)
    inputs = [x.requires_grad_() for x in (means, quats, scales, opacities, features)]
    projected = project_gaussians(means, quats, scales, opacities, *camera(torch.float64, CPU), SIZE)
    tiles = list_splats(projected.means2d, projected.reach, projected.depths, SIZE)
    flat = blend_splats(projected.means2d, projected.conics, opacities, features, tiles, SIZE)
    deep = blend_gaussians(
        projected.means2d, projected.conics, projected.depths, opacities, features, tiles, SIZE
    )
    torch.testing.assert_close(deep.image, flat.image)
    torch.testing.assert_close(deep.transmittance, flat.transmittance)
    grad = torch.randn_like(flat.image)
    want = torch.autograd.grad((flat.image * grad).sum(), inputs, retain_graph=True)
    for got, wanted in zip(torch.autograd.grad((deep.image * grad).sum(), inputs), want, strict=True):
        torch.testing.assert_close(got, wanted)


def test_the_depth_of_gaussians_is_that_of_a_feature_and_their_median_one_of_their_depths():
    means, quats, scales, opacities = gaussians(60, torch.float64)
    projected = project_gaussians(means, quats, scales, opacities, *camera(torch.float64, CPU), SIZE)
    tiles = list_splats(projected.means2d, projected.reach, projected.depths, SIZE)
    features = torch.stack((projected.depths, 1 / projected.depths), 1)
    parts = projected.means2d, projected.conics, projected.depths, opacities
    features = torch.where(features.isfinite(), features, 0)
    seen = blend_gaussians(*parts, features, tiles, SIZE)
    torch.testing.assert_close(torch.stack((seen.depth, seen.nearness), 2), seen.image)
    there = seen.median_splat >= 0
    assert torch.equal(there, seen.median > 0) and torch.equal(there, seen.transmittance <= 0.5)
    assert torch.equal(seen.median[there], projected.depths[seen.median_splat[there].long()])


def test_absolute_gradients_add_up_what_cancels():
    means, quats, scales, opacities = scene(1, opacity=0.9)
    means[0] = torch.tensor([0.9, 0.1, 2.0])
    projected, _ = render(means, quats, scales, opacities)
    tiles = list_splats(projected.means2d, projected.reach, projected.depths, SIZE)
    means2d = projected.means2d.clone().requires_grad_()
    absolute = torch.zeros_like(means2d, requires_grad=True)
    parts = projected.slopes, projected.depths, opacities, torch.ones(1, 1).double(), tiles, SIZE
    weights = torch.randn(SIZE[1], SIZE[0]).double()
    (blend_surfels(means2d, *parts, absolute).image[..., 0] * weights).sum().backward()
    each = torch.zeros(1, 2).double()
    for y in range(0, SIZE[1], 6):
        for x in range(0, SIZE[0], 6):
            image = blend_surfels(means2d, *parts).image[y, x, 0]
            if image > 0:
                each += torch.autograd.grad(image * weights[y, x], means2d)[0].abs()
    assert means2d.grad is not None and absolute.grad is not None
    assert (absolute.grad >= means2d.grad.abs()).all() and (absolute.grad >= each).all()
    lone = torch.zeros_like(weights)
    lone[10, 18] = weights[10, 18]
    one = torch.zeros_like(absolute, requires_grad=True)
    image = blend_surfels(means2d, *parts, one).image[..., 0]
    got = torch.autograd.grad((image * lone).sum(), (means2d, one))
    torch.testing.assert_close(got[1], got[0].abs())


def test_errors_say_what_came():
    means, quats, scales, opacities = scene(3)
    with pytest.raises(ValueError, match=r"scales has shape \(3, 3\), expected \(3, 2\)"):
        project_surfels(means, quats, means, opacities, *camera(torch.float64, CPU), SIZE)
    with pytest.raises(ValueError, match="near is 0"):
        project_surfels(means, quats, scales, opacities, *camera(torch.float64, CPU), SIZE, near=0)
    with pytest.raises(ValueError, match="low_pass -1"):
        render(means, quats, scales, opacities, low_pass=-1)
    with pytest.raises(ValueError, match="features has shape"):
        render(means, quats, scales, opacities, features=means[:2])
