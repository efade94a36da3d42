"""Laws of the trilinear sampling beyond the law suite."""

import pytest
import torch

from sparse3d_ops.grid_sample import (
    trilinear_corners,
    trilinear_dot,
    trilinear_gather,
    trilinear_scatter,
    trilinear_weights,
)
from tests.ops.cases_grid_sample import volume
from tests.oracles import grid_sample as oracle


def sample(features, coordinates, positions, batch):
    rows, weights = trilinear_corners(positions, batch, coordinates)
    return trilinear_gather(features, rows, weights)


def scene(count=150, queries=80, dtype=torch.float64):
    torch.manual_seed(3)
    coordinates = volume(count)
    positions = torch.rand(queries, 3, dtype=dtype) * 9 - 4
    return torch.randn(count, 3, dtype=dtype), coordinates, positions, torch.randint(0, 2, (queries,))


def test_equals_the_definition_with_its_gradients():
    features, coordinates, positions, batch = scene()
    results = []
    for definition in (sample, oracle.sample):
        f, p = features.clone().requires_grad_(), positions.clone().requires_grad_()
        out = definition(f, coordinates, p, batch)
        out.square().sum().backward()
        results.append((out, f.grad, p.grad))
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want)


def test_equals_torch_grid_sample_on_the_dense_volume():
    torch.manual_seed(4)
    shape = (3, 4, 5)
    dense = torch.randn(2, 6, *shape, dtype=torch.float64)
    coordinates = torch.cartesian_prod(*(torch.arange(n) for n in (2, *shape))).int()
    features = dense.permute(0, 2, 3, 4, 1).reshape(-1, 6)
    positions = torch.rand(2, 70, 3, dtype=torch.float64) * 8 - 1.5  # part of them outside
    batch = torch.arange(2).repeat_interleave(70)
    got = sample(features, coordinates, positions.reshape(-1, 3), batch)
    # torch counts the axes of a volume from the last and runs from -1 to 1 over all voxels.
    grid = (2 * positions / torch.tensor(shape) - 1).flip(-1)[:, :, None, None]
    want = torch.nn.functional.grid_sample(dense, grid, padding_mode="zeros", align_corners=False)
    torch.testing.assert_close(got.reshape(2, 70, 6), want[..., 0, 0].transpose(1, 2))


def test_weights_are_a_partition_of_unity():
    weights = trilinear_weights(scene(dtype=torch.float32)[2])
    assert weights.min() >= 0
    torch.testing.assert_close(weights.sum(1), torch.ones(len(weights)))


def test_a_position_at_a_centre_gives_exactly_that_voxel():
    features, coordinates, _, _ = scene(dtype=torch.float32)
    got = sample(features, coordinates, coordinates[:, 1:] + 0.5, coordinates[:, 0].long())
    assert torch.equal(got, features)


def test_a_linear_field_is_reproduced_inside_a_full_grid():
    coordinates = volume(2 * 7**3)
    normal = torch.tensor([0.3, -2.0, 1.1], dtype=torch.float64)
    positions = torch.rand(50, 3, dtype=torch.float64) * 6 - 2.5  # between the outermost centres
    features = ((coordinates[:, 1:].double() + 0.5) @ normal)[:, None]
    got = sample(features, coordinates, positions, torch.ones(50, dtype=torch.int32))
    torch.testing.assert_close(got[:, 0], positions @ normal)


def test_order_of_the_voxels_changes_no_bit():
    features, coordinates, positions, batch = scene(dtype=torch.float32)
    shuffle = torch.randperm(len(features))
    assert torch.equal(
        sample(features, coordinates, positions, batch),
        sample(features[shuffle], coordinates[shuffle], positions, batch),
    )


def test_moving_volume_and_positions_by_whole_voxels_changes_nothing():
    features, coordinates, positions, batch = scene()
    moved = coordinates + torch.tensor([0, -70_000, 12, 99], dtype=torch.int32)
    got = sample(features, moved, positions + torch.tensor([-70_000, 12, 99]), batch)
    # Positions near 70 000 are rounded to 2^-36 voxels.
    torch.testing.assert_close(got, sample(features, coordinates, positions, batch), rtol=0, atol=1e-9)


def test_rounding_never_separates_a_corner_from_its_weight():
    # In float32, -0.5 - 2^-24 minus one half rounds to -1: voxel -1 has weight one. In float64 it would be
    # voxel -2.
    position = torch.tensor([[-0.5 - 2.0**-24, 0.5, 0.5]])
    coordinates = torch.tensor([[0, -1, 0, 0]], dtype=torch.int32)
    got = sample(torch.ones(1, 1), coordinates, position, torch.zeros(1, dtype=torch.int64))
    torch.testing.assert_close(got, torch.ones(1, 1))


