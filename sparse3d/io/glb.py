"""glTF 2.0 in one binary file (.glb) as meshes: positions, normals, colours of vertices and triangles.

Colours in glTF are linear light; those of photos are sRGB, so they are converted, in 16 bits, which gives
each of the 256 values back. What is written is unlit (KHR_materials_unlit): photos hold the light already.
"""

from pathlib import Path
from typing import Any

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.gltf import ARRAY_BUFFER, ELEMENT_BUFFER, Gltf, write_glb_tables
from sparse3d.io.polygons import checked_mesh

_TRIANGLES = 4
_UNDERSTOOD = {"KHR_materials_unlit", "KHR_mesh_quantization", "KHR_texture_transform"}


def write_glb(path: str | Path, mesh: Mesh) -> None:
    """Write vertices, normals, colours where there are, and faces; atomically."""
    box = {"min": mesh.vertices.min(0).tolist(), "max": mesh.vertices.max(0).tolist()}
    columns = {
        "POSITION": (mesh.vertices.astype("<f4"), {"componentType": 5126, "type": "VEC3", **box}),
        "NORMAL": (mesh.vertex_normals.astype("<f4"), {"componentType": 5126, "type": "VEC3"}),
    }
    if mesh.colors is not None:
        opaque = np.full((len(mesh.colors), 1), 65535)
        linear = np.concatenate([np.rint(srgb_to_linear(mesh.colors / 255) * 65535), opaque], 1)
        kind = {"componentType": 5123, "type": "VEC4", "normalized": True}
        columns["COLOR_0"] = (linear.astype("<u2"), kind)
    tables = [(table, accessor, ARRAY_BUFFER) for table, accessor in columns.values()]
    rows = {"componentType": 5125, "type": "SCALAR"}
    tables.append((mesh.faces.astype("<u4").ravel(), rows, ELEMENT_BUFFER))
    primitive = {
        "attributes": {name: number for number, name in enumerate(columns)},
        "indices": len(columns),
        "material": 0,
        "mode": _TRIANGLES,
    }
    material = {
        "pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 1.0},
        "extensions": {"KHR_materials_unlit": {}},
    }
    tree = {
        "asset": {"version": "2.0", "generator": "sparse3d"},
        "extensionsUsed": ["KHR_materials_unlit"],
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [material],
    }
    write_glb_tables(path, tree, tables)


def read_glb(path: str | Path) -> Mesh:
    """All triangles of the scene, moved to where its nodes put them, as one mesh; with colours where each
    part has them. Raises DataError."""
    gltf = Gltf(path)
    with gltf.told():
        gltf.check_extensions(_UNDERSTOOD)
        parts = [part for primitive, matrix in gltf.primitives() if (part := _part(gltf, primitive, matrix))]
        if not parts:
            raise DataError(path, "holds no triangles")
        begins = np.cumsum([0, *(len(part[0]) for part in parts)])
        vertices = np.concatenate([part[0] for part in parts])
        faces = np.concatenate([part[1] + begin for part, begin in zip(parts, begins, strict=False)])
        colors = [part[2] for part in parts if part[2] is not None]
        joined = np.concatenate(colors) if len(colors) == len(parts) else None
        return checked_mesh(path, vertices, faces, joined)


def _part(
    gltf: Gltf, primitive: Any, matrix: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None] | None:
    """Vertices, faces and colours; None for points and lines."""
    if primitive.get("mode", _TRIANGLES) != _TRIANGLES:
        return None
    attributes = primitive["attributes"]
    local = gltf.accessor(attributes["POSITION"], 3).astype(np.float64)
    vertices = local @ matrix[:3, :3].T + matrix[:3, 3]
    if "indices" in primitive:
        rows = gltf.accessor(primitive["indices"], 1)[:, 0].astype(np.int64)
    else:
        rows = np.arange(len(vertices))
    if len(rows) % 3:
        raise DataError(gltf.path, f"triangles of {len(rows)} corners")
    faces = rows.reshape(-1, 3)
    if np.linalg.det(matrix[:3, :3]) < 0:  # a mirror turns the inside out
        faces = faces[:, ::-1]
    colors = None
    if "COLOR_0" in attributes:
        linear = gltf.accessor(attributes["COLOR_0"], None)[:, :3]
        colors = np.rint(linear_to_srgb(np.clip(linear, 0, 1)) * 255).astype(np.uint8)
    return vertices.astype(np.float32), faces, colors


def srgb_to_linear(value: np.ndarray) -> np.ndarray:
    """Fractions as photos hold them -> fractions of light (IEC 61966-2-1)."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(value: np.ndarray) -> np.ndarray:
    """The inverse of `srgb_to_linear`."""
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * np.maximum(value, 1e-9) ** (1 / 2.4) - 0.055)
