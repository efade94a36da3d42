"""Laws of the projection of Gaussians through lenses."""

import math

import numpy as np
import pytest
import torch

from sparse3d.gaussians.lens_projection import fisheye, perspective, project_through_lens
from sparse3d.gaussians.shapes import rotation_matrices
from sparse3d.geometry.cameras import Camera, Lens
from sparse3d_ops.splat_projection import project_gaussians

SIZE = (60, 40)
BARREL = Lens((-0.2, 0.05, 0.002, -0.001, 0.01, 0.02, 0.01, 0.003))
FISHEYE = Lens((0.05, -0.02, 0.004, -0.001), fisheye=True)
STRAIGHT = Lens((), fisheye=True)


def cloud(count=60, wide=3.0):
    torch.manual_seed(1)
    means = (torch.rand(count, 3, dtype=torch.float64) - 0.5) * torch.tensor([wide, wide, 4.0])
    means[:, 2] += 1.7
    quats, scales = torch.randn(count, 4).double(), torch.rand(count, 3).double() * 0.1 + 0.01
    return means, quats, scales, torch.rand(count).double() * 0.9 + 0.1


def camera(lens):
    angle = 0.3
    pose = np.eye(4)
    pose[:3, :3] = [[math.cos(angle), 0, math.sin(angle)], [0, 1, 0], [-math.sin(angle), 0, math.cos(angle)]]
    pose[:3, 3] = 0.1, -0.2, 0.05
    found = Camera(40, 42, 31, 19, *SIZE, pose, lens)
    world = torch.from_numpy(np.linalg.inv(found.camera_to_world))
    return found, world, torch.tensor([40.0, 42, 31, 19], dtype=torch.float64)


