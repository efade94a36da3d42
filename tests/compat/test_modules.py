"""Containers, norms, tables, state dicts and the sparse tensor's small things."""

from collections import OrderedDict

import pytest
import torch
from torch import nn

import sparse3d.compat.spconv.pytorch as spconv
from sparse3d.compat.cumm.tensorview import gemm
from sparse3d.compat.spconv.pytorch.conv import SparseConvolution


def some_tensor(seed: int = 0, channels: int = 3) -> spconv.SparseConvTensor:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(2, 6, 5, 7, 1, generator=generator) < 0.3
    return spconv.SparseConvTensor.from_dense(torch.randn(2, 6, 5, 7, channels, generator=generator) * mask)


def test_a_sequence_gives_sparse_modules_the_tensor_and_dense_ones_the_features():
    x = some_tensor()
    seen = []

    class Sparse(spconv.SparseModule):
        def forward(self, x):
            seen.append(type(x))
            return x

    class Dense(nn.Module):
        def forward(self, x):
            seen.append(type(x))
            return x

    net = spconv.SparseSequential(Sparse(), Dense(), spconv.SparseBatchNorm(3), spconv.SparseReLU())
    assert isinstance(net(x), spconv.SparseConvTensor)
    assert seen == [spconv.SparseConvTensor, torch.Tensor]
    assert (
        len(net) == 4
        and isinstance(net[-1], spconv.SparseReLU)
        and list(net._modules) == ["0", "1", "2", "3"]
    )
    net.add(nn.Identity(), "last")
    assert list(net._modules)[-1] == "last"
    named = spconv.SparseSequential(OrderedDict(a=Sparse()), b=Dense())
    assert [name for name, _ in named.named_children()] == ["a", "b"]
    with pytest.raises(ValueError, match="two modules have the name 'a'"):
        spconv.SparseSequential(OrderedDict(a=Sparse()), a=Dense())
    with pytest.raises(IndexError):
        net[9]


def test_a_sequence_leaves_dense_modules_out_where_there_is_no_voxel():
    empty = some_tensor().select_by_index(torch.zeros(0, dtype=torch.int64))
    net = spconv.SparseSequential(spconv.SubMConv3d(3, 4, 3), nn.BatchNorm1d(4), nn.ReLU())
    assert net(empty).features.shape == (0, 4) and int(net[1].num_batches_tracked) == 0
    assert spconv.SparseConv3d(3, 4, 3, 2, 1)(empty).features.shape == (0, 4)


def test_tables_join_and_add_the_same_voxels_only():
    x, y = some_tensor(0), some_tensor(1)
    twice = x.replace_feature(2 * x.features)
    assert torch.equal(spconv.AddTable()([x, twice]).features, 3 * x.features)
    assert torch.equal(spconv.JoinTable()([x, twice]).features, torch.cat([x.features, twice.features], 1))
    for table in (spconv.AddTable(), spconv.JoinTable()):
        with pytest.raises(ValueError, match="rows of the same voxels"):
            table([x, y])
    misaligned = spconv.AddTableMisaligned()([x, y])
    torch.testing.assert_close(misaligned.dense(), x.dense() + y.dense())
    branches = spconv.ConcatTable().add(spconv.Identity()).add(spconv.SubMConv3d(3, 4, 1))
    assert [t.features.shape[1] for t in branches(x)] == [3, 4] and len(list(branches.parameters())) == 2


def test_sums_and_selections_of_a_tensor():
    x = some_tensor()
    assert torch.equal((x + x.features).features, 2 * x.features)
    assert torch.equal((x + x).features, 2 * x.features)
    assert not (x + x.minus()).features.any()
    y = x
    y += x
    assert torch.equal(y.features, 2 * x.features) and y is not x
    with pytest.raises(ValueError, match="rows of the same voxels"):
        x + some_tensor(1)
    part = x.select_by_index(x.indices[:, 0] == 1)
    assert torch.equal(part.dense()[1], x.dense()[1]) and not part.dense()[0].any()
    with pytest.raises(ValueError, match="use x = x.replace_feature"):
        x.features = x.features
    assert repr(x) == f"SparseConvTensor[shape={x.features.shape}]"
    assert spconv.RemoveGrid()(x).grid is None


