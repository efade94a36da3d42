"""glTF 2.0 in one binary file (.glb) as meshes: positions, normals, triangles, and what they are painted
with: colours of vertices, or a texture with its material.

Colours of vertices and factors are linear light in glTF; those of photos are sRGB, so they are converted, in
16 bits, which gives each of the 256 values back. Textures are sRGB in both. What is written is unlit
(KHR_materials_unlit) unless the mesh's material says otherwise: photos hold the light already.
"""

import logging
import math
from pathlib import Path
from typing import Any

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.material import Material, linear_to_srgb, srgb_to_linear
from sparse3d.geometry.mesh import Mesh, joined
from sparse3d.io.gltf import ARRAY_BUFFER, ELEMENT_BUFFER, FLOAT, Gltf, write_glb_tables
from sparse3d.io.polygons import checked_mesh
from sparse3d.io.textures import png_of, texture_within

_log = logging.getLogger(__name__)

_TRIANGLES = 4
_UNDERSTOOD = {"KHR_materials_unlit", "KHR_mesh_quantization", "KHR_texture_transform"}
_LINEAR, _LINEAR_MIPMAPS = 9729, 9987


def write_glb(path: str | Path, mesh: Mesh) -> None:
    """Write vertices, normals, paint and faces; atomically. A texture takes the place of the vertices'
    colours, which viewers would multiply it with; vertices on its seams stand there once for each side."""
    normals, material, files = mesh.vertex_normals, mesh.material or Material(), []
    rows, faces, uv = np.arange(len(mesh.vertices)), mesh.faces, None
    if mesh.has_texture:
        rows, faces, uv = mesh.split_at_seams()
    vertices = mesh.vertices[rows]
    box = {"min": vertices.min(0).tolist(), "max": vertices.max(0).tolist()}
    columns = {
        "POSITION": (vertices.astype("<f4"), {"componentType": FLOAT, "type": "VEC3", **box}),
        "NORMAL": (normals[rows].astype("<f4"), {"componentType": FLOAT, "type": "VEC3"}),
    }
    if uv is not None:
        columns["TEXCOORD_0"] = (uv.astype("<f4"), {"componentType": FLOAT, "type": "VEC2"})
    elif mesh.colors is not None:
        opaque = np.full((len(mesh.colors), 1), 65535)
        linear = np.concatenate([np.rint(srgb_to_linear(mesh.colors / 255) * 65535), opaque], 1)
        kind = {"componentType": 5123, "type": "VEC4", "normalized": True}
        columns["COLOR_0"] = (linear.astype("<u2"), kind)
    tables = [(table, accessor, ARRAY_BUFFER) for table, accessor in columns.values()]
    indices = {"componentType": 5125, "type": "SCALAR"}
    tables.append((faces.astype("<u4").ravel(), indices, ELEMENT_BUFFER))
    primitive = {
        "attributes": {name: number for number, name in enumerate(columns)},
        "indices": len(columns),
        "material": 0,
        "mode": _TRIANGLES,
    }
    pbr: dict[str, Any] = {"metallicFactor": material.metallic, "roughnessFactor": material.roughness}
    tree: dict[str, Any] = {
        "asset": {"version": "2.0", "generator": "sparse3d"},
        "scene": 0,
        "scenes": [{"nodes": [0]}],
        "nodes": [{"mesh": 0}],
        "meshes": [{"primitives": [primitive]}],
        "materials": [{"pbrMetallicRoughness": pbr}],
    }
    if mesh.has_texture:
        assert material.texture is not None
        files = [png_of(material.texture)]
        pbr["baseColorTexture"] = {"index": 0}
        tree["textures"] = [{"source": 0, "sampler": 0}]
        tree["samplers"] = [{"magFilter": _LINEAR, "minFilter": _LINEAR_MIPMAPS}]
        tree["images"] = [{"bufferView": len(tables), "mimeType": "image/png"}]
    elif mesh.colors is None and material.color != (1.0, 1.0, 1.0):
        pbr["baseColorFactor"] = [*srgb_to_linear(np.array(material.color)).tolist(), 1.0]
    if material.unlit:
        tree["extensionsUsed"] = ["KHR_materials_unlit"]
        tree["materials"][0]["extensions"] = {"KHR_materials_unlit": {}}
    write_glb_tables(path, tree, tables, files)


