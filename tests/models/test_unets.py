"""MinkUNet and SpUNet: parameters of the published networks, and laws of labelling points."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from sparse3d.frames import SegmentationBatch, SegmentationFrame
from sparse3d.models.minkunet import LAYERS_34, PLANES_34C, MinkUNet, MinkUNetConfig
from sparse3d.models.point_voxels import point_voxels
from sparse3d.models.segmenters import VoxelSegmenter, build_segmenter
from sparse3d.models.spunet import SpUNet, SpUNetConfig
from sparse3d.tensor import SparseTensor

CLASSES = tuple("abcde")
SMALL = {"channels": (8, 12, 10, 6), "layers": (1, 2, 2, 1), "stem_channels": 4, "stem_kernel": 3}


def small(kind: type, **changes):
    return kind(classes=CLASSES, voxel_size=0.5, **(SMALL | changes))


def cloud(points: int = 400, seed: int = 0, reach: float = 12.0) -> SegmentationFrame:
    rng = np.random.default_rng(seed)
    xyz = rng.uniform(-reach, reach, (points, 3)) * (1, 1, 0.2)
    rows = np.column_stack([xyz, rng.random(points)]).astype(np.float32)
    return SegmentationFrame(str(seed), rows, rng.integers(-1, 5, points), np.zeros(points, np.int64))


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def conv(taps: int, cin: int, cout: int) -> int:
    """A convolution without bias and the two vectors of its batch norm."""
    return taps * cin * cout + 2 * cout


def block(cin: int, cout: int) -> int:
    """A residual block; a change of channels has a 1^3 convolution with a norm beside it."""
    return conv(27, cin, cout) + conv(27, cout, cout) + (conv(1, cin, cout) if cin != cout else 0)


def test_parameters_of_minkunet18a():
    down = [conv(8, 32, 32), conv(8, 32, 32), conv(8, 64, 64), conv(8, 128, 128)]
    encoder = [
        2 * block(32, 32),
        block(32, 64) + block(64, 64),
        block(64, 128) + block(128, 128),
        block(128, 256) + block(256, 256),
    ]
    up = [conv(8, 256, 128), conv(8, 128, 128), conv(8, 128, 96), conv(8, 96, 96)]
    decoder = [
        block(128 + 128, 128) + block(128, 128),
        block(128 + 64, 128) + block(128, 128),
        block(96 + 32, 96) + block(96, 96),
        block(96 + 32, 96) + block(96, 96),
    ]
    expected = conv(125, 3, 32) + sum(down + encoder + up + decoder) + 96 * 20 + 20
    assert count(MinkUNet(3, 20, MinkUNetConfig())) == expected


def test_parameters_of_minkunet34c():
    """37.9 million, as published for ScanNet's 20 classes with colours."""
    config = MinkUNetConfig(channels=PLANES_34C, layers=LAYERS_34)
    down = [conv(8, 32, 32), conv(8, 32, 32), conv(8, 64, 64), conv(8, 128, 128)]
    encoder = [
        2 * block(32, 32),
        block(32, 64) + 2 * block(64, 64),
        block(64, 128) + 3 * block(128, 128),
        block(128, 256) + 5 * block(256, 256),
    ]
    up = [conv(8, 256, 256), conv(8, 256, 128), conv(8, 128, 96), conv(8, 96, 96)]
    decoder = [
        block(256 + 128, 256) + block(256, 256),
        block(128 + 64, 128) + block(128, 128),
        block(96 + 32, 96) + block(96, 96),
        block(96 + 32, 96) + block(96, 96),
    ]
    expected = conv(125, 3, 32) + sum(down + encoder + up + decoder) + 96 * 20 + 20
    found = count(MinkUNet(3, 20, config))
    assert found == expected and round(found / 1e6, 1) == 37.9


def test_parameters_of_spunet():
    """39.2 million, as published; no block of the encoder has a shortcut of its own."""
    down = [conv(8, 32, 32), conv(8, 32, 64), conv(8, 64, 128), conv(8, 128, 256)]
    encoder = [2 * block(32, 32), 3 * block(64, 64), 4 * block(128, 128), 6 * block(256, 256)]
    up = [conv(8, 256, 256), conv(8, 256, 128), conv(8, 128, 96), conv(8, 96, 96)]
    decoder = [
        block(256 + 128, 256) + block(256, 256),
        block(128 + 64, 128) + block(128, 128),
        block(96 + 32, 96) + block(96, 96),
        block(96 + 32, 96) + block(96, 96),
    ]
    expected = conv(125, 6, 32) + sum(down + encoder + up + decoder) + 96 * 20 + 20
    found = count(SpUNet(6, 20, SpUNetConfig()))
    assert found == expected and round(found / 1e6, 1) == 39.2


