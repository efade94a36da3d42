"""glTF 2.0 in one binary file (.glb) as meshes: positions, normals, colours of vertices and triangles.

Layout (Khronos glTF 2.0, section 4): a header of 12 bytes, magic, version, length; then chunks, each its
length, its kind and its bytes: JSON first, then the binary buffer that its accessors point into. Colours in
glTF are linear light; those of photos are sRGB, so they are converted, in 16 bits, which gives each of the
256 values back. What is written is unlit (KHR_materials_unlit): photos hold the light already.
"""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.files import write_bytes
from sparse3d.io.polygons import checked_mesh
from sparse3d.io.reading import read_bytes

_MAGIC, _JSON, _BINARY = 0x46546C67, 0x4E4F534A, 0x004E4942
_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_COLUMNS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}
_ARRAY_BUFFER, _ELEMENT_BUFFER = 34962, 34963
_TRIANGLES = 4
_UNDERSTOOD = {"KHR_materials_unlit", "KHR_mesh_quantization", "KHR_texture_transform"}
_MOST_NODES = 100_000


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
    rows = {"componentType": 5125, "type": "SCALAR"}
    tables = [*columns.values(), (mesh.faces.astype("<u4").ravel(), rows)]
    binary, views, accessors = b"", [], []
    parts, length = [], 0
    for number, (table, accessor) in enumerate(tables):
        data = table.tobytes()  # a multiple of four bytes each
        target = _ELEMENT_BUFFER if number == len(tables) - 1 else _ARRAY_BUFFER
        views.append({"buffer": 0, "byteOffset": length, "byteLength": len(data), "target": target})
        accessors.append({"bufferView": number, "count": len(table), **accessor})
        parts.append(data)
        length += len(data)
    binary = b"".join(parts)
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
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": length}],
    }
    text = json.dumps(tree, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + len(binary)
    if total >= 1 << 32:
        raise ValueError(f"{total} bytes; a .glb holds less than 2^32: write a .ply, or take fewer faces")
    head = struct.pack("<III", _MAGIC, 2, total)
    chunks = [struct.pack("<II", len(text), _JSON), text, struct.pack("<II", len(binary), _BINARY), binary]
    write_bytes(path, b"".join([head, *chunks]))


def read_glb(path: str | Path) -> Mesh:
    """All triangles of the scene, moved to where its nodes put them, as one mesh; with colours where each
    part has them. Raises DataError."""
    tree, binary = _chunks(read_bytes(path), path)
    try:
        return _Reader(tree, binary, path).mesh()
    except DataError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(path, f"its JSON is no glTF 2.0: {type(error).__name__} {error}") from error


def _chunks(data: bytes, path: str | Path) -> tuple[Any, bytes]:
    if len(data) < 20:
        raise DataError(path, f"{len(data)} bytes, a .glb has at least 20")
    magic, version, length = struct.unpack_from("<III", data)
    if magic != _MAGIC:
        raise DataError(path, "does not begin with 'glTF'")
    if version != 2:
        raise DataError(path, f"glTF version {version}, expected 2")
    if length > len(data):
        raise DataError(path, f"is cut off: its header says {length} bytes, there are {len(data)}")
    found: dict[int, bytes] = {}
    offset = 12
    while offset + 8 <= length:
        size, kind = struct.unpack_from("<II", data, offset)
        if offset + 8 + size > length:
            raise DataError(path, f"the chunk at offset {offset} has {size} bytes, beyond the end {length}")
        found.setdefault(kind, data[offset + 8 : offset + 8 + size])
        offset += 8 + size
    if _JSON not in found:
        raise DataError(path, "has no JSON chunk")
    try:
        return json.loads(found[_JSON].decode("utf-8")), found.get(_BINARY, b"")
    except (ValueError, RecursionError) as error:
        raise DataError(path, f"its JSON chunk is damaged: {error}") from error


class _Reader:
    """The triangles that a scene holds, part by part."""

    def __init__(self, tree: Any, binary: bytes, path: str | Path):
        self.tree, self.binary, self.path = tree, binary, path
        unknown = set(tree.get("extensionsRequired", [])) - _UNDERSTOOD
        if unknown:
            raise DataError(path, f"needs extensions that are not supported: {', '.join(sorted(unknown))}")
        self.parts: list[tuple[np.ndarray, np.ndarray, np.ndarray | None]] = []

    def mesh(self) -> Mesh:
        nodes = self.tree.get("nodes", [])
        scenes = self.tree.get("scenes", [])
        roots = scenes[self.tree.get("scene", 0)].get("nodes", []) if scenes else range(len(nodes))
        waiting = [(root, np.eye(4)) for root in roots]
        for _ in range(_MOST_NODES):
            if not waiting:
                break
            number, above = waiting.pop()
            node = nodes[number]
            matrix = above @ _matrix(node)
            waiting += [(child, matrix) for child in node.get("children", [])]
            if "mesh" in node:
                for primitive in self.tree["meshes"][node["mesh"]]["primitives"]:
                    self._take(primitive, matrix)
        else:
            raise DataError(self.path, f"more than {_MOST_NODES} nodes, or nodes that hold themselves")
        if not self.parts:
            raise DataError(self.path, "holds no triangles")
        begins = np.cumsum([0, *(len(part[0]) for part in self.parts)])
        vertices = np.concatenate([part[0] for part in self.parts])
        faces = np.concatenate([part[1] + begin for part, begin in zip(self.parts, begins, strict=False)])
        colors = [part[2] for part in self.parts if part[2] is not None]
        joined = np.concatenate(colors) if len(colors) == len(self.parts) else None
        return checked_mesh(self.path, vertices, faces, joined)

    def _take(self, primitive: Any, matrix: np.ndarray) -> None:
        if primitive.get("mode", _TRIANGLES) != _TRIANGLES:
            return  # points and lines
        attributes = primitive["attributes"]
        local = self._accessor(attributes["POSITION"], 3).astype(np.float64)
        vertices = local @ matrix[:3, :3].T + matrix[:3, 3]
        if "indices" in primitive:
            rows = self._accessor(primitive["indices"], 1)[:, 0].astype(np.int64)
        else:
            rows = np.arange(len(vertices))
        if len(rows) % 3:
            raise DataError(self.path, f"triangles of {len(rows)} corners")
        faces = rows.reshape(-1, 3)
        if np.linalg.det(matrix[:3, :3]) < 0:  # a mirror turns the inside out
            faces = faces[:, ::-1]
        colors = None
        if "COLOR_0" in attributes:
            linear = self._accessor(attributes["COLOR_0"], None)[:, :3]
            colors = np.rint(linear_to_srgb(np.clip(linear, 0, 1)) * 255).astype(np.uint8)
        self.parts.append((vertices.astype(np.float32), faces, colors))

    def _accessor(self, number: int, columns: int | None) -> np.ndarray:
        """(count, columns); integers that are normalized as fractions."""
        accessor = self.tree["accessors"][number]
        if "sparse" in accessor or "bufferView" not in accessor:
            raise DataError(self.path, f"accessor {number} is sparse or without a buffer: not supported")
        kind, width = np.dtype(_TYPES[accessor["componentType"]]), _COLUMNS[accessor["type"]]
        if columns is not None and width != columns:
            raise DataError(self.path, f"accessor {number} is {accessor['type']}, not of {columns} columns")
        view = self.tree["bufferViews"][accessor["bufferView"]]
        if view.get("buffer", 0) != 0 or "uri" in self.tree["buffers"][0]:
            raise DataError(self.path, "refers to another file; only what is in the .glb itself is read")
        count, stride = int(accessor["count"]), int(view.get("byteStride", width * kind.itemsize))
        begin, inside = int(view.get("byteOffset", 0)), int(accessor.get("byteOffset", 0))
        needed = inside + stride * (count - 1) + width * kind.itemsize if count else 0
        end = begin + int(view["byteLength"])
        if min(count, begin, inside) < 0 or stride < width * kind.itemsize:
            raise DataError(self.path, f"accessor {number} has a negative count or offset, or a short stride")
        if begin + needed > end or end > len(self.binary):
            raise DataError(
                self.path,
                f"accessor {number} needs bytes {begin} to {begin + needed}, its view ends at {end} and "
                f"the buffer at {len(self.binary)}",
            )
        if not count:
            return np.zeros((0, width), kind)
        table = np.ndarray((count, width), kind, self.binary, begin + inside, (stride, kind.itemsize))
        if not accessor.get("normalized"):
            return table.copy()
        return np.maximum(table / np.iinfo(kind).max, -1.0)


def _matrix(node: Any) -> np.ndarray:
    """(4, 4): where a node puts its things; given as a matrix, column by column, or as scale, rotation (x, y,
    z, w) and translation."""
    if "matrix" in node:
        return np.array(node["matrix"], dtype=np.float64).reshape(4, 4).T
    out = np.eye(4)
    x, y, z, w = np.array(node.get("rotation", (0, 0, 0, 1)), dtype=np.float64)
    rotation = np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
            [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
            [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
        ]
    )
    out[:3, :3] = rotation * np.array(node.get("scale", (1, 1, 1)), dtype=np.float64)
    out[:3, 3] = node.get("translation", (0, 0, 0))
    return out


def srgb_to_linear(value: np.ndarray) -> np.ndarray:
    """Fractions as photos hold them -> fractions of light (IEC 61966-2-1)."""
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(value: np.ndarray) -> np.ndarray:
    """The inverse of `srgb_to_linear`."""
    return np.where(value <= 0.0031308, value * 12.92, 1.055 * np.maximum(value, 1e-9) ** (1 / 2.4) - 0.055)
