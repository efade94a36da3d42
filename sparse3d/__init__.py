"""3D sparse perception and reconstruction on one sparse voxel tensor.

`SparseTensor`, `cat` and `backend` are loaded on first use, so that the command line answers without waiting
for torch.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["SparseTensor", "backend", "cat"]

if TYPE_CHECKING:
    from sparse3d.nn.backends import backend
    from sparse3d.tensor import SparseTensor, cat


def __getattr__(name: str) -> Any:
    if name == "backend":
        from sparse3d.nn.backends import backend

        return backend
    if name in __all__:
        from sparse3d import tensor

        return getattr(tensor, name)
    raise AttributeError(f"module 'sparse3d' has no attribute {name!r}")
