"""Laws of strategies, with made-up statistics: who grows, who goes, and that nothing depends on threads."""

import math
from dataclasses import dataclass, replace

import pytest
import torch
from torch import Tensor

from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.model import PARAMETERS, SplatModel
from sparse3d.gaussians.shapes import covariances
from sparse3d.gaussians.strategies import DefaultStrategy, MCMCStrategy, VoxelAnchorStrategy
from sparse3d.gaussians.strategies.default import _shared_logit
from sparse3d.gaussians.strategies.protocol import shortened
from sparse3d.gaussians.strategies.relocation import draw, relocated
from sparse3d.gaussians.voxel_index import VoxelIndex
from tests.gaussians.clouds import DOUBLE, same, some_cloud


@dataclass
class View:
    """A rendering that was differentiated, as strategies look at it."""

    means2d: Tensor
    reach: Tensor
    size: tuple[int, int] = (100, 50)
    absolute: Tensor | None = None


def view(gradient, reach=None, absolute=None):
    means2d = torch.zeros_like(gradient)
    means2d.grad = gradient
    seen = View(means2d, torch.full_like(gradient, 3.0) if reach is None else reach)
    if absolute is not None:
        seen.absolute = torch.zeros_like(absolute)
        seen.absolute.grad = absolute
    return seen


def pulls(lengths, size=(100, 50)):
    """Gradients of these lengths in halves of the picture, along x."""
    g = torch.zeros(len(lengths), 2)
    g[:, 0] = torch.as_tensor(lengths) / (size[0] / 2)
    return g


def trained(count, seed=0, surfels=False, **model):
    """A model after two steps of Adam, so that it has moments."""
    model = SplatModel(some_cloud(count, seed=seed, surfels=surfels, dtype=torch.float32), **model)
    groups = [{"params": [getattr(model, name)], "lr": 1e-3} for name in PARAMETERS]
    optimizer = torch.optim.Adam(groups, lr=1e-3)
    for _ in range(2):
        optimizer.zero_grad()
        sum((getattr(model, n) ** 2).sum() for n in PARAMETERS).backward()
        optimizer.step()
    return model, optimizer


NOW = DefaultStrategy(start_step=0, refine_every=1, reset_every=1000)


# ---- default -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("surfels", [False, True])
def test_small_ones_are_cloned_large_ones_split_and_faint_ones_pruned(surfels):
    model, optimizer = trained(6, surfels=surfels)
    with torch.no_grad():
        model.opacities.fill_(0.0)
        model.opacities[5] = -7.0  # 0.0009
        model.scales.fill_(math.log(0.005))
        model.scales[[1, 2]] = math.log(0.05)
    old = GaussianCloud.of({k: v.detach().clone() for k, v in model.cloud.parameters().items()})
    # Rows 0 and 1 are pulled, 2 and 3 not hard enough, 4 was not seen, 5 is faint.
    reach = torch.full((6, 2), 2.0)
    reach[4] = 0
    seen = view(pulls([3e-4, 3e-4, 1e-4, 1e-4, 9e-4, 9e-4]), reach)
    changes = NOW.after_step(model, optimizer, 1, [seen])
    assert changes == (1, 1, 0, 0, 1, False) and len(model) == 6 + 1 + 1 - 1
    assert same(model.cloud[:4], old[torch.tensor([0, 2, 3, 4])])
    assert same(model.cloud[4:5], old[:1]), "a clone is what it comes from"
    halves = model.cloud[5:]
    assert torch.allclose(halves.scales, old.scales[1] - math.log(1.6))
    assert torch.equal(halves.sh0, old.sh0[[1, 1]]) and torch.equal(halves.opacities, old.opacities[[1, 1]])
    off = halves.means.detach() - old.means[1]
    assert 0 < float(off.abs().max()) < 0.25 and not torch.equal(off[0], off[1])
    for name in PARAMETERS:
        for moment in optimizer.state[getattr(model, name)].values():
            assert moment.dim() == 0 or (not moment[4:].any() and moment[:4].any())
    assert not any(counted.any() for counted in model.statistics.buffers())


