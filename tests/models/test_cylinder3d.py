"""Cylinder3D: cells, parameters, asymmetric blocks against dense torch, and trained depthwise filters."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from sparse3d.frames import SegmentationBatch, SegmentationFrame
from sparse3d.models.cylinder3d import (
    AsymmetricBlock,
    AsymmetricUNet,
    ContextModelling,
    Cylinder3D,
    Cylinder3DConfig,
)
from sparse3d.nn import convert_sync_batchnorm
from sparse3d.tensor import SparseTensor

SMALL = {"grid": (24, 16, 8), "max_range": 12.0, "point_layers": (8, 8), "voxel_channels": 4, "channels": 4}


def small(**changes) -> Cylinder3D:
    torch.manual_seed(0)
    return Cylinder3D(Cylinder3DConfig(classes=("a", "b", "c"), **(SMALL | changes)))


def cloud(points: int = 500, seed: int = 0) -> SegmentationFrame:
    rng = np.random.default_rng(seed)
    xyz = rng.normal(0, 6, (points, 3)) * (1, 1, 0.2)
    rows = np.column_stack([xyz, rng.random(points)]).astype(np.float32)
    return SegmentationFrame(str(seed), rows, rng.integers(-1, 3, points), np.zeros(points, np.int64))


def test_cells_and_features_by_hand():
    model = small(reflectivity=True)
    points = torch.tensor([[3.0, 4.0, 0.5, 0.8], [-40.0, -1e-6, -9.0, 0.1], [0.0, 0.0, 30.0, 1.0]])
    features, cell = model.cylinder(points)
    # Cells are 0.5 m x 22.5 degrees x 0.75 m from (0, -180 degrees, -4 m); rho = 5, phi = 53.13 degrees.
    assert cell.tolist() == [[10, 10, 6], [23, 0, 0], [0, 8, 7]]
    phi = math.atan2(4, 3)
    centre = (10.5 * 0.5, 10.5 * math.pi / 8 - math.pi, 6.5 * 0.75 - 4)
    offset = (5 - centre[0], phi - centre[1], 0.5 - centre[2])
    expected = torch.tensor([*offset, 5, phi, 0.5, 3, 4, 0.8, 0.8 * 25.25 / 2500])
    torch.testing.assert_close(features[0], expected, atol=1e-5, rtol=0)


def conv(taps: int, cin: int, cout: int) -> int:
    """A convolution without bias and the two vectors of its batch norm."""
    return taps * cin * cout + 2 * cout


def asymmetric(cin: int, cout: int) -> int:
    return 2 * (conv(9, cin, cout) + conv(9, cout, cout))


def up(cin: int, cout: int) -> int:
    return conv(27, cin, cout) + 27 * cout * cout + 2 * conv(9, cout, cout) + conv(27, cout, cout)


def test_parameters():
    """55.9 million, as published, with the benchmark's 20 outputs and 9 inputs."""
    network = asymmetric(16, 32)
    for width in (32, 64, 128, 256):
        network += asymmetric(width, 2 * width) + 27 * (2 * width) ** 2
    network += up(512, 512) + up(512, 256) + up(256, 128) + up(128, 64)
    network += 3 * conv(3, 64, 64) + 27 * 128 * 20 + 20
    points = 0
    for cin, cout in ((9, 64), (64, 128), (128, 256), (256, 256)):
        points += 2 * cin + cin * cout + cout
    points += 256 * 16 + 16
    model = Cylinder3D(Cylinder3DConfig(classes=tuple(map(str, range(20)))))
    found = sum(parameter.numel() for parameter in model.parameters())
    assert found == network + points and round(found / 1e6, 1) == 55.9


