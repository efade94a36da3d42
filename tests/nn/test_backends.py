"""Which kernels a convolution runs on, and that spconv's see the same geometry through our kernel maps."""

import os
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

import sparse3d
from sparse3d import nn
from sparse3d.errors import MissingExtraError
from sparse3d.nn.backends import current_backend
from sparse3d.nn.spconv_kernels import indice_pairs
from tests.nn.dense import pair


def by_definition(features, weight, pairs, count, outputs, algo):
    """spconv's native algorithm: gather, multiply, add, a tap at a time. weight (Cout, V, Cin)."""
    assert algo == "native" and pairs.dtype == count.dtype == torch.int32
    assert pairs.is_contiguous() and weight.is_contiguous() and features.is_contiguous()
    assert torch.get_num_threads() == 1, "spconv's CPU kernels race"
    out = features.new_zeros(outputs, weight.shape[0])
    for tap, number in enumerate(count.tolist()):
        rows, to = pairs[:, tap, :number].long()
        out = out.index_add(0, to, features[rows] @ weight[:, tap].T)
    return out


@pytest.fixture
def fake_spconv(monkeypatch):
    """A package of spconv's name whose kernels are its definition; what they were given."""
    package, calls = ModuleType("spconv.pytorch"), []

    def indice_conv(features, weight, *arguments, algo):
        calls.append(tuple(weight.shape))
        return by_definition(features, weight, *arguments, algo)

    def indice_conv_backward(features, weight, grad, pairs, count, algo):
        assert grad.is_contiguous()
        leaves = features.detach().requires_grad_(), weight.detach().requires_grad_()
        with torch.enable_grad():
            out = by_definition(*leaves, pairs, count, len(grad), algo)
        return torch.autograd.grad(out, leaves, grad)

    package.ops = SimpleNamespace(
        ConvAlgo=SimpleNamespace(Native="native"),
        indice_conv=indice_conv,
        indice_conv_backward=indice_conv_backward,
    )
    monkeypatch.setitem(sys.modules, "spconv", ModuleType("spconv"))
    monkeypatch.setitem(sys.modules, "spconv.pytorch", package)
    return calls


def network() -> torch.nn.Module:
    """A layer of every kind of map."""
    return nn.Sequential(
        nn.SubMConv3d(3, 4, 3),
        nn.SparseConv3d(4, 5, 3, 2, 1),
        nn.SubMConv3d(5, 5, 2, bias=False),
        nn.SparseInverseConv3d(5, 4, 3),
        nn.SparseConv3d(4, 4, 2, 2),
        nn.GenerativeConvTranspose3d(4, 3, 2),
        nn.SubMConv2d(3, 2, 3),
    ).double()


def test_other_kernels_on_our_maps_give_the_same_network(fake_spconv):
    net = network()
    results = []
    for name in ("sparse3d", "spconv"):
        x, _ = pair(dtype=torch.float64)
        with sparse3d.backend(name):
            y = net(x)
        weight = torch.linspace(-1, 1, y.features.numel(), dtype=torch.float64).reshape(y.features.shape)
        gradients = torch.autograd.grad((y.features * weight).sum(), [x.features, *net.parameters()])
        results.append((y.features, *gradients))
    assert [volume for _, volume, _ in fake_spconv] == [27, 27, 8, 27, 8, 8, 9]
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_pairs_are_the_map_tap_by_tap():
    x, _ = pair()
    kernel_map, out = x.sites.strided(nn.SparseConv3d(3, 4, 3, 2, 1).geometry)
    for table, reverse in (kernel_map, kernel_map.transposed()):
        pairs, count = indice_pairs(type(kernel_map)(table, reverse))
        assert pairs.shape[0] == 2 and pairs.shape[2] >= max(len(reverse), int(count.max()))
        for tap in range(27):
            outputs = (table[:, tap] >= 0).nonzero()[:, 0]
            assert pairs[1, tap, : count[tap]].tolist() == outputs.tolist()
            assert torch.equal(pairs[0, tap, : count[tap]], table[outputs, tap])
            assert (pairs[:, tap, count[tap] :] == -1).all()


def test_torch_is_given_its_threads_back(fake_spconv):
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        x, _ = pair()
        with sparse3d.backend("spconv"):
            nn.SubMConv3d(3, 4)(x).features.sum().backward()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


def test_blocks_nest_and_end_with_an_error_too(fake_spconv):
    with sparse3d.backend("spconv"):
        assert current_backend() == "spconv"
        with sparse3d.backend("sparse3d"):
            assert current_backend() == "sparse3d"
        assert current_backend() == "spconv"
        with pytest.raises(RuntimeError), sparse3d.backend("sparse3d"):
            raise RuntimeError
        assert current_backend() == "spconv"
    assert current_backend() == "sparse3d"


def test_threads_choose_by_themselves(fake_spconv):
    seen, inside, done = [], threading.Event(), threading.Event()

    def other():
        inside.wait()
        seen.append(current_backend())
        with sparse3d.backend("spconv"):
            done.set()
            seen.append(current_backend())

    thread = threading.Thread(target=other)
    thread.start()
    with sparse3d.backend("spconv"):
        inside.set()
        done.wait()
    assert current_backend() == "sparse3d"
    thread.join()
    assert seen == ["sparse3d", "spconv"]


def test_what_spconv_cannot_do_is_refused(fake_spconv):
    x, _ = pair(channels=4)
    with sparse3d.backend("spconv"):
        with pytest.raises(ValueError, match="spconv has no groups, this layer has 2"):
            nn.SubMConv3d(4, 4, groups=2)(x)
    with pytest.raises(ValueError, match="expected 'sparse3d' or 'spconv'"), sparse3d.backend("minkowski"):
        pass


def test_empty_tensors_never_reach_spconv(fake_spconv):
    x, _ = pair()
    empty = x[torch.zeros(len(x), dtype=torch.bool)]
    with sparse3d.backend("spconv"):
        assert nn.SparseConv3d(3, 4, 3, 2, 1)(empty).features.shape == (0, 4)
    assert not fake_spconv


def test_a_missing_spconv_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "spconv", None)
    monkeypatch.delitem(sys.modules, "spconv.pytorch", raising=False)
    with pytest.raises(MissingExtraError, match=r"pip install 'sparse3d\[spconv\]'"):
        with sparse3d.backend("spconv"):
            pass


def test_the_stand_in_is_not_taken_for_spconv(monkeypatch):
    import sparse3d.compat.spconv.pytorch as stand_in

    monkeypatch.setitem(sys.modules, "spconv", stand_in)
    monkeypatch.setitem(sys.modules, "spconv.pytorch", stand_in)
    with pytest.raises(MissingExtraError, match="sparse3d's stand-in here"):
        with sparse3d.backend("spconv"):
            pass


def test_the_real_spconv_gives_our_numbers(peer_python, tmp_path):
    """On a GPU where there is one; otherwise spconv's CPU kernels with one thread."""
    repository = Path(__file__).resolve().parent.parent.parent
    script = Path(__file__).parent / "run_spconv_backend.py"
    paths = os.pathsep.join([str(repository), str(repository / "ops")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
    if subprocess.run([peer_python, "-c", "import sparse3d.nn"], env=environment).returncode:
        pytest.skip(f"{peer_python} cannot import sparse3d; install its dependencies there")
    done = subprocess.run([peer_python, str(script)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