def test_halves_are_drawn_from_what_they_come_from():
    cloud = some_cloud(1, dtype=torch.float32)[torch.zeros(4000, dtype=torch.long)]
    model = SplatModel(cloud)
    optimizer = torch.optim.Adam(model.parameters())
    hot = view(torch.ones(4000, 2))
    assert NOW.after_step(model, optimizer, 1, [hot]).split == 4000
    off = (model.means - cloud.means[0]).detach()
    sigma = covariances(cloud.scales[:1], cloud.quats[:1])[0]
    assert torch.allclose(off.T @ off / 8000, sigma, atol=0.06 * float(sigma.abs().max()))


def test_gradients_are_means_over_the_views_that_saw_it_in_halves_of_the_picture():
    model, optimizer = trained(3)
    patient = replace(NOW, refine_every=100)
    half = torch.full((3, 2), 2.0)
    half[1] = 0
    patient.after_step(model, optimizer, 1, [view(pulls([1e-3, 1e-3, 0.0]))])
    patient.after_step(model, optimizer, 2, [view(pulls([3e-3, 5e-3, 0.0]), half)])
    mean = model.counted("gradient") / model.counted("seen")
    assert torch.allclose(mean, torch.tensor([2e-3, 1e-3, 0.0]))
    assert torch.allclose(model.counted("extent"), torch.full((3,), 0.03))
    # The same picture at twice the size: half the gradient a pixel, the same count.
    other, again = trained(3)
    large = view(pulls([1e-3, 1e-3, 0.0]) / 2)
    large.size = (200, 100)
    patient.after_step(other, again, 1, [large])
    assert torch.allclose(other.counted("gradient"), torch.tensor([1e-3, 1e-3, 0.0]))
    # Two views whose mean is the loss: each has half of its gradient.
    both, last = trained(3)
    views = [view(pulls([1e-3, 1e-3, 0.0]) / 2), view(pulls([3e-3, 5e-3, 0.0]) / 2, half)]
    patient.after_step(both, last, 1, views)
    assert torch.allclose(both.counted("gradient"), model.counted("gradient"))


def test_absolute_gradients_are_taken_where_asked_for():
    model, optimizer = trained(2)
    seen = view(pulls([0.0, 0.0]), absolute=pulls([1e-3, 0.0]))
    strategy = replace(NOW, absolute=True, gradient=8e-4)
    assert strategy.wants_absolute and not NOW.wants_absolute
    assert NOW.after_step(model, optimizer, 1, [seen]) == (0, 0, 0, 0, 0, False)
    assert strategy.after_step(model, optimizer, 1, [seen])[:2] != (0, 0)
    with pytest.raises(ValueError, match="before_backward"):
        strategy.after_step(model, optimizer, 1, [View(torch.zeros(3, 2), torch.ones(3, 2))])


def test_resets_lower_opacities_and_forget_their_moments():
    model, optimizer = trained(5)
    strategy = replace(NOW, reset_every=10, refine_every=1000)
    low = math.log(0.01 / 0.99)
    with torch.no_grad():
        model.opacities.copy_(torch.tensor([3.0, 0.0, -9.0, low, -2.0]))
    assert strategy.after_step(model, optimizer, 10, [view(pulls([0.0] * 5))]).reset
    assert torch.allclose(model.opacities, torch.tensor([low, low, -9.0, low, low]))
    state = optimizer.state[model.opacities]
    assert not state["exp_avg"].any() and optimizer.state[model.means]["exp_avg"].all()
    assert not strategy.after_step(model, optimizer, 11, [view(pulls([0.0] * 5))]).reset