@pytest.fixture(params=[MinkUNetConfig, SpUNetConfig])
def model(request) -> VoxelSegmenter:
    torch.manual_seed(0)
    model = build_segmenter(small(request.param))
    assert isinstance(model, VoxelSegmenter)
    return model


def test_every_parameter_learns(model):
    losses = model.loss(SegmentationBatch.collate([cloud(), cloud(seed=1)]))
    assert list(losses) == ["cross_entropy", "lovasz"]
    sum(losses.values()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


def test_the_network_does_not_care_where_the_grid_begins(model):
    """A shift by a multiple of the coarsest voxel, negative coordinates included, moves nothing."""
    voxels = point_voxels(*_tensors(cloud()), 0.5, 1, "mean").voxels
    network = model.network.eval()
    here = network(voxels).features
    moved = voxels.coordinates + torch.tensor([0, 8, -12, 400], dtype=torch.int32)
    there = network(SparseTensor(voxels.features, moved, batch_size=1)).features
    torch.testing.assert_close(here, there, rtol=0, atol=0)
    odd = voxels.coordinates + torch.tensor([0, 1, 0, 0], dtype=torch.int32)
    assert not torch.allclose(here, network(SparseTensor(voxels.features, odd, batch_size=1)).features)


def _tensors(frame: SegmentationFrame) -> tuple[torch.Tensor, torch.Tensor]:
    batch = SegmentationBatch.collate([frame])
    return batch.points, batch.point_frame


def test_points_of_a_voxel_share_logits_and_order_does_not_matter(model):
    model.eval()
    frame = cloud(reach=3.0)
    points, frames = _tensors(frame)
    point_voxel = point_voxels(points, frames, 0.5, 1, "mean").point_voxel
    logits = model.logits(SegmentationBatch.collate([frame]))
    assert len(logits) == 400 > int(point_voxel.max()) + 1
    for row in (0, 7, 100):
        mates = point_voxel == point_voxel[row]
        assert (logits[mates] == logits[row]).all()
    order = np.random.default_rng(0).permutation(400)
    shuffled = model.logits(SegmentationBatch.collate([frame.select_points(order)]))
    torch.testing.assert_close(shuffled, logits[order])  # means of voxels are summed in another order


def test_frames_of_a_batch_do_not_meet(model):
    model.eval()
    frames = [cloud(), cloud(0), cloud(seed=2), cloud(300, 3)]
    together = model.predict(SegmentationBatch.collate(frames))
    for frame, labels in zip(frames, together, strict=True):
        (alone,) = model.predict(SegmentationBatch.collate([frame]))
        assert len(labels) == len(frame.points) and torch.equal(labels, alone)


@pytest.mark.parametrize("points", [0, 1])
def test_almost_nothing_is_legal_in_training(model, points):
    losses = model.loss(SegmentationBatch.collate([cloud(points)]))
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_every_point_has_a_voxel_however_far():
    xyz = torch.tensor([[0.0, 0, 0], [-0.01, 0, 0], [900.0, -900, 50], [0.49, 0.49, 0.49]])
    points = torch.cat([xyz, torch.rand(4, 1)], dim=1)
    voxels, point_voxel = point_voxels(points, torch.zeros(4, dtype=torch.long), 0.5, 1, "mean")
    assert voxels.coordinates[point_voxel, 1:].tolist() == [
        [0, 0, 0],
        [-1, 0, 0],
        [1800, -1800, 100],
        [0, 0, 0],
    ]
    torch.testing.assert_close(voxels.features[point_voxel[0]], points[[0, 3]].mean(0))


def test_relative_inputs_are_of_order_one_and_say_the_offset():
    points = torch.tensor([[10.1, 0.0, -1.6, 0.4], [10.3, 0.2, -1.6, 0.6]])
    voxels, _ = point_voxels(points, torch.zeros(2, dtype=torch.long), 0.5, 1, "relative")
    # Voxel (20, 0, -4): centre (10.25, 0.25, -1.75); the mean point is (10.2, 0.1, -1.6).
    expected = [-0.05 / 0.25, -0.15 / 0.25, 0.15 / 0.25, -1.6 / 4, np.hypot(10.2, 0.1) / 50, 0.5]
    torch.testing.assert_close(
        voxels.features, torch.tensor([expected], dtype=torch.float32), atol=1e-5, rtol=0
    )


def test_levels_of_the_config_must_fit():
    for changes in ({"channels": (8, 8, 8)}, {"layers": (1, 1)}, {"layers": (1, 0, 1, 1)}):
        with pytest.raises(ValueError, match="one entry above 0 for each level"):
            small(MinkUNetConfig, **changes)


def test_the_config_chooses_the_network():
    assert isinstance(build_segmenter(small(SpUNetConfig)).get_submodule("network"), SpUNet)
    config = replace(small(MinkUNetConfig), inputs="relative")
    assert build_segmenter(config).get_submodule("network.stem")[0].in_channels == 6
