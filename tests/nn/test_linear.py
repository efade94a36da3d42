"""The repeatable layer computes what torch's does, with the same bits for any number of threads."""

import pytest
import torch
from torch import nn

from sparse3d.nn.linear import RepeatableLinear


@pytest.mark.parametrize("rows", [0, 1, 300])
@pytest.mark.parametrize("bias", [True, False])
def test_equals_torch(rows, bias):
    layer, twin = RepeatableLinear(11, 16, bias), nn.Linear(11, 16, bias)
    twin.load_state_dict(layer.state_dict())
    x = torch.randn(rows, 11, requires_grad=True)
    torch.testing.assert_close(layer(x), twin(x))
    grad = torch.randn(rows, 16)
    inputs = [x, *layer.parameters()], [x, *twin.parameters()]
    for got, want in zip(
        torch.autograd.grad(layer(x), inputs[0], grad),
        torch.autograd.grad(twin(x), inputs[1], grad),
        strict=True,
    ):
        torch.testing.assert_close(got, want)


def test_second_derivatives():
    layer = RepeatableLinear(5, 4).double()
    x = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: layer(x).square(), x)


# Widths at which the libraries below torch cut by threads, and others.
@pytest.mark.parametrize(("inputs", "outputs"), [(11, 16), (7, 32), (16, 16), (64, 3), (3, 2)])
def test_same_bits_for_any_number_of_threads(inputs, outputs):
    import numba

    layer, x, grad = (
        RepeatableLinear(inputs, outputs),
        torch.randn(20_000, inputs),
        torch.randn(20_000, outputs),
    )
    x.requires_grad_()
    found, threads, kernels = [], torch.get_num_threads(), numba.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            numba.set_num_threads(min(count, numba.config.NUMBA_NUM_THREADS))
            found.append([layer(x).detach(), *torch.autograd.grad(layer(x), [x, *layer.parameters()], grad)])
    finally:
        torch.set_num_threads(threads)
        numba.set_num_threads(kernels)
    for others in found[1:]:
        assert all(torch.equal(a, b) for a, b in zip(found[0], others, strict=True))


def test_a_single_bias_is_refused():
    with pytest.raises(ValueError, match="use bias=False or two outputs"):
        RepeatableLinear(4, 1)
