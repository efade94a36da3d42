"""SparseTensor: features on voxels. One type for convolutions, attention, radiance fields and renderers."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from sparse3d.sites import Sites, Triple, triple
from sparse3d_ops import hashing
from sparse3d_ops.checks import check_same_device, check_tensor
from sparse3d_ops.segment import segment_max, segment_mean, segment_sum

Reduce = Literal["mean", "sum", "max"]


class SparseTensor:
    """Features (N, C) on voxels (N, 4) int32 (batch, x, y, z), voxel indices at this tensor's stride.

    With `shape` (X, Y, Z) the grid is bounded, coordinates lie in [0, shape), and strided layers give torch's
    output sites and size; without it the grid is unbounded and indices may be negative. `stride` counts
    voxels of the finest grid per axis. `batch_size` defaults to the highest batch index plus one; give it
    when trailing samples may be empty. Voxels must be distinct: the first layer that needs them looks, and
    names the rows; see `merge_duplicates`.

    Raises ValueError on wrong shapes, types or devices, and on coordinates outside of the grid, batch or
    64-bit key.
    """

    __slots__ = ("features", "sites")
    features: Float[Tensor, "N C"]
    sites: Sites

    def __init__(
        self,
        features: Float[Tensor, "N C"],
        coordinates: Int[Tensor, "N 4"],
        *,
        stride: int | Sequence[int] = 1,
        batch_size: int | None = None,
        shape: Sequence[int] | None = None,
    ):
        check_tensor("coordinates", coordinates, ("N", 4), (torch.int32,))
        check_tensor("features", features, (coordinates.shape[0], "C"))
        check_same_device(("features", features), ("coordinates", coordinates))
        grid, steps = None if shape is None else triple(shape, "shape"), triple(stride, "stride")
        if min(steps) < 1 or grid is not None and min(grid) < 1:
            raise ValueError(f"stride is {stride} and shape {shape}, expected integers >= 1")
        if batch_size is None:
            batch_size = int(coordinates[:, 0].max()) + 1 if len(coordinates) else 0
        elif batch_size < 0:
            raise ValueError(f"batch_size is {batch_size}, expected 0 or more")
        self.features = features
        self.sites = Sites(coordinates, steps, batch_size, grid)
        if not torch.compiler.is_compiling():  # a check that reads data would break the graph
            _check_inside(coordinates, batch_size, grid)
            self.sites.keys()

    @classmethod
    def on(cls, features: Float[Tensor, "N C"], sites: Sites) -> "SparseTensor":
        """A tensor on existing sites: it shares their kernel maps. For layers; nothing is checked but the
        length."""
        # Not len(), which would tie a compiled graph to one number of voxels.
        rows, voxels = features.shape[0], sites.coordinates.shape[0]
        if rows != voxels:
            raise ValueError(f"{rows} rows of features for {voxels} voxels")
        tensor = cls.__new__(cls)
        tensor.features = features
        tensor.sites = sites
        return tensor

    @classmethod
    def from_dense(cls, x: Float[Tensor, "B C X Y Z"]) -> "SparseTensor":
        """The voxels of a dense volume with any channel other than zero, in (batch, x, y, z) order."""
        if x.dim() != 5:
            raise ValueError(f"a dense volume has shape (B, C, X, Y, Z), got {tuple(x.shape)}")
        where = (x != 0).any(dim=1).nonzero()
        features = x[where[:, 0], :, where[:, 1], where[:, 2], where[:, 3]]
        return cls(features, where.int(), batch_size=x.shape[0], shape=x.shape[2:])

    @classmethod
    def merge_duplicates(
        cls,
        features: Float[Tensor, "N C"],
        coordinates: Int[Tensor, "N 4"],
        *,
        reduce: Reduce = "mean",
        **arguments: Any,
    ) -> "SparseTensor":
        """A tensor of the distinct voxels, sorted, with the features of equal rows reduced. Arguments as
        the class."""
        reductions = {"mean": segment_mean, "sum": segment_sum, "max": lambda *a: segment_max(*a)[0]}
        if reduce not in reductions:
            raise ValueError(f"reduce is {reduce!r}, expected one of {', '.join(reductions)}")
        keys, inverse, _ = hashing.unique(hashing.pack(coordinates))
        check_tensor("features", features, (coordinates.shape[0], "C"))
        merged = reductions[reduce](features, inverse, len(keys))
        return cls(merged, hashing.unpack(keys), **arguments)

    @staticmethod
    def duplicate_rows(coordinates: Int[Tensor, "N 4"]) -> Int[Tensor, "D"]:
        """Rows that repeat an earlier row's voxel, ascending."""
        _, inverse, counts = hashing.unique(hashing.pack(coordinates))
        rows = torch.arange(len(inverse), device=inverse.device)
        first = torch.full_like(counts, len(inverse)).scatter_reduce(0, inverse, rows, "amin")
        return (first[inverse] != rows).nonzero()[:, 0]

    @property
    def coordinates(self) -> Int[Tensor, "N 4"]:
        return self.sites.coordinates

    @property
    def stride(self) -> Triple:
        return self.sites.stride

    @property
    def batch_size(self) -> int:
        return self.sites.batch_size

    @property
    def shape(self) -> Triple | None:
        """Size (X, Y, Z) of the bounded grid, None when it is unbounded."""
        return self.sites.shape

    @property
    def device(self) -> torch.device:
        return self.features.device

    @property
    def dtype(self) -> torch.dtype:
        return self.features.dtype

    @property
    def channels(self) -> int:
        return self.features.shape[1]

    @property
    def batch_index(self) -> Int[Tensor, "N"]:
        """Sample of each voxel, int64."""
        return self.coordinates[:, 0].long()

    def __len__(self) -> int:
        return self.features.shape[0]

    def __repr__(self) -> str:
        grid = "unbounded" if self.shape is None else f"shape={self.shape}"
        return (
            f"SparseTensor({len(self)} voxels, {self.channels} channels, batch_size={self.batch_size}, "
            f"stride={self.stride}, {grid}, {self.dtype}, {self.device})"
        )

    def replace(self, features: Float[Tensor, "N D"]) -> "SparseTensor":
        """Other features on the same voxels; kernel maps stay shared."""
        return SparseTensor.on(features, self.sites)

    def dense(self, shape: Sequence[int] | None = None) -> Float[Tensor, "B C X Y Z"]:
        """The volume with zeros where there is no voxel.

        `shape` defaults to the grid's, or without one to the smallest that holds all voxels. Raises
        ValueError when a voxel lies outside of it or stands twice.
        """
        size = self.shape if shape is None else triple(shape, "shape")
        if size is None:
            highest = self.coordinates[:, 1:].amax(0).tolist() if len(self) else (0, 0, 0)
            size = triple([n + 1 for n in highest], "shape")
        if not torch.compiler.is_compiling() and size != self.shape:
            _check_inside(self.coordinates, self.batch_size, size)
        self.sites.hash_table()  # raises on duplicates, of which a volume would keep one without a word
        b, x, y, z = self.coordinates.long().unbind(1)
        cell = ((b * size[0] + x) * size[1] + y) * size[2] + z
        cells = self.batch_size * size[0] * size[1] * size[2]
        flat = self.features.new_zeros(cells, self.channels).index_copy(0, cell, self.features)
        volume = flat.reshape(self.batch_size, *size, self.channels)
        return volume.permute(0, 4, 1, 2, 3).contiguous()

    def __add__(self, other: "SparseTensor") -> "SparseTensor":
        """Sum on the union of the voxels; a voxel that one side lacks counts as zero there."""
        if not isinstance(other, SparseTensor):
            return NotImplemented
        if self.channels != other.channels:
            raise ValueError(f"cannot add {self.channels} and {other.channels} channels")
        if self.sites.same_as(other.sites):
            return self.replace(self.features + other.features)
        _check_compatible(self, other)
        keys, inverse, _ = hashing.unique(torch.cat([self.sites.keys(), other.sites.keys()]))
        features = torch.promote_types(self.dtype, other.dtype)
        total = torch.zeros(keys.shape[0], self.channels, dtype=features, device=self.device)
        total = total.index_add(0, inverse[: len(self)], self.features.to(features))
        total = total.index_add(0, inverse[len(self) :], other.features.to(features))
        return SparseTensor.on(total, self._sites_like(hashing.unpack(keys), other.batch_size))

    def __getitem__(self, rows: Bool[Tensor, "N"] | Int[Tensor, "M"] | slice) -> "SparseTensor":
        """The chosen voxels (mask, row numbers or slice), in the order given."""
        coordinates = self.coordinates[rows]
        if coordinates.dim() != 2 or coordinates.shape[1] != 4:
            raise ValueError(f"voxels are chosen by a mask, row numbers or a slice of rows, got {rows!r}")
        return SparseTensor.on(self.features[rows], self._sites_like(coordinates))

    def sample(self, index: int) -> "SparseTensor":
        """The voxels of one sample, with batch size 1."""
        if not 0 <= index < self.batch_size:
            raise ValueError(f"sample {index} of a batch of {self.batch_size}")
        rows = self.coordinates[:, 0] == index
        coordinates = self.coordinates[rows].clone()
        coordinates[:, 0] = 0
        return SparseTensor.on(self.features[rows], Sites(coordinates, self.stride, 1, self.shape))

    def samples(self) -> list["SparseTensor"]:
        """Every sample of the batch, empty ones included."""
        return [self.sample(index) for index in range(self.batch_size)]

    def _sites_like(self, coordinates: Tensor, batch_size: int = 0) -> Sites:
        return Sites(coordinates, self.stride, max(self.batch_size, batch_size), self.shape)

    def to(self, *arguments: Any, **named: Any) -> "SparseTensor":
        """As `torch.Tensor.to`: a dtype changes the features, a device moves features and coordinates."""
        features = self.features.to(*arguments, **named)
        return SparseTensor.on(features, self.sites.to(features.device))

    def cpu(self) -> "SparseTensor":
        return self.to("cpu")

    def cuda(self) -> "SparseTensor":
        return self.to("cuda")

    def half(self) -> "SparseTensor":
        return self.to(torch.float16)

    def bfloat16(self) -> "SparseTensor":
        return self.to(torch.bfloat16)

    def float(self) -> "SparseTensor":
        return self.to(torch.float32)

    def double(self) -> "SparseTensor":
        return self.to(torch.float64)

    def detach(self) -> "SparseTensor":
        return self.replace(self.features.detach())


