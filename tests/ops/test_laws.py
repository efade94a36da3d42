"""The law suite: every op equals its oracle, has right gradients, passes opcheck, compiles and repeats bit
for bit. With --bodies triton the same laws are held against the Triton bodies, see `bodies.py`."""

import importlib
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.ops import bodies
from tests.ops.laws import OpLaw, as_tuple

LAWS: list[OpLaw] = [
    law
    for path in sorted(Path(__file__).parent.glob("cases_*.py"))
    for law in importlib.import_module(f"tests.ops.{path.stem}").LAWS
]
PAIRS = [pytest.param(law, case, id=f"{law.name}-{case}") for law in LAWS for case in law.cases]
FLOATING_PAIRS = [pair for pair in PAIRS if pair.values[0].floating]
GRADIENT_PAIRS = [
    pytest.param(law, case, id=f"{law.name}-{case}")
    for law in LAWS
    if law.differentiable
    for case in (law.cases if law.gradient_cases is None else law.gradient_cases)
]
CPU, CUDA = torch.device("cpu"), torch.device("cuda")
MOST_ENTRIES = 2000  # of results whose Jacobian is looked at entry by entry


def on_cuda(pairs):
    """The cases where there is a GPU, else one that says so."""
    if torch.cuda.is_available():
        return pairs
    return [pytest.param(None, None, id="all", marks=pytest.mark.skip(reason="no CUDA device here"))]


def assert_equal_results(got, want, tolerance):
    got, want = as_tuple(got), as_tuple(want)
    assert len(got) == len(want)
    for g, w in zip(got, want, strict=True):
        w = torch.as_tensor(np.asarray(w) if not isinstance(w, torch.Tensor) else w)
        assert g.shape == w.shape
        if g.is_floating_point():
            w = w.double()
            # Relative to the largest entry: an entry that cancels to nearly zero has no relative accuracy to
            # keep.
            scale = float(w[torch.isfinite(w)].abs().max()) if torch.isfinite(w).any() else 0.0
            torch.testing.assert_close(
                g.double().cpu(), w, rtol=tolerance, atol=tolerance * max(scale, 1e-30)
            )
        else:
            assert torch.equal(g.cpu().to(torch.int64), w.to(torch.int64))


def args_for(law: OpLaw, case: str, dtype: torch.dtype, device: torch.device = CPU):
    torch.manual_seed(0)
    return law.cases[case](dtype, device)


def in_double(args):
    return tuple(a.double() if isinstance(a, torch.Tensor) and a.is_floating_point() else a for a in args)


def check_gradient(law, args):
    args = list(args)
    for k in law.differentiable:
        args[k] = args[k].clone().requires_grad_()
    # The whole Jacobian takes a call an entry: in the interpreter, which takes milliseconds a call, and of an
    # image a random direction stands for all of them.
    entries = sum(result.numel() for result in as_tuple(law.op(*args)))
    fast = bodies.in_use() == "triton" or entries > MOST_ENTRIES
    assert torch.autograd.gradcheck(law.op, tuple(args), eps=1e-6, atol=1e-7, rtol=1e-5, fast_mode=fast)


@pytest.mark.parametrize(("law", "case"), PAIRS)
def test_equals_oracle(law, case):
    args = args_for(law, case, torch.float32)
    assert_equal_results(law.op(*args), law.oracle(*in_double(args)), law.tolerance)


@pytest.mark.parametrize(("law", "case"), FLOATING_PAIRS)
def test_float64_equals_oracle(law, case):
    args = args_for(law, case, torch.float64)
    assert_equal_results(law.op(*args), law.oracle(*args), 1e-12)


@pytest.mark.parametrize(("law", "case"), GRADIENT_PAIRS)
def test_gradient_equals_finite_differences(law, case):
    check_gradient(law, args_for(law, case, torch.float64))


def some(cases):
    """At most four cases of a law, first and last among them: tracing is slow, and sees no values."""
    names = list(cases)
    return sorted({names[round(k * (len(names) - 1) / 3)] for k in range(4)})


@pytest.mark.numba_bodies
@pytest.mark.parametrize(("law", "case"), PAIRS)
def test_opcheck(law, case):
    args = list(args_for(law, case, torch.float32))
    for k in law.differentiable:
        args[k] = args[k].clone().requires_grad_()
    checks = ["test_schema", "test_faketensor"]
    if case in some(law.cases):
        checks += ["test_autograd_registration", "test_aot_dispatch_dynamic"]
    for op, arguments in law.steps(*args) if law.steps else [(law.op, tuple(args))]:
        torch.library.opcheck(op, arguments, test_utils=checks)


@pytest.mark.numba_bodies
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
def test_compiles_without_graph_break(law):
    for case in some(law.cases):
        torch._dynamo.reset()
        # aot_eager traces forward and backward through the fakes and needs no C++ compiler on the machine.
        compiled = torch.compile(law.op, fullgraph=True, backend="aot_eager")
        args = args_for(law, case, torch.float32)
        for got, want in zip(as_tuple(compiled(*args)), as_tuple(law.op(*args)), strict=True):
            assert torch.equal(got, want)


@pytest.mark.numba_bodies
@pytest.mark.parametrize(("law", "case"), PAIRS)
def test_bitwise_repeatable_for_any_number_of_threads(law, case):
    import numba

    args = args_for(law, case, torch.float32)
    available = numba.get_num_threads()
    first = as_tuple(law.op(*args))
    try:
        for threads in {1, available}:
            numba.set_num_threads(threads)
            for got, want in zip(as_tuple(law.op(*args)), first, strict=True):
                assert torch.equal(got, want)
    finally:
        numba.set_num_threads(available)


@pytest.mark.triton_bodies
@pytest.mark.parametrize(("law", "case"), PAIRS)
def test_triton_bodies_repeat_and_equal_numba_bodies(law, case):
    """Whole numbers bit for bit; sums may be taken in another order. In float64 the oracle holds both to
    1e-12. The interpreter runs programs one by one: what does not repeat was never written."""
    args = args_for(law, case, torch.float32)
    got = as_tuple(law.op(*args))
    for again, before in zip(as_tuple(law.op(*args)), got, strict=True):
        assert torch.equal(again, before)
    with bodies.numba():
        want = law.op(*args)
    assert_equal_results(got, want, max(1e-5, law.tolerance))


@pytest.mark.numba_bodies
@pytest.mark.parametrize(("law", "case"), on_cuda(PAIRS))
def test_cuda_equals_cpu_and_repeats_bit_for_bit(law, case):
    args = args_for(law, case, torch.float32, CUDA)
    got = as_tuple(law.op(*args))
    assert_equal_results(got, law.op(*args_for(law, case, torch.float32)), 1e-4)
    for again, before in zip(as_tuple(law.op(*args)), got, strict=True):
        assert torch.equal(again, before)


@pytest.mark.numba_bodies
@pytest.mark.parametrize(("law", "case"), on_cuda(GRADIENT_PAIRS))
def test_cuda_gradient_equals_finite_differences(law, case):
    check_gradient(law, args_for(law, case, torch.float64, CUDA))
