"""SparseConvTensor: spconv's sparse tensor, on voxels that keep their own kernel maps.

`indices` are (N, 1 + n) int32, batch first, then the axes of `spatial_shape`, usually z, y, x. The kernel
maps live with the voxels, not under the names in `indice_dict`: a name is only needed to tell an inverse
convolution which strided layer it inverts.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sparse3d.compat.spconv.core import ConvAlgo
from sparse3d.compat.voxels import Voxels, Window, voxels_of
from sparse3d.nn.spconv_kernels import indice_pairs
from sparse3d.sites import KernelMap


def expand_nd(ndim: int, val: int | Sequence[int] | np.ndarray) -> list[int]:
    """One integer for all axes, or one each, as a list."""
    values = [val] * ndim if isinstance(val, int | np.integer) else list(val)
    if len(values) != ndim:
        raise ValueError(f"got {val}, expected one integer or {ndim}")
    return [int(v) for v in values]


class IndiceData:
    """What a layer left under its `indice_key`: its voxels on both sides, its geometry and its kernel map.

    `indice_pairs` (2, V, P) int32 with -1 at the end of each tap, and `indice_pair_num` (V,) int32, are made
    from the map when they are read. `earlier` is the record of an earlier layer with the same key.
    """

    def __init__(
        self,
        voxels: Voxels,
        out: Voxels,
        kernel_map: KernelMap,
        window: Window,
        is_subm: bool,
        algo: ConvAlgo,
        earlier: "IndiceData | None" = None,
        transposed: bool = False,
    ):
        self.in_voxels, self.out_voxels, self.kernel_map, self.window = voxels, out, kernel_map, window
        self.is_subm, self.transposed, self.algo, self.earlier = is_subm, transposed, algo, earlier
        self.indices, self.out_indices = voxels.indices, out.indices
        self.spatial_shape, self.out_spatial_shape = list(voxels.spatial_shape), list(out.spatial_shape)
        self.ksize, self.stride = list(window.kernel_size), list(window.stride)
        self.padding, self.dilation = list(window.padding), list(window.dilation)
        self.voxel_num = None

    def way_back(self, voxels: Voxels) -> KernelMap:
        """Map of the inverse layer, from voxels on this layer's output grid onto its input voxels."""
        if self.transposed:
            return self.in_voxels.onto(voxels, self.window).transposed()
        return voxels.onto(self.in_voxels, self.window)

    @property
    def indice_pairs(self) -> Tensor:
        return indice_pairs(self.kernel_map)[0]

    @property
    def indice_pair_num(self) -> Tensor:
        return (self.kernel_map.table >= 0).sum(0, dtype=torch.int32)

    @property
    def pair_fwd(self) -> Tensor:
        """(V, N_out): input row of each tap and output row, -1 for none."""
        return self.kernel_map.table.T

    @property
    def pair_bwd(self) -> Tensor:
        """(V, N_in): output row of each tap and input row, -1 for none."""
        return self.kernel_map.reverse.T


ImplicitGemmIndiceData = IndiceData


def scatter_nd(indices: Tensor, updates: Tensor, shape: Sequence[int]) -> Tensor:
    """Zeros of `shape` with `updates` written at `indices` (..., k), an index into the first k axes."""
    volume = torch.zeros(*shape, dtype=updates.dtype, device=updates.device)
    rows = indices.reshape(-1, indices.shape[-1]).long()
    volume[tuple(rows.unbind(1))] = updates.reshape(len(rows), *shape[indices.shape[-1] :])
    return volume


