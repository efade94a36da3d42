"""Pooling over the active voxels: windows without a voxel have no output, inactive voxels do not count."""

from torch import Tensor, nn

from sparse3d.nn import functional
from sparse3d.nn.conv import Size, axes
from sparse3d.sites import Geometry, KernelMap, Sites
from sparse3d.tensor import SparseTensor


class _Pool(nn.Module):
    """Windows as torch's pooling; `stride` defaults to the kernel size."""

    def __init__(self, kernel_size: Size, stride: Size | None = None, padding: Size = 0, dilation: Size = 1):
        super().__init__()
        self.geometry = Geometry(
            axes(kernel_size, 3, "kernel_size", 1),
            axes(kernel_size if stride is None else stride, 3, "stride", 1),
            axes(padding, 3, "padding", 0),
            axes(dilation, 3, "dilation", 1),
        )

    def forward(self, x: SparseTensor) -> SparseTensor:
        return self.reduce(x, *x.sites.strided(self.geometry))

    def reduce(self, x: SparseTensor, kernel_map: KernelMap, out: Sites) -> SparseTensor:
        raise NotImplementedError

    def extra_repr(self) -> str:
        return f"kernel_size={self.geometry.kernel_size}, stride={self.geometry.stride}"


class MaxPool3d(_Pool):
    """Maximum of the active voxels of each window."""

    def reduce(self, x: SparseTensor, kernel_map: KernelMap, out: Sites) -> SparseTensor:
        return functional.max_pool(x, kernel_map, out)


class AvgPool3d(_Pool):
    """Mean of the active voxels of each window."""

    def reduce(self, x: SparseTensor, kernel_map: KernelMap, out: Sites) -> SparseTensor:
        return functional.average_pool(x, kernel_map, out)


class SumPool3d(_Pool):
    """Sum of the active voxels of each window."""

    def reduce(self, x: SparseTensor, kernel_map: KernelMap, out: Sites) -> SparseTensor:
        return functional.sum_pool(x, kernel_map, out)


class GlobalMaxPool(nn.Module):
    """Maximum over each sample: (B, C); zero for an empty sample."""

    def forward(self, x: SparseTensor) -> Tensor:
        return functional.global_max_pool(x)


class GlobalAvgPool(nn.Module):
    """Mean over each sample: (B, C); zero for an empty sample."""

    def forward(self, x: SparseTensor) -> Tensor:
        return functional.global_average_pool(x)


class GlobalSumPool(nn.Module):
    """Sum over each sample: (B, C)."""

    def forward(self, x: SparseTensor) -> Tensor:
        return functional.global_sum_pool(x)
