"""What an `indice_key` may and may not do, and when kernel maps are made again."""

import pytest
import torch

import sparse3d.compat.spconv.pytorch as spconv
from sparse3d.compat.spconv.core import ConvAlgo
from sparse3d.compat.spconv.pytorch.ops import get_indice_pairs


def some_tensor(seed: int = 0, shape=(8, 9, 7), channels: int = 3) -> spconv.SparseConvTensor:
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(2, *shape, 1, generator=generator) < 0.3
    dense = torch.randn(2, *shape, channels, generator=generator, dtype=torch.float64)
    return spconv.SparseConvTensor.from_dense(dense * mask)


def test_one_key_for_two_geometries_gives_what_two_keys_give():
    x = some_tensor()
    for other in (dict(kernel_size=5), dict(kernel_size=3, dilation=2)):
        torch.manual_seed(0)
        first = spconv.SubMConv3d(3, 3, 3, indice_key="same").double()
        second = spconv.SubMConv3d(3, 3, indice_key="same", **other).double()
        alone = spconv.SubMConv3d(3, 3, **other).double()
        alone.load_state_dict(second.state_dict())
        want = alone(first(x))
        assert torch.equal(second(first(x)).features, want.features)


def test_one_key_on_two_sets_of_voxels_of_equal_number_gives_what_two_keys_give():
    x = some_tensor()
    layer = spconv.SubMConv3d(3, 3, 3, indice_key="same").double()
    moved = layer(x)
    shifted = (x.indices + torch.tensor([0, 1, 0, 0])) % torch.tensor([2, *x.spatial_shape])
    moved.indices = shifted.int()
    fresh = spconv.SparseConvTensor(moved.features, shifted.int(), x.spatial_shape, 2)
    assert torch.equal(layer(moved).features, layer(fresh).features)


@pytest.mark.parametrize(
    "stride", (1, 2)
)  # with 1 the grids are equal, and only the voxels tell the layers apart
def test_a_key_of_two_strided_layers_is_inverted_in_turn(stride):
    x = some_tensor()
    down = [spconv.SparseConv3d(3, 3, 3, stride, 1, indice_key="same").double() for _ in range(2)]
    up = spconv.SparseInverseConv3d(3, 3, 3, indice_key="same").double()
    middle = down[0](x)
    back = up(down[1](middle))
    assert back.indices is middle.indices
    assert up(back).indices is x.indices


def test_a_partner_that_does_not_fit_is_refused():
    x = some_tensor()
    down = spconv.SparseConv3d(3, 3, 3, 2, 1, indice_key="down").double()
    with pytest.raises(ValueError, match="no strided layer with indice_key 'down' made this tensor"):
        spconv.SparseInverseConv3d(3, 3, 3, indice_key="down").double()(x)
    with pytest.raises(ValueError, match=r"has kernel_size \[3, 3, 3\], this inverse has \[2, 2, 2\]"):
        spconv.SparseInverseConv3d(3, 3, 2, indice_key="down").double()(down(x))
    with pytest.raises(ValueError, match="needs the indice_key"):
        spconv.SparseInverseConv3d(3, 3, 3, indice_key=None)
    subm = spconv.SubMConv3d(3, 3, 3, indice_key="subm").double()
    with pytest.raises(ValueError, match="no strided layer with indice_key 'subm'"):
        spconv.SparseInverseConv3d(3, 3, 3, indice_key="subm").double()(subm(x))
    further = spconv.SparseConv3d(3, 3, 3, 2, 1).double()(down(x))
    with pytest.raises(ValueError, match="made a grid of"):
        spconv.SparseInverseConv3d(3, 3, 3, indice_key="down").double()(further)


def test_an_inverse_with_a_kernel_of_one_goes_back_to_the_finer_voxels():
    x = some_tensor()
    down = spconv.SparseConv3d(3, 3, 1, 2, bias=False, indice_key="k").double()
    up = spconv.SparseInverseConv3d(3, 3, 1, indice_key="k", bias=False).double()
    coarse = down(x)
    fine = up(coarse)
    assert fine.indices is x.indices
    even = (x.indices[:, 1:] % 2 == 0).all(1)
    assert not fine.features[~even].any() and fine.features[even].any()


def test_writing_to_indices_in_place_makes_new_maps():
    x = some_tensor()
    layer = spconv.SubMConv3d(3, 3, 3, indice_key="a").double()
    down = spconv.SparseConv3d(3, 3, 3, 2, 1, indice_key="b").double()
    up = spconv.SparseInverseConv3d(3, 3, 3, indice_key="b").double()
    layer(x), down(x)
    # A voxel leaves its neighbours; written to in place, which nothing but torch's version counter shows.
    free = (x.dense()[0].abs().sum(0) == 0).nonzero()[-1]
    x.indices[0] = torch.tensor([0, *free.tolist()])
    fresh = spconv.SparseConvTensor(x.features, x.indices.clone(), x.spatial_shape, 2)
    assert torch.equal(layer(x).features, layer(fresh).features)
    coarse = down(x)
    x.indices[:, 1:] = x.indices[:, 1:].flip(1)
    with pytest.raises(ValueError, match="written to in place"):
        up(coarse)


