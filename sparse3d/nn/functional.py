"""Layers as functions: a tensor, its kernel map, its parameters."""

import torch
from jaxtyping import Float
from torch import Tensor

from sparse3d.nn.backends import convolve
from sparse3d.sites import KernelMap, Sites
from sparse3d.tensor import SparseTensor
from sparse3d_ops.segment import segment_max, segment_mean, segment_sum
from sparse3d_ops.sparse_conv import sparse_conv
from sparse3d_ops.sparse_pool import sparse_max


def common_dtype(features: Tensor, weight: Tensor) -> torch.dtype:
    """Type that a layer computes in: autocast's where it is on, otherwise the wider of the two."""
    kind = features.device.type
    if torch.is_autocast_enabled(kind) and features.dtype != torch.float64:
        return torch.get_autocast_dtype(kind)
    return torch.promote_types(features.dtype, weight.dtype)


def convolution(
    x: SparseTensor,
    weight: Float[Tensor, "Kx Ky Kz Cin_per_group Cout"],
    bias: Float[Tensor, "Cout"] | None,
    kernel_map: KernelMap | None,
    out_sites: Sites,
    groups: int = 1,
) -> SparseTensor:
    """Convolve along a kernel map onto given sites; without a map each voxel meets itself: one tap, one
    group."""
    dtype = common_dtype(x.features, weight)
    taps = weight.reshape(-1, *weight.shape[-2:]).to(dtype)
    features = x.features.to(dtype)
    if kernel_map is None:
        out = features @ taps.squeeze(0)
    else:
        out = convolve(features, taps, kernel_map, groups)
    if bias is not None:
        out = out + bias.to(dtype)
    return SparseTensor.on(out, out_sites)


def max_pool(x: SparseTensor, kernel_map: KernelMap, out_sites: Sites) -> SparseTensor:
    """Maximum over the active voxels of each window."""
    return SparseTensor.on(sparse_max(x.features, *kernel_map)[0], out_sites)


def sum_pool(x: SparseTensor, kernel_map: KernelMap, out_sites: Sites) -> SparseTensor:
    """Sum over the active voxels of each window."""
    ones = x.features.new_ones(kernel_map.table.shape[1], 1, x.channels)
    return SparseTensor.on(sparse_conv(x.features, ones, *kernel_map, x.channels), out_sites)


def average_pool(x: SparseTensor, kernel_map: KernelMap, out_sites: Sites) -> SparseTensor:
    """Mean over the active voxels of each window (inactive ones do not count)."""
    count = (kernel_map.table >= 0).sum(1, keepdim=True).clamp(min=1)
    # A mean fits half precision where the sum may not.
    wide = x.replace(x.features.to(torch.promote_types(x.dtype, torch.float32)))
    total = sum_pool(wide, kernel_map, out_sites)
    return total.replace((total.features / count.to(total.dtype)).to(x.dtype))


def global_max_pool(x: SparseTensor) -> Float[Tensor, "B C"]:
    """Maximum over the voxels of each sample; zero for an empty one."""
    return segment_max(x.features, x.batch_index, x.batch_size)[0]


def global_average_pool(x: SparseTensor) -> Float[Tensor, "B C"]:
    """Mean over the voxels of each sample; zero for an empty one."""
    return segment_mean(x.features, x.batch_index, x.batch_size)


def global_sum_pool(x: SparseTensor) -> Float[Tensor, "B C"]:
    """Sum over the voxels of each sample; zero for an empty one."""
    return segment_sum(x.features, x.batch_index, x.batch_size)
