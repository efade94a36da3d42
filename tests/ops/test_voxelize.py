"""Laws of the voxelisation beyond the law suite."""

import math

import numba
import pytest
import torch

from sparse3d_ops.voxelize import grid_shape, voxelize, voxelize_first, voxelize_mean
from tests.ops.cases_voxelize import BOUNDS, CASES, SIZE
from tests.oracles import voxelize as oracle

CPU = torch.device("cpu")


def args(case: str, dtype=torch.float32):
    torch.manual_seed(1)
    return CASES[case](dtype, CPU)


@pytest.mark.parametrize("case", CASES)
def test_mean_and_first_equal_their_oracles(case):
    points, frame, size, bounds = args(case, torch.float64)
    for got, want in (
        (voxelize_mean(points, frame, size, bounds), oracle.voxelize_mean(points, frame, size, bounds)),
        (
            voxelize_first(points, frame, size, bounds, 2, 9),
            oracle.voxelize_first(points, frame, size, bounds, 2, 9),
        ),
    ):
        for g, w in zip(got, want, strict=True):
            torch.testing.assert_close(g, w)


@pytest.mark.numba_bodies
@pytest.mark.parametrize("case", ["empty", "frames", "not_finite"])
def test_gradients_of_mean_and_first_equal_finite_differences(case):
    points, frame, size, bounds = args(case, torch.float64)
    points = points[:40].nan_to_num(9.0, 9.0, 9.0)  # finite differences need numbers; 9 m is outside
    frame = frame[:40]
    points.requires_grad_()
    # Steps of 1e-6 m do not move a random point across a border.
    assert torch.autograd.gradcheck(lambda p: voxelize_mean(p, frame, size, bounds)[0], (points,))
    assert torch.autograd.gradcheck(lambda p: voxelize_first(p, frame, size, bounds, 2, 9).voxels, (points,))


def test_points_that_are_not_finite_get_no_gradient_and_spoil_none():
    points, frame, size, bounds = args("not_finite")
    points.requires_grad_()
    voxelize_mean(points, frame, size, bounds)[0].sum().backward()
    assert points.grad is not None
    assert points.grad[:4].eq(0).all() and points.grad[4:].eq(1).all()


def test_order_of_the_points_does_not_change_the_voxels():
    points, frame, size, bounds = args("frames")
    shuffle = torch.randperm(len(points))
    a, b = voxelize(points, frame, size, bounds), voxelize(points[shuffle], frame[shuffle], size, bounds)
    assert torch.equal(a.coordinates, b.coordinates) and torch.equal(a.counts, b.counts)
    assert torch.equal(a.point_voxel[shuffle], b.point_voxel)


def test_voxels_are_sorted_distinct_and_count_every_inside_point_once():
    points, frame, size, bounds = args("frames")
    coordinates, point_voxel, counts = voxelize(points, frame, size, bounds)
    rows = coordinates.tolist()
    assert rows == sorted(rows) and len(set(map(tuple, rows))) == len(rows)
    assert torch.equal(torch.bincount(point_voxel[point_voxel >= 0], minlength=len(rows)), counts)
    assert counts.min() >= 1


def test_large_input_that_is_sorted_in_several_chunks_equals_unique():
    # The small cases fit into one chunk of the sort; this one takes a chunk per thread.
    points = torch.rand(60_000, 3) * torch.tensor([4.2, 2.1, 1.1]) - torch.tensor([2.1, 1.05, 0.55])
    frame = torch.randint(0, 5, (len(points),))
    size = [0.01, 0.02, 0.01]
    shape = grid_shape(size, BOUNDS)
    got = voxelize(points, frame, size, BOUNDS)
    low, high = torch.tensor(BOUNDS[:3]), torch.tensor(BOUNDS[3:])
    inside = ((points >= low) & (points < high)).all(1)
    cell = ((points[inside].double() - low) / torch.tensor(size, dtype=torch.float64)).floor().long()
    b, x, y, z = frame[inside], *cell.unbind(1)
    key = ((b * shape[0] + x) * shape[1] + y) * shape[2] + z
    _, inverse, counts = torch.unique(key, return_inverse=True, return_counts=True)
    assert torch.equal(got.point_voxel[inside], inverse) and torch.equal(got.counts, counts)
    assert got.point_voxel[~inside].eq(-1).all()
    available = numba.get_num_threads()
    try:
        numba.set_num_threads(1)
        for one, several in zip(voxelize(points, frame, size, BOUNDS), got, strict=True):
            assert torch.equal(one, several)
    finally:
        numba.set_num_threads(available)


def test_a_point_just_below_the_upper_bound_is_in_the_last_cell():
    size, high = 0.3, 0.9
    below = math.nextafter(high, 0)
    assert math.floor(below / size) == 3  # the quotient is rounded up, to a cell beyond the grid of three
    points = torch.full((1, 3), below, dtype=torch.float64)
    got = voxelize(points, torch.zeros(1, dtype=torch.int64), [size] * 3, [0.0] * 3 + [high] * 3)
    assert got.coordinates.tolist() == [[0, 2, 2, 2]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_points_get_the_voxels_of_their_own_values(dtype):
    points, frame, size, bounds = args("frames")
    half = points.to(dtype)
    for a, b in zip(
        voxelize(half, frame, size, bounds), voxelize(half.float(), frame, size, bounds), strict=True
    ):
        assert torch.equal(a, b)


@pytest.mark.numba_bodies
def test_mean_compiles_without_graph_break():
    points, frame, size, bounds = args("frames")
    points.requires_grad_()
    compiled = torch.compile(voxelize_mean, fullgraph=True, backend="aot_eager")
    assert torch.equal(
        compiled(points, frame, size, bounds)[0], voxelize_mean(points, frame, size, bounds)[0]
    )


def test_grid_shape_rounds_up_but_for_float_noise():
    assert grid_shape([0.05, 0.05, 0.1], [0.0, -40.0, -3.0, 70.4, 40.0, 1.0]) == (1408, 1600, 40)
    assert grid_shape([0.7, 5.0, 2.0], BOUNDS) == (6, 1, 1)


def test_errors_say_what_came():
    points, frame = torch.zeros(3, 4), torch.tensor([0, 512, 1])
    with pytest.raises(ValueError, match=r"point_frame\[1\] is 512"):
        voxelize(points, frame, SIZE, BOUNDS)
    with pytest.raises(ValueError, match="axis y has 400000 cells"):
        voxelize(points, frame.clamp(max=1), [0.1, 5e-6, 0.1], BOUNDS)
    with pytest.raises(ValueError, match="axis z has voxel size 0.1 and bounds"):
        voxelize(points, frame.clamp(max=1), [0.1, 0.1, 0.1], [*BOUNDS[:5], -1.0])
    with pytest.raises(ValueError, match="x, y, z"):
        voxelize(points[:, :2], frame.clamp(max=1), SIZE, BOUNDS)
    with pytest.raises(ValueError, match="at least 1"):
        voxelize_first(points, frame.clamp(max=1), SIZE, BOUNDS, 0, 1)
