"""The stand-in's layers equal torch's on the densified input, without spconv: one to four axes, forward
and backward."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import sparse3d.compat.spconv.pytorch as spconv

SHAPES = {1: (23,), 2: (9, 8), 3: (6, 7, 5), 4: (5, 4, 6, 4)}
CONV = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def volume(axes: int, channels: int = 3, share: float = 0.3, seed: int = 0) -> Tensor:
    """A dense volume, channels last, in float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = (2, *SHAPES[axes])
    mask = torch.rand(*shape, 1, generator=generator) < share
    return torch.randn(*shape, channels, generator=generator, dtype=torch.float64) * mask


def pair(axes: int, **arguments) -> tuple[spconv.SparseConvTensor, Tensor]:
    """A sparse tensor in a shuffled order and its dense twin (B, C, ...), both leaves."""
    dense = volume(axes, **arguments)
    x = spconv.SparseConvTensor.from_dense(dense)
    order = torch.randperm(len(x.indices), generator=torch.Generator().manual_seed(1))
    features = x.features[order].detach().requires_grad_()
    x = spconv.SparseConvTensor(features, x.indices[order], x.spatial_shape, x.batch_size)
    return x, dense.movedim(-1, 1).clone().requires_grad_()


def at(dense: Tensor, x: spconv.SparseConvTensor) -> Tensor:
    """Entries (N, C) of a dense volume (B, C, ...) at the voxels of a tensor."""
    batch, *rest = x.indices.long().unbind(1)
    return dense[batch, :, *rest]


def torch_weight(layer) -> Tensor:
    """(out, *kernel, in) to torch's (out, in, *kernel), or (in, out, *kernel) of a transposed layer."""
    weight = layer.weight.movedim(-1, 1)
    return weight.transpose(0, 1) if layer.transposed else weight


def conv4d(x: Tensor, weight: Tensor, bias: Tensor, stride: int, padding: int, dilation: int) -> Tensor:
    """Four axes as a sum of convolutions of three, one for each tap along the first."""
    times = F.pad(x, (0, 0) * 3 + (padding, padding)).unbind(2)
    count = (len(times) - dilation * (weight.shape[2] - 1) - 1) // stride + 1
    out = []
    for t in range(count):
        taps = enumerate(weight.unbind(2))
        parts = [
            F.conv3d(times[t * stride + dilation * k], w, None, stride, padding, dilation) for k, w in taps
        ]
        out.append(sum(parts) + bias.reshape(1, -1, 1, 1, 1))
    return torch.stack(out, 2)


def check(out: spconv.SparseConvTensor, want: Tensor, x, dense: Tensor, layer) -> None:
    """Values at the output voxels, then gradients of input, weight and bias."""
    assert list(want.shape[2:]) == out.spatial_shape
    torch.testing.assert_close(out.features, at(want, out))
    weight = torch.randn(out.features.shape, dtype=torch.float64)
    parameters = list(layer.parameters())
    ours = torch.autograd.grad((out.features * weight).sum(), [x.features, *parameters], retain_graph=True)
    theirs = torch.autograd.grad((at(want, out) * weight).sum(), [dense, *parameters])
    torch.testing.assert_close(ours[0], at(theirs[0], x))
    for mine, other in zip(ours[1:], theirs[1:], strict=True):
        torch.testing.assert_close(mine, other)


@pytest.mark.parametrize("axes", (1, 2, 3, 4))
@pytest.mark.parametrize("dilation", (1, 2))
def test_submanifold_equals_torch_at_the_voxels(axes, dilation):
    x, dense = pair(axes)
    layer = getattr(spconv, f"SubMConv{axes}d")(3, 4, 3, dilation=dilation).double()
    named = dict(stride=1, padding=dilation, dilation=dilation)
    conv = conv4d if axes == 4 else CONV[axes]
    out = layer(x)
    check(out, conv(dense, torch_weight(layer), layer.bias, **named), x, dense, layer)
    assert out.indices is x.indices


@pytest.mark.parametrize("axes", (1, 2, 3, 4))
@pytest.mark.parametrize("geometry", ((3, 2, 1, 1), (2, 2, 0, 1), (3, 1, 1, 1), (2, 1, 1, 2), (1, 2, 0, 1)))
def test_strided_equals_torch_wherever_a_voxel_reaches(axes, geometry):
    x, dense = pair(axes)
    kernel, stride, padding, dilation = geometry
    layer = getattr(spconv, f"SparseConv{axes}d")(3, 4, kernel, stride, padding, dilation).double()
    conv = conv4d if axes == 4 else CONV[axes]
    want = conv(dense, torch_weight(layer), layer.bias, stride=stride, padding=padding, dilation=dilation)
    out = layer(x)
    check(out, want, x, dense, layer)
    reached = conv((dense != 0).any(1, keepdim=True).double(), torch.ones(1, 1, *[kernel] * axes).double(),
                   torch.zeros(1).double(), stride=stride, padding=padding, dilation=dilation)  # fmt: skip
    assert len(out.indices) == int((reached > 0).sum())


