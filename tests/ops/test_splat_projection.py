"""Laws of the projection of Gaussians beyond the law suite."""

import numba
import pytest
import torch

from sparse3d_ops.splat_projection import project_gaussians
from tests.ops.cases_splat_projection import camera, cloud

D = torch.float64
SIZE = 40, 24


def project(splats, view=None, size=SIZE, **kwargs):
    return project_gaussians(*splats, *(view or camera(*SIZE, D)), size, **kwargs)


def some(count=30, dtype=D, **kwargs):
    torch.manual_seed(0)
    return list(cloud(count, dtype, **kwargs))


def assert_same(got, want, **kwargs):
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w, **kwargs)


def covariances(conics):
    a, b, c = conics.unbind(1)
    return torch.stack((c, -b, -b, a), 1).view(-1, 2, 2) / (a * c - b * b)[:, None, None]


def test_a_quaternion_and_its_negative_are_one_rotation_and_its_length_is_nothing():
    means, quats, scales, opacities = some()
    want = project((means, quats, scales, opacities))
    length = torch.rand(len(quats), 1, dtype=D) * 9 + 0.1
    for same in (-quats, quats * length, -quats * length):
        assert_same(project((means, same, scales, opacities)), want)


def test_gradients_of_a_quaternion_are_across_it_and_fall_with_its_length():
    means, quats, scales, opacities = some()

    def slope(q):
        q = q.clone().requires_grad_()
        return torch.autograd.grad(project((means, q, scales, opacities)).conics.square().sum(), q)[0]

    one = slope(quats)
    torch.testing.assert_close((one * quats).sum(1), torch.zeros(len(quats), dtype=D), rtol=0, atol=1e-12)
    torch.testing.assert_close(slope(-3 * quats), -one / 3)
    assert one.abs().max() > 1e-3


def test_the_covariance_is_that_of_the_derivative_of_the_image():
    means, quats, scales, opacities = some(scale=0.05, extent=0.5)  # nothing at the border
    pose, lens = camera(*SIZE, D)
    found = project((means, quats, scales, opacities))
    assert (found.reach > 0).all()

    def place(mean):
        p = pose[:3, :3] @ mean + pose[:3, 3]
        return lens[:2] * p[:2] / p[2] + lens[2:]

    q = torch.nn.functional.normalize(quats, dim=1)
    w, v = q[:, :1], q[:, 1:]
    for n, mean in enumerate(means):
        # A rotation by what it does to the axes: Rodrigues' formula, not the matrix of the body.
        axes = torch.eye(3, dtype=D)
        turn = axes + 2 * w[n] * torch.linalg.cross(v[n].expand(3, 3), axes)
        turn = turn + 2 * torch.linalg.cross(v[n].expand(3, 3), torch.linalg.cross(v[n].expand(3, 3), axes))
        spread = turn.T @ torch.diag(scales[n] ** 2) @ turn
        jacobian = torch.autograd.functional.jacobian(place, mean)
        want = jacobian @ spread @ jacobian.T + 0.3 * torch.eye(2, dtype=D)
        torch.testing.assert_close(covariances(found.conics[n : n + 1])[0], want)
        torch.testing.assert_close(found.means2d[n], place(mean))


def test_turning_the_world_and_the_camera_changes_nothing():
    means, quats, scales, opacities = some()
    pose, lens = camera(*SIZE, D)
    angle = torch.tensor(0.7, dtype=D)
    c, s, half = angle.cos(), angle.sin(), angle / 2
    turn = torch.eye(4, dtype=D)
    turn[0, 0], turn[0, 1], turn[1, 0], turn[1, 1] = c, -s, s, c  # about z
    turn[:3, 3] = torch.tensor([0.3, -2, 5])
    w, x, y, z = quats.unbind(1)
    cos, sin = half.cos(), half.sin()
    turned = torch.stack((cos * w - sin * z, cos * x - sin * y, cos * y + sin * x, cos * z + sin * w), 1)
    moved = means @ turn[:3, :3].T + turn[:3, 3], turned, scales, opacities
    assert_same(
        project(moved, (pose @ torch.linalg.inv(turn), lens)), project((means, quats, scales, opacities))
    )


def test_compensation_is_the_share_of_mass_that_the_blur_leaves():
    splats = some()
    found, sharp = project(splats), project(splats, blur=0.0)
    seen = (found.reach[:, 0] > 0) & (sharp.reach[:, 0] > 0)
    assert seen.any()
    ratio = torch.linalg.det(covariances(sharp.conics)) / torch.linalg.det(covariances(found.conics))
    torch.testing.assert_close(found.compensation[seen], ratio.sqrt()[seen])
    torch.testing.assert_close(sharp.compensation[seen], torch.ones_like(ratio)[seen])