def dense_of(model: nn.Module, volume: torch.Tensor, active: torch.Tensor) -> torch.Tensor:
    """The same modules with torch's convolutions; after each, cells without a voxel are zero again."""
    if isinstance(model, nn.Sequential):
        for child in model:
            volume = dense_of(child, volume, active)
        return volume
    kernel = model.get_parameter("weight") if "weight" in dict(model.named_parameters()) else None
    if kernel is not None and kernel.dim() == 5:
        padding = [k // 2 for k in kernel.shape[:3]]
        weight = kernel.permute(4, 3, 0, 1, 2)
        groups = volume.shape[1] // weight.shape[1]
        return nn.functional.conv3d(volume, weight, padding=padding, groups=groups) * active
    if isinstance(model, nn.BatchNorm1d):  # in eval mode
        scale = (model.weight / (model.running_var + model.eps).sqrt())[:, None, None, None]
        return ((volume - model.running_mean[:, None, None, None]) * scale
                + model.bias[:, None, None, None]) * active  # fmt: skip
    return model.get_submodule("function")(volume) * active


def randomised(module: nn.Module) -> nn.Module:
    """Eval mode with statistics that are not 0 and 1."""
    for child in module.modules():
        if isinstance(child, nn.BatchNorm1d):
            nn.init.uniform_(child.running_mean, -0.5, 0.5)
            nn.init.uniform_(child.running_var, 0.5, 2)
    return module.eval()


@pytest.fixture
def cells() -> SparseTensor:
    torch.manual_seed(1)
    volume = torch.randn(2, 3, 6, 5, 4, dtype=torch.float64) * (torch.rand(2, 1, 6, 5, 4) < 0.4)
    return SparseTensor.from_dense(volume)


@pytest.mark.parametrize("separable", [False, True])
def test_the_asymmetric_block_is_two_orders_of_dense_convolutions(cells, separable):
    block = randomised(AsymmetricBlock(3, 4, ((1, 3, 3), (3, 1, 3)), separable).double())
    active = cells.replace(torch.ones_like(cells.features[:, :1])).dense()
    volume = cells.dense()
    one, other = (dense_of(block.get_submodule(name), volume, active) for name in ("one", "other"))
    torch.testing.assert_close(block(cells).dense(), one + other)
    assert block.get_submodule("one.0")[0].kernel_size == (1, 3, 3)
    assert block.get_submodule("other.0")[0].kernel_size == (3, 1, 3)


def test_where_the_kernels_stand():
    """The context block begins with phi and z, the others with rho and z; DDCM has one axis a gate."""
    network = small().network
    first = [network.context, *network.encoder]
    kernels = [block.get_submodule("one.0")[0].kernel_size for block in first]
    assert kernels == [(1, 3, 3)] + 4 * [(3, 1, 3)]
    ways = [layer[0].kernel_size for layer in network.get_submodule("decoder.0.after")]
    assert ways == [(1, 3, 3), (3, 1, 3), (3, 3, 3)]
    gates = [gate[0].kernel_size for gate in network.ddcm.gates]
    assert gates == [(3, 1, 1), (1, 3, 1), (1, 1, 3)]


def test_ddcm_gates_by_three_ranks(cells):
    module = randomised(ContextModelling(3, False).double())
    active = cells.replace(torch.ones_like(cells.features[:, :1])).dense()
    volume = cells.dense()
    gates = sum(dense_of(gate, volume, active) for gate in module.get_submodule("gates").children())
    torch.testing.assert_close(module(cells).dense(), volume * gates)


def test_every_parameter_learns_also_the_depthwise_filters():
    model = small(separable=True)
    losses = model.loss(SegmentationBatch.collate([cloud(), cloud(seed=1)]))
    sum(losses.values()).backward()
    names = dict(model.named_parameters())
    for name, parameter in names.items():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name
    depthwise = [n for n, p in names.items() if p.dim() == 5 and p.shape[3] == 1 and p.shape[:3] != (1, 1, 1)]
    assert len(depthwise) == 4 + 4 * 4 + 4 * 4 + 3  # context, four blocks, four ways up, DDCM
    before = set(model.state_dict())
    model.loss(SegmentationBatch.collate([cloud()]))
    assert set(model.state_dict()) == before and set(depthwise) <= before


def test_separable_convolutions_have_far_fewer_parameters():
    plain, separable = (AsymmetricUNet(16, 20, 32, flag) for flag in (False, True))
    sizes = [sum(p.numel() for p in m.parameters()) for m in (plain, separable)]
    assert 2.3 < sizes[0] / sizes[1] < 2.7


def test_frames_do_not_meet_and_every_point_has_logits():
    model = small().eval()
    frames = [cloud(), cloud(0), cloud(300, 2)]
    together = model.predict(SegmentationBatch.collate(frames))
    for frame, labels in zip(frames, together, strict=True):
        (alone,) = model.predict(SegmentationBatch.collate([frame]))
        assert len(labels) == len(frame.points) and torch.equal(labels, alone)


@pytest.mark.parametrize("points", [0, 1])
def test_almost_nothing_is_legal_in_training(points):
    losses = small().loss(SegmentationBatch.collate([cloud(points)]))
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_norms_of_several_processes_fit():
    """Under torchrun every batch norm is exchanged, those of the point MLP too."""
    model, batch = small().eval(), SegmentationBatch.collate([cloud()])
    alone = model.logits(batch)
    synced = convert_sync_batchnorm(model)
    assert isinstance(synced, Cylinder3D)
    torch.testing.assert_close(synced.logits(batch), alone)


def test_wrong_configs():
    with pytest.raises(ValueError, match="the cylinder is empty"):
        Cylinder3DConfig(z_range=(2.0, -4.0))
    with pytest.raises(ValueError, match="needs the intensity"):
        Cylinder3DConfig(point_channels=3, reflectivity=True)