def test_large_ones_go_only_after_the_first_reset():
    for step, pruned in ((4, 0), (12, 2)):
        model, optimizer = trained(5, scene_scale=2.0)
        with torch.no_grad():
            model.scales.fill_(math.log(0.01))
            model.opacities.fill_(0.0)
            model.scales[[1, 4]] = math.log(0.3)
        strategy = DefaultStrategy(start_step=0, refine_every=4, reset_every=10)
        changes = strategy.after_step(model, optimizer, step, [view(pulls([0.0] * 5))])
        assert changes.pruned == pruned and len(model) == 5 - pruned


def test_the_number_is_bounded_and_the_largest_gradients_grow():
    model, optimizer = trained(5)
    with torch.no_grad():
        model.opacities.fill_(0.0)
        model.scales.fill_(math.log(0.001))
    old = model.cloud.means.detach().clone()
    changes = replace(NOW, most=7).after_step(
        model, optimizer, 1, [view(pulls([1e-3, 5e-3, 1e-5, 4e-3, 4e-3]))]
    )
    assert changes.cloned == 2 and torch.equal(model.means[5:], old[[1, 3]])


def test_a_clone_that_shares_opacity_covers_as_much():
    logits = torch.tensor([-8.0, -1.0, 0.5, 9.0, 25.0], dtype=DOUBLE)
    through = torch.sigmoid(-_shared_logit(logits)) ** 2
    assert torch.allclose(through, torch.sigmoid(-logits), rtol=1e-12)
    model, optimizer = trained(2)
    with torch.no_grad():
        model.scales.fill_(math.log(0.001))
    o = torch.sigmoid(model.opacities.detach())
    replace(NOW, keep_opacity=True).after_step(model, optimizer, 1, [view(pulls([1.0, 0.0]))])
    now = torch.sigmoid(model.opacities.detach())
    assert len(model) == 3 and torch.isclose((1 - now[0]) * (1 - now[2]), 1 - o[0]) and now[1] == o[1]


# ---- relocation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 7, 51, 200])
def test_coincident_copies_look_like_the_one(n):
    opacity = torch.tensor([0.006, 0.3, 0.9, 0.9999], dtype=DOUBLE)
    logits, scales = torch.logit(opacity), torch.zeros(4, 3, dtype=DOUBLE)
    new, widths = relocated(logits, scales, torch.full((4,), n))
    assert torch.allclose(1 - torch.sigmoid(-new) ** n, opacity, rtol=1e-11), "in the middle"
    # Along a line through the middle: the integral of 1 - (1 - o' g)^n, which is smooth and ends.
    x = torch.linspace(-12, 12, 4001, dtype=DOUBLE)[:, None]
    one = opacity * torch.exp(-x.square() / 2)
    sigma = widths[:, 0].exp()
    many = 1 - (1 - torch.sigmoid(new) * torch.exp(-(x / sigma).square() / 2)) ** n
    assert torch.allclose(many.sum(0), one.sum(0), rtol=1e-9)
    assert torch.equal(widths, widths[:, :1].expand(-1, 3))
    if n == 1:
        assert torch.equal(new, logits) and torch.equal(widths, scales)
    else:  # together they are flatter in the middle, so each is narrower
        assert (widths < 0).all()


def test_draws_are_in_proportion_to_weights_and_follow_the_generator():
    weights = torch.tensor([0.0, 1.0, 3.0, 0.0, 4.0])
    rows = draw(weights, 80_000, torch.Generator().manual_seed(1))
    parts = torch.bincount(rows, minlength=5) / 80_000
    assert torch.allclose(parts, weights / 8, atol=0.01) and not parts[[0, 3]].any()
    assert torch.equal(rows, draw(weights, 80_000, torch.Generator().manual_seed(1)))
    with pytest.raises(ValueError, match="nothing to draw"):
        draw(torch.zeros(3), 1, torch.Generator())


STILL = MCMCStrategy(start_step=0, refine_every=1, noise=0.0, growth=0.0)


