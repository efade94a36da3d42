"""Laws of the sparse tensor: dense round trips, unions, selections, and what it refuses."""

import pytest
import torch

import sparse3d
from sparse3d import SparseTensor
from tests.nn.dense import sparse_volume


def some_tensor(**arguments) -> SparseTensor:
    return SparseTensor.from_dense(sparse_volume(**arguments))


def test_dense_and_back_is_the_identity():
    volume = sparse_volume()
    x = SparseTensor.from_dense(volume)
    assert torch.equal(x.dense(), volume)
    again = SparseTensor.from_dense(x.dense())
    assert torch.equal(again.coordinates, x.coordinates) and torch.equal(again.features, x.features)
    assert x.shape == (6, 5, 4) and x.stride == (1, 1, 1) and x.batch_size == 2


def test_coordinates_of_a_dense_volume_are_its_indices():
    volume = torch.zeros(2, 1, 3, 4, 5)
    volume[1, 0, 2, 1, 3] = 7.0
    x = SparseTensor.from_dense(volume)
    assert x.coordinates.tolist() == [[1, 2, 1, 3]] and x.features.tolist() == [[7.0]]


def test_dense_of_an_unbounded_tensor_holds_all_voxels():
    x = SparseTensor(torch.ones(2, 1), torch.tensor([[0, 0, 2, 0], [1, 3, 0, 1]], dtype=torch.int32))
    assert x.dense().shape == (2, 1, 4, 3, 2)
    assert x.dense((5, 5, 5)).sum() == 2
    with pytest.raises(ValueError, match=r"coordinates\[1\].*outside"):
        x.dense((3, 3, 3))


def test_gradient_of_dense_reaches_each_voxel_once():
    x = some_tensor()
    x = x.replace(x.features.requires_grad_())
    weight = torch.randn(2, 3, 6, 5, 4)
    (x.dense() * weight).sum().backward()
    b, i, j, k = x.coordinates.long().unbind(1)
    assert torch.equal(x.features.grad, weight[b, :, i, j, k])


def test_union_adds_as_dense_volumes_do():
    a, b = sparse_volume(seed=1), sparse_volume(seed=2)
    total = SparseTensor.from_dense(a) + SparseTensor.from_dense(b)
    torch.testing.assert_close(total.dense(), a + b, rtol=0, atol=0)
    assert len(total) == int(((a != 0) | (b != 0)).any(1).sum())


def test_union_of_permuted_rows_and_of_shared_sites():
    x = some_tensor()
    order = torch.randperm(len(x))
    assert torch.equal((x + x[order]).dense(), 2 * x.dense())
    shared = x + x.replace(x.features * 2)
    assert shared.sites is x.sites and torch.equal(shared.features, x.features * 3)


def test_union_gradients_go_to_both_sides():
    a, b = (some_tensor(seed=s) for s in (1, 2))
    a, b = (t.replace(t.features.requires_grad_()) for t in (a, b))
    (a + b).features.sum().backward()
    assert torch.equal(a.features.grad, torch.ones_like(a.features))
    assert torch.equal(b.features.grad, torch.ones_like(b.features))


def test_union_with_an_empty_tensor_and_larger_batch():
    x = some_tensor()
    empty = SparseTensor(torch.zeros(0, 3), torch.zeros(0, 4, dtype=torch.int32), batch_size=5, shape=x.shape)
    total = x + empty
    assert total.batch_size == 5 and torch.equal(total.features, x.features)
    longer = SparseTensor(x.features, x.coordinates, batch_size=7, shape=x.shape)
    assert (x + longer).batch_size == 7 and (longer + x).batch_size == 7


def test_concatenation_aligns_rows():
    x = some_tensor()
    order = torch.randperm(len(x))
    joined = sparse3d.cat([x, x[order], x.replace(x.features[:, :1])])
    assert torch.equal(joined.features, torch.cat([x.features, x.features, x.features[:, :1]], 1))
    with pytest.raises(ValueError, match="equal voxels"):
        sparse3d.cat([x, x[:-1]])
    with pytest.raises(ValueError, match="at least one"):
        sparse3d.cat([])


def test_selection_by_mask_rows_and_slice():
    x = some_tensor()
    mask = torch.rand(len(x)) < 0.5
    assert torch.equal(x[mask].features, x.features[mask])
    assert torch.equal(x[mask.nonzero()[:, 0]].coordinates, x.coordinates[mask])
    assert len(x[:3]) == 3 and x[:3].batch_size == x.batch_size
    with pytest.raises(ValueError, match="mask, row numbers or a slice"):
        some_tensor(channels=4)[3]


def test_samples_are_the_rows_of_each_batch_index():
    volume = sparse_volume(batch=3)
    volume[1] = 0
    x = SparseTensor.from_dense(volume)
    parts = x.samples()
    assert [p.batch_size for p in parts] == [1, 1, 1]
    for part, want in zip(parts, volume, strict=True):
        assert torch.equal(part.dense()[0], want)
    with pytest.raises(ValueError, match="sample 3 of a batch of 3"):
        x.sample(3)


