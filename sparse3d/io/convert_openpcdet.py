"""OpenPCDet's detectors under our names: the backbones of all that share ours (CenterPoint, ...), all of
SECOND and Voxel R-CNN; DSVT."""

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

# AnchorHeadSingle, whose anchors are counted as ours are: by class, then by rotation.
_PCDET_ANCHOR_HEAD = {"conv_cls": "scores", "conv_box": "codes", "conv_dir_cls": "directions"}

# VoxelRCNNHead: its 1x1 convolutions over lists of points and pairs are linear maps here.
_PCDET_ROI_HEAD = (
    (r"roi_grid_pool_layers\.(\d+)\.mlps_in\.0\.([01])\.(\w+)", "pool.levels.{0}.feature.{1}.{2}"),
    (r"roi_grid_pool_layers\.(\d+)\.mlps_pos\.0\.([01])\.(\w+)", "pool.levels.{0}.way.{1}.{2}"),
    (r"roi_grid_pool_layers\.(\d+)\.mlps_out\.0\.([01])\.(\w+)", "pool.levels.{0}.out.{1}.{2}"),
    (r"shared_fc_layer\.(\d+)\.(\w+)", "roi_head.shared.{0}.{1}"),
    (r"cls_fc_layers\.(\d+)\.(\w+)", "roi_head.score.{0}.{1}"),
    (r"cls_pred_layer\.(\w+)", "roi_head.score_out.{0}"),
    (r"reg_fc_layers\.(\d+)\.(\w+)", "roi_head.box.{0}.{1}"),
    (r"reg_pred_layer\.(\w+)", "roi_head.box_out.{0}"),
)


def convert_openpcdet(tensors: Mapping[str, Tensor], hints: Hints, source: str | Path) -> list[Entry]:
    """An OpenPCDet detector under our names: backbones, the anchor head and the RoI head of Voxel R-CNN.

    Its data are (z, y, x) and its maps (C, y, x): kernels get their axes reversed, 2-D ones transposed.
    Biases in front of a norm, which our blocks do not have, go into the norm's running mean. Other heads and
    the rest have no twin here and are skipped. The anchors of its heads stand at `head.places: corners`. A
    checkpoint of DSVT gets the names of our DSVT, head included.
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
            entries[name] = _pcdet_2d(name, tensor)
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


def _pcdet_2d(name: str, tensor: Tensor) -> Entry:
    shape = tuple(tensor.shape)
    new = None
    if name.startswith("roi_head."):
        return _pcdet_roi_head(name, tensor)
    if match := re.fullmatch(r"backbone_2d\.blocks\.(\d+)\.(\d+)\.(\w+)", name):
        level, layer, leaf = match.groups()
        new = f"bev.levels.{level}.{int(layer) - 1}.{leaf}"
    elif match := re.fullmatch(r"backbone_2d\.deblocks\.(\d+\.\d+\.\w+)", name):
        new = f"bev.resamplers.{match.group(1)}"
    elif match := re.fullmatch(r"dense_head\.(conv_(?:cls|box|dir_cls))\.(\w+)", name):
        new = f"head.{_PCDET_ANCHOR_HEAD[match.group(1)]}.{match.group(2)}"
    if new is None:
        return Entry(name, shape, "skipped: no twin")
    if tensor.dim() == 4:
        return Entry(name, shape, "converted, axes reversed", new, tensor.transpose(2, 3))
    return Entry(name, shape, "kept", new, tensor)


def _pcdet_roi_head(name: str, tensor: Tensor) -> Entry:
    rest, shape = name.removeprefix("roi_head."), tuple(tensor.shape)
    for pattern, form in _PCDET_ROI_HEAD:
        if match := re.fullmatch(pattern, rest):
            new = form.format(*match.groups())
            if tensor.dim() > 2:
                return Entry(name, shape, "converted to a linear map", new, tensor.flatten(1))
            return Entry(name, shape, "kept", new, tensor)
    return Entry(name, shape, "skipped: no twin")
