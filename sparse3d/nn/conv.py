"""Sparse convolution layers in three and two dimensions.

Weights are (Kx, Ky, Kz, Cin / groups, Cout), without Kz for the 2-D layers, which act on each z plane by
itself. Every layer equals torch's convolution of the densified input at its output sites. None takes a cache
key: maps are found by the identity of the voxels and the layer's geometry.
"""

import math
from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import nn

from sparse3d.nn import functional
from sparse3d.sites import Geometry, KernelMap, Sites, Triple
from sparse3d.tensor import SparseTensor
from sparse3d_ops.kernel_map import submanifold_padding

Size = int | Sequence[int]


def axes(value: Size, dims: int, name: str, rest: int) -> Triple:
    """`value` per axis; 2-D layers get `rest` on the z axis."""
    values = (value,) * dims if isinstance(value, int) else tuple(value)
    if len(values) != dims:
        raise ValueError(f"{name} is {value}, expected one integer or {dims}")
    full = (*values, rest) if dims == 2 else values
    lowest = 0 if name.endswith("padding") else 1
    if min(full) < lowest:
        raise ValueError(f"{name} is {value}, expected values >= {lowest}")
    return full[0], full[1], full[2]


class _Convolution(nn.Module):
    """Parameters and their initialisation (as torch's convolutions: Kaiming uniform, a = sqrt(5))."""

    dims: ClassVar[int] = 3

    def __init__(self, in_channels: int, out_channels: int, kernel_size: Size, groups: int, bias: bool):
        super().__init__()
        self.kernel_size = axes(kernel_size, self.dims, "kernel_size", 1)
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}"
            )
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        spatial = self.kernel_size[: self.dims]
        self.weight = nn.Parameter(torch.empty(*spatial, in_channels // groups, out_channels))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        self.reset_parameters()

    def _geometry(self, stride: Size, padding: Size, dilation: Size) -> Geometry:
        return Geometry(
            self.kernel_size,
            axes(stride, self.dims, "stride", 1),
            axes(padding, self.dims, "padding", 0),
            axes(dilation, self.dims, "dilation", 1),
        )

    def reset_parameters(self) -> None:
        bound = 1 / math.sqrt(max(1, math.prod(self.weight.shape[:-1])))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def _apply_map(self, x: SparseTensor, kernel_map: KernelMap | None, out: Sites) -> SparseTensor:
        if x.channels != self.in_channels:
            raise ValueError(
                f"{type(self).__name__} expects {self.in_channels} channels, got {x.channels}: {x}"
            )
        weight = self.weight.unsqueeze(2) if self.dims == 2 else self.weight
        return functional.convolution(x, weight, self.bias, kernel_map, out, self.groups)

    def extra_repr(self) -> str:
        groups = f", groups={self.groups}" if self.groups > 1 else ""
        bias = "" if self.bias is not None else ", bias=False"
        spatial = self.kernel_size[: self.dims]
        return f"{self.in_channels}, {self.out_channels}, kernel_size={spatial}{groups}{bias}"


class SubMConv3d(_Convolution):
    """Submanifold convolution: the outputs are the inputs' voxels (Graham et al., arXiv 1711.10275).

    Odd kernels are centred; even kernels cover taps 0 .. k - 1 ahead of the voxel.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        super().__init__(in_channels, out_channels, kernel_size, groups, bias)
        self.dilation = axes(dilation, self.dims, "dilation", 1)

    def forward(self, x: SparseTensor) -> SparseTensor:
        if self.kernel_size == (1, 1, 1) and self.groups == 1:
            return self._apply_map(x, None, x.sites)  # a plain product of each voxel needs no map
        return self._apply_map(x, x.sites.submanifold(self.kernel_size, self.dilation), x.sites)


class SparseConv3d(_Convolution):
    """Convolution whose outputs are all voxels that any input reaches; arguments and grid as torch's
    Conv3d."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        super().__init__(in_channels, out_channels, kernel_size, groups, bias)
        self.geometry = self._geometry(stride, padding, dilation)

    def forward(self, x: SparseTensor) -> SparseTensor:
        return self._apply_map(x, *x.sites.strided(self.geometry))


class SparseConvTranspose3d(SparseConv3d):
    """Transposed convolution onto all voxels that any input reaches, or onto the voxels of `target`.

    Arguments and grid as torch's ConvTranspose3d. The input's stride must be a multiple of `stride`.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        super().__init__(in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias)
        self.output_padding = axes(output_padding, self.dims, "output_padding", 0)
        steps = zip(self.output_padding, self.geometry.stride, self.geometry.dilation, strict=True)
        if any(extra and extra >= max(s, d) for extra, s, d in steps):
            raise ValueError(f"output_padding {output_padding} must be smaller than stride or dilation")

    def forward(self, x: SparseTensor, target: SparseTensor | None = None) -> SparseTensor:
        if target is not None:
            return self._apply_map(x, x.sites.onto(target.sites, self.geometry), target.sites)
        return self._apply_map(x, *x.sites.transposed(self.geometry, self._grid(x.shape)))

    def _grid(self, shape: Triple | None) -> Triple | None:
        return None if shape is None else self.geometry.transposed_shape(shape, self.output_padding)


class SparseInverseConv3d(_Convolution):
    """The way back of a strided convolution: onto exactly the voxels that the strided layer started from.

    Without `target` these are found from the tensor itself (its voxels remember the strided layer that made
    them); the kernel size must be that layer's. With `target`, any finer tensor, give the forward layer's
    geometry here.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        super().__init__(in_channels, out_channels, kernel_size, groups, bias)
        self.geometry = None
        if stride is not None:
            self.geometry = self._geometry(stride, padding, dilation)

    def forward(self, x: SparseTensor, target: SparseTensor | None = None) -> SparseTensor:
        if target is not None and self.geometry is not None:
            return self._apply_map(x, x.sites.onto(target.sites, self.geometry), target.sites)
        if x.sites.origin is None:
            raise ValueError(
                "the input was not made by a strided convolution, so there is no way back to invert; "
                "construct the layer with stride=... and call it with target=..."
            )
        fine, geometry = x.sites.origin
        if geometry.kernel_size != self.kernel_size:
            raise ValueError(
                f"the input was made with kernel_size {geometry.kernel_size}, "
                f"this layer inverts {self.kernel_size}"
            )
        if self.geometry is not None and self.geometry != geometry:
            raise ValueError(f"the input was made with {geometry}, this layer inverts {self.geometry}")
        if target is not None and not target.sites.same_as(fine):
            raise ValueError(
                "target is not what the strided convolution started from; construct with stride=..."
            )
        return self._apply_map(x, x.sites.onto(fine, geometry), fine)


class GenerativeConvTranspose3d(_Convolution):
    """Up-sampling that creates voxels: each input voxel fills its whole kernel on a grid `stride` times as
    fine.

    Odd kernels are centred on the first child of the voxel, even ones start there; a bounded grid grows by
    exactly `stride`. Prune the result with a mask: `y[keep]` (Gwak et al., arXiv 2006.12356).
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 2,
        stride: Size = 2,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
    ):
        super().__init__(in_channels, out_channels, kernel_size, groups, bias)
        dilations = axes(dilation, self.dims, "dilation", 1)
        px, py, pz = (submanifold_padding(k, d) for k, d in zip(self.kernel_size, dilations, strict=True))
        strides = axes(stride, self.dims, "stride", 1)
        self.geometry = Geometry(self.kernel_size, strides, (px, py, pz), dilations)

    def forward(self, x: SparseTensor) -> SparseTensor:
        grid = None
        if x.shape is not None:
            s = self.geometry.stride
            grid = (x.shape[0] * s[0], x.shape[1] * s[1], x.shape[2] * s[2])
        return self._apply_map(x, *x.sites.transposed(self.geometry, grid))


class SubMConv2d(SubMConv3d):
    """`SubMConv3d` in x and y; weights (Kx, Ky, Cin / groups, Cout)."""

    dims = 2


class SparseConv2d(SparseConv3d):
    """`SparseConv3d` in x and y; weights (Kx, Ky, Cin / groups, Cout)."""

    dims = 2


class SparseConvTranspose2d(SparseConvTranspose3d):
    """`SparseConvTranspose3d` in x and y."""

    dims = 2


class SparseInverseConv2d(SparseInverseConv3d):
    """`SparseInverseConv3d` in x and y."""

    dims = 2


class GenerativeConvTranspose2d(GenerativeConvTranspose3d):
    """`GenerativeConvTranspose3d` in x and y."""

    dims = 2
