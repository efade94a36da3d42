"""Whose kernels the convolutions run on: sparse3d's own, or spconv's, as a cross-check and a fallback.

with sparse3d.backend("spconv"): y = network(x)              # the same kernel maps, convolved by spconv;
gradients, too, whenever they run

Held in a context variable: each thread and each task has its own choice, a new thread starts with sparse3d,
and blocks can be nested. What is compiled by torch.compile always runs on sparse3d's kernels.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal

import torch
from torch import Tensor

from sparse3d.sites import KernelMap
from sparse3d_ops.sparse_conv import sparse_conv

Backend = Literal["sparse3d", "spconv"]
_chosen: ContextVar[Backend] = ContextVar("sparse3d_backend", default="sparse3d")


@contextmanager
def backend(name: Backend) -> Iterator[None]:
    """Run the convolutions inside of the block on the kernels of `name`.

    Raises a ValueError for an unknown name, and a MissingExtraError that names the extra where spconv is not
    installed.
    """
    if name not in ("sparse3d", "spconv"):
        raise ValueError(f"backend is {name!r}, expected 'sparse3d' or 'spconv'")
    if name == "spconv":
        from sparse3d.nn import spconv_kernels

        spconv_kernels.require()
    token = _chosen.set(name)
    try:
        yield
    finally:
        _chosen.reset(token)


def current_backend() -> Backend:
    """The backend that a convolution called here and now runs on."""
    return _chosen.get()


def convolve(features: Tensor, taps: Tensor, kernel_map: KernelMap, groups: int) -> Tensor:
    """(N_in, Cin) along a map by taps (V, Cin / groups, Cout) -> (N_out, Cout), on the chosen kernels."""
    # Asked first: a graph cannot hold a context variable.
    if torch.compiler.is_compiling() or _chosen.get() == "sparse3d":
        return sparse_conv(features, taps, kernel_map.table, kernel_map.reverse, groups)
    from sparse3d.nn import spconv_kernels

    return spconv_kernels.convolve(features, taps, kernel_map, groups)
