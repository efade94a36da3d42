"""The container of glTF 2.0 in one binary file (.glb): a tree of JSON, and the bytes that it points into.

Layout (Khronos glTF 2.0, section 4): a header of 12 bytes, magic, version, length; then chunks, each its
length, its kind and its bytes: JSON first, then the binary buffer.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sparse3d.errors import DataError
from sparse3d.io.files import write_bytes
from sparse3d.io.reading import read_bytes

FLOAT = 5126
ARRAY_BUFFER, ELEMENT_BUFFER = 34962, 34963
_MAGIC, _JSON, _BINARY = 0x46546C67, 0x4E4F534A, 0x004E4942
_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_COLUMNS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


class Gltf:
    """A file's tree and bytes. `tree` is as the file has it: reading it may raise what a wrong tree raises;
    `told` makes a DataError of that."""

    def __init__(self, path: str | Path):
        self.path = path
        self.tree, self.binary = _chunks(read_bytes(path), path)

    @contextmanager
    def told(self) -> Iterator[None]:
        """Whatever a tree of another form makes go wrong as a DataError."""
        try:
            yield
        except DataError:
            raise
        except (KeyError, IndexError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(self.path, f"its JSON is no glTF 2.0: {type(error).__name__} {error}") from error

    def check_extensions(self, understood: set[str]) -> None:
        """DataError where the file cannot be read without others."""
        unknown = set(self.tree.get("extensionsRequired", [])) - understood
        if unknown:
            raise DataError(
                self.path, f"needs extensions that are not supported: {', '.join(sorted(unknown))}"
            )

    def primitives(self) -> Iterator[tuple[Any, np.ndarray]]:
        """Each part of each mesh of the scene, with the matrix (4, 4) to where its nodes put it."""
        nodes = self.tree.get("nodes", [])
        scenes = self.tree.get("scenes", [])
        roots = scenes[self.tree.get("scene", 0)].get("nodes", []) if scenes else range(len(nodes))
        waiting, seen = [(root, np.eye(4)) for root in roots], set()
        while waiting:
            number, above = waiting.pop()
            if number in seen:
                raise DataError(self.path, f"nodes that hold themselves, or one that two hold: {number}")
            seen.add(number)
            node = nodes[number]
            matrix = above @ _matrix(node)
            waiting += [(child, matrix) for child in node.get("children", [])]
            if "mesh" in node:
                for primitive in self.tree["meshes"][node["mesh"]]["primitives"]:
                    yield primitive, matrix

    def accessor(self, number: int, columns: int | None) -> np.ndarray:
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

    def view(self, number: int) -> bytes:
        """The bytes of a view."""
        view = self.tree["bufferViews"][number]
        begin, length = int(view.get("byteOffset", 0)), int(view["byteLength"])
        if min(begin, length) < 0 or begin + length > len(self.binary):
            raise DataError(
                self.path,
                f"view {number} needs bytes {begin} to {begin + length}, the buffer has {len(self.binary)}",
            )
        return self.binary[begin : begin + length]


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


def write_glb_tables(
    path: str | Path,
    tree: Mapping[str, Any],
    tables: Sequence[tuple[np.ndarray, Mapping[str, Any], int]],
    files: Sequence[bytes] = (),
) -> None:
    """Write a tree with the accessors, views and buffer of `tables`: (rows of a multiple of four bytes, the
    accessor's own keys, target of the view); and `files`, pictures for instance, in the views behind those.
    ValueError for more than the format holds."""
    views, accessors, parts, length = [], [], [], 0
    for number, (table, accessor, target) in enumerate(tables):
        data = table.tobytes()
        views.append({"buffer": 0, "byteOffset": length, "byteLength": len(data), "target": target})
        accessors.append({"bufferView": number, "count": len(table), **accessor})
        parts.append(data)
        length += len(data)
    for data in files:
        views.append({"buffer": 0, "byteOffset": length, "byteLength": len(data)})
        parts.append(data + bytes(-len(data) % 4))
        length += len(parts[-1])
    tree = {**tree, "accessors": accessors, "bufferViews": views, "buffers": [{"byteLength": length}]}
    text = json.dumps(tree, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + length
    if total >= 1 << 32:
        raise ValueError(f"{total} bytes; a .glb holds less than 2^32: write another format, or less")
    head = struct.pack("<III", _MAGIC, 2, total)
    chunks = [struct.pack("<II", len(text), _JSON), text, struct.pack("<II", length, _BINARY), *parts]
    write_bytes(path, b"".join([head, *chunks]))
