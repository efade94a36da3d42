"""Checkpoints of DSVT as its authors release them, under the names of our DSVT.

Their state is OpenPCDet's: `vfe`, `backbone_3d` (with its position embeddings in `input_layer`),
`backbone_2d` and `dense_head`. Their maps are (C, y, x) and ours (C, x, y), so that 2-D kernels are
transposed. In a TransFusion head 1x1 convolutions over lists of queries are linear maps here, and its heading
(sin, cos) is our (cos, sin). The weights were trained with the positions of
`model.backbone.legacy_pos_embed=true`.
"""

import re
from collections.abc import Mapping

from torch import Tensor

from sparse3d.io.convert_weights import Entry

_EMBEDDING = {"0": "enter", "1": "norm", "3": "leave"}
_BRANCHES = {
    "center": "center",
    "center_z": "z",
    "dim": "dim",
    "rot": "rot",
    "vel": "velocity",
    "iou": "iou",
    "hm": "heatmap",
}
_QUERY_BRANCHES = {
    "center": "center",
    "height": "z",
    "dim": "dim",
    "rot": "rot",
    "vel": "velocity",
    "iou": "iou",
    "heatmap": "scores",
}
_QUERY_LAYERS = {
    "self_attn": "self_attention",
    "multihead_attn": "cross_attention",
    "linear1": "widen",
    "linear2": "narrow",
    "norm1": "self_norm",
    "norm2": "cross_norm",
    "norm3": "norm",
}
_LAYER = {
    "linear1": "widen",
    "linear2": "narrow",
    "norm1": "attention_norm",
    "norm2": "feedforward_norm",
}
_RESIDUAL = {
    "conv1": "conv1",
    "bn1": "norm1",
    "conv2": "conv2",
    "bn2": "norm2",
    "downsample_layer.0": "shortcut.0",
    "downsample_layer.1": "shortcut.1",
}


def _choices(names: Mapping[str, str]) -> str:
    return "|".join(re.escape(name) for name in names)