def test_the_dead_move_to_the_living_and_share_with_them():
    model, optimizer = trained(8)
    with torch.no_grad():
        model.opacities.copy_(torch.tensor([2.0, -8, 1.0, -8, -8, -8, 0.5, -8]))
    old = GaussianCloud.of({k: v.detach().clone() for k, v in model.cloud.parameters().items()})
    parameter = model.means
    assert STILL.after_step(model, optimizer, 1, []).relocated == 5
    assert model.means is parameter and len(model) == 8
    alive = [0, 2, 6]
    for source in alive:
        copies = (model.means == old.means[source]).all(1)
        count = int(copies.sum())
        o = torch.sigmoid(model.opacities.detach()[copies]).double()
        assert torch.allclose(1 - (1 - o).prod(), torch.sigmoid(old.opacities[source]).double(), rtol=1e-5)
        assert torch.equal(model.shN[copies], old.shN[source].expand(count, -1, -1))
        moments = optimizer.state[model.means]["exp_avg"]
        assert bool(moments[source].any()) == (count == 1), "who shares begins anew"
    dead = [1, 3, 4, 5, 7]
    assert not optimizer.state[model.scales]["exp_avg_sq"][dead].any()
    assert (torch.sigmoid(model.opacities) > STILL.min_opacity).all()


def test_growth_is_five_in_a_hundred_up_to_the_most():
    model, optimizer = trained(100)
    strategy = replace(STILL, growth=0.05, most=112)
    numbers = []
    for step in range(1, 6):
        strategy.after_step(model, optimizer, step, [])
        numbers.append(len(model))
    assert numbers == [105, 110, 112, 112, 112]
    empty = SplatModel(some_cloud(0, dtype=torch.float32))
    strategy.after_step(empty, torch.optim.Adam(empty.parameters()), 1, [])
    assert len(empty) == 0


