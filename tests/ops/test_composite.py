"""Laws of volume rendering beyond the law suite."""

import pytest
import torch

from sparse3d_ops import composite as ops
from sparse3d_ops.composite import accumulate, composite, distortion, transmittance
from tests.ops.cases_composite import SAMPLES, SPREADS, starts

CPU = torch.device("cpu")


def samples(name="stopped", dtype=torch.float64):
    torch.manual_seed(0)
    return SAMPLES[name](dtype, CPU)


def test_what_is_absorbed_and_what_gets_through_is_everything():
    sigma, values, dt, ray_starts, _ = samples("long", torch.float32)
    seen = composite(sigma, values, dt, ray_starts)
    through = transmittance(sigma, dt, ray_starts)
    last = ray_starts[1:] - 1
    left = through[last] * torch.exp(-sigma[last] * dt[last])
    torch.testing.assert_close(seen.opacity + left, torch.ones(3))
    torch.testing.assert_close(seen.weights, through * -torch.expm1(-sigma * dt), rtol=1e-4, atol=1e-7)


def test_constant_density_gives_the_exponential_of_the_length_however_it_is_cut():
    torch.manual_seed(1)
    cuts = torch.rand(4, 50, dtype=torch.float64)
    dt = (2.5 * cuts / cuts.sum(1, keepdim=True)).flatten()
    seen = composite(torch.full_like(dt, 0.8), torch.ones(200, 1, dtype=torch.float64), dt, starts([50] * 4))
    want = 1 - torch.exp(torch.full((4,), -0.8 * 2.5, dtype=torch.float64))
    torch.testing.assert_close(seen.opacity, want)
    torch.testing.assert_close(seen.out[:, 0], want)


def test_a_constant_value_comes_out_times_the_opacity():
    sigma, values, dt, ray_starts, stop = samples("empty_rays")
    seen = composite(sigma, torch.full_like(values, 3.0), dt, ray_starts, stop)
    torch.testing.assert_close(seen.out, 3 * seen.opacity[:, None].expand(-1, values.shape[1]))


def test_nothing_is_seen_behind_what_is_opaque():
    sigma = torch.tensor([1e4, 5.0])
    values = torch.tensor([[1.0], [7.0]], requires_grad=True)
    seen = composite(sigma, values, torch.ones(2), torch.tensor([0, 2]))
    assert seen.out.item() == 1 and seen.weights.tolist() == [1, 0]
    seen.out.sum().backward()
    assert values.grad is not None and values.grad.tolist() == [[1], [0]]


def test_stopping_changes_less_than_what_it_leaves_out():
    sigma, values, dt, ray_starts, _ = samples("long")
    full, cut = composite(sigma, values, dt, ray_starts), composite(sigma, values, dt, ray_starts, 0.05)
    assert (full.opacity - cut.opacity).abs().max() <= 0.05
    left_out = transmittance(sigma, dt, ray_starts) < 0.05
    assert left_out.any() and torch.equal(cut.weights == 0, left_out)
    assert torch.equal(cut.weights[~left_out], full.weights[~left_out])


def test_gradients_behind_the_stop_are_zero_and_those_before_it_are_of_the_cut_ray():
    sigma, values, dt, ray_starts, stop = samples()
    sigma.requires_grad_()
    seen = composite(sigma, values, dt, ray_starts, stop)
    (grad,) = torch.autograd.grad(seen.out.sum(), sigma)
    left_out = transmittance(sigma.detach(), dt, ray_starts) < stop
    assert left_out.any() and not grad[left_out].any() and grad[~left_out].all()
    # Without what was left out, and without a stop, all is the same.
    kept = torch.cat([(~left_out)[a:b].sum()[None] for a, b in zip(ray_starts, ray_starts[1:], strict=False)])
    short = sigma[~left_out].detach().requires_grad_()
    again = composite(short, values[~left_out], dt[~left_out], starts(kept.tolist()))
    assert torch.equal(again.out, seen.out)
    assert torch.equal(torch.autograd.grad(again.out.sum(), short)[0], grad[~left_out])


