"""Which bodies the ops run on CPU tensors: the numba ones or, to test them without a GPU, the Triton ones.

An op's CUDA kernel is code for any device (`x.new_empty(...)`, never `.cuda()`), and Triton's interpreter
takes CPU tensors. So the CUDA kernels are put in the place of the CPU kernels, and every law is held against
them.
"""

import importlib
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
from torch._library.custom_ops import OPDEFS, CustomOpDef

import sparse3d_ops

_numba = {}


def ops() -> dict[str, CustomOpDef]:
    """Every custom op by name."""
    for module in pkgutil.iter_modules(sparse3d_ops.__path__):
        importlib.import_module(f"sparse3d_ops.{module.name}")
    return {name: op for name, op in OPDEFS.items() if name.startswith("sparse3d::")}


def use_triton() -> None:
    """Run the CUDA kernels on CPU tensors from now on, and note what they launch."""
    from tests.ops import launches

    launches.record()
    _repair_bfloat16()
    _put_language_in_place_once()
    for name, op in ops().items():
        _numba[name] = op._backend_fns["cpu"]
    _use("cuda")


def _repair_bfloat16() -> None:
    """Triton's interpreter keeps bfloat16 as 16-bit integers. Its `tl.dot` multiplies these, and
    its casts cut what a GPU rounds to nearest even."""
    from triton.language import bfloat16, float32
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    dot, truncate = InterpreterBuilder.create_dot, InterpreterBuilder.create_fp_trunc

    def widened(handle):
        if handle.dtype.scalar != bfloat16:
            return handle
        return TensorHandle((handle.data.astype(np.uint32) << 16).view(np.float32), float32)

    def widened_dot(self, a, b, *rest):
        return dot(self, widened(a), widened(b), *rest)

    def rounded(self, source, to):
        if source.dtype.scalar != float32 or to.scalar != bfloat16:
            return truncate(self, source, to)
        bits = np.array(source.data, np.float32).view(np.uint32)
        nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16
        return TensorHandle(np.where(np.isnan(source.data), 0x7FC0, nearest).astype(np.uint16), bfloat16)

    InterpreterBuilder.create_dot = widened_dot
    InterpreterBuilder.create_fp_trunc = rounded


def _put_language_in_place_once() -> None:
    """Triton's interpreter puts its functions in the place of the language's at every launch and every call
    of a function by a kernel, and makes its table of types anew for every tensor: half of its time."""
    import triton.language as tl
    from triton.runtime import interpreter

    interpreter._patch_lang(SimpleNamespace(__globals__={"tl": tl, "core": tl.core}))
    interpreter._patch_lang = lambda function: interpreter._LangPatchScope()
    find, found = interpreter._get_np_dtype, {}

    def numpy_dtype(dtype):
        if dtype.name not in found:
            found[dtype.name] = find(dtype)
        return found[dtype.name]

    interpreter._get_np_dtype = numpy_dtype


def in_use() -> str:
    return "triton" if _numba else "numba"


@contextmanager
def numba() -> Iterator[None]:
    """The numba bodies, for a while."""
    for name, op in ops().items():
        op._backend_fns["cpu"] = _numba[name]
    try:
        yield
    finally:
        _use("cuda")


def _use(device: str) -> None:
    for op in ops().values():
        # Where the kernel is missing `test_triton.py` says so.
        op._backend_fns["cpu"] = op._backend_fns.get(device, op._backend_fns["cpu"])