def cat(tensors: Sequence[SparseTensor]) -> SparseTensor:
    """Concatenate channels of tensors on equal voxels; rows follow the first tensor.

    Raises ValueError when the sets of voxels differ (add them with `+`, or pad one first).
    """
    if not tensors:
        raise ValueError("cat needs at least one tensor")
    first, *rest = tensors
    columns = [first.features]
    for other in rest:
        if first.sites.same_as(other.sites):
            columns.append(other.features)
            continue
        _check_compatible(first, other)
        rows = other.sites.rows_of(first.sites.keys())
        if len(first) != len(other) or bool((rows < 0).any()):
            raise ValueError(
                f"cat needs equal voxels, got {len(first)} and {len(other)} that differ; use + for a union"
            )
        columns.append(other.features[rows.long()])
    return first.replace(torch.cat(columns, dim=1))


def _check_compatible(a: SparseTensor, b: SparseTensor) -> None:
    for name in ("stride", "shape", "device"):
        mine, theirs = getattr(a, name), getattr(b, name)
        if mine != theirs:
            raise ValueError(f"tensors differ in {name}: {mine} and {theirs}")


def _check_inside(coordinates: Tensor, batch_size: int, shape: Triple | None) -> None:
    """Raise a ValueError naming the first row outside of the batch or of the bounded grid."""
    if len(coordinates) == 0:
        return
    low = coordinates.amin(0).tolist()
    high = coordinates.amax(0).tolist()
    sizes = (batch_size, *(shape or ()))
    if all(a >= 0 and b < n for a, b, n in zip(low, high, sizes, strict=False)):
        return
    limits = torch.tensor(sizes, device=coordinates.device)
    part = coordinates[:, : len(sizes)]
    row = int(((part < 0) | (part >= limits)).any(1).nonzero()[0])
    raise ValueError(
        f"coordinates[{row}] = {tuple(coordinates[row].tolist())} (batch, x, y, z) lies outside of "
        f"batch_size {batch_size}" + (f" or shape {shape}" if shape else "")
    )
