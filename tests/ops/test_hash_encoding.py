"""Laws of the multiresolution hash encoding."""

import pytest
import torch

from sparse3d_ops.hash_encoding import hash_encode, hash_levels, hash_position_gradient, hash_table_gradient
from tests.ops import bodies

LEVELS = hash_levels(4, 64, 5, 1 << 10)


def random_table(dtype=torch.float64, features=2, levels=LEVELS):
    return torch.randn(sum(levels.sizes), features, dtype=dtype)


def test_levels_of_the_paper():
    # Table 1 of the paper: 16 to 2048 in 16 levels grow by 1.3819 each; levels are dense as long as they fit.
    resolutions, sizes = hash_levels(16, 2048, 16, 1 << 14)
    assert resolutions[0] == 16 and resolutions[-1] == 2048
    assert resolutions[:4] == [int(16 * (2048 / 16) ** (k / 15)) for k in range(4)]
    assert sizes[:3] == [17**3, 23**3, 1 << 14]


def test_powers_of_two_are_hit_exactly():
    assert hash_levels(16, 512, 6, 1 << 12).resolutions == [16, 32, 64, 128, 256, 512]


def test_reproduces_linear_functions_on_dense_levels():
    """Features that are a linear function of the corner come out as that function of the position."""
    side = 6
    corners = torch.cartesian_prod(*[torch.linspace(0, 1, side, dtype=torch.float64)] * 3)
    matrix, shift = torch.randn(3, 4, dtype=torch.float64), torch.randn(4, dtype=torch.float64)
    positions = torch.rand(100, 3, dtype=torch.float64)
    got = hash_encode(corners @ matrix + shift, positions, [side - 1], [side**3])
    torch.testing.assert_close(got, positions @ matrix + shift)


def test_continuous_across_cells():
    table, step = random_table(), 1e-9
    positions = torch.randint(1, 64, (50, 3)) / 64  # on faces of the finest level
    below = hash_encode(table, positions.double() - step, *LEVELS)
    above = hash_encode(table, positions.double() + step, *LEVELS)
    assert (below - above).abs().max() < 1e-5


def test_gradients_are_the_transpose():
    table, positions = random_table(), torch.rand(300, 3, dtype=torch.float64)
    grad = torch.randn(300, 2 * len(LEVELS.sizes), dtype=torch.float64)
    forward = (hash_encode(table, positions, *LEVELS) * grad).sum()
    transposed = (hash_table_gradient(grad, positions, *LEVELS) * table).sum()
    torch.testing.assert_close(forward, transposed)


@pytest.mark.numba_bodies
def test_more_threads_than_levels_give_the_same_bits():
    from sparse3d_ops.cpu.hash_encoding import sum_by_entry

    positions, grad = torch.rand(500, 3), torch.randn(500, 4)
    levels = ([4, 9], [125, 256])
    want = hash_table_gradient(grad, positions, *levels)
    for parts in (1, 3, 7):
        out = torch.empty_like(want)
        first = torch.tensor([0, 125, 381]).numpy()
        arrays = (
            grad.numpy(),
            positions.numpy(),
            positions[:0].numpy(),
            torch.tensor(levels[0]).numpy(),
            first,
        )
        sum_by_entry(*arrays, parts, out.numpy())
        assert torch.equal(out, want)


def test_loss_on_slopes_reaches_the_table():
    """What an eikonal loss needs: the gradients of |slope|^2 in table and weights."""
    fast = bodies.in_use() == "triton"  # its interpreter takes a tenth of a second a call
    levels = hash_levels(2, 3, 2, 8) if fast else hash_levels(2, 5, 2, 32)
    table = random_table(levels=levels).requires_grad_()
    mix = torch.randn(4, dtype=torch.float64, requires_grad=True)
    positions = torch.rand(2 if fast else 6, 3, dtype=torch.float64)

    def loss(table, mix):
        at = positions.clone().requires_grad_()
        value = torch.tanh(hash_encode(table, at, *levels) @ mix).sum()
        return (torch.autograd.grad(value, at, create_graph=True)[0] ** 2).sum()

    assert torch.autograd.gradcheck(loss, (table, mix))


def test_third_derivatives_are_refused():
    positions = torch.rand(2, 3, dtype=torch.float64, requires_grad=True)
    value = hash_encode(random_table(), positions, *LEVELS).prod(1).sum()
    first = torch.autograd.grad(value, positions, create_graph=True)[0]
    second = torch.autograd.grad(first.sum(), positions, create_graph=True)[0]
    with pytest.raises(NotImplementedError, match="no third derivatives"):
        torch.autograd.grad(second.sum(), positions)


def test_outside_counts_as_the_border_with_no_slope():
    table = random_table()
    outside = torch.tensor([[-0.3, 0.5, 1.7]], dtype=torch.float64)
    assert torch.equal(hash_encode(table, outside, *LEVELS), hash_encode(table, outside.clamp(0, 1), *LEVELS))
    grad = torch.ones(1, 2 * len(LEVELS.sizes), dtype=torch.float64)
    slope = hash_position_gradient(table, grad, outside, *LEVELS)[0]
    assert slope[0] == 0 and slope[1] != 0 and slope[2] == 0


@pytest.mark.numba_bodies  # the interpreter warns where it meets a NaN
def test_not_a_number_stays_one():
    positions = torch.tensor([[0.5, torch.nan, 0.5], [torch.inf, 0.5, -torch.inf]])
    got = hash_encode(random_table(torch.float32), positions, *LEVELS)
    assert got[0].isnan().all() and not got[1].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tables(dtype):
    table, positions = random_table(torch.float32).to(dtype), torch.rand(40, 3)
    got = hash_encode(table, positions, *LEVELS)
    assert got.dtype == dtype
    torch.testing.assert_close(got, hash_encode(table.float(), positions, *LEVELS).to(dtype))


def test_errors():
    positions = torch.rand(3, 3)
    with pytest.raises(ValueError, match="3 features an entry, expected an even number"):
        hash_encode(torch.zeros(8, 3), positions, [1], [8])
    with pytest.raises(
        ValueError, match=r"sizes\[1\] is 9, expected room for all 27 corners, or a power of two"
    ):
        hash_encode(torch.zeros(17, 2), positions, [1, 2], [8, 9])
    with pytest.raises(ValueError, match=r"table has shape \(17, 2\), expected \(16, F\)"):
        hash_encode(torch.zeros(17, 2), positions, [1, 2], [8, 8])
    with pytest.raises(ValueError, match="2 resolutions and 1 sizes"):
        hash_encode(torch.zeros(8, 2), positions, [1, 2], [8])
    with pytest.raises(ValueError, match=r"resolutions\[0\] is 0, expected 1 to 1048576"):
        hash_encode(torch.zeros(8, 2), positions, [0], [8])
    with pytest.raises(ValueError, match="grad has 5 columns, expected as many for each of 2 levels"):
        hash_table_gradient(torch.zeros(3, 5), positions, [1, 2], [8, 8])
    with pytest.raises(ValueError, match="positions is float16"):
        hash_encode(torch.zeros(8, 2), positions.half(), [1], [8])