def test_faint_ones_wander_along_their_shape_and_opaque_ones_stay():
    count = 20_000
    cloud = some_cloud(1, dtype=torch.float32)[torch.zeros(count, dtype=torch.long)]
    cloud.opacities[: count // 2] = -9.0
    cloud.opacities[count // 2 :] = 2.0
    model = SplatModel(cloud)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    MCMCStrategy().after_step(model, optimizer, 7, [])
    off = (model.means - cloud.means).detach().double()
    assert not off[count // 2 :].any()
    off = off[: count // 2]
    sigma = covariances(cloud.scales[:1], cloud.quats[:1])[0].double()
    gate = float(torch.sigmoid(-100 * (torch.sigmoid(cloud.opacities[0]) - 0.005)))
    expected = (1e-4 * 5e5 * gate) ** 2 * sigma @ sigma
    found = off.T @ off / len(off)
    assert torch.allclose(found, expected, atol=0.05 * float(expected.abs().max()))


# ---- anchors in voxels -------------------------------------------------------------------------------------

ANCHORS = VoxelAnchorStrategy(start_step=0, refine_every=1, voxel_size=0.02, sizes=2, draws=8)


def test_new_gaussians_stand_alone_in_voxels_that_were_empty():
    model, optimizer = trained(50)
    with torch.no_grad():
        model.opacities.fill_(0.0)
    before = model.means.detach().clone()
    hot = torch.zeros(50)
    hot[:10] = 3e-4  # enough for the coarse size alone
    changes = ANCHORS.after_step(model, optimizer, 1, [view(pulls(hot))])
    grown = changes.grown
    assert 10 < grown <= 80 and len(model) == 50 + grown and torch.equal(model.means[:50], before)
    coarse = VoxelIndex(model.means, 0.08)
    assert (coarse.counts[coarse.voxel[50:]] == 1).all()
    assert torch.allclose(model.opacities[50:].sigmoid(), torch.tensor(0.1))
    assert (model.scales[50:] <= math.log(0.04) + 1e-6).all()
    near = torch.cdist(model.means[50:].detach(), before[:10]).amin(1)
    assert (near < 1.5).all() and float(near.median()) < 0.4
    # Twice the gradient is needed for voxels four times finer.
    other, again = trained(50)
    with torch.no_grad():
        other.opacities.fill_(0.0)
    assert ANCHORS.after_step(other, again, 1, [view(pulls(2 * hot))]).grown > grown


def test_anchors_are_bounded_and_faint_ones_are_pruned():
    model, optimizer = trained(50)
    with torch.no_grad():
        model.opacities[:5] = -9.0
        model.opacities[5:] = 1.0
    strategy = replace(ANCHORS, most=55)
    changes = strategy.after_step(model, optimizer, 1, [view(pulls([1.0] * 50))])
    assert changes.grown == 5 and changes.pruned == 5 and len(model) == 50


# ---- all ---------------------------------------------------------------------------------------------------

ALL = [
    replace(NOW, refine_every=2, reset_every=7),
    replace(STILL, refine_every=2, noise=5e5, growth=0.05),
    replace(ANCHORS, refine_every=2),
]


def run(strategy, model, optimizer, steps, threads=1):
    for step in steps:
        random = torch.Generator().manual_seed(step)
        optimizer.zero_grad()
        target = torch.randn(1, 3, generator=random)
        ((model.means - target) ** 2).mean().backward()
        model.opacities.grad = torch.full_like(model.opacities, 0.1)
        optimizer.step()
        gradient = torch.randn(len(model), 2, generator=random) * 1e-5
        torch.set_num_threads(threads)
        strategy.after_step(model, optimizer, step, [view(gradient)])
        torch.set_num_threads(1)


@pytest.mark.parametrize("strategy", ALL, ids=lambda s: s.kind)
@pytest.mark.parametrize("surfels", [False, True])
def test_the_same_bits_for_any_number_of_threads(strategy, surfels):
    results = []
    for threads in (1, 2):
        # Large enough that torch would cut tensors between threads.
        count = 1000 if strategy.kind == "voxel_anchors" else 40_000
        model, optimizer = trained(count, seed=3, surfels=surfels)
        run(strategy, model, optimizer, range(1, 4), threads)
        results.append(model.cloud)
    assert len(results[0]) != count
    assert same(*results)


@pytest.mark.parametrize("strategy", ALL, ids=lambda s: s.kind)
def test_a_run_that_is_resumed_goes_on_with_the_same_bits(strategy):
    model, optimizer = trained(300)
    run(strategy, model, optimizer, range(1, 4))
    saved = {k: v.clone() for k, v in model.state_dict().items()}
    memory = optimizer.state_dict()
    memory = {
        **memory,
        "state": {k: {n: v.clone() for n, v in s.items()} for k, s in memory["state"].items()},
    }
    run(strategy, model, optimizer, range(4, 9))
    other, again = trained(2)
    other.reshape_for(saved)
    other.load_state_dict(saved)
    again = torch.optim.Adam([{"params": [getattr(other, name)], "lr": 1e-3} for name in PARAMETERS])
    again.load_state_dict(memory)
    run(strategy, other, again, range(4, 9))
    assert same(model.cloud, other.cloud)


def test_shorter_trainings_have_shorter_schedules():
    short = shortened(DefaultStrategy(), 0.1)
    assert (short.start_step, short.stop_step, short.refine_every, short.reset_every) == (50, 1500, 10, 300)
    assert short.pause_step == 0 and short.gradient == 2e-4
    assert shortened(MCMCStrategy(), 1e-9).refine_every == 1


@pytest.mark.parametrize(
    "make",
    [
        lambda: DefaultStrategy(gradient=0.0),
        lambda: DefaultStrategy(split_by=1.0),
        lambda: DefaultStrategy(prune_opacity=0.6),
        lambda: MCMCStrategy(most=0),
        lambda: MCMCStrategy(min_opacity=1.0),
        lambda: VoxelAnchorStrategy(coarser=1.0),
        lambda: VoxelAnchorStrategy(opacity=0.0),
    ],
)
def test_numbers_that_mean_nothing_are_refused(make):
    with pytest.raises(ValueError):
        make()
