"""Voxels with one to four axes in spconv's form, on top of `Sites`, which have three.

`indices` are (N, 1 + n) int32: batch, then the n axes in the order of `spatial_shape`; kernel maps do not
care what the axes are called. Fewer than three axes are filled up with an axis of size one. The first of four
axes (time) is folded into the batch: sample b at time t becomes sample b * T + t, so that keys stay exact
64-bit numbers; batch size times T may reach 512.
"""

import math
import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sparse3d.sites import Geometry, KernelMap, Sites, Triple
from sparse3d.tensor import SparseTensor
from sparse3d_ops import hashing
from sparse3d_ops import kernel_map as ops
from sparse3d_ops.checks import check_tensor
from sparse3d_ops.kernel_map import submanifold_padding

Sizes = tuple[int, ...]
MOST_AXES = 4


@dataclass(frozen=True)
class Window:
    """in = stride * out - padding + dilation * tap on each of n axes; tap = 0 .. kernel_size - 1."""

    kernel_size: Sizes
    stride: Sizes
    padding: Sizes
    dilation: Sizes

    @staticmethod
    def submanifold(kernel_size: Sizes, dilation: Sizes) -> "Window":
        """The window that keeps voxels in place: odd kernels centred, even ones anchored at tap 0."""
        padding = tuple(submanifold_padding(k, d) for k, d in zip(kernel_size, dilation, strict=True))
        return Window(kernel_size, (1,) * len(kernel_size), padding, dilation)

    @property
    def volume(self) -> int:
        return math.prod(self.kernel_size)

    def output_shape(self, shape: Sizes) -> Sizes:
        """Grid of a convolution, as torch computes it. Raises a ValueError when nothing is left."""
        axes = zip(shape, self.kernel_size, self.stride, self.padding, self.dilation, strict=True)
        out = tuple((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
        return self._checked(out, shape)

    def transposed_shape(self, shape: Sizes, output_padding: Sizes) -> Sizes:
        """Grid of a transposed convolution, as torch computes it."""
        axes = zip(
            shape, self.kernel_size, self.stride, self.padding, self.dilation, output_padding, strict=True
        )
        out = tuple((n - 1) * s - 2 * p + d * (k - 1) + extra + 1 for n, k, s, p, d, extra in axes)
        return self._checked(out, shape)

    def _checked(self, out: Sizes, shape: Sizes) -> Sizes:
        if min(out) < 1:
            raise ValueError(
                f"kernel_size {self.kernel_size}, stride {self.stride}, padding {self.padding} and dilation "
                f"{self.dilation} leave nothing of spatial_shape {shape}"
            )
        return out

    def spatial(self) -> Geometry:
        """The last three axes, or all of them and the filled-up ones."""
        return Geometry(
            _filled(self.kernel_size, 1),
            _filled(self.stride, 1),
            _filled(self.padding, 0),
            _filled(self.dilation, 1),
        )


def _filled(values: Sizes, rest: int) -> Triple:
    x, y, z = (*values[-3:], *(rest,) * (3 - len(values)))
    return x, y, z


class Voxels:
    """Distinct voxels of a bounded grid, with the kernel maps that are kept with them.

    Raises a ValueError that names the row for an index outside of `batch_size` or `spatial_shape`, and, when
    a map is made, for two equal rows.
    """

    def __init__(self, indices: Tensor, spatial_shape: Sizes, batch_size: int):
        axes = len(spatial_shape)
        check_tensor("indices", indices, ("N", 1 + axes), (torch.int32,))
        self.indices, self.spatial_shape, self.batch_size = indices, spatial_shape, batch_size
        self._version = _version(indices)
        empty = indices.new_empty(len(indices), 0, dtype=torch.float32)
        checked = SparseTensor(
            empty, _padded(indices), batch_size=batch_size, shape=_filled(spatial_shape, 1)
        )
        self.sites = checked.sites

    @classmethod
    def _of(cls, sites: Sites, axes: int) -> "Voxels":
        """Voxels of sites that a layer made, whatever stride it gave them: spconv's tensors have none."""
        voxels = cls.__new__(cls)
        voxels.sites = sites.at_stride((1, 1, 1))
        assert sites.shape is not None
        voxels.indices = sites.coordinates[:, : 1 + axes].clone()
        voxels.spatial_shape, voxels.batch_size = sites.shape[:axes], sites.batch_size
        voxels._version = _version(voxels.indices)
        return voxels

    def __len__(self) -> int:
        return self.indices.shape[0]

    def unchanged(self) -> bool:
        """False once the indices were written to in place: what is kept here no longer fits them then."""
        if self._version is None:
            return torch.equal(self.indices, self._kept_indices())
        return self.indices._version == self._version

    def _kept_indices(self) -> Tensor:
        return self.sites.coordinates[:, : self.indices.shape[1]]

    def with_keys(self, keys: Tensor) -> "Voxels":
        """The voxels of these keys (see `sites.keys()`) on the same grid."""
        indices = hashing.unpack(keys)[:, : 1 + len(self.spatial_shape)].contiguous()
        return Voxels(indices, self.spatial_shape, self.batch_size)

    def submanifold(self, kernel_size: Sizes, dilation: Sizes) -> KernelMap:
        """Map of a convolution whose outputs are these voxels."""
        return self.sites.submanifold(_filled(kernel_size, 1), _filled(dilation, 1))

    def strided(self, window: Window) -> "tuple[KernelMap, Voxels]":
        """Map and output voxels of a convolution."""
        window.output_shape(self.spatial_shape)  # the clearer error: it has the caller's axes
        kernel_map, sites = self.sites.strided(window.spatial())
        return kernel_map, self._of(sites, len(self.spatial_shape))

    def transposed(self, window: Window, output_padding: Sizes) -> "tuple[KernelMap, Voxels]":
        """Map and output voxels of a transposed convolution."""
        shape = window.transposed_shape(self.spatial_shape, output_padding)
        geometry = window.spatial()
        kernel_map, sites = self.sites.at_stride(geometry.stride).transposed(geometry, _filled(shape, 1))
        return kernel_map, self._of(sites, len(shape))

    def onto(self, fine: "Voxels", window: Window) -> KernelMap:
        """Map of a transposed convolution from these (coarse) voxels onto given finer ones."""
        geometry = window.spatial()
        return self.sites.at_stride(geometry.stride).onto(fine.sites, geometry)


class Voxels4d(Voxels):
    """Voxels of four axes: a kernel of Kt x K is Kt kernels of K, each from the samples of another time."""

    def __init__(self, indices: Tensor, spatial_shape: Sizes, batch_size: int):
        check_tensor("indices", indices, ("N", 5), (torch.int32,))
        self.indices, self.spatial_shape, self.batch_size = indices, spatial_shape, batch_size
        self._version = _version(indices)
        times = spatial_shape[0]
        if batch_size * times > hashing.BATCH_LIMIT:
            raise ValueError(
                f"batch_size {batch_size} times the first of four axes, {times}, is more than "
                f"{hashing.BATCH_LIMIT}, which is what a voxel key holds; put a shorter axis first or use "
                "smaller batches"
            )
        outside = ((indices[:, :2] < 0) | (indices[:, :2] >= indices.new_tensor([batch_size, times]))).any(1)
        if bool(outside.any()):
            row = int(outside.nonzero()[0])
            raise ValueError(
                f"indices[{row}] = {tuple(indices[row].tolist())} lies outside of batch_size {batch_size} or "
                f"spatial_shape {spatial_shape}"
            )
        folded = _folded(indices, indices[:, 1], times)
        empty = indices.new_empty(len(indices), 0, dtype=torch.float32)
        grid = _filled(spatial_shape, 1)
        self.sites = SparseTensor(empty, folded, batch_size=batch_size * times, shape=grid).sites
        self._in_place: dict[Window, KernelMap] = {}
        self._onwards: dict[object, tuple[KernelMap, Voxels4d]] = {}

    def _kept_indices(self) -> Tensor:
        return _unfolded(self.sites.coordinates, self.spatial_shape[0])

    def with_keys(self, keys: Tensor) -> "Voxels4d":
        indices = _unfolded(hashing.unpack(keys), self.spatial_shape[0])
        return Voxels4d(indices, self.spatial_shape, self.batch_size)

    def submanifold(self, kernel_size: Sizes, dilation: Sizes) -> KernelMap:
        window = Window.submanifold(kernel_size, dilation)
        if window not in self._in_place:
            self._in_place[window] = self._map_to(self.indices, window)
        return self._in_place[window]

    def strided(self, window: Window) -> "tuple[KernelMap, Voxels4d]":
        def make() -> tuple[KernelMap, Voxels4d]:
            shape = window.output_shape(self.spatial_shape)
            s, p, d = window.stride[0], window.padding[0], window.dilation[0]
            found = []
            for tap in range(window.kernel_size[0]):
                above = self.indices[:, 1] + p - d * tap
                time = above.div(s, rounding_mode="floor")
                reached = (above % s == 0) & (time >= 0) & (time < shape[0])
                part = _folded(self.indices, time, shape[0])[reached]
                found.append(ops.strided_sites(part, *window.spatial().lists(), list(shape[1:])))
            out = Voxels4d(_unfolded_union(found, shape[0]), shape, self.batch_size)
            return self._map_to(out.indices, window), out

        return self._kept(("strided", window), make)

    def transposed(self, window: Window, output_padding: Sizes) -> "tuple[KernelMap, Voxels4d]":
        def make() -> tuple[KernelMap, Voxels4d]:
            shape = window.transposed_shape(self.spatial_shape, output_padding)
            s, p, d = window.stride[0], window.padding[0], window.dilation[0]
            self.sites.hash_table()  # raises on duplicates, of which the map would keep one without a word
            found = []
            for tap in range(window.kernel_size[0]):
                time = s * self.indices[:, 1] - p + d * tap
                part = _folded(self.indices, time, shape[0])[(time >= 0) & (time < shape[0])]
                found.append(ops.transposed_sites(part, *window.spatial().lists(), list(shape[1:])))
            out = Voxels4d(_unfolded_union(found, shape[0]), shape, self.batch_size)
            return out._map_to(self.indices, window).transposed(), out

        return self._kept(("transposed", window, output_padding), make)

    def onto(self, fine: "Voxels", window: Window) -> KernelMap:
        assert isinstance(fine, Voxels4d)
        self.sites.hash_table()  # raises on duplicates, as above
        return fine._map_to(self.indices, window).transposed()

    def _kept(
        self, key: object, make: "Callable[[], tuple[KernelMap, Voxels4d]]"
    ) -> "tuple[KernelMap, Voxels4d]":
        if key not in self._onwards:
            self._onwards[key] = make()
        return self._onwards[key]

    def _map_to(self, coarse: Tensor, window: Window) -> KernelMap:
        """Map from these voxels to coarser ones (M, 5), a time tap after the other."""
        times, steps, volume = self.spatial_shape[0], window.kernel_size[0], window.volume
        geometry = window.spatial().lists()
        table = coarse.new_full((len(coarse), steps, volume // steps), -1)
        reverse = coarse.new_full((len(self), steps, volume // steps), -1)
        for tap in range(steps):
            time = window.stride[0] * coarse[:, 1] - window.padding[0] + window.dilation[0] * tap
            rows = ((time >= 0) & (time < times)).nonzero()[:, 0]
            out = _folded(coarse, time, times)[rows]
            part, back = ops.kernel_map(*self.sites.hash_table(), len(self), out, *geometry)
            table[rows, tap] = part
            if len(rows):
                reverse[:, tap] = torch.where(back < 0, back, rows.int()[back.clamp(min=0).long()])
        return KernelMap(table.flatten(1), reverse.flatten(1))


def _version(indices: Tensor) -> int | None:
    """Torch's count of the writes to a tensor; it counts none of tensors that were made in inference mode."""
    return None if indices.is_inference() else indices._version


def _padded(indices: Tensor) -> Tensor:
    """A copy, (N, 4): public networks write to indices in place, and what is kept here must outlive that."""
    missing = 4 - indices.shape[1]
    return torch.nn.functional.pad(indices, (0, missing)) if missing else indices.clone()


def _folded(indices: Tensor, time: Tensor, times: int) -> Tensor:
    """(N, 5) with the given time of each row -> (N, 4)."""
    return torch.cat([(indices[:, 0] * times + time)[:, None].int(), indices[:, 2:]], dim=1)


def _unfolded_union(parts: Sequence[Tensor], times: int) -> Tensor:
    """The distinct rows of folded coordinates, sorted, as (N, 5)."""
    keys, _, _ = hashing.unique(hashing.pack(torch.cat(list(parts))))
    return _unfolded(hashing.unpack(keys), times)


def _unfolded(folded: Tensor, times: int) -> Tensor:
    """(N, 4) -> (N, 5)."""
    sample = folded[:, :1].div(times, rounding_mode="floor")
    return torch.cat([sample, folded[:, :1] - sample * times, folded[:, 1:]], dim=1).int()


def voxels_of(indices: Tensor, spatial_shape: Sequence[int], batch_size: int) -> Voxels:
    """Voxels of one to four axes. Raises a ValueError for any other number."""
    shape = tuple(operator.index(size) for size in spatial_shape)
    if not 1 <= len(shape) <= MOST_AXES:
        raise ValueError(f"spatial_shape is {shape}, expected one to four axes")
    return (Voxels4d if len(shape) == 4 else Voxels)(indices, shape, batch_size)
