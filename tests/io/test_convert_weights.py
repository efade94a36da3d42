"""Converted weights: the same network computed by the other engine's definition and by our layers."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sparse3d import SparseTensor
from sparse3d import nn as snn
from sparse3d.errors import DataError
from sparse3d.io.convert_weights import Hints, convert, rename
from sparse3d.io.weight_files import read_tensors, write_tensors
from tests.oracles import other_engines as oracle

CIN, MID, OUT = 2, 4, 5  # a weight of 3 input channels could be a dense one
ENGINES = ["spconv1", "spconv2", "minkowski", "torchsparse"]


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(
        *shape, generator=torch.Generator().manual_seed(seed + sum(shape)), dtype=torch.float64
    )


def sites(count: int = 60) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    columns = [torch.randint(low, high, (count,), generator=generator) for low, high in ((0, 2), (-4, 4))]
    columns += [torch.randint(-4, 4, (count,), generator=generator) for _ in range(2)]
    return torch.stack(columns, 1).unique(dim=0).int()


def state(engine: str, taps: int = 27) -> dict[str, Tensor]:
    """A submanifold 3x3x3 convolution with bias, a norm, and a 2x2x2 convolution of stride 2."""
    norm, leaf = ("1.bn" if engine == "minkowski" else "1"), "weight"
    if engine == "spconv1":
        first, second = random(3, 3, 3, CIN, MID), random(2, 2, 2, MID, OUT)
    elif engine == "spconv2":
        first, second = random(MID, 3, 3, 3, CIN), random(OUT, 2, 2, 2, MID)
    else:
        first, second, leaf = random(taps, CIN, MID), random(8, MID, OUT), "kernel"
    bias = random(MID)
    return {
        f"net.0.{leaf}": first,
        "net.0.bias": bias[None] if engine == "minkowski" else bias,
        f"net.{norm}.weight": random(MID, seed=1),
        f"net.{norm}.bias": random(MID, seed=2),
        f"net.{norm}.running_mean": random(MID, seed=3),
        f"net.{norm}.running_var": random(MID, seed=4).square() + 0.5,
        f"net.{norm}.num_batches_tracked": torch.tensor(7),
        f"net.3.{leaf}": second,
    }


def taps_of(engine: str, weight: Tensor, size: tuple[int, int, int]) -> oracle.Taps:
    padding = tuple(k // 2 if k % 2 else 0 for k in size)
    if engine.startswith("spconv"):
        return (oracle.spconv1_taps if engine == "spconv1" else oracle.spconv2_taps)(weight, padding)
    return (oracle.minkowski_taps if engine == "minkowski" else oracle.torchsparse_taps)(weight, size)


def by_definition(engine: str, tensors: dict[str, Tensor], features: Tensor, where: Tensor) -> Tensor:
    """The network of `state` in the other engine's own terms."""
    leaf = "weight" if engine.startswith("spconv") else "kernel"
    norm = "net.1.bn" if engine == "minkowski" else "net.1"
    x = oracle.convolve(features, where, taps_of(engine, tensors[f"net.0.{leaf}"], (3, 3, 3)), where)
    x = x + tensors["net.0.bias"]
    x = (x - tensors[f"{norm}.running_mean"]) / (tensors[f"{norm}.running_var"] + 1e-5).sqrt()
    x = (x * tensors[f"{norm}.weight"] + tensors[f"{norm}.bias"]).relu()
    return oracle.convolve(
        x, where, taps_of(engine, tensors[f"net.3.{leaf}"], (2, 2, 2)), oracle.halved(where), 2
    )


def ours() -> nn.Module:
    layers = [snn.SubMConv3d(CIN, MID, 3), snn.BatchNorm(MID), snn.ReLU()]
    return snn.Sequential(*layers, snn.SparseConv3d(MID, OUT, 2, stride=2, bias=False)).double().eval()


def loaded(entries, prefix: str = "net.") -> dict[str, Tensor]:
    return {e.name.removeprefix(prefix): e.tensor for e in entries if e.name is not None}


@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_network_in_both_layouts(engine):
    tensors, where = state(engine), sites()
    features = random(len(where), CIN, seed=9)
    network = ours()
    network.load_state_dict(loaded(convert(tensors, engine, Hints(), "x.pth")))  # strict: names and shapes
    out = network(SparseTensor(features, where))
    assert torch.equal(out.coordinates, oracle.halved(where).int())
    torch.testing.assert_close(out.features, by_definition(engine, tensors, features, where))