def test_spconvs_state_dicts_load_by_name_and_shape():
    layer = spconv.SparseConv3d(3, 5, (1, 2, 3), 2, record_voxel_count=True)
    shapes = {name: tuple(value.shape) for name, value in layer.state_dict().items()}
    assert shapes == {"weight": (5, 1, 2, 3, 3), "bias": (5,), "max_num_voxels_during_training": (1,)}
    plain = {name: torch.ones(shape) for name, shape in shapes.items() if not name.startswith("max")}
    layer.load_state_dict(plain)  # the count may be missing, as in spconv
    out = layer(some_tensor())
    assert int(layer.get_max_num_voxels()) == len(out.indices)


@pytest.mark.parametrize(("layout", "axes"), (("RSKC", (1, 2, 3, 0, 4)), ("RSCK", (1, 2, 3, 4, 0))))
def test_weights_of_version_one_load_where_spconvs_switch_says_so(layout, axes, monkeypatch):
    layer = spconv.SubMConv3d(3, 5, (1, 3, 5), bias=False)
    old = {"weight": layer.weight.detach().permute(axes).clone()}
    other = spconv.SubMConv3d(3, 5, (1, 3, 5), bias=False)
    monkeypatch.setenv("SPCONV_SAVED_WEIGHT_LAYOUT", layout)
    other.load_state_dict(old)
    assert torch.equal(other.weight, layer.weight)
    monkeypatch.setenv("SPCONV_SAVED_WEIGHT_LAYOUT", "KCRS")
    with pytest.raises(ValueError, match="expected KRSC, RSKC or RSCK"):
        other.load_state_dict(old)


def test_a_kernel_of_one_reads_its_weight_as_spconv_does():
    """As (in, out) in memory, not as (out, in): trained weights of spconv need it."""
    x = some_tensor()
    layer = spconv.SubMConv3d(3, 5, 1, padding=1)
    want = x.features @ layer.weight.detach().flatten().reshape(3, 5) + layer.bias
    torch.testing.assert_close(layer(x).features, want)


def test_an_added_tensor_and_an_activation_come_last():
    x = some_tensor()
    for activation, apply in (
        (gemm.Activation.ReLU, torch.relu),
        (gemm.Activation.Sigmoid, torch.sigmoid),
        (gemm.Activation.LeakyReLU, lambda t: nn.functional.leaky_relu(t, 0.3)),
    ):
        layer = SparseConvolution(3, 3, 3, 3, subm=True, act_type=activation, act_alpha=0.3)
        plain = SparseConvolution(3, 3, 3, 3, subm=True)
        plain.load_state_dict(layer.state_dict())
        want = apply(plain(x).features + x.features)
        torch.testing.assert_close(layer(x, add_input=x).features, want)


def test_names_are_the_paths_in_the_network():
    net = spconv.SparseSequential(spconv.SparseSequential(spconv.SubMConv3d(3, 3, 3)))
    spconv.assign_name_for_sparse_modules(net)
    assert net[0][0]._sparse_unique_name == "0.0"


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="groups=2 must divide"):
        spconv.SubMConv3d(3, 4, 3, groups=2)
    with pytest.raises(ValueError, match="expected one integer or 3"):
        spconv.SubMConv3d(3, 4, (3, 3))
    with pytest.raises(ValueError, match="for a kernel and stride of one"):
        spconv.SparseConv3d(3, 4, 1, padding=1)
    with pytest.raises(ValueError, match="leave nothing of spatial_shape"):
        spconv.SparseConv3d(3, 4, 9)(some_tensor())