@pytest.mark.numba_bodies
def test_second_derivatives_equal_finite_differences():
    features, coordinates, positions, batch = scene(queries=6)
    features.requires_grad_()
    positions.requires_grad_()
    assert torch.autograd.gradgradcheck(lambda f, p: sample(f, coordinates, p, batch), (features, positions))


def test_half_features_are_summed_in_float32_and_rounded_once():
    features, coordinates, positions, batch = scene(dtype=torch.float32)
    half = features.half()
    assert torch.equal(
        sample(half, coordinates, positions, batch),
        sample(half.float(), coordinates, positions, batch).half(),
    )
    half.requires_grad_()
    positions.requires_grad_()
    sample(half, coordinates, positions, batch).float().sum().backward()
    assert half.grad is not None and half.grad.dtype == torch.float16
    assert positions.grad is not None and positions.grad.dtype == torch.float32


@pytest.mark.numba_bodies
def test_compiles_without_graph_break_to_the_same_bits():
    args = scene(dtype=torch.float32)
    compiled = torch.compile(sample, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*args), sample(*args))


def test_errors_say_what_came():
    features, coordinates, positions, batch = scene()
    with pytest.raises(ValueError, match="positions is float16"):
        sample(features, coordinates, positions.half(), batch)
    with pytest.raises(ValueError, match=r"position_batch\[0\] is 512"):
        sample(features, coordinates, positions, torch.full_like(batch, 512))
    with pytest.raises(ValueError, match="repeats"):
        sample(features, torch.zeros_like(coordinates), positions, batch)
    with pytest.raises(ValueError, match=r"corners\[0, 0\] is 150"):
        trilinear_gather(features, torch.full((2, 8), 150, dtype=torch.int32), torch.ones(2, 8))


@pytest.mark.numba_bodies
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_columns_of_any_number_are_summed_alike(dtype):
    # Widths pass through vectors in registers and through what fills none, for every length of a vector.
    generator = torch.Generator().manual_seed(4)
    corners = torch.randint(-1, 6, (50, 8), dtype=torch.int32, generator=generator)
    corners[7] = -1
    weights = torch.rand(50, 8, dtype=dtype, generator=generator)
    features = torch.randn(6, 70, dtype=dtype, generator=generator)
    known = torch.where(corners < 0, 0, weights)[:, :, None]
    there, grad = corners.clamp(min=0).long(), torch.randn(50, 70, dtype=dtype, generator=generator)
    want = (features[there] * known).sum(1)
    back = torch.zeros(6, 70, dtype=dtype).index_add_(
        0, there.flatten(), (grad[:, None] * known).flatten(0, 1)
    )
    products = torch.where((corners < 0)[:, :, None], 0, features[there] * grad[:, None])
    for width in (1, 2, 4, 8, 15, 16, 17, 32, 50, 70):
        part, grads = features[:, :width], grad[:, :width]
        torch.testing.assert_close(trilinear_gather(part, corners, weights), want[:, :width])
        torch.testing.assert_close(trilinear_scatter(grads, corners, weights, 6), back[:, :width])
        torch.testing.assert_close(trilinear_dot(grads, part, corners), products[:, :, :width].sum(2))
    for place, entry in (((49, 7), 6), ((0, 0), -2), ((7, 3), 2**31 - 1)):
        wrong = corners.clone()
        wrong[place] = entry
        with pytest.raises(ValueError, match=rf"corners\[{place[0]}, {place[1]}\] is {entry}"):
            trilinear_gather(features, wrong, weights)


@pytest.mark.parametrize("narrow", ["features", "weights"])
def test_features_and_weights_may_be_of_two_kinds(narrow):
    features, coordinates, positions, batch = scene(dtype=torch.float32)
    rows, weights = trilinear_corners(positions, batch, coordinates)
    grad = torch.randn(len(positions), 3)
    exact = [tensor.double().requires_grad_() for tensor in (features, weights)]
    mixed = [
        (tensor if name == narrow else tensor.double()).clone().requires_grad_()
        for name, tensor in (("features", features), ("weights", weights))
    ]
    for tensors in (exact, mixed):
        out = trilinear_gather(tensors[0], rows, tensors[1])
        out.backward(grad.to(out.dtype))
    for got, want in zip(mixed, exact, strict=True):
        torch.testing.assert_close(got.grad.double(), want.grad, rtol=1e-5, atol=1e-5)