@pytest.mark.parametrize("axes", (3, 4))
def test_writing_in_place_is_noticed_in_inference_mode(axes):
    layer = getattr(spconv, f"SubMConv{axes}d")(1, 1, 3)
    with torch.inference_mode():
        indices = torch.zeros(2, 1 + axes, dtype=torch.int32)
        indices[1, -1] = 1
        x = spconv.SparseConvTensor(torch.ones(2, 1), indices, [4] * axes, 1)
        neighbours = layer(x).features
        assert x.voxels is layer(x).voxels
        indices[1, -1] = 3
        assert not torch.equal(layer(x).features, neighbours)


def test_written_outputs_do_not_reach_what_is_kept():
    x = some_tensor()
    down = spconv.SparseConv3d(3, 3, 3, 2, 1).double()
    first = down(x)
    want = first.indices.clone()
    first.indices[:, 1:] *= 2
    assert torch.equal(down(x).indices, want)


def test_maps_are_made_once_for_the_same_voxels(monkeypatch):
    import sparse3d.sites as sites

    made = []
    real = sites.ops.submanifold_map
    monkeypatch.setattr(sites.ops, "submanifold_map", lambda *a: made.append(1) or real(*a))
    x = some_tensor()
    layers = [spconv.SubMConv3d(3, 3, 3, indice_key=key).double() for key in ("a", "a", None)]
    for layer in layers:
        x = layer(x)
    again = spconv.SparseConvTensor(x.features, x.indices, x.spatial_shape, 2, indice_dict=x.indice_dict)
    layers[0](again)  # a tensor made anew, as older code does
    assert len(made) == 1


def test_rulebooks_are_the_geometry():
    x = some_tensor()
    out, pairs, count = get_indice_pairs(
        x.indices, 2, x.spatial_shape, ConvAlgo.Native, [3] * 3, [2] * 3, [1] * 3, [1] * 3, [0] * 3
    )
    found = set()
    for tap in range(27):
        used = pairs[:, tap, : count[tap]]
        assert (pairs[:, tap, count[tap] :] == -1).all() and (used >= 0).all()
        steps = torch.tensor([tap // 9, tap // 3 % 3, tap % 3])
        inputs, outputs = x.indices[used[0].long()], out[used[1].long()]
        assert torch.equal(inputs[:, 0], outputs[:, 0])
        assert torch.equal(inputs[:, 1:], 2 * outputs[:, 1:] - 1 + steps)
        found |= {(tap, *pair) for pair in used.T.tolist()}
    everywhere = 2 * out[None, :, 1:] - 1
    tap = x.indices[:, None, 1:] - everywhere
    met = ((tap >= 0) & (tap < 3)).all(2) & (x.indices[:, None, 0] == out[None, :, 0])
    assert len(found) == int(met.sum())
    data = spconv.SparseConv3d(3, 3, 3, 2, 1, indice_key="k").double()(x).find_indice_pair("k")
    assert torch.equal(data.indice_pairs, pairs) and torch.equal(data.indice_pair_num, count)
    assert torch.equal(data.out_indices, out) and data.out_spatial_shape == [4, 5, 4] and not data.is_subm


def test_what_the_key_cannot_hold_is_refused():
    dense = torch.zeros(3, 200, 2, 2, 2, 1)
    dense[2, 199, 1, 1, 1] = 1
    x = spconv.SparseConvTensor.from_dense(dense)
    with pytest.raises(ValueError, match="batch_size 3 times the first of four axes, 200, is more than 512"):
        spconv.SubMConv4d(1, 1, 3)(x)
    with pytest.raises(ValueError, match=r"indices\[0\] = .* lies outside"):
        bad = torch.tensor([[0, 5, 0, 0, 0]], dtype=torch.int32)
        spconv.SubMConv4d(1, 1, 3)(spconv.SparseConvTensor(torch.ones(1, 1), bad, [5, 2, 2, 2], 1))


@pytest.mark.parametrize("axes", (2, 3, 4))
def test_wrong_voxels_are_refused_by_name(axes):
    indices = torch.zeros(2, 1 + axes, dtype=torch.int32)
    layer = getattr(spconv, f"SubMConv{axes}d")(1, 1, 3)
    with pytest.raises(ValueError, match=r"coordinates\[1\].*repeats coordinates\[0\]"):
        layer(spconv.SparseConvTensor(torch.ones(2, 1), indices, [3] * axes, 1))
    indices[1, -1] = 3
    with pytest.raises(ValueError, match=r"coordinates\[1\].*outside"):
        layer(spconv.SparseConvTensor(torch.ones(2, 1), indices, [3] * axes, 1))
    with pytest.raises(ValueError, match="use .int()"):
        spconv.SparseConvTensor(torch.ones(2, 1), indices.long(), [3] * axes, 1)
    with pytest.raises(ValueError, match=r"indices \(2, .*for the spatial_shape"):
        spconv.SparseConvTensor(torch.ones(2, 1), indices, [3], 1)
    with pytest.raises(ValueError, match="expects 1 channels, got 2"):
        layer(spconv.SparseConvTensor(torch.ones(2, 2), indices, [4] * axes, 1))
