"""Laws of attention within sets beyond the law suite."""

import numba
import pytest
import torch

from sparse3d_ops.set_attention import attend, padded_set_attention, set_attention
from sparse3d_ops.windows import padded_sets, window_sets
from tests.ops.cases_windows import voxels

SET_SIZE, HEADS = 7, 4


def scene(channels=24, dtype=torch.float32):
    torch.manual_seed(4)
    sets = window_sets(voxels(150, [20, 17, 2], batches=2), [20, 17, 2], [6, 6, 2], [3, 3, 0], SET_SIZE)
    return [torch.randn(150, channels, dtype=dtype) for _ in range(3)], sets


@pytest.mark.parametrize("along", ["order_y", "order_x"])
def test_equals_the_masked_attention_over_padded_slots(along):
    inputs, sets = scene(dtype=torch.float64)
    order = getattr(sets, along)
    padded = padded_sets(order, sets.offsets, sets.set_window, SET_SIZE)
    assert padded.repeated.any()
    ours, twins = ([x.clone().requires_grad_() for x in inputs] for _ in range(2))
    out = set_attention(*ours, order, sets.offsets, SET_SIZE, HEADS)
    twin = padded_set_attention(*twins, *padded, HEADS)
    torch.testing.assert_close(out, twin)
    grad = torch.randn_like(out)
    got, want = torch.autograd.grad(out, ours, grad), torch.autograd.grad(twin, twins, grad)
    for g, w in zip(got, want, strict=True):
        torch.testing.assert_close(g, w)


def test_sets_do_not_see_each_other():
    inputs, sets = scene()
    before = set_attention(*inputs, sets.order_y, sets.offsets, SET_SIZE, HEADS)
    rows = sets.order_y[sets.offsets[3] : sets.offsets[4]]
    for x in inputs:
        x[rows] += 5
    after = set_attention(*inputs, sets.order_y, sets.offsets, SET_SIZE, HEADS)
    others = torch.ones(len(before), dtype=torch.bool)
    others[rows] = False
    assert torch.equal(after[others], before[others]) and (after[rows] > before[rows] + 1).all()


def test_outputs_lie_between_the_values_and_a_constant_added_to_all_keys_of_a_head_changes_nothing():
    (q, k, v), sets = scene()
    out = set_attention(q, k, v, sets.order_x, sets.offsets, SET_SIZE, HEADS)
    assert out.max() <= v.max() + 1e-5 and out.min() >= v.min() - 1e-5
    moved = set_attention(q, k + torch.randn(1, 24), v, sets.order_x, sets.offsets, SET_SIZE, HEADS)
    torch.testing.assert_close(moved, out, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_summed_in_float32_forward_and_backward(dtype):
    inputs, sets = scene()
    halves = [x.to(dtype).requires_grad_() for x in inputs]
    wide = [x.detach().float().requires_grad_() for x in halves]
    rest = sets.order_y, sets.offsets, SET_SIZE, HEADS
    (out, lse), (want, want_lse) = attend(*halves, *rest), attend(*wide, *rest)
    assert out.dtype == dtype and lse.dtype == torch.float32
    # On a GPU weights are rounded to half precision before they multiply values: a few units in the last
    # place.
    tolerance = dict(rtol=0, atol=6 * torch.finfo(dtype).eps)
    torch.testing.assert_close(out.float(), want, **tolerance)
    torch.testing.assert_close(lse, want_lse)
    grad = torch.randn_like(want).to(dtype)
    got = torch.autograd.grad(out, halves, grad)
    for g, w in zip(got, torch.autograd.grad(want, wide, grad.float()), strict=True):
        torch.testing.assert_close(g.float(), w, rtol=0, atol=20 * torch.finfo(dtype).eps)


def test_scores_of_any_size_give_no_nan_and_no_infinity():
    inputs, sets = scene()
    inputs = [(1e4 * x).requires_grad_() for x in inputs]
    out = set_attention(*inputs, sets.order_y, sets.offsets, SET_SIZE, HEADS)
    gradients = torch.autograd.grad(out.sum(), inputs)
    assert out.isfinite().all() and all(g.isfinite().all() for g in gradients)


def test_rows_in_no_order_are_named():
    (q, k, v), sets = scene()
    rest = sets.offsets, SET_SIZE, HEADS
    with pytest.raises(ValueError, match="names a row twice"):
        set_attention(q, k, v, torch.zeros(150, dtype=torch.int64), *rest)
    with pytest.raises(ValueError, match=r"order\[0\] is 150"):
        set_attention(q, k, v, sets.order_y.index_fill(0, torch.tensor([0]), 150), *rest)
    with pytest.raises(ValueError, match="rows, expected 0 to 3"):
        set_attention(q, k, v, sets.order_y, sets.offsets, 3, HEADS)
    with pytest.raises(ValueError, match="must begin with 0 and end with 150"):
        set_attention(q, k, v, sets.order_y, sets.offsets[:-1], SET_SIZE, HEADS)
    with pytest.raises(ValueError, match="heads is 5"):
        set_attention(q, k, v, sets.order_y, sets.offsets, SET_SIZE, 5)
    with pytest.raises(ValueError, match="key is torch.float16"):
        set_attention(q, k.half(), v, sets.order_y, *rest)


@pytest.mark.numba_bodies
def test_a_numba_that_does_not_compile_gives_the_same(monkeypatch):
    inputs, sets = scene(dtype=torch.float64)
    rest = sets.order_x, sets.offsets, SET_SIZE, HEADS
    grad, grad_lse = torch.randn(150, 24).double(), torch.randn(150, HEADS).double()

    def found():
        leaves = [x.clone().requires_grad_() for x in inputs]
        out, lse = attend(*leaves, *rest)
        return out, lse, *torch.autograd.grad((out, lse), leaves, (grad, grad_lse))

    want = found()
    monkeypatch.setattr(numba.config, "DISABLE_JIT", 1)
    monkeypatch.setattr("sparse3d_ops.cpu.set_attention.attend", None)
    monkeypatch.setattr("sparse3d_ops.cpu.set_attention.attend_backward", None)
    for got, wanted in zip(found(), want, strict=True):
        torch.testing.assert_close(got, wanted)
