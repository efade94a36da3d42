"""Polygon files (.ply) as meshes: ascii and binary of both byte orders in, binary little endian out.

Vertices are `x y z`, colours `red green blue` (integers of 8 bits, or floats in [0, 1]); faces are the list
`vertex_indices` or `vertex_index`. Texture coordinates are the list `texcoord` of a face, u v for each
corner, v upward, and a comment `TextureFile NAME`, as MeshLab has them. Other properties and elements are
skipped. Format: Greg Turk, "The PLY polygon file format", 1994.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np

from sparse3d.errors import DataError
from sparse3d.geometry.material import Material
from sparse3d.geometry.mesh import Mesh
from sparse3d.io.files import write_bytes
from sparse3d.io.ply_header import ORDERS, Element, Header, read_header, row_type
from sparse3d.io.polygons import checked_mesh, fans
from sparse3d.io.reading import read_bytes
from sparse3d.io.textures import texture_beside, write_texture

_INDICES = ("vertex_indices", "vertex_index")
_COLORS = ("red", "green", "blue")


def write_ply_mesh(path: str | Path, mesh: Mesh) -> None:
    """Write vertices, their normals, colours where there are, and faces; atomically. A texture goes to
    NAME.png before NAME.ply, which names it."""
    fields = [(name, "<f4") for name in ("x", "y", "z", "nx", "ny", "nz")]
    if mesh.colors is not None:
        fields += [(name, "u1") for name in _COLORS]
    vertices = np.empty(len(mesh.vertices), dtype=fields)
    columns = [*mesh.vertices.T, *mesh.vertex_normals.T, *(() if mesh.colors is None else mesh.colors.T)]
    for (name, _), column in zip(fields, columns, strict=True):
        vertices[name] = column
    columns = [("count", "u1"), ("rows", "<i4", 3)]
    painted = [("places", "u1"), ("uv", "<f4", 6)] if mesh.has_texture else []
    faces = np.empty(len(mesh.faces), dtype=columns + painted)
    faces["count"], faces["rows"] = 3, mesh.faces
    comment, texcoord = "", ""
    if mesh.has_texture:
        assert mesh.uv is not None and mesh.material is not None and mesh.material.texture is not None
        picture = Path(path).with_suffix(".png")
        write_texture(picture, mesh.material.texture)
        faces["places"] = 6
        faces["uv"] = np.stack([mesh.uv[..., 0], 1 - mesh.uv[..., 1]], -1).reshape(-1, 6)
        comment, texcoord = f"comment TextureFile {picture.name}\n", "property list uchar float texcoord\n"
    properties = "".join(f"property {'uchar' if kind == 'u1' else 'float'} {name}\n" for name, kind in fields)
    header = (
        f"ply\nformat binary_little_endian 1.0\n{comment}element vertex {len(vertices)}\n{properties}"
        f"element face {len(faces)}\nproperty list uchar int vertex_indices\n{texcoord}end_header\n"
    )
    write_bytes(path, header.encode("utf-8") + vertices.tobytes() + faces.tobytes())


def read_ply_mesh(path: str | Path) -> Mesh:
    """Vertices, faces and colours of a .ply. Raises DataError."""
    data = read_bytes(path)
    header = read_header(data, path)
    names = [element.name for element in header.elements]
    for name in ("vertex", "face"):
        if names.count(name) != 1:
            raise DataError(path, f"has {names.count(name)} elements {name!r}, a mesh has one; {names}")
    source = _Text(data, header, path) if header.encoding == "ascii" else _Binary(data, header, path)
    vertices, colors, polygons, places = None, None, None, None
    for element in header.elements:
        scalars, lists = source.read(element)
        if element.name == "vertex":
            vertices, colors = _vertices(element, scalars, path)
        elif element.name == "face":
            found = [lists[name] for name in _INDICES if name in lists]
            if not found:
                raise DataError(path, f"element 'face' has no list {' or '.join(_INDICES)}")
            polygons, places = found[0], lists.get("texcoord")
    assert vertices is not None and polygons is not None
    faces = fans(*polygons)
    mesh = checked_mesh(path, vertices, faces, colors)
    return mesh if places is None else _with_texture(mesh, path, header, polygons[1], *places)


def _with_texture(
    mesh: Mesh, path: str | Path, header: Header, sizes: np.ndarray, places: np.ndarray, numbers: np.ndarray
) -> Mesh:
    """With the picture that the header names, where each corner has its place in it: polygons of `sizes`
    (P,) corners, `places` of `numbers` (P,) each, one after the other."""
    named = [comment.split(None, 1)[1] for comment in header.comments if comment.startswith("TextureFile ")]
    if len(named) != 1 or not np.array_equal(numbers, 2 * sizes):
        return mesh
    uv = np.nan_to_num(places.astype(np.float64)).reshape(-1, 2)
    uv = np.stack([uv[:, 0], 1 - uv[:, 1]], 1).clip(-1e6, 1e6)[fans(np.arange(len(uv)), sizes)]
    return replace(mesh, uv=uv, material=Material(texture=texture_beside(path, named[0])))


def _vertices(
    element: Element, scalars: dict[str, np.ndarray], path: str | Path
) -> tuple[np.ndarray, np.ndarray | None]:
    missing = [name for name in ("x", "y", "z") if name not in scalars]
    if missing:
        raise DataError(path, f"element 'vertex' has no property {missing[0]!r}, it has {list(scalars)}")
    vertices = np.stack([scalars[name] for name in ("x", "y", "z")], 1).astype(np.float32)
    if not all(name in scalars for name in _COLORS):
        return vertices, None
    kinds = dict(element.properties)
    colors = np.stack([scalars[name].astype(np.float64) for name in _COLORS], 1)
    if kinds["red"][0] == "f":
        colors = np.rint(np.clip(colors, 0, 1) * 255)
    elif kinds["red"] == "u2":
        colors = np.rint(colors / 257)
    return vertices, np.clip(np.nan_to_num(colors), 0, 255).astype(np.uint8)


# What a source gives for an element: its scalars by name, and of each list the items, one list after the
# other, with their sizes.
_Columns = tuple[dict[str, np.ndarray], dict[str, tuple[np.ndarray, np.ndarray]]]


class _Binary:
    """Elements from bytes, in turn."""

    def __init__(self, data: bytes, header: Header, path: str | Path):
        self.data, self.offset, self.path = data, header.end, path
        self.order = ORDERS[header.encoding]

    def read(self, element: Element) -> _Columns:
        if not element.has_list:
            table = self._take(row_type(element, self.order), element.count, element)
            return {name: table[name] for name, _ in element.properties}, {}
        return self._triangles(element) or self._rows(element)

    def _take(self, kind: np.dtype, count: int, element: Element) -> np.ndarray:
        self._check(count * kind.itemsize, element)
        table = np.frombuffer(self.data, dtype=kind, count=count, offset=self.offset)
        self.offset += count * kind.itemsize
        return table

    def _check(self, needed: int, element: Element) -> None:
        if self.offset + needed > len(self.data):
            raise DataError(
                self.path,
                f"element {element.name!r} with {element.count} rows goes on beyond the end of the file: "
                f"{needed} bytes at offset {self.offset}, the file has {len(self.data)}",
            )

    def _triangles(self, element: Element) -> _Columns | None:
        """All rows at once, where lists of indices have three items, and other lists six."""
        lists, fields = {name: (size, item) for name, size, item in element.lists}, []
        if len(lists) != len(element.lists):
            return None
        counts = {name: 3 if name in _INDICES else 6 for name in lists}
        for n, (name, code) in enumerate(element.properties):
            if name in lists:
                size, item = lists[name]
                fields += [(f"size {name}", self.order + size), (name, self.order + item, counts[name])]
            else:
                fields.append((f"p{n}", self.order + code))
        kind = np.dtype(fields)
        if self.offset + element.count * kind.itemsize > len(self.data):
            return None
        table = np.frombuffer(self.data, dtype=kind, count=element.count, offset=self.offset)
        if not all((table[f"size {name}"] == count).all() for name, count in counts.items()):
            return None
        self.offset += element.count * kind.itemsize
        return {}, {
            name: (table[name].reshape(-1), np.full(element.count, count)) for name, count in counts.items()
        }

    def _rows(self, element: Element) -> _Columns:
        """Row by row; of an element with lists the scalars are skipped."""
        lists = {name: (size, item) for name, size, item in element.lists}
        found: dict[str, list[np.ndarray]] = {name: [] for name in lists}
        for _ in range(element.count):
            for name, code in element.properties:
                if name not in lists:
                    self._take(np.dtype(code), 1, element)
                    continue
                size, item = lists[name]
                count = int(self._take(np.dtype(self.order + size), 1, element)[0])
                if count < 0:
                    raise DataError(self.path, f"a list of {count} items before offset {self.offset}")
                found[name].append(self._take(np.dtype(self.order + item), count, element))
        return {}, {name: _joined(parts) for name, parts in found.items()}


class _Text:
    """Elements from lines, in turn."""

    def __init__(self, data: bytes, header: Header, path: str | Path):
        self.lines = data[header.end :].decode("latin-1").splitlines()
        self.first, self.at, self.path = header.lines + 1, 0, path

    def read(self, element: Element) -> _Columns:
        lists = {name: item for name, _, item in element.lists}
        scalars: dict[str, list[float]] = {name: [] for name, _ in element.properties if name not in lists}
        items: dict[str, list[np.ndarray]] = {name: [] for name in lists}
        for _ in range(element.count):
            if self.at >= len(self.lines):
                raise DataError(
                    self.path, f"ends before the {element.count} rows of element {element.name!r}"
                )
            words = self.lines[self.at].split()
            where, self.at = f"{self.path}:{self.first + self.at}", self.at + 1
            try:
                place = 0
                for name, _ in element.properties:
                    if name in lists:
                        count = int(words[place])
                        number = float if lists[name][0] == "f" else int
                        row = [number(word) for word in words[place + 1 : place + 1 + count]]
                        if count < 0 or len(row) != count:
                            raise ValueError(f"a list of {count} items")
                        items[name].append(np.array(row, dtype=np.float64 if number is float else np.int64))
                        place += 1 + count
                    else:
                        scalars[name].append(float(words[place]))
                        place += 1
            except (ValueError, IndexError, OverflowError) as error:
                raise DataError(where, f"not a row of element {element.name!r}: {error}") from error
        columns = {name: np.array(values, dtype=np.float64) for name, values in scalars.items()}
        return columns, {name: _joined(parts) for name, parts in items.items()}


def _joined(parts: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    sizes = np.array([len(part) for part in parts], dtype=np.int64)
    return (np.concatenate(parts) if parts else np.zeros(0, np.int64)), sizes
