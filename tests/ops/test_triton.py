"""Every op has a CUDA kernel, every Triton kernel is launched by a test, and what is launched compiles."""

import ast
from pathlib import Path

import pytest

import sparse3d_ops
from tests.ops import bodies, launches

FOLDER = Path(sparse3d_ops.__file__).parent / "gpu"


def jitted(tree: ast.Module) -> list[ast.FunctionDef]:
    """Functions with a decorator of triton."""
    return [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef)
        and any("triton.jit" in ast.unparse(decorator) for decorator in node.decorator_list)
    ]


def kernels() -> set[str]:
    """Triton functions that no other Triton function calls: those that are launched."""
    functions = [f for path in FOLDER.glob("*.py") for f in jitted(ast.parse(path.read_text()))]
    called = {
        node.func.id
        for function in functions
        for node in ast.walk(function)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    return {function.name for function in functions} - called


def test_every_op_has_a_cuda_kernel():
    missing = [name for name, op in bodies.ops().items() if "cuda" not in op._backend_fns]
    assert not missing


@pytest.fixture(scope="module")
def launched(request) -> set[str]:
    return launches.recall(request.config.getoption("--launches"))


@pytest.mark.triton_bodies
def test_every_kernel_is_launched_by_a_test(launched):
    found = {name for name in kernels() if any(f'"kernel": "{name}"' in text for text in launched)}
    assert found == kernels()


@pytest.mark.triton_bodies
def test_every_launch_compiles_for_a_gpu(launched):
    assert launched and not launches.compiled(launched)