class SparseConvTensor:
    """`features` (N, C) on `indices` (N, 1 + n) of a grid of `spatial_shape`, n = 1 to 4.

    Everything beyond these and `indice_dict` is spconv's bookkeeping, carried along and not used. Indices are
    checked when the first layer needs a kernel map.
    """

    def __init__(
        self,
        features: Tensor,
        indices: Tensor,
        spatial_shape: Sequence[int] | np.ndarray,
        batch_size: int,
        grid: Tensor | None = None,
        voxel_num: Tensor | None = None,
        indice_dict: dict[str, IndiceData] | None = None,
        benchmark: bool = False,
        permanent_thrust_allocator: bool = False,
        enable_timer: bool = False,
        force_algo: ConvAlgo | None = None,
    ):
        if features.dim() != 2 or indices.dim() != 2 or indices.shape[1] != 1 + len(spatial_shape):
            raise ValueError(
                f"features have shape {tuple(features.shape)}, indices {tuple(indices.shape)} for the "
                f"spatial_shape {list(spatial_shape)}; expected (N, C) and (N, {1 + len(spatial_shape)})"
            )
        if indices.dtype != torch.int32:
            raise ValueError(f"indices are {indices.dtype}, expected torch.int32; use .int()")
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}, expected at least 1")
        self._features = features
        self.indices = indices
        self.spatial_shape = [int(v) for v in spatial_shape]
        self.batch_size = int(batch_size)
        self.grid: Tensor | None = torch.empty(0) if grid is None else grid
        self.voxel_num = voxel_num
        self.indice_dict: dict[str, IndiceData] = {} if indice_dict is None else indice_dict
        self.benchmark = benchmark
        self.benchmark_record: dict[str, Any] = {}
        self.thrust_allocator = None
        self._timer = None
        self.force_algo = force_algo
        self.int8_scale = None
        self._voxels: Voxels | None = None

    @property
    def voxels(self) -> Voxels:
        """The voxels that own the kernel maps, shared by all tensors on the same indices.

        Raises a ValueError naming the row of an index outside of the batch or grid.
        """
        if not self._fits(self._voxels):
            known = (side for data in self.indice_dict.values() for side in (data.in_voxels, data.out_voxels))
            self._voxels = next((voxels for voxels in known if self._fits(voxels)), None)
        if self._voxels is None:
            self._voxels = voxels_of(self.indices, self.spatial_shape, self.batch_size)
        return self._voxels

    def _fits(self, voxels: Voxels | None) -> bool:
        """Whether these are this tensor's voxels: the same index tensor, not written to since, on the same
        grid."""
        return (
            voxels is not None
            and voxels.indices is self.indices
            and voxels.unchanged()
            and voxels.spatial_shape == tuple(self.spatial_shape)
            and voxels.batch_size == self.batch_size
        )

    def on(self, features: Tensor, voxels: Voxels) -> "SparseConvTensor":
        """A tensor on other voxels, as a layer returns it, with this one's bookkeeping and a dict of its
        own."""
        out = self.replace_feature(features)
        out.indices, out.spatial_shape = voxels.indices, list(voxels.spatial_shape)
        out.indice_dict = self.indice_dict.copy()
        out._voxels = voxels
        return out

    def __repr__(self) -> str:
        return f"SparseConvTensor[shape={self._features.shape}]"

    @property
    def features(self) -> Tensor:
        return self._features

    @features.setter
    def features(self, val: Tensor) -> None:
        raise ValueError("features cannot be set; use x = x.replace_feature(features)")

    def replace_feature(self, feature: Tensor) -> "SparseConvTensor":
        """Other features on the same voxels; kernel maps and `indice_dict` stay shared.

        As in spconv the number of rows is not looked at here, but by the next layer: public networks end in
        pooled features that have one row a sample.
        """
        out = SparseConvTensor.__new__(type(self))
        out.__dict__.update(self.__dict__)
        out._features, out.spatial_shape = feature, list(self.spatial_shape)
        return out

    def shadow_copy(self) -> "SparseConvTensor":
        """A tensor with the same members."""
        return self.replace_feature(self._features)

    def select_by_index(self, valid_indices: Tensor) -> "SparseConvTensor":
        """The chosen rows (row numbers or mask), without anything that was known of the others."""
        out = self.shadow_copy()
        out.indices, out._features = self.indices[valid_indices], self._features[valid_indices]
        out.indice_dict = {}
        return out

    def minus(self) -> "SparseConvTensor":
        return self.replace_feature(-self._features)

    @classmethod
    def from_dense(cls, x: Tensor) -> "SparseConvTensor":
        """The voxels of a dense volume (B, *spatial_shape, C), channels last, with any channel other than
        zero."""
        where = (x != 0).any(dim=-1).nonzero()
        features = x[tuple(where.unbind(1))]
        return cls(features, where.int(), x.shape[1:-1], x.shape[0])

    def dense(self, channels_first: bool = True) -> Tensor:
        """The volume (B, C, *spatial_shape), or (B, *spatial_shape, C), with zeros where there is no voxel.

        Raises a ValueError when a voxel stands twice, of which a volume could hold only one.
        """
        self.voxels.sites.hash_table()
        shape = [self.batch_size, *self.spatial_shape, self._features.shape[1]]
        volume = scatter_nd(self.indices.to(self._features.device), self._features, shape)
        return volume.movedim(-1, 1).contiguous() if channels_first else volume

    @property
    def spatial_size(self) -> int:
        return math.prod(self.spatial_shape)

    @property
    def sparity(self) -> float:
        """Share of the cells that have a voxel; spelled so in spconv."""
        return self.indices.shape[0] / self.spatial_size / self.batch_size

    def find_indice_pair(self, key: str | None) -> IndiceData | None:
        """What the last layer with this `indice_key` left, None when there was none."""
        return None if key is None else self.indice_dict.get(key)

    def __add__(self, other: "SparseConvTensor | Tensor") -> "SparseConvTensor":
        """Features added row by row; for tensors on different voxels there is `functional.sparse_add`."""
        if isinstance(other, SparseConvTensor):
            check_same_voxels([self, other], "+")
            other = other.features
        return self.replace_feature(self._features + other)

    __radd__ = __iadd__ = __add__

    @property
    def is_quantized(self) -> bool:
        return self._features.is_quantized

    def q_scale(self) -> float:
        return self._features.q_scale()

    def dequantize(self) -> "SparseConvTensor":
        return self.replace_feature(self._features.dequantize())


def check_same_voxels(tensors: Sequence[SparseConvTensor], what: str) -> None:
    """Raise a ValueError unless rows of the tensors are the same voxels: spconv adds rows of different
    ones."""
    first = tensors[0]
    for other in tensors[1:]:
        same = (
            first.spatial_shape == other.spatial_shape
            and first.batch_size == other.batch_size
            and (first.indices is other.indices or torch.equal(first.indices, other.indices))
        )
        if not same:
            raise ValueError(
                f"{what} joins rows of the same voxels, got {first.indices.shape[0]} and "
                f"{other.indices.shape[0]} that differ in place or order; functional.sparse_add adds such"
            )
