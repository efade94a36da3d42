"""Pooling and normalisation against torch on the dense twin, and at the borders: empty, single, empty
samples."""

import pytest
import torch
import torch.nn.functional as F

from sparse3d import SparseTensor, nn
from tests.nn.dense import at_sites, pair, sparse_volume

WINDOWS = [(2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 1, 1), ((1, 2, 3), (1, 2, 2), (0, 0, 1), 1), (2, 3, 0, 2)]


def windows_of(volume, window):
    """The dense twins of sum and count over windows."""
    kernel, stride, padding, dilation = window
    size = (kernel,) * 3 if isinstance(kernel, int) else kernel
    channels = volume.shape[1]
    ones = torch.ones(channels, 1, *size, dtype=volume.dtype)
    active = (volume != 0).any(1, keepdim=True).to(volume.dtype)
    total = F.conv3d(volume, ones, None, stride, padding, dilation, channels)
    return total, F.conv3d(active, ones[:1], None, stride, padding, dilation)


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_sum_and_average_pooling_over_active_voxels(window):
    x, volume = pair(dtype=torch.float64)
    total, count = windows_of(volume, window)
    summed, averaged = nn.SumPool3d(*window)(x), nn.AvgPool3d(*window)(x)
    torch.testing.assert_close(summed.features, at_sites(total, summed))
    torch.testing.assert_close(averaged.features, at_sites(total, summed) / at_sites(count, summed))
    assert len(summed) == int((count > 0.5).sum())


@pytest.mark.parametrize("window", WINDOWS, ids=str)
def test_max_pooling_equals_torch_where_the_inactive_are_minus_infinity(window):
    x, volume = pair(dtype=torch.float64)
    kernel, stride, padding, dilation = window
    inactive = (volume == 0).all(1, keepdim=True)
    dense = F.max_pool3d(volume.masked_fill(inactive, -torch.inf), kernel, stride, padding, dilation)
    out = nn.MaxPool3d(*window)(x)
    want = at_sites(dense, out)
    assert torch.equal(out.features, want)
    seed = torch.randn_like(want)
    (got,) = torch.autograd.grad((out.features * seed).sum(), x.features)
    (full,) = torch.autograd.grad((want * seed).sum(), volume)
    torch.testing.assert_close(got, at_sites(full, x))


def test_global_pooling_of_each_sample():
    volume = sparse_volume(batch=3)
    volume[1] = 0
    x = SparseTensor.from_dense(volume)
    for layer, reduce in (
        (nn.GlobalMaxPool(), "amax"),
        (nn.GlobalAvgPool(), "mean"),
        (nn.GlobalSumPool(), "sum"),
    ):
        out = layer(x)
        assert out.shape == (3, 3) and out[1].tolist() == [0, 0, 0]
        for b in (0, 2):
            torch.testing.assert_close(out[b], getattr(x.sample(b).features, reduce)(0))


@pytest.mark.parametrize("layer", [nn.MaxPool3d(2), nn.AvgPool3d(2), nn.SumPool3d(3, 2, 1)], ids=repr)
@pytest.mark.parametrize("count", [0, 1])
def test_pooling_of_nothing_and_of_one_voxel(layer, count):
    features = torch.randn(count, 2, requires_grad=True)
    x = SparseTensor(features, torch.zeros(count, 4, dtype=torch.int32), batch_size=2, shape=(4, 4, 4))
    out = layer(x)
    out.features.sum().backward()
    assert out.shape == (2, 2, 2) and features.grad.shape == features.shape


def test_batch_norm_equals_torch_and_keeps_its_statistics():
    x, _ = pair()
    ours, torchs = nn.BatchNorm(3), torch.nn.BatchNorm1d(3)
    for _ in range(2):
        assert torch.equal(ours(x).features, torchs(x.features))
    assert torch.equal(ours.running_var, torchs.running_var)
    ours.eval(), torchs.eval()
    assert torch.equal(ours(x).features, torchs(x.features))


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("kind", [nn.BatchNorm, nn.SyncBatchNorm], ids=lambda kind: kind.__name__)
def test_batch_norm_of_less_than_two_voxels_uses_running_statistics(kind, count):
    layer = kind(2)
    layer.running_mean.fill_(1.0)
    features = torch.full((count, 2), 3.0, requires_grad=True)
    x = SparseTensor(features, torch.zeros(count, 4, dtype=torch.int32), batch_size=1)
    out = layer(x)
    torch.testing.assert_close(out.features, torch.full((count, 2), 2.0 / (1 + layer.eps) ** 0.5))
    out.features.sum().backward()
    assert features.grad is not None and layer.weight.grad is not None
    assert layer.running_mean.tolist() == [1.0, 1.0] and torch.isfinite(layer.running_var).all()


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_group_norm_equals_torch_on_each_full_sample(groups):
    # On a volume without inactive voxels, dense space and the set of voxels are the same.
    volume = torch.randn(2, 4, 3, 3, 2, dtype=torch.float64)
    x = SparseTensor.from_dense(volume)
    ours = nn.GroupNorm(groups, 4).double()
    torch.nn.init.normal_(ours.weight)
    torch.nn.init.normal_(ours.bias)
    want = F.group_norm(volume, groups, ours.weight, ours.bias)
    torch.testing.assert_close(ours(x).dense(), want)


