"""Laws of rows that come and go: the optimiser's memory follows, resumed training gives the same bits."""

import pytest
import torch

from sparse3d.engine.selective_adam import SelectiveAdam
from sparse3d.engine.state import TakesShape, load_optimizer, optimizer_tensors
from sparse3d.gaussians.model import PARAMETERS, SplatModel, learning_rate
from sparse3d.gaussians.window import SlidingWindow
from tests.gaussians.clouds import same, some_cloud


def optimizer_of(model, kind=torch.optim.Adam):
    groups = [{"params": [getattr(model, name)], "lr": 0.01 * (k + 1)} for k, name in enumerate(PARAMETERS)]
    return kind(groups, lr=0.01)


def train(model, optimizer, steps, seed=0):
    """Steps with gradients that depend on the parameters and on where rows are."""
    for step in range(steps):
        optimizer.zero_grad()
        target = some_cloud(1, seed=seed + step, dtype=torch.float32)
        sum(((getattr(model, n) - getattr(target, n)) ** 2).sum() for n in PARAMETERS).backward()
        optimizer.step()


def moments(optimizer, model, name):
    state = optimizer.state[getattr(model, name)]
    return {k: v.clone() for k, v in state.items() if v.dim()}


@pytest.mark.parametrize("kind", [torch.optim.Adam, SelectiveAdam])
def test_moments_and_counts_follow_their_rows_and_new_rows_have_none(kind):
    model = SplatModel(some_cloud(6, dtype=torch.float32))
    optimizer = optimizer_of(model, kind)
    train(model, optimizer, 3)
    model.counted("gradient").copy_(torch.arange(6.0) + 1)
    values = {name: getattr(model, name).detach().clone() for name in PARAMETERS}
    before = {name: moments(optimizer, model, name) for name in PARAMETERS}
    added = some_cloud(2, seed=9, dtype=torch.float32)
    kept = torch.tensor([4, 0, 3])
    model.exchange(optimizer, kept, added)
    assert len(model) == 5 and model.counted("gradient").tolist() == [5, 1, 4, 0, 0]
    for name in PARAMETERS:
        assert torch.equal(getattr(model, name)[:3], values[name][kept])
        assert torch.equal(getattr(model, name)[3:], getattr(added, name))
        after = moments(optimizer, model, name)
        assert after.keys() == before[name].keys() and after
        for key, moment in after.items():
            assert torch.equal(moment[:3], before[name][key][kept]) and moment[:3].any()
            assert not moment[3:].any()
    assert len(optimizer.state) == len(PARAMETERS)
    train(model, optimizer, 2)
    assert all(not torch.equal(getattr(model, n)[:3], values[n][kept]) for n in PARAMETERS)


def test_an_edit_leaves_the_training_of_other_rows_as_it_was():
    # Without coupling between rows, those that stay go the way that they would have gone.
    alone = SplatModel(some_cloud(6, dtype=torch.float32))
    edited = SplatModel(some_cloud(6, dtype=torch.float32))
    for model, edits in ((alone, False), (edited, True)):
        optimizer = optimizer_of(model)
        train(model, optimizer, 3)
        if edits:
            model.keep(optimizer, torch.tensor([True, False, True, True, False, True]))
            model.grow(optimizer, some_cloud(3, seed=4, dtype=torch.float32))
        train(model, optimizer, 3, seed=50)
    rows = torch.tensor([0, 2, 3, 5])
    assert same(edited.cloud[:4], alone.cloud[rows])


def test_replaced_rows_lose_their_moments_of_these_parameters_alone():
    model = SplatModel(some_cloud(4, dtype=torch.float32))
    optimizer = optimizer_of(model)
    train(model, optimizer, 2)
    before = moments(optimizer, model, "means")
    parameter = model.opacities
    model.replace(optimizer, torch.tensor([1, 3]), {"opacities": torch.tensor([0.5, -0.5])})
    assert model.opacities is parameter and model.opacities[[1, 3]].tolist() == [0.5, -0.5]
    for moment in moments(optimizer, model, "opacities").values():
        assert not moment[[1, 3]].any() and moment[[0, 2]].all()
    assert all(torch.equal(v, before[k]) for k, v in moments(optimizer, model, "means").items())


