"""Dense twins for the tests of layers: random sparse volumes and torch's convolutions with our weight
layout."""

import torch
from torch import Tensor

from sparse3d import SparseTensor


def sparse_volume(batch=2, channels=3, shape=(6, 5, 4), share=0.3, dtype=torch.float32, seed=0) -> Tensor:
    """A dense volume of which about `share` of the voxels are active."""
    generator = torch.Generator().manual_seed(seed)
    mask = torch.rand(batch, 1, *shape, generator=generator) < share
    return torch.randn(batch, channels, *shape, generator=generator, dtype=torch.float64).to(dtype) * mask


def pair(**arguments) -> tuple[SparseTensor, Tensor]:
    """A sparse tensor and its dense twin as independent leaves that require gradients."""
    volume = sparse_volume(**arguments)
    x = SparseTensor.from_dense(volume)
    return x.replace(x.features.detach().requires_grad_()), volume.clone().requires_grad_()


def at_sites(volume: Tensor, x: SparseTensor) -> Tensor:
    """Entries of a dense volume at the voxels of a sparse tensor: (N, C)."""
    b, i, j, k = x.coordinates.long().unbind(1)
    return volume[b, :, i, j, k]


def torch_weight(weight: Tensor, groups: int = 1, transposed: bool = False) -> Tensor:
    """(K..., Cin / groups, Cout) to torch's (Cout, Cin / groups, K...), or (Cin, Cout / groups, K...) if
    transposed."""
    spatial = weight.dim() - 2
    forward = weight.permute(-1, -2, *range(spatial))
    if not transposed:
        return forward
    out_channels, depth = forward.shape[:2]
    blocks = forward.reshape(groups, out_channels // groups, depth, *forward.shape[2:])
    return blocks.transpose(1, 2).reshape(groups * depth, out_channels // groups, *forward.shape[2:])