@pytest.mark.parametrize("axes", (1, 2, 3))
@pytest.mark.parametrize("geometry", ((3, 2, 1, 1), (2, 2, 0, 1), (3, 1, 1, 2)))
def test_transposed_equals_torch(axes, geometry):
    x, dense = pair(axes)
    kernel, stride, padding, dilation = geometry
    layer = getattr(spconv, f"SparseConvTranspose{axes}d")(3, 4, kernel, stride, padding, dilation).double()
    want = TRANSPOSED[axes](
        dense, torch_weight(layer), layer.bias, stride=stride, padding=padding, dilation=dilation
    )
    check(layer(x), want, x, dense, layer)


def test_transposed_in_four_axes_is_the_adjoint_of_the_strided_one():
    x, _ = pair(4)
    down = spconv.SparseConv4d(3, 5, 3, 2, 1, bias=False).double()
    coarse = down(x)
    weight = torch.randn(coarse.features.shape, dtype=torch.float64)
    (adjoint,) = torch.autograd.grad((coarse.features * weight).sum(), x.features)
    up = spconv.SparseConvTranspose4d(5, 3, 3, 2, 1, bias=False).double()
    with torch.no_grad():
        up.weight.copy_(down.weight.transpose(0, -1))
    fine = up(coarse.replace_feature(weight))
    # Shapes of 2 n - 1 hold all but the last voxels of even axes.
    dense = F.pad(
        fine.dense(), [n for axis in (3, 2, 1, 0) for n in (0, SHAPES[4][axis] - fine.spatial_shape[axis])]
    )
    inside = (x.indices[:, 1:] < torch.tensor(fine.spatial_shape)).all(1)
    torch.testing.assert_close(at(dense, x)[inside], adjoint[inside])


@pytest.mark.parametrize("axes", (1, 2, 3, 4))
def test_inverse_goes_back_to_the_voxels_and_is_the_adjoint(axes):
    x, _ = pair(axes)
    down = getattr(spconv, f"SparseConv{axes}d")(3, 5, 3, 2, 1, bias=False, indice_key="k").double()
    up = getattr(spconv, f"SparseInverseConv{axes}d")(5, 3, 3, indice_key="k", bias=False).double()
    with torch.no_grad():
        up.weight.copy_(down.weight.transpose(0, -1))
    coarse = down(x)
    weight = torch.randn(coarse.features.shape, dtype=torch.float64)
    (adjoint,) = torch.autograd.grad((coarse.features * weight).sum(), x.features)
    fine = up(coarse.replace_feature(weight))
    torch.testing.assert_close(fine.features, adjoint)
    assert fine.indices is x.indices and fine.spatial_shape == x.spatial_shape


@pytest.mark.parametrize("axes", (1, 2, 3))
def test_pools_reduce_the_active_voxels(axes):
    x, dense = pair(axes)
    active = (dense.detach() != 0).any(1, keepdim=True)
    pool = getattr(spconv, f"SparseMaxPool{axes}d")(3, 2, 1)(x)
    low = torch.where(active, dense, -torch.inf)
    want = getattr(F, f"max_pool{axes}d")(low, 3, 2, 1).clamp(min=0)
    torch.testing.assert_close(pool.features, at(want, pool))
    mean = getattr(spconv, f"SparseAvgPool{axes}d")(2)(x)
    averages = getattr(F, f"avg_pool{axes}d")
    want = averages(dense, 2) / averages(active.double(), 2).clamp(min=1e-9)
    torch.testing.assert_close(mean.features, at(want, mean))


def test_global_pools_give_a_row_a_sample():
    x, dense = pair(3)
    active = (dense != 0).any(1)
    for sample in range(2):
        rows = dense[sample][:, active[sample]]
        torch.testing.assert_close(spconv.SparseGlobalMaxPool()(x)[sample], rows.amax(1))
        torch.testing.assert_close(spconv.SparseGlobalAvgPool()(x)[sample], rows.mean(1))


def test_groups_equal_torchs():
    x, dense = pair(3, channels=4)
    for kernel in (3, 1):
        layer = spconv.SubMConv3d(4, 6, kernel, groups=2).double()
        want = F.conv3d(dense, torch_weight(layer), layer.bias, padding=kernel // 2, groups=2)
        check(layer(x), want, x, dense, layer)


def test_dense_and_back_for_any_number_of_axes():
    for axes in SHAPES:
        dense = volume(axes)
        x = spconv.SparseConvTensor.from_dense(dense)
        assert torch.equal(x.dense(channels_first=False), dense)
        assert torch.equal(x.dense(), dense.movedim(-1, 1))
        assert x.spatial_size * 2 * x.sparity == pytest.approx(len(x.indices))


def test_a_sum_of_unequal_voxels_is_that_of_the_volumes():
    for axes in SHAPES:
        a, b = volume(axes, seed=1), volume(axes, seed=2)
        x, y = (spconv.SparseConvTensor.from_dense(v) for v in (a, b))
        for add in (spconv.functional.sparse_add, spconv.functional.sparse_add_hash_based):
            torch.testing.assert_close(add(x, y).dense(channels_first=False), a + b)
        x = x.select_by_index(torch.randperm(len(x.indices)))
        some = x.select_by_index(torch.arange(3))
        total = spconv.functional.sparse_add(some, x)
        assert total.indices is x.indices  # the largest holds all voxels, so it keeps its rows
        want = some.dense(channels_first=False) + a
        torch.testing.assert_close(total.dense(channels_first=False), want)
