"""The repeatable activations are torch's, to rounding, with the same bits for any number of threads."""

import pytest
import torch

from sparse3d.nn import activations


def logaddexp(x):
    return torch.logaddexp(x, torch.zeros_like(x))


TWINS = [
    (activations.sigmoid, torch.sigmoid),
    (activations.softplus, logaddexp),
    (activations.Softplus(100), lambda x: logaddexp(100 * x) / 100),
]


@pytest.mark.parametrize(("function", "twin"), TWINS)
def test_equals_torch(function, twin):
    x = torch.cat([torch.linspace(-90, 90, 1000), torch.linspace(-0.1, 0.1, 1000)])
    x = torch.cat([x, torch.zeros(1)]).double().requires_grad_()
    torch.testing.assert_close(function(x), twin(x), rtol=1e-9, atol=1e-15)
    got, want = (torch.autograd.grad(f(x).sum(), x)[0] for f in (function, twin))
    torch.testing.assert_close(got, want, rtol=1e-9, atol=1e-15)
    assert torch.autograd.gradgradcheck(function, x[:2000:50].detach().requires_grad_())


@pytest.mark.parametrize("function", [function for function, _ in TWINS])
def test_same_bits_for_any_number_of_threads(function):
    x, found, threads = torch.randn(100_003) * 10, [], torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            found.append(function(x))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])
