"""Kernel maps in spconv's form, and convolution by spconv's kernels along them.

spconv's "native" algorithm is used, which gathers, multiplies and adds a tap at a time: it takes any set of
pairs. Its sums are float atomics on a GPU, so results are not bitwise repeatable there. Its CPU kernels race:
with more than one thread sums are wrong, so torch is held to one thread while they run.
"""

from types import ModuleType
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from sparse3d.errors import MissingExtraError, require_extra
from sparse3d.nn.threads import one_torch_thread
from sparse3d.sites import KernelMap
from sparse3d_ops.sparse_conv import sparse_conv


def require() -> ModuleType:
    """spconv.pytorch.ops itself. Raises a MissingExtraError where there is none, or only sparse3d's
    stand-in."""
    package = require_extra("spconv.pytorch", "spconv")
    if package.__name__.startswith("sparse3d."):
        raise MissingExtraError(
            "spconv is sparse3d's stand-in here; call sparse3d.compat.uninstall() to reach the real one"
        )
    if not torch.cuda.is_available():
        # Its backward asks CUDA for a stream on the CPU, too, where it does not use it, and fails without
        # CUDA.
        package.ops.get_current_stream = lambda: 0
    return package.ops


def indice_pairs(kernel_map: KernelMap) -> tuple[Tensor, Tensor]:
    """A kernel map as pairs: (2, V, P) int32, input rows and output rows, and their number a tap (V,) int32.

    P is the number of input rows, as in spconv, or the most pairs of a tap where these are more. Pairs of a
    tap are in the order of the output rows; -1 fills up.
    """
    table, reverse = kernel_map
    taps, out = (table.T >= 0).nonzero().unbind(1)
    count = (table >= 0).sum(0)
    width = max(len(reverse), int(count.max()) if len(count) else 0)
    position = torch.arange(len(taps), device=table.device) - (count.cumsum(0) - count)[taps]
    pairs = table.new_full((2, table.shape[1], width), -1)
    pairs[0, taps, position] = table[out, taps]
    pairs[1, taps, position] = out.int()
    return pairs, count.int()


def convolve(features: Tensor, taps: Tensor, kernel_map: KernelMap, groups: int) -> Tensor:
    """`sparse_conv` by spconv: (N_in, Cin), taps (V, Cin, Cout) -> (N_out, Cout), differentiable once.

    Raises a ValueError for groups, which spconv lacks.
    """
    require()
    if groups != 1:
        raise ValueError(f"spconv has no groups, this layer has {groups}; leave the backend('spconv') block")
    if 0 in (*kernel_map.table.shape, *features.shape, *taps.shape):  # spconv takes no empty tensors
        return sparse_conv(features, taps, kernel_map.table, kernel_map.reverse, groups)
    weight = taps.permute(2, 0, 1).contiguous()  # (Cout, V, Cin)
    pairs, count = indice_pairs(kernel_map)
    return _Native.apply(features.contiguous(), weight, pairs, count, len(kernel_map.table))


class _Native(torch.autograd.Function):
    """spconv's own function would run its backward with however many threads torch has then."""

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, pairs: Tensor, count: Tensor, outputs: int
    ) -> Tensor:
        ops = require()
        ctx.save_for_backward(features, weight, pairs, count)
        with one_torch_thread():
            return ops.indice_conv(features, weight, pairs, count, outputs, algo=ops.ConvAlgo.Native)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor):  # pyright: ignore[reportIncompatibleMethodOverride]
        ops = require()
        features, weight, pairs, count = ctx.saved_tensors
        with one_torch_thread():
            by_features, by_weight = ops.indice_conv_backward(
                features, weight, grad.contiguous(), pairs, count, algo=ops.ConvAlgo.Native
            )
        return by_features, by_weight, None, None, None