def test_instance_norm_equals_torch_on_full_samples():
    volume = torch.randn(2, 3, 4, 2, 3, dtype=torch.float64)
    want = F.instance_norm(volume)
    torch.testing.assert_close(nn.InstanceNorm(3)(SparseTensor.from_dense(volume)).dense(), want)


def test_group_norm_ignores_inactive_voxels_and_other_samples():
    x, _ = pair(dtype=torch.float64, channels=4)
    out = nn.GroupNorm(2, 4).double()(x)
    for part, before in zip(out.samples(), x.samples(), strict=True):
        rows = before.features.detach().reshape(len(before), 2, 2)
        spread = (rows - rows.mean((0, 2), keepdim=True)) / (
            rows.var((0, 2), False, keepdim=True) + 1e-5
        ).sqrt()
        torch.testing.assert_close(part.features.detach(), spread.reshape(len(before), 4))


def test_norms_give_right_gradients_in_double():
    x, _ = pair(shape=(3, 2, 2), dtype=torch.float64, channels=4)
    for layer in (
        nn.GroupNorm(2, 4),
        nn.InstanceNorm(4),
        nn.LayerNorm(4),
        nn.BatchNorm(4),
        nn.SyncBatchNorm(4),
    ):
        layer = layer.double()
        assert torch.autograd.gradcheck(lambda f, layer=layer: layer(x.replace(f)).features, (x.features,))


def test_layer_norm_is_torchs_on_each_voxel():
    x, _ = pair(channels=5)
    torch.testing.assert_close(nn.LayerNorm(5)(x).features, F.layer_norm(x.features, (5,)))


@pytest.mark.parametrize("momentum", [0.1, None])
@pytest.mark.parametrize("count", [0, 1, 9])
def test_compiled_batch_norm_is_the_eager_one(momentum, count):
    import copy

    torch._dynamo.reset()
    layer = nn.BatchNorm(3, momentum=momentum)
    torch.nn.init.normal_(layer.running_mean)
    twin = copy.deepcopy(layer)
    compiled = torch.compile(lambda f: layer.normalize(f), fullgraph=True, backend="aot_eager")
    for step in range(2):
        features = torch.randn(count, 3) + step
        torch.testing.assert_close(compiled(features), twin.normalize(features))
    for ours, theirs in zip(layer.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_compiled_batch_norm_counts_and_sums_half_precision_in_float32():
    torch._dynamo.reset()
    features = (torch.randn(70_000, 2) + 3).half()  # more voxels than half precision can count
    layer = nn.BatchNorm(2)
    compiled = torch.compile(lambda f: layer.normalize(f), fullgraph=True, backend="aot_eager")
    out = compiled(features)
    assert out.dtype == torch.float16
    torch.testing.assert_close(
        out.float(), F.batch_norm(features.float(), None, None, training=True), rtol=2e-3, atol=2e-3
    )


def test_batch_norm_without_running_statistics_uses_the_batch_in_evaluation_too():
    x, _ = pair()
    want = F.batch_norm(x.features, None, None, training=True)
    for kind in (nn.BatchNorm, nn.SyncBatchNorm):
        torch.testing.assert_close(kind(3, track_running_stats=False).eval()(x).features, want)


def test_average_of_half_precision_whose_sum_overflows():
    coordinates = torch.tensor([[0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 1, 0]], dtype=torch.int32)
    x = SparseTensor(torch.full((3, 1), 40_000.0, dtype=torch.float16), coordinates)
    out = nn.AvgPool3d(2)(x).features
    assert out.dtype == torch.float16 and out.tolist() == [[40_000.0]]


def test_sync_batch_norm_without_processes_is_batch_norm():
    x, _ = pair()
    layer = torch.nn.Sequential(nn.BatchNorm(3))
    layer[0].weight.data.uniform_()
    converted = nn.convert_sync_batchnorm(torch.nn.Sequential(nn.BatchNorm(3)))
    converted.load_state_dict(layer.state_dict())
    assert isinstance(converted[0], nn.SyncBatchNorm)
    torch.testing.assert_close(converted(x).features, layer(x).features)
