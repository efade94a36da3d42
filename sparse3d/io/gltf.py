"""The container of glTF 2.0 in one binary file (.glb): a tree of JSON, and the bytes that it points into.

Layout (Khronos glTF 2.0, section 4): a header of 12 bytes, magic, version, length; then chunks, each its
length, its kind and its bytes: JSON first, then the binary buffer.
"""

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from sparse3d.errors import DataError
from sparse3d.io.files import atomic_path
from sparse3d.io.reading import opened

FLOAT = 5126
ARRAY_BUFFER, ELEMENT_BUFFER = 34962, 34963
_MAGIC, _JSON, _BINARY = 0x46546C67, 0x4E4F534A, 0x004E4942
_TYPES = {5120: "<i1", 5121: "<u1", 5122: "<i2", 5123: "<u2", 5125: "<u4", 5126: "<f4"}
_COLUMNS = {"SCALAR": 1, "VEC2": 2, "VEC3": 3, "VEC4": 4}


class Gltf:
    """A file's tree, and its bytes as they are asked for. `tree` is as the file has it: reading it may raise
    what a wrong tree raises; `told` makes a DataError of that. `length` of the buffer, bytes."""

    def __init__(self, path: str | Path):
        self.path = path
        with opened(path) as (file, size):
            self.tree, self._begin, self.length = _chunks(file, size, path)

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

    def accessor(self, number: int, columns: int | None, rows: slice = slice(None)) -> np.ndarray:
        """(count, columns), or those rows of it, one after the other; integers that are normalized as
        fractions."""
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
        if begin + needed > end or end > self.length:
            raise DataError(
                self.path,
                f"accessor {number} needs bytes {begin} to {begin + needed}, its view ends at {end} and "
                f"the buffer at {self.length}",
            )
        first, last, _ = rows.indices(count)
        if last <= first:
            return np.zeros((0, width), kind)
        data = self._part(
            begin + inside + stride * first, stride * (last - first - 1) + width * kind.itemsize
        )
        table = np.ndarray((last - first, width), kind, data, 0, (stride, kind.itemsize))
        if not accessor.get("normalized"):
            return table.copy()
        return np.maximum(table / np.iinfo(kind).max, -1.0)

    def view(self, number: int) -> bytes:
        """The bytes of a view."""
        view = self.tree["bufferViews"][number]
        begin, length = int(view.get("byteOffset", 0)), int(view["byteLength"])
        if min(begin, length) < 0 or begin + length > self.length:
            raise DataError(
                self.path,
                f"view {number} needs bytes {begin} to {begin + length}, the buffer has {self.length}",
            )
        return self._part(begin, length)

    def _part(self, begin: int, length: int) -> bytes:
        """Bytes that lie within the buffer."""
        with opened(self.path) as (file, _):
            file.seek(self._begin + begin)
            data = file.read(length)
        if len(data) != length:
            raise DataError(self.path, f"has become shorter: {len(data)} of {length} bytes are left")
        return data


def _chunks(file: BinaryIO, size: int, path: str | Path) -> tuple[Any, int, int]:
    """The tree, and where the buffer begins and its length."""
    if size < 20:
        raise DataError(path, f"{size} bytes, a .glb has at least 20")
    magic, version, length = struct.unpack("<III", file.read(12))
    if magic != _MAGIC:
        raise DataError(path, "does not begin with 'glTF'")
    if version != 2:
        raise DataError(path, f"glTF version {version}, expected 2")
    if length > size:
        raise DataError(path, f"is cut off: its header says {length} bytes, there are {size}")
    found: dict[int, tuple[int, int]] = {}
    offset = 12
    while offset + 8 <= length:
        file.seek(offset)
        count, kind = struct.unpack("<II", file.read(8))
        if offset + 8 + count > length:
            raise DataError(path, f"the chunk at offset {offset} has {count} bytes, beyond the end {length}")
        found.setdefault(kind, (offset + 8, count))
        offset += 8 + count
    if _JSON not in found:
        raise DataError(path, "has no JSON chunk")
    begin, count = found[_JSON]
    file.seek(begin)
    try:
        return json.loads(file.read(count).decode("utf-8")), *found.get(_BINARY, (0, 0))
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


class Table(NamedTuple):
    """Rows for the buffer, of a multiple of four bytes: their number, the bytes of one, the accessor's own
    keys and the target of the view."""

    rows: int
    width: int
    accessor: Mapping[str, Any]
    target: int


def glb_head(
    tree: Mapping[str, Any], tables: Sequence[Table], files: Sequence[int] = ()
) -> tuple[bytes, list[int]]:
    """All of a .glb up to its buffer, with the accessors and views of `tables` and, behind those, of files of
    so many bytes; and where in the .glb each of them begins. ValueError for more than the format holds."""
    views, accessors, length = [], [], 0
    for number, table in enumerate(tables):
        size = table.rows * table.width
        views.append({"buffer": 0, "byteOffset": length, "byteLength": size, "target": table.target})
        accessors.append({"bufferView": number, "count": table.rows, **table.accessor})
        length += size
    for size in files:
        views.append({"buffer": 0, "byteOffset": length, "byteLength": size})
        length += size + -size % 4
    tree = {**tree, "accessors": accessors, "bufferViews": views, "buffers": [{"byteLength": length}]}
    text = json.dumps(tree, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 4)
    total = 12 + 8 + len(text) + 8 + length
    if total >= 1 << 32:
        raise ValueError(f"{total} bytes; a .glb holds less than 2^32: write another format, or less")
    chunks = struct.pack("<II", len(text), _JSON) + text + struct.pack("<II", length, _BINARY)
    head = struct.pack("<III", _MAGIC, 2, total) + chunks
    return head, [len(head) + view["byteOffset"] for view in views]


def write_glb_tables(
    path: str | Path,
    tree: Mapping[str, Any],
    tables: Sequence[tuple[np.ndarray, Mapping[str, Any], int]],
    files: Sequence[bytes] = (),
) -> None:
    """Write a tree with the accessors, views and buffer of `tables`: (rows of a multiple of four bytes, the
    accessor's own keys, target of the view); and `files`, pictures for instance, in the views behind those.
    ValueError for more than the format holds."""
    rows = [
        Table(len(table), table.nbytes // max(len(table), 1), accessor, target)
        for table, accessor, target in tables
    ]
    head, _ = glb_head(tree, rows, [len(data) for data in files])
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        file.write(head)
        for table, _, _ in tables:
            file.write(table.tobytes())
        for data in files:
            file.write(data + bytes(-len(data) % 4))
