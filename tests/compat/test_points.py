"""Points to voxels: spconv's rules, against a definition in loops."""

import math

import numpy as np
import pytest
import torch

import sparse3d.compat.cumm.tensorview as tv
from sparse3d.compat.spconv.pytorch.utils import PointToVoxel, gather_features_by_pc_voxel_id
from sparse3d.compat.spconv.utils import Point2VoxelCPU3d

SIZE, RANGE = [0.5, 0.25, 1.0], [-2.0, -1.0, -3.0, 2.0, 1.5, 1.0]


def cloud(points: int = 300, dtype=torch.float32, seed: int = 0) -> torch.Tensor:
    """Points around the range, on cell borders now and then, some of them not finite."""
    generator = torch.Generator().manual_seed(seed)
    pc = torch.randn(points, 5, generator=generator, dtype=torch.float64) * 1.5
    pc[::4, :3] = (pc[::4, :3] * 4).round() / 4
    pc[7, 1], pc[8, 0], pc[9, 2] = math.nan, math.inf, -math.inf
    return pc.to(dtype)


def by_loops(pc: np.ndarray, most_voxels: int, most_points: int):
    """The rules, a point at a time."""
    kind = pc.dtype.type
    low, size = np.float32(RANGE[:3]).astype(kind), np.float32(SIZE).astype(kind)
    grid = np.round((np.float32(RANGE[3:]) - np.float32(RANGE[:3])) / np.float32(SIZE))
    found: dict[tuple[int, ...], int] = {}
    stored: list[list[np.ndarray]] = []
    number = np.full(len(pc), -1)
    for p, point in enumerate(pc):
        cell = np.floor((point[:3] - low) / size)
        if not all(0 <= c < n for c, n in zip(cell, grid, strict=True)):
            continue
        key = tuple(int(c) for c in cell[::-1])
        if key not in found:
            if len(found) == most_voxels:
                continue
            found[key] = len(found)
            stored.append([])
        number[p] = found[key]
        if len(stored[number[p]]) < most_points:
            stored[number[p]].append(point)
    return list(found), stored, number


@pytest.mark.parametrize("dtype", (torch.float32, torch.float64))
@pytest.mark.parametrize(("most_voxels", "most_points"), ((1000, 4), (20, 2), (1, 1)))
def test_voxels_are_those_of_the_rules(dtype, most_voxels, most_points):
    pc = cloud(dtype=dtype)
    cells, stored, number = by_loops(pc.numpy(), most_voxels, most_points)
    generator = PointToVoxel(SIZE, RANGE, 5, most_voxels, most_points)
    assert generator.grid_size == [4, 10, 8] and generator.grid_stride == [80, 8, 1]
    voxels, indices, counts, point_voxel = generator.generate_voxel_with_id(pc)
    assert indices.dtype == counts.dtype == torch.int32 and voxels.dtype == torch.float32
    assert indices.tolist() == [list(cell) for cell in cells]
    assert point_voxel.tolist() == number.tolist() and counts.tolist() == [len(s) for s in stored]
    for voxel, points in zip(voxels, stored, strict=True):
        want = torch.zeros(most_points, 5)
        want[: len(points)] = torch.tensor(np.array(points), dtype=torch.float32)
        assert torch.equal(voxel, want)
    assert all(torch.equal(a, b) for a, b in zip(generator(pc), (voxels, indices, counts), strict=True))


def test_free_places_can_hold_the_mean():
    pc = cloud()
    plain = PointToVoxel(SIZE, RANGE, 5, 1000, 4)(pc)
    filled = PointToVoxel(SIZE, RANGE, 5, 1000, 4)(pc, empty_mean=True)
    for a, b, count in zip(plain[0], filled[0], plain[2], strict=True):
        assert torch.equal(a[:count], b[:count])
        torch.testing.assert_close(b[count:], a[:count].mean(0).expand(4 - count, 5))


def test_the_class_without_torch_takes_tensor_views():
    pc = cloud()
    generator = Point2VoxelCPU3d(
        vsize_xyz=SIZE,
        coors_range_xyz=RANGE,
        num_point_features=5,
        max_num_points_per_voxel=4,
        max_num_voxels=50,
    )
    got = [part.numpy() for part in generator.point_to_voxel(tv.from_numpy(pc.numpy()))]
    want = PointToVoxel(SIZE, RANGE, 5, 50, 4)(pc)
    assert all(np.array_equal(a, b) for a, b in zip(got, want, strict=True))
    with pytest.raises(ValueError, match="has 2 numbers, Point2VoxelCPU3d takes 3"):
        Point2VoxelCPU3d(SIZE[:2], RANGE[:4], 4, 10, 10)


def test_features_of_voxels_come_back_to_the_points():
    ids = torch.tensor([1, -1, 0, 1])
    out = gather_features_by_pc_voxel_id(torch.tensor([[1.0], [2.0]]), ids, invalid_value=-5)
    assert out.tolist() == [[2.0], [-5.0], [1.0], [2.0]]


def test_no_points_give_no_voxels():
    voxels, indices, counts, ids = PointToVoxel(SIZE, RANGE, 5, 10, 4).generate_voxel_with_id(
        torch.ones(0, 5)
    )
    assert voxels.shape == (0, 4, 5) and indices.shape == (0, 3) and len(counts) == len(ids) == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((SIZE, RANGE[:5], 5, 10, 4), "expected n and 2 n"),
        ((SIZE, RANGE[3:] + RANGE[:3], 5, 10, 4), "make no grid"),
        (([0.5, 0.0, 1.0], RANGE, 5, 10, 4), "make no grid"),
        ((SIZE, RANGE, 2, 10, 4), "expected 3 or more"),
        ((SIZE, RANGE, 5, 0, 4), "max_num_voxels 0"),
    ],
)
def test_what_makes_no_grid_is_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        PointToVoxel(*arguments)


def test_points_of_another_width_are_refused():
    with pytest.raises(ValueError, match=r"points have shape \(3, 4\), expected \(P, 5\)"):
        PointToVoxel(SIZE, RANGE, 5, 10, 4)(torch.ones(3, 4))
