"""The voxels of a sparse tensor, and everything that is computed from voxels alone.

`Sites` holds coordinates, stride, batch size and grid. Hash table, kernel maps and the sites of strided
layers are computed once, kept here, and so shared by all tensors on the same sites: the key of the cache is
the identity of the coordinates plus the layer's geometry, never a name that a user gives.
"""

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparse3d_ops import hashing
from sparse3d_ops import kernel_map as ops

Triple = tuple[int, int, int]


def triple(value: int | Sequence[int], name: str = "value") -> Triple:
    """One integer for all axes, or three (x, y, z); two (x, y) get 1 for z."""
    values = (value,) * 3 if isinstance(value, int) else tuple(operator.index(v) for v in value)
    if len(values) == 2:
        values = (*values, 1)
    if len(values) != 3:
        raise ValueError(f"{name} is {value}, expected one integer or one per axis (x, y, z)")
    return values


class KernelMap(NamedTuple):
    """`table` (N_out, V) int32: input row of each output row and tap; `reverse` (N_in, V): the inverse; -1
    for none."""

    table: Tensor
    reverse: Tensor

    def transposed(self) -> "KernelMap":
        """The map of the transposed convolution."""
        return KernelMap(self.reverse, self.table)


@dataclass(frozen=True)
class Geometry:
    """in = stride * out - padding + dilation * tap, per axis; tap = 0 .. kernel_size - 1."""

    kernel_size: Triple
    stride: Triple = (1, 1, 1)
    padding: Triple = (0, 0, 0)
    dilation: Triple = (1, 1, 1)

    def lists(self) -> tuple[list[int], list[int], list[int], list[int]]:
        return list(self.kernel_size), list(self.stride), list(self.padding), list(self.dilation)

    def output_shape(self, shape: Triple) -> Triple:
        """Grid of a convolution, as torch computes it. Raises a ValueError when nothing is left."""
        axes = zip(shape, *self.lists(), strict=True)
        x, y, z = ((n + 2 * p - d * (k - 1) - 1) // s + 1 for n, k, s, p, d in axes)
        out = (x, y, z)
        if min(out) < 1:
            raise ValueError(
                f"a kernel of {self.kernel_size} with padding {self.padding} does not fit the grid {shape}"
            )
        return out

    def transposed_shape(self, shape: Triple, output_padding: Triple) -> Triple:
        """Grid of a transposed convolution, as torch computes it."""
        axes = zip(shape, *self.lists(), output_padding, strict=True)
        x, y, z = ((n - 1) * s - 2 * p + d * (k - 1) + extra + 1 for n, k, s, p, d, extra in axes)
        out = (x, y, z)
        if min(out) < 1:
            raise ValueError(f"padding {self.padding} leaves nothing of the transposed grid of {shape}")
        return out


class Sites:
    """`coordinates` (N, 4) int32 (batch, x, y, z) at `stride`; `shape` (X, Y, Z) bounds the grid, None leaves
    it open. Coordinates are not copied: changed in place, they no longer fit what is kept here.

    `origin`: the finer sites and the geometry that these were made from by a strided layer, for the way back.
    """

    __slots__ = ("coordinates", "stride", "batch_size", "shape", "origin", "_cache")

    def __init__(
        self,
        coordinates: Tensor,
        stride: Triple,
        batch_size: int,
        shape: Triple | None,
        origin: "tuple[Sites, Geometry] | None" = None,
        cache: dict[Any, Any] | None = None,
    ):
        self.coordinates = coordinates
        self.stride = stride
        self.batch_size = batch_size
        self.shape = shape
        self.origin = origin
        # Entries hold tensors and the caches of derived sites, never the sites themselves: no reference
        # cycles.
        self._cache = {} if cache is None else cache

    def __len__(self) -> int:
        return self.coordinates.shape[0]

    def same_as(self, other: "Sites") -> bool:
        """True when both are the same rows of the same grid by construction (no coordinates are compared)."""
        mine, theirs = ((sites.stride, sites.shape, sites.batch_size) for sites in (self, other))
        # `is`, not id(): that would tie a compiled graph to the coordinates of one frame.
        return mine == theirs and self.coordinates is other.coordinates

    def _cached(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._cache:
            self._cache[key] = make()
        return self._cache[key]

    def keys(self) -> Tensor:
        """(N,) int64 exact keys of the coordinates."""
        return self._cached("keys", lambda: hashing.pack(self.coordinates))

    def hash_table(self) -> tuple[Tensor, Tensor]:
        """Table of `hashing.build`. Raises a ValueError when two rows are the same voxel."""
        return self._cached("table", lambda: hashing.build(self.keys()))

    def rows_of(self, keys: Tensor) -> Tensor:
        """(Q,) keys -> (Q,) int32 rows, -1 where there is no such voxel."""
        return hashing.look_up(*self.hash_table(), keys)

    def submanifold(self, kernel_size: Triple, dilation: Triple) -> KernelMap:
        """Map of a convolution whose outputs are these sites."""

        def make() -> KernelMap:
            table = self.hash_table()
            return KernelMap(
                *ops.submanifold_map(*table, self.coordinates, list(kernel_size), list(dilation))
            )

        return self._cached(("submanifold", kernel_size, dilation), make)

    def strided(self, geometry: Geometry) -> "tuple[KernelMap, Sites]":
        """Map and output sites of a convolution."""

        def make():
            shape = None if self.shape is None else geometry.output_shape(self.shape)
            out = ops.strided_sites(self.coordinates, *geometry.lists(), list(shape or ()))
            return self._map_to(out, geometry), out, shape, {}

        kernel_map, out, shape, cache = self._cached(("strided", geometry), make)
        stride = _each(operator.mul, self.stride, geometry.stride)
        return kernel_map, Sites(out, stride, self.batch_size, shape, (self, geometry), cache)

    def transposed(self, geometry: Geometry, shape: Triple | None) -> "tuple[KernelMap, Sites]":
        """Map and output sites of a transposed convolution into a grid of `shape`."""
        stride = self._finer_stride(geometry)

        def make():
            self.hash_table()  # raises on duplicates, of which the map would keep one without a word
            out = ops.transposed_sites(self.coordinates, *geometry.lists(), list(shape or ()))
            fine = Sites(out, stride, self.batch_size, shape)
            return fine._map_to(self.coordinates, geometry).transposed(), out, fine._cache

        kernel_map, out, cache = self._cached(("transposed", geometry, shape), make)
        return kernel_map, Sites(out, stride, self.batch_size, shape, None, cache)

    def onto(self, fine: "Sites", geometry: Geometry) -> KernelMap:
        """Map of a transposed convolution from these (coarse) sites onto given finer ones."""
        if fine.stride != self._finer_stride(geometry):
            raise ValueError(f"target has stride {fine.stride}, expected {self._finer_stride(geometry)}")
        known = fine._cache.get(("strided", geometry))
        if known is not None and known[1] is self.coordinates:
            return known[0].transposed()
        # The target's cache may outlive these sites, so the map is kept here, under the target's coordinates.
        key = ("onto", geometry, fine.coordinates)

        def make() -> KernelMap:
            self.hash_table()  # raises on duplicates, as above
            return fine._map_to(self.coordinates, geometry).transposed()

        return self._cached(key, make)

    def _finer_stride(self, geometry: Geometry) -> Triple:
        if any(mine % theirs for mine, theirs in zip(self.stride, geometry.stride, strict=True)):
            raise ValueError(
                f"a transposed layer of stride {geometry.stride} needs a tensor whose stride it divides, got "
                f"stride {self.stride}; build the coarse tensor with "
                f"SparseTensor(..., stride={geometry.stride})"
            )
        return _each(operator.floordiv, self.stride, geometry.stride)

    def _map_to(self, coarse: Tensor, geometry: Geometry) -> KernelMap:
        rows = self.coordinates.shape[
            0
        ]  # not len(), which would tie a compiled graph to one number of voxels
        return KernelMap(*ops.kernel_map(*self.hash_table(), rows, coarse, *geometry.lists()))

    def at_stride(self, stride: Triple) -> "Sites":
        """The same sites, counted at another stride; what is kept of them is shared, their origin is left
        out."""
        return Sites(self.coordinates, stride, self.batch_size, self.shape, None, self._cache)

    def to(self, device: torch.device | str) -> "Sites":
        """The same sites on another device; caches are rebuilt there."""
        coordinates = self.coordinates.to(device)
        if coordinates is self.coordinates:
            return self
        return Sites(coordinates, self.stride, self.batch_size, self.shape)


def _each(operation: Callable[[int, int], int], left: Triple, right: Triple) -> Triple:
    return operation(left[0], right[0]), operation(left[1], right[1]), operation(left[2], right[2])
