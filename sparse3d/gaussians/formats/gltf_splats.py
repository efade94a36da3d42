"""Gaussians in glTF (.glb): the extension KHR_gaussian_splatting as Khronos ratified it.

Attributes of a primitive of points: POSITION; ROTATION, unit quaternions x y z w; SCALE, standard
deviations as they are, which the draft had as logarithms; OPACITY, 0 to 1; SH_DEGREE_l_COEF_n, n = m + l,
of which degree 0 is always there and a degree is whole or not there, up to 3; all but POSITION under the
extension's name. COLOR_0 is for viewers that draw points: colour in linear light, opacity.

glTF's axes: +y up, +z front, so x points left: LUF.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from sparse3d.errors import DataError
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.formats.opening import check_count, check_memory, write_all
from sparse3d.gaussians.formats.quantizing import colors_of, logits
from sparse3d.gaussians.formats.source import Splats
from sparse3d.gaussians.repair import normalized
from sparse3d.gaussians.transform import transform, with_sh_degree
from sparse3d.io.files import atomic_path
from sparse3d.io.glb import srgb_to_linear
from sparse3d.io.gltf import ARRAY_BUFFER, FLOAT, Gltf, Table, glb_head

GLTF_AXES = "LUF"
GLTF_SH_DEGREE = 3
_NAME = "KHR_gaussian_splatting"
_UNDERSTOOD = {_NAME, "KHR_mesh_quantization", "KHR_materials_unlit", "KHR_texture_transform"}
_POINTS, _SHORT = 0, 5123
_COLORS = "srgb_rec709_display"
_SAME_SCALE = 1e-3  # by how much the axes of a node may differ in length, as a share


def holds_splats(gltf: Gltf) -> bool:
    """Whether there are Gaussians in a file; it may hold triangles too. Raises DataError."""
    with gltf.told():
        return _NAME in gltf.tree.get("extensionsUsed", [])


def open_gltf(path: str | Path) -> Splats:
    """The Gaussians of a .glb, moved to where its nodes put them; meshes in it are left alone. Raises
    DataError."""
    gltf = Gltf(path)
    with gltf.told():
        gltf.check_extensions(_UNDERSTOOD)
        parts = [_part(gltf, *part) for part in gltf.primitives() if _NAME in part[0].get("extensions", {})]
        if not parts:
            raise DataError(path, f"holds nothing of {_NAME}")
        count, degree = sum(part.rows for part in parts), max(part.degree for part in parts)
        check_count(path, count)
        if count > gltf.length:  # a mesh that stands at many nodes: to be asked before memory is taken
            check_memory(path, f"{count} Gaussians", 4 * count * (11 + 3 * (degree + 1) ** 2))

    def blocks(rows: int) -> Iterator[GaussianCloud]:
        for part in parts:
            for begin in range(0, part.rows, rows):
                with gltf.told():
                    cloud = _decoded(gltf, part, slice(begin, begin + rows))
                cloud = with_sh_degree(cloud, degree)
                yield transform(cloud, *part.place) if part.place else cloud

    return Splats(count, degree, False, GLTF_AXES, blocks)


class _Part(NamedTuple):
    """A primitive of Gaussians: its attributes, how many, of which degree, and where its nodes put it."""

    attributes: Any
    rows: int
    degree: int
    place: tuple[np.ndarray, float] | None


def _part(gltf: Gltf, primitive: Any, matrix: np.ndarray) -> _Part:
    _check(primitive, gltf.path)
    attributes, degree = primitive["attributes"], _degree(primitive)
    names = ["POSITION", *(name for name in _columns(degree, {}) if name.startswith(_NAME))]
    counts = set()
    for name in names:
        if name not in attributes:
            raise DataError(gltf.path, f"its Gaussians have no attribute {name!r}")
        gltf.accessor(attributes[name], None, slice(0))  # that it is there
        counts.add(int(gltf.tree["accessors"][attributes[name]]["count"]))
    if len(counts) != 1:
        raise DataError(gltf.path, f"attributes of one primitive have {sorted(counts)} rows")
    return _Part(attributes, counts.pop(), degree, _rigid(matrix, gltf.path))


def _check(primitive: Any, path: str | Path) -> None:
    """DataError for what this does not read."""
    said = primitive["extensions"][_NAME]
    if primitive.get("mode") != _POINTS:
        raise DataError(path, f"Gaussians of mode {primitive.get('mode')}, expected 0, points")
    if said.get("extensions"):
        raise DataError(path, f"its Gaussians are changed by {', '.join(said['extensions'])}: not supported")
    if said.get("kernel") != "ellipse":
        raise DataError(path, f"Gaussians of kernel {said.get('kernel')!r}, expected 'ellipse'")
    if said.get("colorSpace") != _COLORS:
        raise DataError(path, f"colours in {said.get('colorSpace')!r}: not supported; there is {_COLORS!r}")


def _degree(primitive: Any) -> int:
    """The highest degree of which a coefficient is there; that all are is seen when they are read."""
    return max(
        d
        for d in range(GLTF_SH_DEGREE + 1)
        if not d or _of(f"SH_DEGREE_{d}_COEF_0") in primitive["attributes"]
    )


def _of(name: str) -> str:
    return f"{_NAME}:{name}"


def _decoded(gltf: Gltf, part: _Part, rows: slice) -> GaussianCloud:
    def values(name: str, columns: int) -> np.ndarray:
        return gltf.accessor(part.attributes[name], columns, rows).astype(np.float32)

    means, scales, opacity = values("POSITION", 3), values(_of("SCALE"), 3), values(_of("OPACITY"), 1)[:, 0]
    if (scales < 0).any():
        least = scales[scales < 0].min()
        raise DataError(
            gltf.path,
            f"a scale is {least:g}: a logarithm, as in the extension's draft? It must not be below 0",
        )
    coefficients = [
        values(_of(f"SH_DEGREE_{degree}_COEF_{n}"), 3)
        for degree in range(part.degree + 1)
        for n in range(2 * degree + 1)
    ]
    quats = values(_of("ROTATION"), 4)[:, [3, 0, 1, 2]]
    with np.errstate(divide="ignore", invalid="ignore"):
        sizes = np.log(scales)
    return GaussianCloud(
        means=torch.from_numpy(means),
        scales=torch.from_numpy(sizes),
        quats=torch.from_numpy(np.ascontiguousarray(quats)),
        opacities=torch.from_numpy(logits(opacity)),
        sh0=torch.from_numpy(coefficients[0][:, None]),
        shN=torch.from_numpy(np.stack(coefficients, 1)[:, 1:]),
    )


def _rigid(matrix: np.ndarray, path: str | Path) -> tuple[np.ndarray, float] | None:
    """(4, 4) rotation and translation, and a scale; None where nothing moves. DataError for nodes that bend
    or mirror: ellipsoids would have to be taken apart anew, and colours cannot follow."""
    if np.array_equal(matrix, np.eye(4)):
        return None
    if not np.isfinite(matrix).all():
        raise DataError(path, "a node's matrix is not finite")
    left, sizes, right = np.linalg.svd(matrix[:3, :3])
    if sizes[2] <= 0 or sizes[0] > sizes[2] * (1 + _SAME_SCALE) or np.linalg.det(left @ right) < 0:
        raise DataError(
            path, "a node scales its axes differently, or mirrors them: not supported for Gaussians"
        )
    rigid = np.eye(4)
    rigid[:3, :3], rigid[:3, 3] = left @ right, matrix[:3, 3]
    return rigid, float(sizes.mean())


def write_gltf(path: str | Path, splats: Splats) -> None:
    """Write a .glb atomically, block by block. ValueError for more than 4 GB."""
    low, high = np.full(3, np.inf), np.full(3, -np.inf)
    for block in splats.blocks():
        means = block.means.numpy()
        low, high = np.minimum(low, means.min(0)), np.maximum(high, means.max(0))
    columns = _columns(splats.sh_degree, {"min": low.tolist(), "max": high.tolist()})
    primitive = {
        "attributes": {name: number for number, name in enumerate(columns)},
        "mode": _POINTS,
        "extensions": {_NAME: {"kernel": "ellipse", "colorSpace": _COLORS}},
    }
    tree = {
        "asset": {"version": "2.0", "generator": "sparse3d"},
        "extensionsUsed": [_NAME],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
    }
    tables = [Table(splats.count, width, keys, ARRAY_BUFFER) for width, keys in columns.values()]
    head, begins = glb_head(tree, tables)
    with atomic_path(path) as temporary, open(temporary, "wb", buffering=0) as file:
        file.write(head)
        done = 0
        for block in splats.blocks():
            for values, begin, table in zip(_encoded(block), begins, tables, strict=True):
                file.seek(begin + done * table.width)
                write_all(file, values)
            done += len(block)
        assert done == splats.count, "the blocks are not what they were said to be"


def _columns(degree: int, bounds: dict[str, Any]) -> dict[str, tuple[int, dict[str, Any]]]:
    """Of each attribute the bytes of a row, and the accessor's keys."""
    scalar, vector, four = ({"componentType": FLOAT, "type": kind} for kind in ("SCALAR", "VEC3", "VEC4"))
    columns: dict[str, tuple[int, dict[str, Any]]] = {
        "POSITION": (12, {**vector, **bounds}),
        "COLOR_0": (8, {"componentType": _SHORT, "type": "VEC4", "normalized": True}),
        _of("ROTATION"): (16, four),
        _of("SCALE"): (12, vector),
        _of("OPACITY"): (4, scalar),
    }
    for d in range(degree + 1):
        columns |= {_of(f"SH_DEGREE_{d}_COEF_{n}"): (12, vector) for n in range(2 * d + 1)}
    return columns


def _encoded(block: GaussianCloud) -> list[np.ndarray]:
    """The rows of the attributes, in the order of `_columns`."""
    opacity = block.opacities.sigmoid().numpy()
    linear = np.clip(srgb_to_linear(np.clip(colors_of(block.sh0), 0, 1)), 0, 1)
    shown = np.rint(65535 * np.concatenate([linear, opacity[:, None]], 1))
    floats = [normalized(block.quats)[0].numpy()[:, [1, 2, 3, 0]], block.scales.exp().numpy(), opacity]
    harmonics = torch.cat([block.sh0, block.shN], 1).transpose(0, 1).numpy()
    return [
        block.means.numpy().astype("<f4", copy=False),
        shown.astype("<u2"),
        *(values.astype("<f4", copy=False) for values in (*floats, *harmonics)),
    ]
