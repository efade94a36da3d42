"""Laws of losses on depth: when they are zero, what they do not change with, and their gradients."""

import torch

from sparse3d.nn import depth_losses

DOUBLE = torch.float64


def test_ranking_is_zero_for_the_right_order_and_grows_with_the_wrong_one():
    nearer, farther = torch.tensor([1.0, 2.0, 0.5]), torch.tensor([1.5, 2.1, 3.0])
    assert depth_losses.ranking(nearer, farther, 1e-4) == 0
    assert torch.isclose(depth_losses.ranking(farther, nearer, 0.0), torch.tensor((0.5 + 0.1 + 2.5) / 3))
    # Depths of any scale and offset have the same order; with no margin the loss scales along.
    wrong = depth_losses.ranking(farther, nearer, 0.0)
    assert torch.isclose(depth_losses.ranking(3 * farther + 7, 3 * nearer + 7, 0.0), 3 * wrong)
    assert depth_losses.ranking(3 * nearer + 7, 3 * farther + 7, 1e-4) == 0


def test_ranking_pulls_the_nearer_one_closer_and_leaves_right_pairs_alone():
    nearer = torch.tensor([2.0, 1.0], requires_grad=True)
    farther = torch.tensor([1.0, 2.0], requires_grad=True)
    depth_losses.ranking(nearer, farther, 1e-4).backward()
    assert nearer.grad is not None and farther.grad is not None
    assert nearer.grad.tolist() == [0.5, 0.0] and farther.grad.tolist() == [-0.5, 0.0]


def test_continuity_allows_the_margin():
    depth = torch.tensor([1.0, 1.0, 1.0])
    assert depth_losses.continuity(depth, depth + 0.01, 0.0101) == 0
    assert torch.isclose(depth_losses.continuity(depth, depth - 0.5, 0.1), torch.tensor(0.4))


def test_metric_depth_leaves_unknown_pixels_out_and_is_linear_far_away():
    depth = torch.tensor([1.0, 2.0, 3.0], dtype=DOUBLE, requires_grad=True)
    measured = torch.tensor([1.01, float("nan"), 5.0], dtype=DOUBLE)
    loss = depth_losses.metric_depth(depth, measured, 0.1)
    assert torch.isclose(loss, torch.tensor((0.01**2 / 2 + 0.1 * (2 - 0.05)) / 2, dtype=DOUBLE))
    loss.backward()
    assert depth.grad is not None
    assert torch.allclose(depth.grad, torch.tensor([-0.005, 0.0, -0.05], dtype=DOUBLE))
    assert depth_losses.metric_depth(depth, torch.full_like(measured, float("nan")), 0.1) == 0


def planes(slope_x, slope_y, offset=2.0, side=6):
    y, x = torch.meshgrid(torch.arange(side, dtype=DOUBLE), torch.arange(side, dtype=DOUBLE), indexing="ij")
    return (offset + slope_x * x + slope_y * y)[None]


def test_roughness_is_zero_for_planes_that_face_the_camera_and_grows_with_their_slant():
    opaque = torch.ones(1, 6, 6, dtype=DOUBLE)
    assert depth_losses.roughness(planes(0, 0), opaque) == 0
    assert torch.isclose(
        depth_losses.roughness(planes(0.1, 0.2), opaque), torch.tensor(0.01 + 0.04, dtype=DOUBLE)
    )


def test_roughness_does_not_cross_what_is_transparent_and_cannot_be_dodged_by_it():
    depth, opacity = planes(0, 0).clone(), torch.ones(1, 6, 6, dtype=DOUBLE)
    depth[..., 3:] = 9
    opacity[..., 3:] = 0
    opacity.requires_grad_()
    depth.requires_grad_()
    loss = depth_losses.roughness(depth, opacity)
    assert loss == 0
    loss.backward()
    assert opacity.grad is None


def test_relative_depth_does_not_change_with_scale_and_shift():
    depth = torch.rand(50, dtype=DOUBLE) + 1
    assert depth_losses.relative_depth(depth, 3 * depth + 7) < 1e-12
    assert torch.isclose(depth_losses.relative_depth(depth, -depth), torch.tensor(2.0, dtype=DOUBLE))
    prior = torch.rand(50, dtype=DOUBLE)
    prior[3] = float("nan")
    loss = depth_losses.relative_depth(depth, prior)
    assert 0 < loss < 2
    for a, b in ((5.0, -1.0), (0.01, 100.0)):
        assert torch.isclose(depth_losses.relative_depth(a * depth + b, prior), loss)
        assert torch.isclose(depth_losses.relative_depth(depth, a * prior + b), loss)
    # What a fit leaves of the map's variance.
    d, p = depth[prior.isfinite()], prior[prior.isfinite()]
    fitted = torch.linalg.lstsq(torch.stack([d, torch.ones_like(d)], 1), p[:, None]).solution[:, 0]
    left = (p - fitted[0] * d - fitted[1]).square().sum() / (p - p.mean()).square().sum()
    assert torch.isclose(1 - (1 - loss) ** 2, left)


def test_flat_depth_gives_finite_slopes():
    depth = torch.ones(5, requires_grad=True)
    loss = depth_losses.relative_depth(depth, torch.rand(5))
    loss.backward()
    assert loss == 1 and torch.isfinite(depth.grad).all()


def test_nothing_costs_nothing():
    none = torch.zeros(0, requires_grad=True)
    losses = [
        depth_losses.ranking(none, none, 1e-4),
        depth_losses.continuity(none, none, 1e-4),
        depth_losses.metric_depth(none, none, 0.1),
        depth_losses.relative_depth(none, none),
        depth_losses.roughness(none.view(0, 4, 4), none.view(0, 4, 4)),
    ]
    assert [float(loss.detach()) for loss in losses] == [0.0] * 5
    sum(losses).backward()  # pyright: ignore[reportAttributeAccessIssue]


def test_gradients_are_the_differences():
    torch.manual_seed(0)
    a, b = (torch.rand(6, dtype=DOUBLE, requires_grad=True) for _ in range(2))
    opaque = torch.rand(2, 3, 3, dtype=DOUBLE)
    patches = torch.rand(2, 3, 3, dtype=DOUBLE, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, y: depth_losses.ranking(x, y, 0.01), (a, b))
    assert torch.autograd.gradcheck(lambda x, y: depth_losses.continuity(x, y, 0.01), (a, b))
    assert torch.autograd.gradcheck(lambda x: depth_losses.metric_depth(x, b.detach(), 0.2), (a,))
    assert torch.autograd.gradcheck(lambda x: depth_losses.relative_depth(x, b.detach()), (a,))
    assert torch.autograd.gradcheck(lambda d: depth_losses.roughness(d, opaque), (patches,))
