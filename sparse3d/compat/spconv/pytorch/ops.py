"""Sizes and rulebooks as functions."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sparse3d.compat.spconv.core import AlgoHint as AlgoHint
from sparse3d.compat.spconv.core import ConvAlgo as ConvAlgo
from sparse3d.compat.voxels import Window, voxels_of
from sparse3d.nn.spconv_kernels import indice_pairs


def _window(
    ksize: Sequence[int], stride: Sequence[int], padding: Sequence[int], dilation: Sequence[int]
) -> Window:
    return Window(tuple(ksize), tuple(stride), tuple(padding), tuple(dilation))


def get_conv_output_size(
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
) -> list[int]:
    """Grid of a convolution, as torch computes it. Raises a ValueError when nothing is left."""
    return list(_window(kernel_size, stride, padding, dilation).output_shape(tuple(input_size)))


def get_deconv_output_size(
    input_size: Sequence[int],
    kernel_size: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    output_padding: Sequence[int],
) -> list[int]:
    """Grid of a transposed convolution, as torch computes it."""
    window = _window(kernel_size, stride, padding, dilation)
    return list(window.transposed_shape(tuple(input_size), tuple(output_padding)))


def get_indice_pairs(
    indices: Tensor,
    batch_size: int,
    spatial_shape: Sequence[int],
    algo: ConvAlgo,
    ksize: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    out_padding: Sequence[int],
    subm: bool = False,
    transpose: bool = False,
    num_out_act_bound: int = -1,
) -> tuple[Tensor, Tensor, Tensor]:
    """Output indices, pairs (2, V, P) and their number a tap (V,) int32 of a convolution.

    `num_out_act_bound` above zero keeps that many output voxels at most, the first in sorted order.
    """
    voxels = voxels_of(indices, spatial_shape, batch_size)
    window = _window(ksize, stride, padding, dilation)
    if subm:
        kernel_map, out = voxels.submanifold(window.kernel_size, window.dilation), voxels
    elif transpose:
        kernel_map, out = voxels.transposed(window, tuple(out_padding))
    else:
        kernel_map, out = voxels.strided(window)
    if 0 < num_out_act_bound < len(out):
        reverse = torch.where(kernel_map.reverse < num_out_act_bound, kernel_map.reverse, -1)
        kernel_map = type(kernel_map)(kernel_map.table[:num_out_act_bound], reverse)
        return out.indices[:num_out_act_bound], *indice_pairs(kernel_map)
    return out.indices, *indice_pairs(kernel_map)