@pytest.mark.parametrize("reduce", ["mean", "sum", "max"])
def test_merging_duplicates_reduces_each_voxel(reduce):
    coordinates = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]], dtype=torch.int32)
    features = torch.tensor([[1.0], [2.0], [5.0], [9.0]], requires_grad=True)
    merged = SparseTensor.merge_duplicates(features, coordinates, reduce=reduce)
    assert merged.coordinates.tolist() == [[0, 0, 0, 0], [0, 1, 1, 1], [1, 1, 1, 1]]
    assert merged.features.flatten().tolist() == [2.0, {"mean": 3.0, "sum": 6.0, "max": 5.0}[reduce], 9.0]
    merged.features.sum().backward()
    assert (
        features.grad.flatten().tolist()
        == {
            "mean": [0.5, 1.0, 0.5, 1.0],
            "sum": [1.0, 1.0, 1.0, 1.0],
            "max": [0.0, 1.0, 1.0, 1.0],
        }[reduce]
    )


def test_merging_refuses_what_it_cannot_reduce():
    coordinates = torch.zeros(3, 4, dtype=torch.int32)
    with pytest.raises(ValueError, match=r"features has shape \(2, 1\), expected \(3, C\)"):
        SparseTensor.merge_duplicates(torch.ones(2, 1), coordinates)
    with pytest.raises(ValueError, match="reduce is 'min', expected one of mean, sum, max"):
        SparseTensor.merge_duplicates(torch.ones(3, 1), coordinates, reduce="min")


def test_duplicates_are_reported_and_never_hidden():
    coordinates = torch.tensor([[0, 1, 1, 1], [0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 1, 1]], dtype=torch.int32)
    assert SparseTensor.duplicate_rows(coordinates).tolist() == [2, 3]
    x = SparseTensor(torch.ones(4, 1), coordinates)
    with pytest.raises(ValueError, match=r"coordinates\[2\] = \(0, 1, 1, 1\) repeats coordinates\[0\]"):
        x.dense()


def test_types_and_devices():
    x = some_tensor()
    assert x.half().dtype == torch.float16 and x.double().dtype == torch.float64
    assert x.bfloat16().float().dtype == torch.float32
    assert x.half().sites is x.sites and x.cpu().sites is x.sites
    assert "139" in repr(x) or str(len(x)) in repr(x)


@pytest.mark.parametrize(
    ("features", "coordinates", "arguments", "message"),
    [
        (torch.ones(2, 3), [[0, 0, 0, 0]], {}, "features has shape"),
        (torch.ones(1), [[0, 0, 0, 0]], {}, "features has shape"),
        (torch.ones(1, 3), [[0, 0, 0]], {}, "coordinates has shape"),
        (torch.ones(1, 3).int(), [[0, 0, 0, 0]], {}, "features is int32"),
        (torch.ones(2, 1), [[0, 0, 0, 0], [0, 131072, 0, 0]], {}, r"coordinates\[1\].*64-bit key"),
        (torch.ones(1, 1), [[512, 0, 0, 0]], {}, "64-bit key"),
        (torch.ones(1, 1), [[2, 0, 0, 0]], {"batch_size": 2}, "outside of batch_size 2"),
        (torch.ones(1, 1), [[0, -1, 0, 0]], {"shape": (4, 4, 4)}, r"outside.*shape \(4, 4, 4\)"),
        (torch.ones(1, 1), [[0, 0, 4, 0]], {"shape": (4, 4, 4)}, "outside"),
        (torch.ones(1, 1), [[-1, 0, 0, 0]], {}, "outside"),
        (torch.ones(1, 1), [[0, 0, 0, 0]], {"stride": 0}, "stride is 0"),
        (torch.ones(1, 1), [[0, 0, 0, 0]], {"shape": (4, 0, 4)}, r"shape \(4, 0, 4\)"),
        (torch.ones(1, 1), [[0, 0, 0, 0]], {"stride": (1, 1, 1, 1)}, "stride is"),
        (torch.ones(0, 1), [], {"batch_size": -1}, "batch_size is -1"),
    ],
)
def test_bad_input_is_refused_with_what_came(features, coordinates, arguments, message):
    with pytest.raises(ValueError, match=message):
        sites = torch.tensor(coordinates, dtype=torch.int32)
        SparseTensor(features, sites if len(sites) else sites.reshape(0, 4), **arguments)


def test_coordinates_must_be_int32():
    with pytest.raises(ValueError, match="coordinates is int64, expected int32"):
        SparseTensor(torch.ones(1, 1), torch.zeros(1, 4, dtype=torch.int64))


def test_mixed_strides_and_grids_are_refused():
    x = some_tensor()
    with pytest.raises(ValueError, match="differ in stride"):
        x + SparseTensor(x.features, x.coordinates, stride=2, shape=x.shape)
    with pytest.raises(ValueError, match="differ in shape"):
        x + SparseTensor(x.features, x.coordinates)
    with pytest.raises(ValueError, match="cannot add 3 and 1 channels"):
        x + some_tensor(channels=1, seed=5)
    with pytest.raises(ValueError, match="cannot add 3 and 1 channels"):
        x + x.replace(x.features[:, :1])
    with pytest.raises(ValueError, match="rows of features for"):
        x.replace(x.features[1:])


def test_no_reference_cycle_keeps_memory_alive():
    import gc
    import weakref

    from sparse3d import nn

    def run():
        x = some_tensor()
        nn.SparseInverseConv3d(4, 3, 3)(nn.SparseConv3d(3, 4, 3, 2, 1)(x))
        return weakref.ref(x.coordinates)

    run()  # loading kernels for the first time leaves frames behind that are numba's own
    gc.disable()
    try:
        assert run()() is None
    finally:
        gc.enable()
