"""Voxel RoI pooling against its definition over all voxels, and its laws."""

import math

import pytest
import torch
from torch import Tensor

from sparse3d.errors import ConfigError
from sparse3d.models.rois import Rois
from sparse3d.models.voxel_roi_pool import PoolLevelConfig, VoxelPooling, VoxelRoiPool, VoxelRoiPoolConfig
from sparse3d.tensor import SparseTensor

BOUNDS = (-4.0, -4.0, -4.0, 4.0, 4.0, 4.0)
SIZE = (0.25, 0.25, 0.25)
CONFIG = VoxelRoiPoolConfig(
    grid=3,
    levels=(
        PoolLevelConfig(0, 0.7, (2, 2, 2), 3, (8, 5)),
        PoolLevelConfig(1, 1.1, (2, 3, 1), 16, (6, 4)),
    ),
)


def stages(seed: int = 0) -> list[SparseTensor]:
    """Voxels of 25 and 50 cm in two frames."""
    generator = torch.Generator().manual_seed(seed)
    out = []
    for stride, side, channels in ((1, 32, 7), (2, 16, 9)):
        sites = torch.randint(0, side, (side * 60, 4), generator=generator)
        sites[:, 0] %= 2
        sites = sites.unique(dim=0).int()
        features = torch.randn(len(sites), channels, generator=generator, dtype=torch.float64)
        out.append(SparseTensor(features, sites, stride=stride, batch_size=2, shape=(side,) * 3))
    return out


def regions() -> Rois:
    boxes = torch.tensor(
        [
            [0.3, -0.2, 0.1, 3.0, 1.5, 1.2, 0.4],
            [-1.5, 1.0, -1.0, 1.0, 1.0, 2.0, 2.5],
            [2.0, 2.0, 0.0, 2.0, 0.8, 1.0, -1.0],
            [30.0, 0.0, 0.0, 2.0, 2.0, 2.0, 0.0],  # far from all voxels
        ],
        dtype=torch.float64,
    )
    count = torch.zeros(4)
    return Rois(boxes, count, count.long(), torch.tensor([0, 0, 1, 1]))


def pool_of(config: VoxelRoiPoolConfig = CONFIG) -> VoxelRoiPool:
    torch.manual_seed(0)
    pool = VoxelRoiPool((7, 9), SIZE, BOUNDS, config).double().eval()
    for module in pool.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2.0)
            module.weight.data.normal_()
            module.bias.data.normal_()
    return pool


def by_definition(level: VoxelPooling, point: Tensor, frame: int, voxels: SparseTensor) -> Tensor:
    """One point: every voxel of its frame is measured, the nearest by Manhattan distance are kept."""
    config, step = level.config, torch.tensor(SIZE, dtype=torch.float64) * voxels.stride[0]
    low = torch.tensor(BOUNDS[:3], dtype=torch.float64)
    b, sites = voxels.coordinates[:, 0], voxels.coordinates[:, 1:]
    way = (sites + 0.5) * step + low - point
    steps = (sites - ((point - low) / step).floor()).abs()
    near = (b == frame) & (way.norm(dim=1) < config.radius)
    near &= (steps <= torch.tensor(config.reach)).all(dim=1)
    rows = near.nonzero()[:, 0].tolist()
    rows.sort(key=lambda row: (steps[row].sum().item(), sites[row].tolist()))
    seen = [
        (level.feature(voxels.features[row : row + 1]) + level.way(way[row : row + 1])).relu()
        for row in rows[: config.samples]
    ]
    if not seen:
        seen = [level.way(point.new_zeros(1, 3)).relu()]
    return level.out(torch.cat(seen).amax(dim=0, keepdim=True))[0]


@torch.no_grad()
def test_equals_the_definition():
    pool, scales, rois = pool_of(), stages(), regions()
    got = pool(rois, scales).reshape(4, 27, 9)
    crowded = 0
    for r in range(4):
        x, y, z, l, w, h, yaw = rois.boxes[r].tolist()
        for p in range(27):
            a, b, c = ((k + 0.5) / 3 - 0.5 for k in (p // 9, p // 3 % 3, p % 3))
            forth, left = a * l, b * w
            point = torch.tensor(
                [
                    x + math.cos(yaw) * forth - math.sin(yaw) * left,
                    y + math.sin(yaw) * forth + math.cos(yaw) * left,
                    z + c * h,
                ],
                dtype=torch.float64,
            )
            frame = int(rois.frame[r])
            levels = zip(pool.levels, scales, strict=True)
            want = torch.cat([by_definition(level, point, frame, voxels) for level, voxels in levels])
            torch.testing.assert_close(got[r, p], want)
            crowded += bool((want != by_definition(pool.levels[0], point + 50, frame, scales[0])[0]).any())
    assert crowded > 50


@torch.no_grad()
def test_moving_voxels_and_rois_by_whole_voxels_changes_nothing():
    pool, scales, rois = pool_of(), stages(), regions()
    step = torch.tensor([6, -4, 8])  # of the finest voxels
    moved = [
        SparseTensor(
            s.features,
            s.coordinates + torch.cat([torch.zeros(1), step / s.stride[0]]).int(),
            stride=s.stride,
            batch_size=2,
        )
        for s in scales
    ]
    boxes = rois.boxes.clone()
    boxes[:, :3] += step * 0.25
    torch.testing.assert_close(pool(rois._replace(boxes=boxes), moved), pool(rois, scales))


@torch.no_grad()
def test_turning_voxels_and_rois_by_a_quarter_changes_nothing_but_the_ways():
    """With the way from point to voxel left out, and every voxel within the radius sampled."""
    config = VoxelRoiPoolConfig(grid=3, levels=(PoolLevelConfig(0, 0.7, (3, 3, 3), 400, (8, 5)),))
    pool, scales, rois = pool_of(config), stages(), regions()
    pool.levels[0].way[0].weight.zero_()
    b, x, y, z = scales[0].coordinates.unbind(1)
    turned = SparseTensor(
        scales[0].features, torch.stack([b, 31 - y, x, z], 1), batch_size=2, shape=(32,) * 3
    )
    boxes = rois.boxes.clone()
    boxes[:, 0], boxes[:, 1], boxes[:, 6] = (
        -rois.boxes[:, 1],
        rois.boxes[:, 0],
        rois.boxes[:, 6] + math.pi / 2,
    )
    torch.testing.assert_close(pool(rois._replace(boxes=boxes), [turned]), pool(rois, scales[:1]))


def test_gradients_reach_features_and_every_parameter():
    pool, scales, rois = pool_of().train(), stages(), regions()
    leaves = [s.features.requires_grad_() for s in scales]
    pool(rois, scales).square().sum().backward()
    assert all(leaf.grad is not None and leaf.grad.abs().sum() > 0 for leaf in leaves)
    for name, parameter in pool.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("training", [True, False])
def test_no_rois_and_no_voxels_are_legal(training):
    pool, scales, rois = pool_of().train(training), stages(), regions()
    nobody = rois.select(torch.zeros(4, dtype=torch.bool))
    assert pool(nobody, scales).shape == (0, 27 * 9)
    nothing = [s[torch.zeros(len(s), dtype=torch.bool)] for s in scales]
    pooled = pool(rois, nothing)
    assert pooled.shape == (4, 27 * 9) and pooled.isfinite().all()


def test_stages_that_are_not_there_are_refused():
    with pytest.raises(ConfigError, match=r"from stages \[1, 2, 3\], the backbone has 2"):
        VoxelRoiPool((7, 9), SIZE, BOUNDS, VoxelRoiPoolConfig())