def read_glb(path: str | Path) -> Mesh:
    """All triangles of the scene, moved to where its nodes put them, as one mesh; with colours where each
    part has them. A texture stays one where all parts have the same material; where they have several, they
    become colours of vertices. Raises DataError."""
    gltf = Gltf(path)
    with gltf.told():
        gltf.check_extensions(_UNDERSTOOD)
        materials: dict[int | None, Material | None] = {None: None}
        parts = []
        for primitive, matrix in gltf.primitives():
            if primitive.get("mode", _TRIANGLES) == _TRIANGLES:
                number = primitive.get("material")
                if number not in materials:
                    materials[number] = _material(gltf, gltf.tree["materials"][number])
                parts.append(_part(gltf, primitive, matrix, materials[number]))
        if not parts:
            raise DataError(path, "holds no triangles")
        return joined(parts)


def _part(gltf: Gltf, primitive: Any, matrix: np.ndarray, material: Material | None) -> Mesh:
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
    colors, uv = None, None
    if "COLOR_0" in attributes:
        linear = gltf.accessor(attributes["COLOR_0"], None)[:, :3]
        colors = np.rint(linear_to_srgb(np.clip(linear, 0, 1)) * 255).astype(np.uint8)
    if material is not None and material.texture is not None:
        uv = _texture_coordinates(gltf, primitive, len(vertices))
        uv = None if uv is None else uv[faces]
    with np.errstate(over="ignore"):
        mesh = checked_mesh(gltf.path, vertices.astype(np.float32), faces, colors, uv, material)
    return mesh if uv is None else mesh.welded_at_seams()


def _texture_coordinates(gltf: Gltf, primitive: Any, count: int) -> np.ndarray | None:
    """(count, 2) where the material's texture lies on the vertices; None where it has no coordinates."""
    info = gltf.tree["materials"][primitive["material"]]["pbrMetallicRoughness"]["baseColorTexture"]
    change = info.get("extensions", {}).get("KHR_texture_transform", {})
    name = f"TEXCOORD_{change.get('texCoord', info.get('texCoord', 0))}"
    if name not in primitive["attributes"]:
        return None
    uv = gltf.accessor(primitive["attributes"][name], 2).astype(np.float64)
    if len(uv) != count:
        raise DataError(gltf.path, f"{len(uv)} texture coordinates for {count} vertices")
    angle = float(change.get("rotation", 0.0))
    turn = np.array([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])
    return (uv * change.get("scale", (1, 1))) @ turn.T + change.get("offset", (0, 0))


def _material(gltf: Gltf, tree: Any) -> Material:
    pbr = tree.get("pbrMetallicRoughness", {})
    linear = np.clip(np.array(pbr.get("baseColorFactor", (1, 1, 1, 1)), dtype=np.float64)[:3], 0, 1)
    red, green, blue = linear_to_srgb(linear).clip(0, 1).tolist()
    texture = None
    if "baseColorTexture" in pbr:
        number = gltf.tree["textures"][pbr["baseColorTexture"]["index"]].get("source")
        image = {} if number is None else gltf.tree["images"][number]
        if "bufferView" in image:
            texture = texture_within(gltf.path, gltf.view(image["bufferView"]))
        else:
            _log.warning("%s: a texture is not within the file, or of another kind; read without", gltf.path)
    return Material(
        (red, green, blue),
        texture,
        float(pbr.get("metallicFactor", 1.0)),
        float(pbr.get("roughnessFactor", 1.0)),
        "KHR_materials_unlit" in tree.get("extensions", {}),
    )
