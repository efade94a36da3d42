"""The convolution of one to four axes with spconv's arguments, weights (out, *kernel, in / groups) and
numbers.

What is decided where spconv 2.3 is silent or wrong: a kernel of one reads its weight's memory as (in, out),
as spconv does and as trained weights need, not as the transposed (out, in) of every other kernel; an inverse
convolution with a kernel of one goes back to the finer voxels, where spconv stays on the coarse ones; a
dilated transposed convolution has torch's grid, where spconv forgets the dilation. `stride` and `padding` of
a submanifold convolution are ignored, as in spconv.
"""

import math
import os
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sparse3d.compat.cumm.tensorview import gemm
from sparse3d.compat.spconv.core import ConvAlgo
from sparse3d.compat.spconv.pytorch.core import IndiceData, SparseConvTensor, expand_nd
from sparse3d.compat.spconv.pytorch.modules import SparseModule
from sparse3d.compat.voxels import Voxels, Window
from sparse3d.nn import functional
from sparse3d.sites import KernelMap
from sparse3d.tensor import SparseTensor

Size = int | Sequence[int]
VOXEL_COUNT = "max_num_voxels_during_training"  # the buffer's name in spconv's state dicts


class SparseConvolution(SparseModule):
    """The convolution behind all layers of `conv.py`.

    `indice_key` names the layer for an inverse convolution; maps are found by the voxels and the geometry, so
    that two geometries under one key are both computed right. `algo`, `fp32_accum` and
    `large_kernel_fast_algo` change nothing.
    """

    def __init__(
        self,
        ndim: int,
        in_channels: int,
        out_channels: int,
        kernel_size: Size = 3,
        stride: Size = 1,
        padding: Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        subm: bool = False,
        output_padding: Size = 0,
        transposed: bool = False,
        inverse: bool = False,
        indice_key: str | None = None,
        algo: ConvAlgo | None = None,
        fp32_accum: bool | None = None,
        record_voxel_count: bool = False,
        act_type: Any = gemm.Activation.None_,
        act_alpha: float = 0,
        act_beta: float = 0,
        large_kernel_fast_algo: bool = False,
        name: str | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ):
        super().__init__(name=name)
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ValueError(
                f"groups={groups} must divide in_channels={in_channels} and out_channels={out_channels}"
            )
        if inverse and indice_key is None:
            raise ValueError("an inverse convolution needs the indice_key of the layer that it inverts")
        self.ndim, self.in_channels, self.out_channels, self.groups = ndim, in_channels, out_channels, groups
        self.kernel_size, self.stride = expand_nd(ndim, kernel_size), expand_nd(ndim, stride)
        self.padding, self.dilation = expand_nd(ndim, padding), expand_nd(ndim, dilation)
        self.output_padding = expand_nd(ndim, output_padding)
        self.subm, self.transposed, self.inverse = subm, transposed, inverse
        self.indice_key, self.fp32_accum, self.record_voxel_count = indice_key, fp32_accum, record_voxel_count
        self.algo = ConvAlgo.Native if algo is None else algo
        self.act_type, self.act_alpha, self.act_beta = act_type, act_alpha, act_beta
        self.conv1x1 = math.prod(self.kernel_size) == 1 and (subm or math.prod(self.stride) == 1)
        if self.conv1x1 and not subm and any(self.padding):
            raise ValueError(f"padding is {padding} for a kernel and stride of one, expected 0")
        if record_voxel_count and not subm and not inverse:
            self.register_buffer(VOXEL_COUNT, torch.zeros(1, dtype=torch.int32, device=device))
        shape = (out_channels, *self.kernel_size, in_channels // groups)
        self.weight = nn.Parameter(torch.zeros(shape, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.zeros(out_channels, device=device, dtype=dtype)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Kaiming uniform with a = sqrt(5), the same random numbers as spconv for a seed."""
        bound = 1 / math.sqrt(max(1, math.prod(self.weight.shape[1:])))
        nn.init.uniform_(self.weight, -bound, bound)
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    @property
    def window(self) -> Window:
        """This layer's geometry; that of a submanifold or inverse one has no stride and padding of its
        own."""
        kernel, dilation = tuple(self.kernel_size), tuple(self.dilation)
        if self.subm:
            return Window.submanifold(kernel, dilation)
        return Window(kernel, tuple(self.stride), tuple(self.padding), dilation)

    def is_inverseable(self) -> bool:
        return self.indice_key is not None and not self.subm

    def get_max_num_voxels(self) -> Tensor | None:
        """The most output voxels seen so far, with `record_voxel_count`."""
        return getattr(self, VOXEL_COUNT, None)

    def forward(self, input: SparseConvTensor, add_input: SparseConvTensor | None = None) -> SparseConvTensor:
        if input.features.shape[1] != self.in_channels:
            raise ValueError(
                f"{type(self).__name__} expects {self.in_channels} channels, got {input.features.shape[1]}"
            )
        if self.conv1x1 and not self.inverse:
            return input.replace_feature(self._finish(self._pointwise(input.features), add_input))
        kernel_map, voxels, record = self._map(input)
        x = SparseTensor.on(input.features, input.voxels.sites)
        # (out, *kernel, in) to taps of (in, out).
        taps = self.weight.flatten(1, -2).permute(1, 2, 0)
        out = functional.convolution(x, taps, self.bias, kernel_map, voxels.sites, self.groups)
        result = input.on(self._finish(out.features, add_input), voxels)
        if record is not None:
            assert self.indice_key is not None
            result.indice_dict[self.indice_key] = record
        count = self.get_max_num_voxels()
        if count is not None:
            count.clamp_(min=len(voxels))
        return result

    def _map(self, input: SparseConvTensor) -> tuple[KernelMap, Voxels, IndiceData | None]:
        """Kernel map, output voxels, and what to leave under the key."""
        voxels, window = input.voxels, self.window
        if self.inverse:
            partner = self._partner(input)
            return partner.way_back(voxels), partner.in_voxels, None
        if self.subm:
            kernel_map, out = voxels.submanifold(window.kernel_size, window.dilation), voxels
        elif self.transposed:
            kernel_map, out = voxels.transposed(window, tuple(self.output_padding))
        else:
            kernel_map, out = voxels.strided(window)
        if self.indice_key is None:
            return kernel_map, out, None
        earlier = input.find_indice_pair(self.indice_key)
        if self.subm:  # only the last is ever asked for
            earlier = None if earlier is None else earlier.earlier if earlier.is_subm else earlier
        kind = {"is_subm": self.subm, "transposed": self.transposed}
        record = IndiceData(voxels, out, kernel_map, window, algo=self.algo, earlier=earlier, **kind)
        return kernel_map, out, record

    def _partner(self, input: SparseConvTensor) -> IndiceData:
        """The layer to invert: the last one of this key that made this tensor's voxels, or ones on such a
        grid."""
        assert self.indice_key is not None
        found: list[IndiceData] = []
        data = input.find_indice_pair(self.indice_key)
        while data is not None:
            if not data.is_subm:
                found.append(data)
            data = data.earlier
        if not found:
            raise ValueError(
                f"no strided layer with indice_key {self.indice_key!r} made this tensor, so there is nothing "
                f"to invert; keys known to it: {sorted(input.indice_dict) or 'none'}"
            )
        fitting = [data for data in found if data.out_spatial_shape == list(input.spatial_shape)]
        fitting.sort(key=lambda data: data.out_indices is not input.indices)  # stable: the latest first
        if not fitting:
            raise ValueError(
                f"the layer with indice_key {self.indice_key!r} made a grid of {found[0].out_spatial_shape}, "
                f"the input has one of {list(input.spatial_shape)}"
            )
        if fitting[0].ksize != self.kernel_size:
            raise ValueError(
                f"the layer with indice_key {self.indice_key!r} has kernel_size {fitting[0].ksize}, "
                f"this inverse has {self.kernel_size}; they must be equal"
            )
        if not fitting[0].in_voxels.unchanged():
            raise ValueError(
                f"the indices that the layer with indice_key {self.indice_key!r} began with were written to "
                "in place, so there is no way back to them; give the tensor new indices instead"
            )
        return fitting[0]

    def _pointwise(self, features: Tensor) -> Tensor:
        dtype = functional.common_dtype(features, self.weight)
        if self.groups == 1:
            out = features.to(dtype) @ self.weight.reshape(self.in_channels, self.out_channels).to(dtype)
        else:  # spconv has no groups; these are torch's
            blocks = features.to(dtype).unflatten(1, (self.groups, -1))
            weight = self.weight.reshape(self.groups, self.out_channels // self.groups, -1).to(dtype)
            out = torch.einsum("ngi,goi->ngo", blocks, weight).flatten(1)
        return out if self.bias is None else out + self.bias.to(dtype)

    def _finish(self, features: Tensor, add_input: SparseConvTensor | None) -> Tensor:
        if add_input is not None:
            features = features + add_input.features
        return gemm.activate(features, self.act_type, self.act_alpha)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]
        """As torch's, with spconv's $SPCONV_SAVED_WEIGHT_LAYOUT for weights of its first version."""
        if self.get_max_num_voxels() is not None:
            state_dict.setdefault(prefix + VOXEL_COUNT, torch.zeros(1, dtype=torch.int32))
        layout, key = os.environ.get("SPCONV_SAVED_WEIGHT_LAYOUT", ""), prefix + "weight"
        if layout in ("RSKC", "RSCK") and key in state_dict:
            state_dict[key] = state_dict[key].movedim(-2 if layout == "RSKC" else -1, 0).contiguous()
        elif layout not in ("", "KRSC"):
            raise ValueError(f"SPCONV_SAVED_WEIGHT_LAYOUT is {layout!r}, expected KRSC, RSKC or RSCK")
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        parts = [f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"]
        parts += [f"stride={self.stride}, padding={self.padding}, dilation={self.dilation}"]
        parts += [f"groups={self.groups}"] * (self.groups > 1) + ["bias=False"] * (self.bias is None)
        return ", ".join(parts + [f"indice_key={self.indice_key!r}"] * (self.indice_key is not None))
