"""Gaussians in glTF (.glb): the extension KHR_gaussian_splatting as Khronos ratified it.

Attributes of a primitive of points: POSITION; ROTATION, unit quaternions x y z w; SCALE, standard
deviations as they are, which the draft had as logarithms; OPACITY, 0 to 1; SH_DEGREE_l_COEF_n, n = m + l,
of which degree 0 is always there and a degree is whole or not there, up to 3; all but POSITION under the
extension's name. COLOR_0 is for viewers that draw points: colour in linear light, opacity.

glTF's axes: +y up, +z front, so x points left: LUF.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from sparse3d.errors import DataError
from sparse3d.gaussians.cloud import GaussianCloud
from sparse3d.gaussians.formats.opening import check_plausible
from sparse3d.gaussians.formats.quantizing import colors_of, logits
from sparse3d.gaussians.formats.source import Splats, joined
from sparse3d.gaussians.repair import normalized
from sparse3d.gaussians.transform import transform, with_sh_degree
from sparse3d.io.glb import srgb_to_linear
from sparse3d.io.gltf import ARRAY_BUFFER, FLOAT, Gltf, write_glb_tables

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
    """The Gaussians of a .glb, moved to where its nodes put them; meshes in it are left alone. The file is
    read into memory. Raises DataError."""
    gltf = Gltf(path)
    with gltf.told():
        gltf.check_extensions(_UNDERSTOOD)
        parts = [part for part in gltf.primitives() if _NAME in part[0].get("extensions", {})]
        if not parts:
            raise DataError(path, f"holds nothing of {_NAME}")
        placed = []
        for primitive, matrix in parts:
            _check(primitive, path)
            placed.append((primitive, _rigid(matrix, path)))
        accessors = [gltf.tree["accessors"][primitive["attributes"]["POSITION"]] for primitive, _ in parts]
        # A mesh may stand at many nodes: no more in all than a packed file of that size could hold.
        check_plausible(path, int(sum(accessor["count"] for accessor in accessors)), len(gltf.binary))
        degree = max(_degree(primitive) for primitive, _ in parts)
        clouds = [with_sh_degree(_decoded(gltf, primitive), degree) for primitive, _ in parts]
        moved = [
            transform(cloud, *place) if place else cloud
            for cloud, (_, place) in zip(clouds, placed, strict=True)
        ]
    return Splats.of(joined(moved), GLTF_AXES)


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


def _decoded(gltf: Gltf, primitive: Any) -> GaussianCloud:
    attributes = primitive["attributes"]

    def rows(name: str, columns: int) -> np.ndarray:
        if name not in attributes:
            raise DataError(gltf.path, f"its Gaussians have no attribute {name!r}")
        return gltf.accessor(attributes[name], columns).astype(np.float32)

    means, scales, opacity = rows("POSITION", 3), rows(_of("SCALE"), 3), rows(_of("OPACITY"), 1)[:, 0]
    if (scales < 0).any():
        least = scales[scales < 0].min()
        raise DataError(
            gltf.path,
            f"a scale is {least:g}: a logarithm, as in the extension's draft? It must not be below 0",
        )
    coefficients = [
        rows(_of(f"SH_DEGREE_{degree}_COEF_{n}"), 3)
        for degree in range(_degree(primitive) + 1)
        for n in range(2 * degree + 1)
    ]
    quats = rows(_of("ROTATION"), 4)[:, [3, 0, 1, 2]]
    lengths = {len(values) for values in (means, scales, opacity, quats, *coefficients)}
    if len(lengths) != 1:
        raise DataError(gltf.path, f"attributes of one primitive have {sorted(lengths)} rows")
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
    """Write a .glb atomically; all is in memory. ValueError for more than 4 GB."""
    cloud = splats.cloud()
    means = cloud.means.numpy()
    opacity = cloud.opacities.sigmoid().numpy()
    quats = normalized(cloud.quats)[0].numpy()[:, [1, 2, 3, 0]]
    linear = np.clip(srgb_to_linear(np.clip(colors_of(cloud.sh0), 0, 1)), 0, 1)
    shown = np.rint(65535 * np.concatenate([linear, opacity[:, None]], 1))
    vector = {"componentType": FLOAT, "type": "VEC3"}
    columns = {
        "POSITION": (means, {**vector, "min": means.min(0).tolist(), "max": means.max(0).tolist()}),
        "COLOR_0": (shown.astype("<u2"), {"componentType": _SHORT, "type": "VEC4", "normalized": True}),
        _of("ROTATION"): (quats, {"componentType": FLOAT, "type": "VEC4"}),
        _of("SCALE"): (cloud.scales.exp().numpy(), vector),
        _of("OPACITY"): (opacity, {"componentType": FLOAT, "type": "SCALAR"}),
        _of("SH_DEGREE_0_COEF_0"): (cloud.sh0[:, 0].numpy(), vector),
    }
    for degree in range(1, splats.sh_degree + 1):
        for n in range(2 * degree + 1):
            columns[_of(f"SH_DEGREE_{degree}_COEF_{n}")] = (cloud.shN[:, degree**2 - 1 + n].numpy(), vector)
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
    tables = [
        (table.astype("<f4", copy=False) if table.dtype.kind == "f" else table, keys, ARRAY_BUFFER)
        for table, keys in columns.values()
    ]
    write_glb_tables(path, tree, tables)