@pytest.mark.parametrize("engine", ENGINES)
def test_networks_of_zyx_data_get_their_axes_reversed(engine):
    tensors, where = state(engine), sites()
    features = random(len(where), CIN, seed=9)
    network = ours()
    network.load_state_dict(loaded(convert(tensors, engine, Hints(axes="zyx"), "x.pth")))
    zyx = where[:, [0, 3, 2, 1]]
    want = dict(
        zip(
            map(tuple, oracle.halved(zyx).tolist()),
            by_definition(engine, tensors, features, zyx),
            strict=True,
        )
    )
    out = network(SparseTensor(features, where))
    for (b, x, y, z), value in zip(out.coordinates.tolist(), out.features, strict=True):
        torch.testing.assert_close(value, want[b, z, y, x])


@pytest.mark.parametrize("engine", ["minkowski", "torchsparse"])
@pytest.mark.parametrize("size", [(3, 1, 1), (1, 3, 5), (2, 1, 2), (1, 2, 4)])
def test_flat_kernels_of_unequal_axes_need_their_size(engine, size):
    weight = random(size[0] * size[1] * size[2], CIN, OUT)
    tensors = {"a.kernel": weight}
    with pytest.raises(DataError, match=r"a.kernel is .* say --kernel a.kernel=AxBxC"):
        if len(weight) == 8:
            weight = tensors["a.kernel"] = weight[:7]
        convert(tensors, engine, Hints(), "x.pth")
    tensors = {"a.kernel": random(size[0] * size[1] * size[2], CIN, OUT)}
    (entry,) = convert(tensors, engine, Hints(kernels={"a": size}), "x.pth")
    assert entry.name == "a.weight" and entry.tensor is not None and entry.tensor.shape == (*size, CIN, OUT)
    for offset, matrix in taps_of(engine, tensors["a.kernel"], size):
        # where our layer has this tap: odd axes centred, even ones from 0 less torchsparse's own centring
        shift = [(k - 1) // 2 if k % 2 or engine == "torchsparse" else 0 for k in size]
        assert torch.equal(entry.tensor[tuple(o + s for o, s in zip(offset, shift, strict=True))], matrix)


def test_even_kernels_that_torchsparse_centres_come_with_the_padding_to_give():
    (entry,) = convert({"kernel": random(64, 2, 2)}, "torchsparse", Hints(), "x.pth")
    assert entry.name == "weight" and entry.what == "converted, give the layer padding 1"
    (entry,) = convert({"kernel": random(64, 2, 2)}, "minkowski", Hints(), "x.pth")
    assert entry.what == "converted"


@pytest.mark.parametrize("engine", ["minkowski", "torchsparse"])
def test_single_taps_may_be_plain_matrices(engine):
    tensors = {"a.kernel": random(CIN, OUT), "b.kernel": random(1, CIN, OUT)}
    entries = loaded(convert(tensors, engine, Hints(), "x.pth"), "")
    assert entries["a.weight"].shape == entries["b.weight"].shape == (1, 1, 1, CIN, OUT)
    layer = snn.SubMConv3d(CIN, OUT, 1, bias=False).double()
    layer.load_state_dict({"weight": entries["a.weight"]})
    features = random(len(sites()), CIN)
    torch.testing.assert_close(
        layer(SparseTensor(features, sites())).features, features @ tensors["a.kernel"]
    )


def test_two_dimensional_kernels():
    weight = random(9, CIN, OUT)
    (entry,) = convert({"kernel": weight}, "minkowski", Hints(dims=2), "x.pth")
    assert entry.tensor is not None and torch.equal(entry.tensor[2, 0], weight[2])
    (entry,) = convert({"weight": random(OUT, 3, 3, 32)}, "spconv2", Hints(), "x.pth")
    assert entry.tensor is not None and entry.tensor.shape == (3, 3, 32, OUT)


def test_wrapped_modules_of_minkowski_lose_their_wrapper_and_only_those():
    names = ["a.bn.weight", "b.bn.weight", "b.conv.kernel", "c.linear.weight", "c.linear.bias"]
    tensors = {name: torch.zeros(27, 2, 2) if "kernel" in name else torch.zeros(2) for name in names}
    tensors |= {"d.weight": torch.zeros(1, 2), "d.bias": torch.zeros(1, 2)}  # an instance norm
    tensors |= {"e.weight": torch.zeros(1, 2), "e.bias": torch.zeros(1)}  # torch's own linear map
    found = {entry.source: entry for entry in convert(tensors, "minkowski", Hints(), "x.pth")}
    want = ["a.weight", "b.bn.weight", "b.conv.weight", "c.function.weight", "c.function.bias"]
    assert [found[name].name for name in names] == want
    assert found["d.weight"].tensor.shape == found["d.bias"].tensor.shape == (2,)
    assert found["e.weight"].tensor.shape == (1, 2)


def test_dense_layers_are_kept_as_they_are():
    tensors = {
        "bev.weight": random(64, 128, 3, 3),
        "fc.weight": random(5, 4),
        "head.weight": random(7, 64, 1, 1),
    }
    for engine in ("spconv1", "spconv2"):
        assert [entry.what for entry in convert(tensors, engine, Hints(), "x.pth")] == ["kept"] * 3
    assert all(
        torch.equal(entry.tensor, tensors[entry.source]) for entry in convert(tensors, "spconv2", Hints(), "")
    )


@pytest.mark.parametrize(
    ("engine", "tensors", "message"),
    [
        ("spconv2", {"a.weight": (3, 3, 3, 16, 32)}, "as spconv2; it fits --from spconv1"),
        ("spconv1", {"a.weight": (32, 3, 3, 3, 16)}, "as spconv1; it fits --from spconv2"),
        ("spconv2", {"a.weight": (16, 3, 3, 3, 3)}, "say --kernel a.weight=3x3x3 or --dense a.weight"),
        ("spconv2", {"a.weight": (32, 20, 20, 20, 16)}, "say --kernel a.weight=20x20x20"),
        ("spconv2", {"a.weight": (32, 3, 3, 3, 3, 16)}, "convolutions in 4 dimensions have no twin"),
        ("spconv1", {"a.weight": (3, 3, 3, 16, 32), "a.bias": (16,)}, "exchanged .* is --from right"),
        (
            "spconv1",
            {"b.0.weight": (3, 3, 3, 16, 32), "b.1.running_mean": (8,)},
            "has 32 outputs, its .* has 8",
        ),
        ("spconv1", {"conv1.weight": (3, 3, 3, 16, 32), "bn1.running_mean": (16,)}, "exchanged"),
        ("minkowski", {"a.kernel": (7, 16, 32)}, "7 taps are no 3-D kernel with equal axes"),
        ("torchsparse", {"a.kernel": (27, 1, 16, 32)}, r"is \(taps, in, out\) or \(in, out\)"),
        (
            "torchsparse",
            {"a.kernel": (27, 16, 32), "a.bias": (16,)},
            "has 32 outputs, its bias or norm has 16",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name(engine, tensors, message):
    with pytest.raises(DataError, match=message):
        convert({name: torch.zeros(shape) for name, shape in tensors.items()}, engine, Hints(), "x.pth")


def test_hints_decide_what_shapes_do_not_tell():
    tensors = {"a.weight": torch.zeros(16, 3, 3, 3, 3)}
    (entry,) = convert(tensors, "spconv2", Hints(kernels={"a": (3, 3, 3)}), "")
    assert entry.what == "converted" and entry.tensor.shape == (3, 3, 3, 3, 16)
    (entry,) = convert(tensors, "spconv2", Hints(dense=["a"]), "")
    assert entry.what == "kept"
    with pytest.raises(DataError, match=r"its kernel is \(3, 3, 3\), not \(3, 3, 5\)"):
        convert(tensors, "spconv2", Hints(kernels={"a": (3, 3, 5)}), "")
    with pytest.raises(DataError, match="27 taps; a kernel of 3x3x5 has 45"):
        convert({"a.kernel": torch.zeros(27, 2, 2)}, "minkowski", Hints(kernels={"a": (3, 3, 5)}), "")


def test_names_are_exchanged_by_prefix_and_never_collide():
    entries = convert(
        {"a.b.bias": torch.zeros(1), "a.c": torch.ones(1), "d": torch.ones(1)}, "spconv2", Hints(), ""
    )
    assert [e.name for e in rename(entries, {"a.b.": "x.", "a": "y"}, "")] == ["x.bias", "y.c", "d"]
    with pytest.raises(ValueError, match="no name begins with 'z'"):
        rename(entries, {"z": ""}, "")
    with pytest.raises(DataError, match="d and a.c would both be named d"):
        rename(entries, {"a.c": "d"}, "x.pth")


@pytest.mark.filterwarnings("ignore")  # spconv's own
def test_the_real_spconv_computes_the_same():
    """Its CPU build, where it is installed (`make bench-peers`); with more threads its own sums go wrong."""
    spconv = pytest.importorskip("spconv.pytorch", reason="spconv is not installed")
    threads, where = torch.get_num_threads(), sites()
    where[:, 1:] += 4
    features = random(len(where), CIN).float()
    theirs = spconv.SparseSequential(
        spconv.SubMConv3d(CIN, MID, 3), spconv.SparseConv3d(MID, OUT, (3, 1, 2), stride=2, padding=(1, 0, 0))
    )
    ours = snn.Sequential(snn.SubMConv3d(CIN, MID, 3), snn.SparseConv3d(MID, OUT, (3, 1, 2), 2, (1, 0, 0)))
    entries = convert(theirs.state_dict(), "spconv2", Hints(kernels={"1.weight": (3, 1, 2)}), "")
    ours.load_state_dict(loaded(entries, ""))
    try:
        torch.set_num_threads(1)
        with torch.no_grad():
            want = theirs(spconv.SparseConvTensor(features, where, [8, 8, 8], 2))
    finally:
        torch.set_num_threads(threads)
    got = ours(SparseTensor(features, where, batch_size=2, shape=(8, 8, 8)))
    order = [want.indices.tolist().index(site) for site in got.coordinates.tolist()]
    assert len(order) == len(want.indices)
    torch.testing.assert_close(got.features, want.features[order])


# ---- files -------------------------------------------------------------------------------------------------


def test_files_of_torch_and_safetensors_read_alike(tmp_path):
    tensors = {"a": torch.arange(3.0), "b": torch.eye(2, dtype=torch.bfloat16)}
    torch.save(tensors, tmp_path / "new.pth")
    torch.save(
        {"epoch": 3, "model_state": tensors}, tmp_path / "old.pth", _use_new_zipfile_serialization=False
    )
    write_tensors(tmp_path / "x.safetensors", tensors, "spconv2")
    for name in ("new.pth", "old.pth", "x.safetensors"):
        found = read_tensors(tmp_path / name)
        assert found.keys() == tensors.keys() and all(torch.equal(found[k], tensors[k]) for k in tensors)


def test_tied_and_strided_weights_are_written_whole(tmp_path):
    tied = torch.arange(6.0).reshape(2, 3)
    write_tensors(tmp_path / "x.safetensors", {"a": tied, "b": tied.T, "c": tied}, "spconv1")
    found = read_tensors(tmp_path / "x.safetensors")
    assert torch.equal(found["b"], tied.T) and torch.equal(found["c"], tied)


class Callback:
    """What a hostile file would do when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise SystemExit('code of the file was run')",)


def test_files_that_need_unpickling_are_refused_and_not_run(tmp_path):
    torch.save({"model_state": {"a": torch.ones(1)}, "extra": Callback()}, tmp_path / "bad.pth")
    torch.save({"a": torch.ones(1), "lr": np.float64(1.0)}, tmp_path / "numpy.pth")
    for name, what in (("bad.pth", "exec"), ("numpy.pth", "numpy")):
        with pytest.raises(DataError, match=f"{what}.*that only unpickling could read"):
            read_tensors(tmp_path / name)


def test_truncated_and_other_files_are_named(tmp_path):
    torch.save({"a": torch.ones(1000)}, tmp_path / "a.pth")
    write_tensors(tmp_path / "a.safetensors", {"a": torch.ones(1000)}, "spconv1")
    for name in ("a.pth", "a.safetensors"):
        whole = (tmp_path / name).read_bytes()
        for count in (0, 1, 9, len(whole) // 2):
            (tmp_path / name).write_bytes(whole[:count])
            with pytest.raises(DataError, match=f"{name}: .*(truncated|unpickling)"):
                read_tensors(tmp_path / name)
    (tmp_path / "a.txt").write_text("hello, this is no file of weights")
    with pytest.raises(DataError, match="neither a safetensors nor a torch file"):
        read_tensors(tmp_path / "a.txt")


def test_files_without_tensors_say_what_they_hold(tmp_path):
    torch.save([torch.ones(1)], tmp_path / "list.pth")
    with pytest.raises(DataError, match="holds a list, expected tensors by name"):
        read_tensors(tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "empty.pth")
    with pytest.raises(DataError, match="holds no tensors by name; its keys are: epoch"):
        read_tensors(tmp_path / "empty.pth")
    torch.save({"model": {"a": torch.ones(1)}, "state_dict": {}}, tmp_path / "two.pth")
    with pytest.raises(DataError, match="holds several networks: state_dict, model"):
        read_tensors(tmp_path / "two.pth")
