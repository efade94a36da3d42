"""Weights of networks written for other sparse engines, in the layout that our layers load.

Each tensor becomes an `Entry`, which says what was done with it. What cannot be told apart (a sparse or a
dense weight? which kernel size?) or does not fit is a DataError that names the hint to give, not a guess.
Whole detectors of OpenPCDet: `convert_openpcdet`; reading and writing: `weight_files`.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from rich.table import Table
from torch import Tensor

from sparse3d.errors import DataError
from sparse3d.io.weight_layouts import (
    Engine,
    cube_of,
    kernel_axes,
    looks_like_kernel,
    reverse_axes,
    to_ours,
)

BOOKKEEPING = "max_num_voxels_during_training"  # spconv counts voxels in a buffer; it is no weight
NORM_TENSORS = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}


@dataclass(frozen=True)
class Entry:
    """What became of one tensor of the source; `name` and `tensor` are None where it was left out."""

    source: str
    source_shape: tuple[int, ...]
    what: str
    name: str | None = None
    tensor: Tensor | None = None


@dataclass(frozen=True)
class Hints:
    """What the caller knows and the shapes do not tell."""

    kernels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)  # name prefix -> size, sparse layers
    dense: Sequence[str] = ()  # prefixes of names whose weights belong to torch's own layers
    axes: Literal["xyz", "zyx"] = "xyz"  # order of the coordinate columns that the network was trained with
    dims: Literal[2, 3] = 3  # of flat kernels without a size in `kernels`

    def kernel(self, name: str) -> tuple[int, ...] | None:
        return next((size for start, size in self.kernels.items() if name.startswith(start)), None)

    def is_dense(self, name: str) -> bool:
        return any(name.startswith(start) for start in self.dense)


# ---- one engine's layers -----------------------------------------------------------------------------------


def convert(tensors: Mapping[str, Tensor], engine: Engine, hints: Hints, source: str | Path) -> list[Entry]:
    """Every tensor with its weight in our layout. Names stay, but for `kernel` (ours is `weight`) and the
    wrapped modules of MinkowskiEngine (`norm.bn.weight` is our `norm.weight`)."""
    names = Names(tensors)
    return [_entry(name, tensor, names, engine, hints, source) for name, tensor in tensors.items()]


class Names:
    """The tensors of a file, with the questions that a converter has about neighbours of a tensor."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        self.tensors = tensors
        self.children: dict[str, set[str]] = {}
        for name in tensors:
            parts = name.split(".")
            for k in range(len(parts)):
                self.children.setdefault(".".join(parts[:k]), set()).add(parts[k])

    def is_wrapper(self, module: str, inner: str) -> bool:
        """Whether `module` holds nothing but `inner`, as MinkowskiEngine's norms and linear maps do."""
        return bool(module) and self.children[module] == {inner}

    def output_channels(self, layer: str) -> int | None:
        """What a layer's bias, or else the norm right behind it, says about its number of outputs."""
        if f"{layer}.bias" in self.tensors:
            return self.tensors[f"{layer}.bias"].numel()
        head, _, last = layer.rpartition(".")
        if last.isdigit():
            last = str(int(last) + 1)
        elif re.fullmatch(r"conv\d*", last):
            last = last.replace("conv", "bn")
        else:
            return None
        mean = self.tensors.get(f"{head}.{last}.running_mean" if head else f"{last}.running_mean")
        return None if mean is None else mean.numel()


def _entry(name: str, tensor: Tensor, names: Names, engine: Engine, hints: Hints, source) -> Entry:
    shape = tuple(tensor.shape)
    layer, _, leaf = name.rpartition(".")
    if leaf == BOOKKEEPING:
        return Entry(name, shape, "skipped: a counter of spconv")
    flat = engine in ("minkowski", "torchsparse")
    size = (_flat_size if flat else _grid_size)(name, leaf, shape, engine, hints, source)
    if size is not None:
        weight = to_ours(tensor, engine, size)
        _check_outputs(name, weight, names.output_channels(layer), source)
        what = "converted" + _even_note(engine, size)
        if hints.axes == "zyx":
            weight, what = reverse_axes(weight), what + ", axes reversed"
        return Entry(name, shape, what, f"{layer}.weight" if layer else "weight", weight)
    if engine == "minkowski":
        return _minkowski_other(name, tensor, names)
    return Entry(name, shape, "kept", name, tensor)


def _grid_size(name: str, leaf: str, shape, engine: Engine, hints: Hints, source) -> tuple[int, ...] | None:
    """Kernel size of an spconv weight, None for any other tensor."""
    if leaf != "weight" or len(shape) < 4 or hints.is_dense(name):
        return None
    given, found = hints.kernel(name), kernel_axes(shape, engine)
    if given is not None:
        if given != found:
            raise DataError(source, f"{name} is {shape}; as {engine} its kernel is {found}, not {given}")
        return found
    if len(shape) > 5:
        raise DataError(
            source, f"{name} is {shape}: convolutions in {len(shape) - 2} dimensions have no twin"
        )
    sparse, dense = looks_like_kernel(found), looks_like_kernel(kernel_axes(shape, "dense"))
    if sparse and dense:
        raise DataError(
            source,
            f"{name} is {shape}, which can be a sparse weight of {engine} or a dense one of torch's; say "
            f"--kernel {name}={_by_x(found)} or --dense {name}",
        )
    if sparse:
        return found
    if dense:
        return None
    other: Engine = "spconv1" if engine == "spconv2" else "spconv2"
    fits = looks_like_kernel(kernel_axes(shape, other))
    way_out = (
        f"it fits --from {other}" if fits else f"say --kernel {name}={_by_x(found)} if that is its kernel"
    )
    raise DataError(source, f"{name} is {shape}, a kernel of {_by_x(found)} as {engine}; {way_out}")