def test_reach_is_where_the_opacity_falls_to_half_a_step_of_eight_bits():
    splats = some(scale=0.05, extent=0.3)
    found = project(splats)
    wide = covariances(found.conics)
    for axis in (0, 1):
        # The point of the ellipse that is farthest out along an axis.
        d = wide[:, :, axis] / wide[:, axis, axis, None].sqrt()
        d = d * (found.reach[:, axis] / wide[:, axis, axis].sqrt())[:, None]
        torch.testing.assert_close(d[:, axis], found.reach[:, axis])
        q = torch.einsum("ni,nij,nj->n", d, torch.linalg.inv(wide), d)
        torch.testing.assert_close(splats[3] * torch.exp(-q / 2), torch.full_like(q, 1 / 255))


def test_needles_keep_their_determinant_in_float32():
    means, quats, scales, opacities = some(40)
    scales[:, 0], scales[:, 1:] = 0.5, 1e-4
    want = project((means, quats, scales, opacities))
    pose, lens = camera(*SIZE, D)
    splats = [x.float() for x in (means, quats, scales, opacities)]
    got = project(splats, (pose.float(), lens.float()))
    torch.testing.assert_close(got.compensation.double(), want.compensation, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("orthographic", [False, True])
def test_gradients_of_the_camera_equal_finite_differences(orthographic):
    means, quats, scales, opacities = some(9)
    pose, lens = camera(*SIZE, D)
    if orthographic:
        lens = torch.tensor([14.0, 13, 20, 12], dtype=D)
    view = pose.requires_grad_(), lens.requires_grad_()
    seen = project((means, quats, scales, opacities), view, orthographic=orthographic)
    weights = [torch.randn_like(x) for x in seen]

    def score(view):
        found = project((means, quats, scales, opacities), view, orthographic=orthographic)
        return sum((x * w).sum() for k, (x, w) in enumerate(zip(found, weights, strict=True)) if k != 3)

    for slopes, x in zip(torch.autograd.grad(score(view), view), view, strict=True):
        for place in range(12 if x.dim() == 2 else 4):  # the last row of a pose is not read
            step = torch.zeros(x.numel(), dtype=D)
            step[place] = 1e-6
            with torch.no_grad():
                moved = [[y + s * step.view_as(x) if y is x else y for y in view] for s in (1, -1)]
                want = (score(moved[0]) - score(moved[1])) / 2e-6
            torch.testing.assert_close(slopes.flatten()[place], want, rtol=1e-5, atol=1e-6)


def test_reach_has_no_gradient_and_what_is_not_seen_gets_none():
    means, quats, scales, opacities = some(20)
    means[3, 2], opacities[4], means[5, 0] = -9, 0, torch.nan
    inputs = [x.requires_grad_() for x in (means, quats, scales, opacities)]
    found = project(inputs)
    assert not found.reach.requires_grad
    sum(x.sum() for x in found).backward()
    for x in inputs[:3]:
        assert x.grad is not None and torch.isfinite(x.grad).all() and not x.grad[3:6].any()
        assert x.grad[~(found.reach[:, 0] > 0)].abs().sum() == 0 and x.grad.any()


@pytest.mark.numba_bodies
def test_the_same_bits_for_any_number_of_threads_and_splats_of_many_slices():
    # More than two slices of the camera's gradient.
    splats, most = some(9000, torch.float32), numba.get_num_threads()
    view = [x.float() for x in camera(*SIZE, D)]

    def slopes():
        inputs = [x.clone().requires_grad_() for x in (*splats[:3], *view)]
        found = project((*inputs[:3], splats[3]), inputs[3:])
        return torch.autograd.grad(sum(x.sum() for x in found), inputs)

    first = slopes()
    try:
        for threads in {1, most}:
            numba.set_num_threads(threads)
            assert all(torch.equal(a, b) for a, b in zip(slopes(), first, strict=True))
    finally:
        numba.set_num_threads(most)


def test_errors_say_what_came():
    means, quats, scales, opacities = some(4)
    pose, lens = camera(*SIZE, D)
    cases = {
        r"quats has shape \(4, 3\), expected \(4, 4\)": {"quats": quats[:, :3]},
        "scales is float32, expected float64": {"scales": scales.float()},
        r"opacities has shape \(3,\)": {"opacities": opacities[:3]},
        r"world_to_camera has shape \(3, 4\)": {"world_to_camera": pose[:3]},
        "intrinsics has shape": {"intrinsics": torch.eye(3, dtype=D)},
        "size is 0 x 24": {"size": (0, 24)},
        "size is 40 x 40000": {"size": (40, 40000)},
        "near is 0": {"near": 0.0},
        "blur -1": {"blur": -1.0},
        "means is float16": {"means": means.half()},
    }
    good = {"means": means, "quats": quats, "scales": scales, "opacities": opacities}
    good |= {"world_to_camera": pose, "intrinsics": lens, "size": SIZE}
    for message, wrong in cases.items():
        with pytest.raises(ValueError, match=message):
            project_gaussians(**(good | wrong))