def test_without_coefficients_it_is_the_pinhole():
    _, world, lens = camera(Lens())
    inputs = [x.requires_grad_() for x in (*cloud(wide=9.0)[:3], world, lens)]
    opacities = cloud()[3]
    means, quats, scales, world, lens = inputs
    want = project_gaussians(means, quats, scales, opacities, world, lens, SIZE)
    got = project_through_lens(means, quats, scales, opacities, world, lens, SIZE, Lens((0.0,) * 8))
    assert 5 < (want.depths > 0).sum() < 55
    for mine, other in zip(got, want, strict=True):
        torch.testing.assert_close(mine, other)
    share = [torch.randn_like(x) for x in want]
    grads = [
        torch.autograd.grad(
            torch.stack([(x * s).sum() for x, s in zip(out, share, strict=True)]).sum(), inputs
        )
        for out in (got, want)
    ]
    for mine, other in zip(*grads, strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("lens", [BARREL, FISHEYE, STRAIGHT, Lens()])
def test_means_land_where_the_camera_projects_them(lens):
    found, world, intrinsics = camera(lens)
    means, quats, scales, opacities = cloud(200, wide=6.0)
    got = project_through_lens(means, quats, scales, opacities, world, intrinsics, SIZE, lens)
    pixels, z = found.project(means.numpy())
    seen = got.depths > 0
    assert 10 < seen.sum() < 190 and not np.isnan(pixels[seen]).any()
    torch.testing.assert_close(got.means2d[seen], torch.from_numpy(pixels)[seen])
    far = torch.from_numpy(np.linalg.norm(means.numpy() - found.camera_to_world[:3, 3], axis=1))
    torch.testing.assert_close(got.depths[seen], far[seen] if lens.fisheye else torch.from_numpy(z)[seen])
    inside = ~np.isnan(pixels).any(1) & (pixels > 0).all(1) & (pixels < SIZE).all(1) & (z > 0.01)
    assert seen[torch.from_numpy(inside)].all()


@pytest.mark.parametrize("lens", [BARREL, FISHEYE, STRAIGHT])
def test_the_jacobian_is_the_derivative(lens):
    points = cloud(40)[0] + torch.tensor([0.0, 0.0, 0.4])
    if lens.fisheye:  # to the axis, beside the camera and behind it
        special = [[1e-9, 0, 1], [0, 5e-4, 1], [2e-3, 0, 1], [1, 1, 0], [1, 0.5, -0.4]]
        points = torch.cat((points, torch.tensor(special, dtype=torch.float64)))
    function = fisheye if lens.fisheye else perspective
    plane, jacobian = function(points, lens)
    want = torch.func.vmap(torch.func.jacrev(lambda p: function(p[None], lens)[0][0]))(points)
    torch.testing.assert_close(jacobian, want, rtol=1e-6, atol=1e-6)
    assert torch.autograd.gradcheck(lambda p: function(p, lens), points[5:9].clone().requires_grad_())


def test_a_small_gaussian_becomes_the_spread_of_its_points():
    found, world, intrinsics = camera(FISHEYE)
    means = torch.from_numpy(found.camera_to_world[:3] @ [0.5, 0.3, 0.8, 1])[None]
    quats, scales = (
        torch.tensor([[0.4, -0.3, 0.8, 0.2]]).double(),
        torch.tensor([[2e-4, 1e-4, 3e-4]]).double(),
    )
    got = project_through_lens(
        means, quats, scales, torch.ones(1).double(), world, intrinsics, SIZE, FISHEYE, blur=0.0
    )
    rng = np.random.default_rng(0)
    own = rng.standard_normal((100_000, 3)) * scales.numpy()
    points = means.numpy() + own @ rotation_matrices(quats)[0].numpy().T
    wanted = np.cov(found.project(points)[0].T)
    a, b, c = got.conics[0]
    conic = torch.stack((a, b, b, c)).reshape(2, 2)
    np.testing.assert_allclose(torch.linalg.inv(conic).numpy(), wanted, rtol=0.02, atol=0.02 * wanted.max())


def test_a_fisheye_sees_behind_its_plane_and_none_beyond_its_limit():
    lens = Lens((0.1,), fisheye=True)
    world = torch.eye(4, dtype=torch.float64)
    intrinsics = torch.tensor([8.0, 8, 30, 20], dtype=torch.float64)
    means = torch.tensor([[1.0, 0, -0.5], [0.0, 0, -1.0], [1.0, 0, 0]], dtype=torch.float64)
    _, quats, scales, _ = cloud(3)
    got = project_through_lens(means, quats, scales, torch.ones(3).double(), world, intrinsics, SIZE, lens)
    assert (got.depths > 0).tolist() == [True, False, True]
    assert got.means2d[0, 0] > got.means2d[2, 0]
    turned_back = Lens((-0.2,), fisheye=True)  # stops growing at 1.29
    got = project_through_lens(
        means, quats, scales, torch.ones(3).double(), world, intrinsics, SIZE, turned_back
    )
    assert not got.depths.any()


@pytest.mark.parametrize("lens", [BARREL, FISHEYE])
def test_gradients_equal_finite_differences_and_what_is_not_seen_has_none(lens):
    _, world, intrinsics = camera(lens)
    means, quats, scales, opacities = cloud(8)
    means[0], means[1, 0], quats[2], opacities[3] = torch.tensor([0.0, 0, -9.0]), torch.nan, 0, 0
    inputs = [x.clone().requires_grad_() for x in (means, quats, scales, world, intrinsics)]

    def run(means, quats, scales, world, intrinsics):
        args = means, quats, scales, opacities, world, intrinsics, SIZE, lens
        found = project_through_lens(*args)
        return found.means2d, found.conics, found.depths, found.compensation

    out = run(*inputs)
    first = 1 if lens.fisheye else 0
    assert not out[2][first:4].any() and out[2][4:].any()
    torch.autograd.backward([x.sum() for x in out])
    for x in inputs[:3]:
        assert x.grad is not None and not x.grad[1:4].any()
    some = [x.detach()[4:].requires_grad_() for x in (means, quats, scales)]
    opacities = opacities[4:]
    assert torch.autograd.gradcheck(run, (*some, *inputs[3:]), fast_mode=True)