def _flat_size(name: str, leaf: str, shape, engine: Engine, hints: Hints, source) -> tuple[int, ...] | None:
    """Kernel size of a flat kernel (V, Cin, Cout) or (Cin, Cout), None for any other tensor."""
    if leaf != "kernel" or hints.is_dense(name):
        return None
    if len(shape) not in (2, 3):
        raise DataError(source, f"{name} is {shape}; a kernel of {engine} is (taps, in, out) or (in, out)")
    taps = shape[0] if len(shape) == 3 else 1
    size = hints.kernel(name) or cube_of(taps, hints.dims)
    if size is None:
        raise DataError(
            source,
            f"{name} is {shape}: {taps} taps are no {hints.dims}-D kernel with equal axes; say "
            f"--kernel {name}=AxBxC (its size along each axis)" + (" or --dims 2" if hints.dims == 3 else ""),
        )
    if math.prod(size) != taps:
        raise DataError(
            source, f"{name} is {shape}, {taps} taps; a kernel of {_by_x(size)} has {math.prod(size)}"
        )
    return size


def _check_outputs(name: str, weight: Tensor, outputs: int | None, source) -> None:
    cin, cout = weight.shape[-2:]
    if outputs is not None and outputs != cout:
        swapped = "; input and output channels seem to be exchanged" if outputs == cin else ""
        older = (
            " (the native layout of spconv 2.0 and 2.1: load and save it with a newer spconv)"
            if swapped
            else ""
        )
        raise DataError(
            source,
            f"{name} has {cout} outputs, its bias or norm has {outputs}{swapped}{older}; is --from right?",
        )


def _even_note(engine: Engine, size: Sequence[int]) -> str:
    # torchsparse centres even kernels of 4 and more: taps -1 .. 2. Ours begin at 0 and have padding for that.
    if engine == "torchsparse" and any(k % 2 == 0 and k > 2 for k in size):
        return f", give the layer padding {max(size) // 2 - 1}"
    return ""


def _minkowski_other(name: str, tensor: Tensor, names: Names) -> Entry:
    """Biases and norms of MinkowskiEngine: (1, C) becomes (C,), and wrapped modules lose their wrapper."""
    shape = tuple(tensor.shape)
    layer, _, leaf = name.rpartition(".")
    what, new = "kept", name
    twins = [names.tensors.get(f"{layer}.{kind}") for kind in ("weight", "bias")]
    is_norm = all(twin is not None and twin.dim() == 2 and twin.shape[0] == 1 for twin in twins)
    if leaf in ("weight", "bias") and is_norm or leaf == "bias" and f"{layer}.kernel" in names.tensors:
        tensor, what = tensor.reshape(-1), "kept, flat"
    outer, _, inner = layer.rpartition(".")
    if inner == "bn" and leaf in NORM_TENSORS and names.is_wrapper(outer, "bn"):
        new, what = f"{outer}.{leaf}", "renamed: our norm is not wrapped"
    elif inner == "linear" and leaf in ("weight", "bias") and names.is_wrapper(outer, "linear"):
        new, what = f"{outer}.function.{leaf}", "renamed: as our Linear calls it"
    return Entry(name, shape, what, new, tensor)


# ---- names and words ---------------------------------------------------------------------------------------


def rename(entries: Iterable[Entry], prefixes: Mapping[str, str], source: str | Path) -> list[Entry]:
    """Exchange the beginning of names, the first prefix that fits. Raises ValueError for a prefix that fits
    none, DataError when two tensors end up with one name."""
    unused, result, taken = dict(prefixes), [], {}
    for entry in entries:
        name = entry.name
        old = None if name is None else next((old for old in prefixes if name.startswith(old)), None)
        if name is not None and old is not None:
            unused.pop(old, None)
            name = prefixes[old] + name.removeprefix(old)
            entry = replace(entry, name=name)
        if name is not None:
            if name in taken:
                raise DataError(source, f"{entry.source} and {taken[name]} would both be named {name}")
            taken[name] = entry.source
        result.append(entry)
    if unused:
        raise ValueError(f"no name begins with {', '.join(map(repr, unused))}; see the table for the names")
    return result


def _by_x(size: Sequence[int]) -> str:
    return "x".join(map(str, size))


def table(entries: Iterable[Entry]) -> Table:
    """What became of each tensor, with shapes."""
    table = Table(title="weights")
    for column in ("tensor", "shape", "here", "shape", "what"):
        table.add_column(column, overflow="fold")
    for entry in entries:
        shape = "" if entry.tensor is None else _sizes(entry.tensor.shape)
        table.add_row(entry.source, _sizes(entry.source_shape), entry.name or "-", shape, entry.what)
    return table


def _sizes(shape: Sequence[int]) -> str:
    return " ".join(map(str, shape)) or "scalar"