# Each pattern with the form of our name, to which the pattern's groups go, looked up in a table where it has
# one for their place.
_NAMES: tuple[tuple[str, str, dict[int, Mapping[str, str]]], ...] = (
    (r"vfe\.pfn_layers\.(\d+)\.(.+)", "voxel_features.layers.{0}.{1}", {}),
    (
        r"backbone_3d\.input_layer\.posembed_layers\.(\d+)\.(\d+)\.(\d+)\.position_embedding_head\.([013])\.(\w+)",
        "backbone.stages.{0}.{1}.positions.{2}.{3}.{4}",
        {3: _EMBEDDING},
    ),
    (
        r"backbone_3d\.stage_(\d+)\.(\d+)\.encoder_list\.(\d+)\.win_attn\.self_attn\.(.+)",
        "backbone.stages.{0}.{1}.layers.{2}.attention.{3}",
        {},
    ),
    (
        rf"backbone_3d\.stage_(\d+)\.(\d+)\.encoder_list\.(\d+)\.win_attn\.({_choices(_LAYER)})\.(\w+)",
        "backbone.stages.{0}.{1}.layers.{2}.{3}.{4}",
        {3: _LAYER},
    ),
    (
        r"backbone_3d\.stage_(\d+)\.(\d+)\.encoder_list\.(\d+)\.norm\.(\w+)",
        "backbone.stages.{0}.{1}.layers.{2}.norm.{3}",
        {},
    ),
    (r"backbone_3d\.residual_norm_stage_(\d+)\.(\d+)\.(\w+)", "backbone.stages.{0}.{1}.norm.{2}", {}),
    (r"backbone_3d\.stage_(\d+)_reduction\.pos_embedding", "backbone.pools.{0}.position", {}),
    (r"backbone_3d\.stage_(\d+)_reduction\.self_attn\.(.+)", "backbone.pools.{0}.{1}", {}),
    (r"backbone_3d\.stage_(\d+)_reduction\.linear1\.(\w+)", "backbone.pools.{0}.linear.{1}", {}),
    (r"backbone_3d\.stage_(\d+)_reduction\.norm\.(\w+)", "backbone.pools.{0}.norm.{1}", {}),
    (
        rf"backbone_2d\.blocks\.(\d+)\.(\d+)\.({_choices(_RESIDUAL)})\.(\w+)",
        "bev.levels.{0}.{1}.{2}.{3}",
        {2: _RESIDUAL},
    ),
    (r"backbone_2d\.deblocks\.(\d+)\.([01])\.(\w+)", "bev.resamplers.{0}.{1}.{2}", {}),
    (r"dense_head\.shared_conv\.([01])\.(\w+)", "head.shared.{0}.{1}", {}),
    (
        rf"dense_head\.heads_list\.(\d+)\.({_choices(_BRANCHES)})\.0\.([01])\.(\w+)",
        "head.groups.{0}.{1}.{2}.{3}",
        {1: _BRANCHES},
    ),
    (
        rf"dense_head\.heads_list\.(\d+)\.({_choices(_BRANCHES)})\.1\.(\w+)",
        "head.groups.{0}.{1}.3.{2}",
        {1: _BRANCHES},
    ),
    (r"dense_head\.shared_conv\.(weight|bias)", "head.shared.{0}", {}),
    (r"dense_head\.heatmap_head\.0\.conv\.(\w+)", "head.heatmap.0.{0}", {}),
    (r"dense_head\.heatmap_head\.0\.bn\.(\w+)", "head.heatmap.1.{0}", {}),
    (r"dense_head\.heatmap_head\.1\.(\w+)", "head.heatmap.3.{0}", {}),
    (r"dense_head\.class_encoding\.(\w+)", "head.embedding.{0}", {}),
    (
        r"dense_head\.decoder\.self_posembed\.position_embedding_head\.([013])\.(\w+)",
        "head.decoder.query_places.{0}.{1}",
        {},
    ),
    (
        r"dense_head\.decoder\.cross_posembed\.position_embedding_head\.([013])\.(\w+)",
        "head.decoder.key_places.{0}.{1}",
        {},
    ),
    (
        rf"dense_head\.decoder\.({_choices(_QUERY_LAYERS)})\.(.+)",
        "head.decoder.{0}.{1}",
        {0: _QUERY_LAYERS},
    ),
    (
        rf"dense_head\.prediction_head\.({_choices(_QUERY_BRANCHES)})\.0\.([01])\.(\w+)",
        "head.{0}.{1}.{2}",
        {0: _QUERY_BRANCHES},
    ),
    (
        rf"dense_head\.prediction_head\.({_choices(_QUERY_BRANCHES)})\.1\.(\w+)",
        "head.{0}.3.{1}",
        {0: _QUERY_BRANCHES},
    ),
)


def is_dsvt(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a state of OpenPCDet's names has DSVT's backbone."""
    return any(re.match(r"backbone_3d\.stage_\d+\.\d+\.encoder_list\.", name) for name in tensors)


def convert_dsvt(tensors: Mapping[str, Tensor]) -> list[Entry]:
    """Every tensor under our name; one without a twin is skipped."""
    return [_entry(name, tensor) for name, tensor in tensors.items()]


def _entry(name: str, tensor: Tensor) -> Entry:
    shape, new = tuple(tensor.shape), our_name(name)
    if new is None:
        return Entry(name, shape, "skipped: no twin")
    if tensor.dim() == 4:
        return Entry(name, shape, "converted, axes reversed", new, tensor.transpose(2, 3))
    if new.startswith("head.rot.3."):
        tensor = tensor.flip(0)
        return Entry(
            name,
            shape,
            "converted, sin and cos exchanged",
            new,
            tensor.flatten(1) if tensor.dim() > 2 else tensor,
        )
    if tensor.dim() == 3 and name.startswith("dense_head."):
        return Entry(name, shape, "converted to a linear map", new, tensor.flatten(1))
    return Entry(name, shape, "kept", new, tensor)


def our_name(name: str) -> str | None:
    """What our DSVT calls a tensor of theirs."""
    for pattern, form, tables in _NAMES:
        if match := re.fullmatch(pattern, name):
            groups = [tables.get(i, {}).get(group, group) for i, group in enumerate(match.groups())]
            return form.format(*groups)
    return None
