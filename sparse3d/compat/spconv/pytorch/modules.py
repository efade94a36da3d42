"""Containers, and the norms and activations that take sparse tensors."""

from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from torch import Tensor, nn

from sparse3d.compat.spconv.pytorch.core import SparseConvTensor


class SparseModule(nn.Module):
    """A module that takes a sparse tensor; all others get its features in `SparseSequential`."""

    def __init__(self, name: str | None = None):
        super().__init__()
        self.name = name
        self._sparse_unique_name = ""


class SparseSequential(SparseModule):
    """Modules in order, given one by one, in an OrderedDict or by name.

    Dense modules work on the features, and are left out while there is no voxel (a batch norm could not).
    """

    def __init__(self, *args: Any, **kwargs: nn.Module):
        super().__init__()
        if len(args) == 1 and isinstance(args[0], OrderedDict):
            named = list(args[0].items())
        else:
            named = [(str(index), module) for index, module in enumerate(args)]
        for name, module in [*named, *kwargs.items()]:
            if name in self._modules:
                raise ValueError(f"two modules have the name {name!r}")
            self.add_module(name, module)

    def __len__(self) -> int:
        return len(self._modules)

    def __getitem__(self, idx: int) -> nn.Module:
        return list(self.children())[idx]

    def __iter__(self) -> Iterator[nn.Module]:
        return iter(list(self.children()))

    def add(self, module: nn.Module, name: str | None = None) -> None:
        self.add_module(str(len(self)) if name is None else name, module)

    def forward(self, input: Any) -> Any:
        for module in self._modules.values():
            assert module is not None
            if is_spconv_module(module) or not isinstance(input, SparseConvTensor):
                input = module(input)
            elif input.indices.shape[0]:
                input = input.replace_feature(module(input.features))
        return input


class _OnFeatures(nn.Module):
    def forward(self, input: SparseConvTensor | Tensor) -> Any:
        if isinstance(input, SparseConvTensor):
            return input.replace_feature(super().forward(input.features))
        return super().forward(input)


class SparseBatchNorm(_OnFeatures, nn.BatchNorm1d):
    """Batch norm over the voxels."""


class SparseSyncBatchNorm(_OnFeatures, nn.SyncBatchNorm):
    """Batch norm over the voxels of all processes."""


class SparseReLU(_OnFeatures, nn.ReLU):
    """Rectifier of each feature."""


class SparseIdentity(_OnFeatures, nn.Identity):
    """The input."""


def is_spconv_module(module: nn.Module) -> bool:
    """Whether a module takes the sparse tensor itself."""
    return isinstance(module, SparseModule | _OnFeatures)


def is_sparse_conv(module: nn.Module) -> bool:
    from sparse3d.compat.spconv.pytorch.convolution import SparseConvolution

    return isinstance(module, SparseConvolution)


def assign_name_for_sparse_modules(module: nn.Module) -> None:
    """Tell each sparse module its path in the network."""
    for name, child in module.named_modules():
        if isinstance(child, SparseModule):
            child._sparse_unique_name = name
