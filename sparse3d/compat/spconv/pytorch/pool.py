"""Pooling over the active voxels of each window; the defaults of the layers' stride are the kernel's size.

The mean is of the active voxels alone. The maximum is that of zero and the active voxels, as spconv's is on
every device, full windows included: trained networks may count on it. A tie's gradient goes to the first
voxel. The global pools give (B, C), zero for an empty sample; spconv 2.3's global mean is the first channel
alone.
"""

from typing import ClassVar

import torch
from torch import Tensor

from sparse3d.compat.spconv.core import ConvAlgo
from sparse3d.compat.spconv.pytorch.convolution import VOXEL_COUNT, Size
from sparse3d.compat.spconv.pytorch.core import IndiceData, SparseConvTensor, expand_nd
from sparse3d.compat.spconv.pytorch.modules import SparseModule
from sparse3d.compat.voxels import Window
from sparse3d.nn import functional
from sparse3d.sites import KernelMap, Sites
from sparse3d.tensor import SparseTensor
from sparse3d_ops.segment import segment_max, segment_mean


class _Pool(SparseModule):
    """Windows, and what is kept under `indice_key` for an inverse convolution."""

    def __init__(
        self,
        ndim: int,
        kernel_size: Size = 3,
        stride: Size | None = 1,
        padding: Size = 0,
        dilation: Size = 1,
        indice_key: str | None = None,
        subm: bool = False,
        algo: ConvAlgo | None = None,
        record_voxel_count: bool = False,
        name: str | None = None,
    ):
        super().__init__(name=name)
        self.ndim, self.kernel_size = ndim, expand_nd(ndim, kernel_size)
        self.stride = list(self.kernel_size) if stride is None else expand_nd(ndim, stride)
        self.padding, self.dilation = expand_nd(ndim, padding), expand_nd(ndim, dilation)
        self.indice_key, self.subm, self.record_voxel_count = indice_key, subm, record_voxel_count
        self.algo = ConvAlgo.Native if algo is None else algo
        if record_voxel_count and not subm:
            self.register_buffer(VOXEL_COUNT, torch.zeros(1, dtype=torch.int32))

    def get_max_num_voxels(self) -> Tensor | None:
        """The most output voxels seen so far, with `record_voxel_count`."""
        return getattr(self, VOXEL_COUNT, None)

    def forward(self, input: SparseConvTensor) -> SparseConvTensor:
        kernel, dilation = tuple(self.kernel_size), tuple(self.dilation)
        voxels = input.voxels
        if self.subm:
            window = Window.submanifold(kernel, dilation)
            kernel_map, out = voxels.submanifold(kernel, dilation), voxels
        else:
            window = Window(kernel, tuple(self.stride), tuple(self.padding), dilation)
            kernel_map, out = voxels.strided(window)
        x = SparseTensor.on(input.features, voxels.sites)
        result = input.on(self.reduce(x, kernel_map, out.sites).features, out)
        if self.indice_key is not None:
            earlier = input.find_indice_pair(self.indice_key)
            record = IndiceData(voxels, out, kernel_map, window, self.subm, self.algo, earlier)
            result.indice_dict[self.indice_key] = record
        count = self.get_max_num_voxels()
        if count is not None:
            count.clamp_(min=len(out))
        return result

    def reduce(self, x: SparseTensor, kernel_map: KernelMap, out: Sites) -> SparseTensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        parts = ("kernel_size", "stride", "padding", "dilation")
        return ", ".join(f"{part}={getattr(self, part)}" for part in parts)


class SparseMaxPool(_Pool):
    """Maximum of zero and the active voxels of each window."""

    def reduce(self, x: SparseTensor, kernel_map: KernelMap, out: Sites) -> SparseTensor:
        pooled = functional.max_pool(x, kernel_map, out)
        return pooled.replace(pooled.features.clamp(min=0))


class SparseAvgPool(_Pool):
    """Mean of the active voxels of each window."""

    def reduce(self, x: SparseTensor, kernel_map: KernelMap, out: Sites) -> SparseTensor:
        return functional.average_pool(x, kernel_map, out)


class _PoolOfAxes(_Pool):
    """Arguments of the layers, in spconv's order."""

    axes: ClassVar[int]

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        indice_key: str | None = None,
        algo: ConvAlgo | None = None,
        record_voxel_count: bool = False,
        name: str | None = None,
    ):
        super().__init__(
            self.axes,
            kernel_size,
            stride,
            padding,
            dilation,
            indice_key,
            algo=algo,
            record_voxel_count=record_voxel_count,
            name=name,
        )


class SparseMaxPool1d(_PoolOfAxes, SparseMaxPool):
    """Maximum along one axis."""

    axes = 1


class SparseMaxPool2d(_PoolOfAxes, SparseMaxPool):
    """Maximum in two axes."""

    axes = 2


class SparseMaxPool3d(_PoolOfAxes, SparseMaxPool):
    """Maximum in three axes."""

    axes = 3


class SparseMaxPool4d(_PoolOfAxes, SparseMaxPool):
    """Maximum in four axes."""

    axes = 4


class SparseAvgPool1d(_PoolOfAxes, SparseAvgPool):
    """Mean along one axis."""

    axes = 1


class SparseAvgPool2d(_PoolOfAxes, SparseAvgPool):
    """Mean in two axes."""

    axes = 2


class SparseAvgPool3d(_PoolOfAxes, SparseAvgPool):
    """Mean in three axes."""

    axes = 3


class SparseGlobalMaxOrAvgPool(SparseModule):
    """Mean or maximum over each sample: (B, C)."""

    def __init__(self, is_mean: bool, name: str | None = None):
        super().__init__(name=name)
        self.is_mean = is_mean

    def forward(self, input: SparseConvTensor) -> Tensor:
        sample = input.indices[:, 0].long()
        if self.is_mean:
            return segment_mean(input.features, sample, input.batch_size)
        return segment_max(input.features, sample, input.batch_size)[0]


class SparseGlobalMaxPool(SparseGlobalMaxOrAvgPool):
    """Maximum over each sample."""

    def __init__(self, name: str | None = None):
        super().__init__(is_mean=False, name=name)


class SparseGlobalAvgPool(SparseGlobalMaxOrAvgPool):
    """Mean over each sample."""

    def __init__(self, name: str | None = None):
        super().__init__(is_mean=True, name=name)


ALL_POOL_LAYERS: set[type] = {
    SparseMaxPool,
    SparseMaxPool1d,
    SparseMaxPool2d,
    SparseMaxPool3d,
    SparseMaxPool4d,
    SparseAvgPool,
    SparseAvgPool1d,
    SparseAvgPool2d,
    SparseAvgPool3d,
}
