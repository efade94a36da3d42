"""Laws of step functions along rays, and of the measure that samples are spread in."""

import numpy as np
import torch

from sparse3d.fields.space import SpaceConfig
from sparse3d.fields.stepfun import evenly, interlevel_loss, outer_measure, resample


def histogram(rays=20, bins=9):
    edges = torch.rand(rays, bins + 1, dtype=torch.float64).sort(1).values * 3 + 1
    return edges, torch.rand(rays, bins, dtype=torch.float64) ** 4


def test_resampled_bins_have_equal_weight():
    edges, weights = histogram()
    found = resample(edges, weights, 16, torch.full((20,), 0.5, dtype=torch.float64))
    assert torch.equal(found[:, [0, -1]], edges[:, [0, -1]]) and (found.diff(dim=1) >= 0).all()
    for ray in range(20):
        before = np.concatenate([[0], weights[ray].cumsum(0)])
        share = np.interp(found[ray], edges[ray], before / before[-1])
        np.testing.assert_allclose(np.diff(share), 1 / 16, atol=1e-9)


def test_jitter_keeps_the_order_and_the_ends():
    for offset in (0.0, 0.25, 0.999):
        edges = evenly(4, 8, torch.full((4,), offset))
        assert (edges.diff(dim=1) > 0).all() and (edges[:, 0] == 0).all() and (edges[:, -1] == 1).all()


def test_outer_measure_by_hand():
    other, weights = torch.tensor([[0.0, 1, 2, 4]]), torch.tensor([[1.0, 10, 100]])
    edges = torch.tensor([[0.0, 0.5, 1.5, 2.0, 3.0]])
    assert outer_measure(edges, other, weights).tolist() == [[1, 11, 10, 100]]


def test_a_histogram_bounds_itself_and_its_coarser_self():
    edges, weights = histogram()
    assert interlevel_loss(edges, weights, edges, weights) < 1e-20
    coarse = edges[:, ::3]
    summed = weights.view(20, 3, 3).sum(2)
    assert interlevel_loss(edges, weights, coarse, summed) < 1e-20
    assert interlevel_loss(edges, weights, coarse, summed * 0.5) > 1e-3


def test_gradient_of_the_interlevel_loss_equals_finite_differences():
    edges, weights = histogram(3, 5)
    proposed_edges, proposed = histogram(3, 4)
    proposed.requires_grad_()
    assert torch.autograd.gradcheck(lambda p: interlevel_loss(edges, weights, proposed_edges, p), proposed)


def test_warp_spreads_and_comes_back():
    space = SpaceConfig(side=3.0, contraction="merf", far=1e4)
    t = torch.logspace(-4, 4, 200, dtype=torch.float64)
    s = space.warp(t)
    assert (s.diff() > 0).all() and 0 < s.min() and s.max() < 1
    torch.testing.assert_close(space.unwarp(s), t, rtol=1e-9, atol=0)
