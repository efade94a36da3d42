"""Laws of products of planes and lines."""

import pytest
import torch

from sparse3d_ops.low_rank import (
    plane_line_position_gradient,
    plane_line_products,
    plane_line_table_gradients,
)


def tables(side=5, components=2, dtype=torch.float64):
    planes, lines = torch.randn(3 * side**2, components), torch.randn(3 * side, components)
    return planes.to(dtype), lines.to(dtype)


def test_reproduces_products_of_linear_functions():
    """Planes and lines that are linear functions of their coordinates come out as their products."""
    axis = torch.linspace(0, 1, 6, dtype=torch.float64)
    plane = (1 + 2 * axis[:, None] - axis).reshape(-1, 1)
    got = plane_line_products(
        plane.repeat(3, 1), (3 - axis)[:, None].repeat(3, 1), at := torch.rand(50, 3, dtype=torch.float64)
    )
    x, y, z = at.unbind(1)
    want = [(1 + 2 * y - z) * (3 - x), (1 + 2 * x - z) * (3 - y), (1 + 2 * x - y) * (3 - z)]
    torch.testing.assert_close(got, torch.stack(want, 1))


def test_gradients_are_the_transposes():
    planes, lines = tables()
    at, grad = torch.rand(200, 3, dtype=torch.float64), torch.randn(200, 6, dtype=torch.float64)
    forward = (plane_line_products(planes, lines, at) * grad).sum()
    for table, gradient in zip(
        (planes, lines), plane_line_table_gradients(grad, planes, lines, at), strict=True
    ):
        torch.testing.assert_close((gradient * table).sum(), forward)


@pytest.mark.numba_bodies
def test_strips_of_a_mode_add_up_to_the_same_bits():
    from sparse3d_ops.cpu.low_rank import sum_lines, sum_planes

    side, at, parts = 7, torch.rand(500, 3), torch.randn(500, 6)
    for body, rows in ((sum_planes, 3 * side**2), (sum_lines, 3 * side)):
        whole, out = torch.full((rows, 2), torch.nan), torch.full((rows, 2), torch.nan)
        body(parts.numpy(), at.numpy(), 1, whole.numpy())
        for strips in (2, 5, 7, 9):
            body(parts.numpy(), at.numpy(), strips, out.numpy())
            assert torch.equal(out, whole)


def test_outside_counts_as_the_border_with_no_slope():
    planes, lines = tables()
    outside = torch.tensor([[-0.3, 0.5, 1.7]], dtype=torch.float64)
    got = plane_line_products(planes, lines, outside)
    assert torch.equal(got, plane_line_products(planes, lines, outside.clamp(0, 1)))
    slope = plane_line_position_gradient(torch.ones(1, 6).double(), planes, lines, outside)[0]
    assert slope[0] == 0 and slope[1] != 0 and slope[2] == 0


@pytest.mark.numba_bodies  # the interpreter warns where it meets a NaN
def test_not_a_number_stays_one():
    at = torch.tensor([[0.5, torch.nan, 0.5], [torch.inf, 0.5, -torch.inf]])
    got = plane_line_products(*tables(dtype=torch.float32), at)
    assert got[0].isnan().all() and not got[1].isnan().any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_tables(dtype):
    planes, lines = tables(dtype=dtype)
    at = torch.rand(40, 3)
    got = plane_line_products(planes, lines, at)
    assert got.dtype == dtype
    torch.testing.assert_close(got, plane_line_products(planes.float(), lines.float(), at).to(dtype))


@pytest.mark.parametrize("narrow", ["tables", "positions", "grad"])
def test_numbers_of_two_kinds_are_summed_alike(narrow):
    """Gradients of the tables where one of the inputs is of another type than the others."""
    planes, lines = tables(components=5, dtype=torch.float32)
    given = {"tables": (planes, lines), "positions": (torch.rand(40, 3),), "grad": (torch.randn(40, 15),)}
    mixed = {k: v if k == narrow else [t.double() for t in v] for k, v in given.items()}
    got = plane_line_table_gradients(*mixed["grad"], *mixed["tables"], *mixed["positions"])
    want = [t.double() for v in (given["grad"], given["tables"], given["positions"]) for t in v]
    for one, other in zip(got, plane_line_table_gradients(*want), strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)


def test_errors():
    at = torch.rand(3, 3)
    with pytest.raises(ValueError, match="lines has 7 rows, expected 3 S for S >= 2"):
        plane_line_products(torch.zeros(12, 1), torch.zeros(7, 1), at)
    with pytest.raises(ValueError, match=r"planes has shape \(12, 1\), expected \(27, 1\)"):
        plane_line_products(torch.zeros(12, 1), torch.zeros(9, 1), at)
    with pytest.raises(ValueError, match="planes is float64, expected float32"):
        plane_line_products(torch.zeros(12, 1).double(), torch.zeros(6, 1), at)
    with pytest.raises(ValueError, match="positions is float16"):
        plane_line_products(torch.zeros(12, 1), torch.zeros(6, 1), at.half())
    with pytest.raises(ValueError, match=r"grad has shape \(3, 2\), expected \(3, 3\)"):
        plane_line_table_gradients(torch.zeros(3, 2), torch.zeros(12, 1), torch.zeros(6, 1), at)
