"""Laws of sampling along rays beyond the law suite."""

import pytest
import torch

from sparse3d_ops.sampling import edges_between, importance, importance_packed, strata, stratified


def test_stratified_samples_lie_in_their_bins():
    torch.manual_seed(0)
    near, far, uniforms = torch.tensor([1.0, 0.0]), torch.tensor([5.0, 2.0]), torch.rand(2, 8)
    t = stratified(near, far, uniforms)
    lower = near[:, None] + (far - near)[:, None] * torch.arange(8) / 8
    assert ((t >= lower) & (t <= lower + (far - near)[:, None] / 8)).all()
    centres = stratified(near, far, torch.full((2, 8), 0.5))
    torch.testing.assert_close(centres[0], torch.arange(8) / 2 + 1.25)
    missed = stratified(torch.tensor([torch.inf]), torch.tensor([-torch.inf]), uniforms[:1])
    assert (missed == torch.inf).all()


def test_edges_of_centres_are_those_of_the_bins():
    near, far = torch.tensor([1.0]), torch.tensor([5.0])
    edges = edges_between(stratified(near, far, torch.full((1, 8), 0.5)), near, far)
    torch.testing.assert_close(edges, torch.linspace(1, 5, 9)[None])


def test_even_weights_give_back_the_uniforms():
    uniforms = strata(torch.rand(3, 50))
    edges = torch.linspace(2, 6, 9).expand(3, -1)
    got = importance(edges, torch.full((3, 8), 0.3), uniforms)
    torch.testing.assert_close(got, 2 + 4 * uniforms)


def test_samples_follow_the_weights():
    torch.manual_seed(1)
    weights = torch.tensor([[1.0, 0, 5, 2, 0, 0, 12]])
    edges = torch.tensor([[0, 0.5, 1, 3, 3.5, 4, 5, 9]])
    t = importance(edges, weights, strata(torch.rand(1, 2000)))
    counts = torch.histogram(t[0], edges[0])[0]
    # Stratified: each bin has its share of 2000 but for the two that its ends cut.
    assert (counts - 100 * weights[0]).abs().max() <= 2
    assert (t.diff() >= 0).all()


def test_importance_is_the_inverse_of_the_distribution():
    torch.manual_seed(2)
    edges = torch.rand(4, 30, dtype=torch.float64).cumsum(1)
    weights = torch.rand(4, 29, dtype=torch.float64) + 0.01
    uniforms = torch.rand(4, 40, dtype=torch.float64)
    t = importance(edges, weights, uniforms)
    reached = torch.nn.functional.pad(weights.cumsum(1), (1, 0)) / weights.sum(1, keepdim=True)
    bin_of = torch.searchsorted(edges, t).clamp(1, 29) - 1
    part = (t - edges.gather(1, bin_of)) / edges.diff(dim=1).gather(1, bin_of)
    low, high = reached.gather(1, bin_of), reached.gather(1, bin_of + 1)
    torch.testing.assert_close(low + part * (high - low), uniforms)


def test_packed_bins_are_those_of_rays_of_any_length():
    torch.manual_seed(3)
    edges, weights, uniforms = torch.rand(3, 8).cumsum(1), torch.rand(3, 7), torch.rand(3, 5)
    t, dt = (edges[:, 1:] + edges[:, :-1]) / 2, edges.diff(dim=1)
    packed = importance_packed(t.flatten(), dt.flatten(), weights.flatten(), torch.arange(4) * 7, uniforms)
    torch.testing.assert_close(packed, importance(edges, weights, uniforms))


def test_the_ends_are_those_of_the_bins_with_weight():
    edges, weights = torch.tensor([[0.0, 1, 2, 3, 4]]), torch.tensor([[0.0, 1, 1, 0]])
    got = importance(edges, weights, torch.tensor([[0.0, 1.0, -7, 7]]))
    assert got.tolist() == [[1, 3, 1, 3]]


def test_no_gradient_passes():
    edges = torch.linspace(0, 1, 5)[None].requires_grad_()
    assert not importance(edges, torch.ones(1, 4, requires_grad=True), torch.rand(1, 3)).requires_grad


def test_errors_say_what_came():
    edges, weights, uniforms = torch.rand(3, 8).cumsum(1), torch.rand(3, 7), torch.rand(3, 5)
    with pytest.raises(ValueError, match=r"weights has shape \(3, 6\), expected \(3, 7\)"):
        importance(edges, weights[:, 1:], uniforms)
    with pytest.raises(ValueError, match=r"uniforms has shape \(2, 5\), expected \(3, K\)"):
        importance(edges, weights, uniforms[1:])
    with pytest.raises(ValueError, match="uniforms is float64, expected float32"):
        importance(edges, weights, uniforms.double())
