"""Backbones of OpenPCDet's detectors (SECOND, CenterPoint, ...) under the names of our CenterPoint; DSVT."""

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from sparse3d.errors import DataError
from sparse3d.io.convert_dsvt import convert_dsvt, is_dsvt
from sparse3d.io.convert_weights import Entry, Hints, Names, convert
from sparse3d.io.weight_layouts import Engine, channels, kernel_axes, looks_like_kernel

# The backbones VoxelBackBone8x and VoxelResBackBone8x, and BaseBEVBackbone, whose layers are numbered one
# higher than ours: each level begins with a padding layer, which ours has inside of its convolution.
_PCDET_3D = (
    (r"conv_input\.(\d+)\.(\w+)", "backbone.stem.{0}.{1}"),
    (r"conv([1-4])\.(\d+)\.(\d+)\.(\w+)", "backbone.stages.{stage}.{1}.{2}.{3}"),
    (r"conv([1-4])\.(\d+)\.conv1\.(\w+)", "backbone.stages.{stage}.{1}.first.0.{2}"),
    (r"conv([1-4])\.(\d+)\.bn1\.(\w+)", "backbone.stages.{stage}.{1}.first.1.{2}"),
    (r"conv([1-4])\.(\d+)\.conv2\.(\w+)", "backbone.stages.{stage}.{1}.second.0.{2}"),
    (r"conv([1-4])\.(\d+)\.bn2\.(\w+)", "backbone.stages.{stage}.{1}.second.1.{2}"),
    (r"conv_out\.(\d+)\.(\w+)", "backbone.squeeze_z.{0}.{1}"),
)


def convert_openpcdet(tensors: Mapping[str, Tensor], hints: Hints, source: str | Path) -> list[Entry]:
    """The sparse and the bird's-eye backbone of an OpenPCDet detector under our CenterPoint's names.

    Its data are (z, y, x) and its maps (C, y, x): kernels get their axes reversed, 2-D ones transposed.
    Biases in front of a norm, which our blocks do not have, go into the norm's running mean. Heads and the
    rest have no twin here and are skipped. A checkpoint of DSVT gets the names of our DSVT, head included.
    """
    sparse = {name: t for name, t in tensors.items() if name.startswith("backbone_3d.")}
    if not sparse:
        raise DataError(source, "no tensor is named backbone_3d.*; is this a checkpoint of OpenPCDet?")
    if is_dsvt(sparse):
        return convert_dsvt(tensors)
    engine = _spconv_of(sparse, source)
    hints = replace(hints, axes="zyx")
    entries = {entry.source: entry for entry in convert(sparse, engine, hints, source)}
    entries = {name: _pcdet_name(entry, source) for name, entry in entries.items()}
    _fold_biases(entries, source)
    for name, tensor in tensors.items():
        if name not in entries:
            entries[name] = _pcdet_2d(name, tensor, source)
    return [entries[name] for name in tensors]


def _spconv_of(tensors: Mapping[str, Tensor], source) -> Engine:
    """Which spconv wrote the 5-D weights: the one in whose layout every kernel and every norm fits."""
    names = Names(tensors)
    weights = {name: t.shape for name, t in tensors.items() if t.dim() == 5}
    fitting: list[Engine] = []
    engines: tuple[Engine, ...] = ("spconv1", "spconv2")
    for engine in engines:
        fits = [looks_like_kernel(kernel_axes(shape, engine)) for shape in weights.values()]
        wanted = [names.output_channels(name.rpartition(".")[0]) for name in weights]
        outs = [channels(shape, engine)[1] for shape in weights.values()]
        if all(fits) and all(want in (None, out) for want, out in zip(wanted, outs, strict=True)):
            fitting.append(engine)
    if not weights or len(fitting) != 1:
        found = "both spconv 1 and spconv 2" if fitting else "neither spconv 1 nor spconv 2"
        raise DataError(source, f"the {len(weights)} sparse weights of backbone_3d fit {found}")
    return fitting[0]


def _pcdet_name(entry: Entry, source) -> Entry:
    if entry.name is None:
        return entry
    rest = entry.source.removeprefix("backbone_3d.")
    for pattern, form in _PCDET_3D:
        if match := re.fullmatch(pattern, rest):
            first = match.group(1)
            return replace(entry, name=form.format(*match.groups(), stage=int(first) - 1))
    raise DataError(
        source,
        f"{entry.source} belongs to no layer of VoxelBackBone8x or VoxelResBackBone8x, which have a twin",
    )


def _fold_biases(entries: dict[str, Entry], source) -> None:
    """norm(x + b) with running mean m is norm(x) with m - b; in training b cancels either way."""
    for name, entry in list(entries.items()):
        layer, _, leaf = name.rpartition(".")
        head, _, last = layer.rpartition(".")
        if leaf != "bias" or f"{layer}.weight" not in entries or last not in ("conv1", "conv2"):
            continue
        mean_name = f"{head}.{last.replace('conv', 'bn')}.running_mean"
        mean = entries.get(mean_name)
        if mean is None or mean.tensor is None or entry.tensor is None:
            raise DataError(source, f"{name} has no {mean_name} to go into")
        folded = mean.tensor - entry.tensor.to(mean.tensor.dtype)
        entries[mean_name] = replace(mean, tensor=folded, what="kept, less the bias of its convolution")
        entries[name] = Entry(name, entry.source_shape, f"folded into {mean_name}")


def _pcdet_2d(name: str, tensor: Tensor, source) -> Entry:
    shape = tuple(tensor.shape)
    new = None
    if match := re.fullmatch(r"backbone_2d\.blocks\.(\d+)\.(\d+)\.(\w+)", name):
        level, layer, leaf = match.groups()
        new = f"bev.levels.{level}.{int(layer) - 1}.{leaf}"
    elif match := re.fullmatch(r"backbone_2d\.deblocks\.(\d+\.\d+\.\w+)", name):
        new = f"bev.resamplers.{match.group(1)}"
    if new is None:
        return Entry(name, shape, "skipped: no twin")
    if tensor.dim() == 4:
        return Entry(name, shape, "converted, axes reversed", new, tensor.transpose(2, 3))
    return Entry(name, shape, "kept", new, tensor)
