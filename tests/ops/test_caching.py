"""What one process compiled, the next one finds."""

import importlib
import pkgutil

from numba.core.dispatcher import Dispatcher

import sparse3d_ops.cpu


def test_no_body_is_a_closure():
    """numba files a closure under the functions that it holds, which are others in every process."""
    modules = [
        importlib.import_module(f"sparse3d_ops.cpu.{module.name}")
        for module in pkgutil.iter_modules(sparse3d_ops.cpu.__path__)
    ]
    bodies = {f for module in modules for f in vars(module).values() if isinstance(f, Dispatcher)}
    assert len(bodies) > 100
    held = {f.py_func: [cell.cell_contents for cell in f.py_func.__closure__ or ()] for f in bodies}
    assert not {f for f, contents in held.items() if any(isinstance(c, Dispatcher) for c in contents)}