def test_depth_is_the_composite_of_t():
    sigma, values, dt, ray_starts, stop = samples()
    t = dt.cumsum(0)
    seen = composite(sigma, torch.cat((values, t[:, None]), 1), dt, ray_starts, stop)
    torch.testing.assert_close(accumulate(seen.weights, t[:, None], ray_starts)[:, 0], seen.out[:, -1])


@pytest.mark.numba_bodies
@pytest.mark.parametrize("name", ["empty_rays", "stopped", "opaque", "clear"])
def test_second_derivatives_of_compositing_equal_finite_differences(name):
    sigma, values, dt, ray_starts, stop = samples(name)
    inputs = [x.requires_grad_() for x in (sigma, values, dt)]
    assert torch.autograd.gradgradcheck(lambda *x: composite(*x, ray_starts, stop), inputs)


@pytest.mark.numba_bodies
def test_second_derivatives_of_the_distortion_equal_finite_differences():
    torch.manual_seed(0)
    *inputs, ray_starts = SPREADS["empty_rays"](torch.float64, CPU)
    for x in inputs:
        x.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda *x: distortion(*x, ray_starts), inputs)


def test_distortion_scales_with_the_square_of_the_weights_and_moves_with_the_ray():
    torch.manual_seed(0)
    weights, t, dt, ray_starts = SPREADS["stopped"](torch.float64, CPU)
    one = distortion(weights, t, dt, ray_starts)
    torch.testing.assert_close(distortion(3 * weights, t, dt, ray_starts), 9 * one)
    torch.testing.assert_close(distortion(weights, t + 1e3, dt, ray_starts), one)


def test_distortion_far_away_loses_no_digits():
    # In float32 at 2000 m: t W - M by itself would be off by 1e-4 of 2000 m.
    t = 2000 + torch.arange(64) / 64
    weights, dt = torch.full((64,), 1 / 64), torch.full((64,), 1 / 64)
    got = distortion(weights, t, dt, torch.tensor([0, 64]))
    # Samples spread evenly over one metre: a third, whatever they are cut into.
    torch.testing.assert_close(got, torch.tensor([1 / 3]))


def test_a_nan_stays_in_its_ray():
    sigma, values, dt, ray_starts, _ = samples()
    sigma[0] = torch.nan
    seen = composite(sigma, values, dt, ray_starts)
    assert seen.out[0].isnan().all() and not seen.out[1:].isnan().any()


@pytest.mark.numba_bodies
def test_compositing_compiles_without_graph_break_to_the_same_bits():
    args = samples(dtype=torch.float32)
    compiled = torch.compile(composite, fullgraph=True, backend="aot_eager")
    for got, want in zip(compiled(*args), composite(*args), strict=True):
        assert torch.equal(got, want)


def test_errors_say_what_came():
    sigma, values, dt, ray_starts, _ = samples()
    with pytest.raises(ValueError, match="dt is float32, expected float64"):
        composite(sigma, values, dt.float(), ray_starts)
    with pytest.raises(ValueError, match="sigma is float16"):
        composite(sigma.half(), values.half(), dt.half(), ray_starts)
    with pytest.raises(ValueError, match=r"values has shape \(26,\), expected \(26, C\)"):
        composite(sigma, sigma, dt, ray_starts)
    with pytest.raises(ValueError, match="runs from 0 to 25"):
        composite(sigma, values, dt, ray_starts.clamp(max=25))
    with pytest.raises(ValueError, match="do not fall"):
        composite(sigma, values, dt, torch.tensor([0, 9, 5, 26]))
    with pytest.raises(ValueError, match="runs from -1"):
        composite(sigma, values, dt, torch.tensor([-1, 26]))
    with pytest.raises(ValueError, match="ray_starts has shape"):
        composite(sigma[:0], values[:0], dt[:0], torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="stop is 1.0"):
        composite(sigma, values, dt, ray_starts, 1.0)
    with pytest.raises(ValueError, match="rays has shape"):
        ops.ray_dot(torch.ones(9, 3, dtype=torch.float64), values, ray_starts)
