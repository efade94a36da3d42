"""Branches and their joins."""

from collections.abc import Sequence
from typing import Any

import torch

from sparse3d.compat.spconv.pytorch import functional
from sparse3d.compat.spconv.pytorch.core import SparseConvTensor, check_same_voxels
from sparse3d.compat.spconv.pytorch.modules import SparseModule


class _Table(SparseModule):
    def input_spatial_size(self, out_size: Any) -> Any:
        return out_size


class JoinTable(_Table):
    """Channels of tensors on the same voxels, one after the other. Raises a ValueError when the voxels
    differ."""

    def forward(self, input: Sequence[SparseConvTensor]) -> SparseConvTensor:
        check_same_voxels(input, "JoinTable")
        return input[0].replace_feature(torch.cat([x.features for x in input], dim=1))


class AddTable(_Table):
    """Sum of tensors on the same voxels. Raises a ValueError when they differ; see `AddTableMisaligned`."""

    def forward(self, input: Sequence[SparseConvTensor]) -> SparseConvTensor:
        check_same_voxels(input, "AddTable")
        total = input[0].features
        for other in input[1:]:
            total = total + other.features
        return input[0].replace_feature(total)


class AddTableMisaligned(_Table):
    """Sum of tensors on the union of their voxels."""

    def forward(self, input: Sequence[SparseConvTensor]) -> SparseConvTensor:
        return functional.sparse_add(*input)


class ConcatTable(_Table):
    """The input through each of the modules: a list of results."""

    def forward(self, input: Any) -> list[Any]:
        return [module(input) for module in self.children()]

    def add(self, module: torch.nn.Module) -> "ConcatTable":
        self.add_module(str(len(self._modules)), module)
        return self
