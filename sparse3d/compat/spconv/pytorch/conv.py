"""The convolution layers of one to four axes: spconv's argument lists around `SparseConvolution`."""

from typing import Any, ClassVar

from sparse3d.compat.spconv.core import ConvAlgo
from sparse3d.compat.spconv.pytorch.convolution import Size, SparseConvolution


class _Strided(SparseConvolution):
    """Arguments of the layers with a stride, in spconv's order; `axes` and what kind it is come from the
    class."""

    axes: ClassVar[int]
    kind: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        indice_key: str | None = None,
        algo: ConvAlgo | None = None,
        fp32_accum: bool | None = None,
        record_voxel_count: bool = False,
        large_kernel_fast_algo: bool = False,
        name: str | None = None,
    ):
        super().__init__(
            self.axes,
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            indice_key=indice_key,
            algo=algo,
            fp32_accum=fp32_accum,
            record_voxel_count=record_voxel_count,
            large_kernel_fast_algo=large_kernel_fast_algo,
            name=name,
            **self.kind,
        )


class _Submanifold(SparseConvolution):
    """Arguments of the submanifold layers: those of `_Strided` without `record_voxel_count`."""

    axes: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        indice_key: str | None = None,
        algo: ConvAlgo | None = None,
        fp32_accum: bool | None = None,
        large_kernel_fast_algo: bool = False,
        name: str | None = None,
    ):
        super().__init__(
            self.axes,
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            subm=True,
            indice_key=indice_key,
            algo=algo,
            fp32_accum=fp32_accum,
            large_kernel_fast_algo=large_kernel_fast_algo,
            name=name,
        )


class _Inverse(SparseConvolution):
    """Arguments of the inverse layers; the geometry is that of the layer with the same `indice_key`."""

    axes: ClassVar[int]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        indice_key: str | None,
        bias: bool = True,
        algo: ConvAlgo | None = None,
        fp32_accum: bool | None = None,
        large_kernel_fast_algo: bool = False,
        name: str | None = None,
    ):
        super().__init__(
            self.axes,
            in_channels,
            out_channels,
            kernel_size,
            bias=bias,
            inverse=True,
            indice_key=indice_key,
            algo=algo,
            fp32_accum=fp32_accum,
            large_kernel_fast_algo=large_kernel_fast_algo,
            name=name,
        )


class SubMConv1d(_Submanifold):
    """Submanifold convolution along one axis: the outputs are the inputs' voxels."""

    axes = 1


class SubMConv2d(_Submanifold):
    """Submanifold convolution in two axes."""

    axes = 2


class SubMConv3d(_Submanifold):
    """Submanifold convolution in three axes."""

    axes = 3


class SubMConv4d(_Submanifold):
    """Submanifold convolution in four axes."""

    axes = 4


class SparseConv1d(_Strided):
    """Convolution along one axis onto all voxels that any input reaches."""

    axes = 1


class SparseConv2d(_Strided):
    """Convolution in two axes."""

    axes = 2


class SparseConv3d(_Strided):
    """Convolution in three axes."""

    axes = 3


class SparseConv4d(_Strided):
    """Convolution in four axes."""

    axes = 4


class SparseConvTranspose1d(_Strided):
    """Transposed convolution along one axis onto all voxels that any input reaches."""

    axes = 1
    kind = {"transposed": True}


class SparseConvTranspose2d(_Strided):
    """Transposed convolution in two axes."""

    axes = 2
    kind = {"transposed": True}


class SparseConvTranspose3d(_Strided):
    """Transposed convolution in three axes."""

    axes = 3
    kind = {"transposed": True}


class SparseConvTranspose4d(_Strided):
    """Transposed convolution in four axes."""

    axes = 4
    kind = {"transposed": True}


class SparseInverseConv1d(_Inverse):
    """The way back of the strided layer of the same key, onto its input voxels."""

    axes = 1


class SparseInverseConv2d(_Inverse):
    """The way back of a strided layer in two axes."""

    axes = 2


class SparseInverseConv3d(_Inverse):
    """The way back of a strided layer in three axes."""

    axes = 3


class SparseInverseConv4d(_Inverse):
    """The way back of a strided layer in four axes."""

    axes = 4


DEFAULT_SPARSE_CONV_TYPES = {
    SubMConv1d,
    SubMConv2d,
    SubMConv3d,
    SubMConv4d,
    SparseConv1d,
    SparseConv2d,
    SparseConv3d,
    SparseConv4d,
    SparseConvTranspose1d,
    SparseConvTranspose2d,
    SparseConvTranspose3d,
    SparseConvTranspose4d,
    SparseInverseConv1d,
    SparseInverseConv2d,
    SparseInverseConv3d,
    SparseInverseConv4d,
}