def test_a_resumed_model_goes_on_with_the_same_bits():
    model = SplatModel(some_cloud(5, dtype=torch.float32), scene_scale=2.5, seed=7)
    optimizer = optimizer_of(model)
    train(model, optimizer, 2)
    model.grow(optimizer, some_cloud(3, seed=4, dtype=torch.float32))
    model.counted("gradient").fill_(3.0)
    saved = {k: v.clone() for k, v in model.state_dict().items()}
    tensors = {k: v.clone() for k, v in optimizer_tensors(model, optimizer).items()}
    train(model, optimizer, 2, seed=20)

    other = SplatModel(some_cloud(1, dtype=torch.float32))
    assert isinstance(other, TakesShape)
    other.reshape_for(saved)
    again = optimizer_of(other)
    other.load_state_dict(saved)
    load_optimizer(other, again, tensors, "here")
    assert float(other.scene_scale) == 2.5 and other.counted("gradient").tolist() == [3.0] * 8
    train(other, again, 2, seed=20)
    assert same(other.cloud, model.cloud)
    draws = [torch.rand(3, generator=m.generator(30, 1)).tolist() for m in (model, other)]
    assert draws[0] == draws[1] != torch.rand(3, generator=model.generator(31, 1)).tolist()
    assert draws[0] != torch.rand(3, generator=model.generator(30, 2)).tolist()


def test_rates_are_those_of_the_parameters_group():
    model = SplatModel(some_cloud(2, dtype=torch.float32))
    optimizer = optimizer_of(model)
    assert learning_rate(optimizer, model.quats) == pytest.approx(0.03)
    with pytest.raises(ValueError, match="does not train"):
        learning_rate(optimizer, torch.nn.Parameter(torch.zeros(1)))


def test_only_what_fits_is_added():
    model = SplatModel(some_cloud(2, dtype=torch.float32))
    for wrong in (some_cloud(1, degree=1), some_cloud(1, surfels=True)):
        with pytest.raises(ValueError, match="as many scales"):
            model.grow(None, wrong)


def test_a_window_exchanges_the_difference_and_writes_back_what_it_learnt():
    cloud = some_cloud(40, dtype=torch.float32)
    window = SlidingWindow(cloud)
    optimizer = optimizer_of(window.model)
    assert window.move(torch.arange(0, 20), optimizer).entered.tolist() == list(range(20))
    train(window.model, optimizer, 2)
    learnt = {name: getattr(window.model, name).detach().clone() for name in PARAMETERS}
    memory = moments(optimizer, window.model, "means")
    moved = window.move(torch.arange(30, 4, -1), optimizer)
    assert moved.entered.tolist() == list(range(20, 31)) and moved.left.tolist() == list(range(5))
    assert window.rows.tolist() == list(range(5, 31))
    assert same(window.model.cloud[15:], cloud[20:31]), "as the map has them"
    for key, value in moments(optimizer, window.model, "means").items():
        assert torch.equal(value[:15], memory[key][5:]) and not value[15:].any()
    for name in PARAMETERS:
        assert torch.equal(getattr(window.map, name)[:5], learnt[name][:5]), "what left was written back"
        assert torch.equal(getattr(window.model, name)[:15], learnt[name][5:])
    whole = window.write_back()
    assert torch.equal(whole.means[:20], learnt["means"]) and same(whole[20:], cloud[20:])
    still = window.move(window.rows, optimizer)
    assert not len(still.entered) and not len(still.left)
    # What entered and left over a walk gives where it ended.
    held = set(window.rows.tolist())
    for rows in (torch.arange(10), torch.arange(5, 40, 3), torch.zeros(0, dtype=torch.long)):
        moved = window.move(rows, optimizer)
        held = (held | set(moved.entered.tolist())) - set(moved.left.tolist())
        assert held == set(window.rows.tolist()) == set(rows.tolist())
    with pytest.raises(ValueError, match="twice"):
        window.move(torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="map"):
        window.move(torch.tensor([40]))
